package catalog

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Secret is what the holder of a key proves himself with: 256 random bits. It is kept as
// its SHA-256. What makes slow hashes necessary for passwords, that they can be guessed,
// is impossible here, and a fast one lets every request be checked.
type Secret [32]byte

// A key is written hk_<id>_<secret>: the prefix lets scanners find keys that were
// published by accident, the id names the key in lists and logs, and behind the secret
// are 24 bits of a checksum over both, so that a mistyped key is known as one.
const (
	keyPrefix     = "hk_"
	idBytes       = 5
	idLength      = 8 // letters of 5 bits, as in secretLength
	checksumBytes = 3
	secretLength  = 56
)

// letters are Crockford's, in lower case: none is mistaken for another.
var letters = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// ErrKeyForm says that a text is no key.
var ErrKeyForm = errors.New("catalog: not a key: want hk_, 8 characters, _ and 56 characters, as it was shown when it was made")

// newSecret draws an id and a secret.
func newSecret() (id string, s Secret) {
	var raw [idBytes]byte
	rand.Read(raw[:]) // never fails: the program would end
	rand.Read(s[:])
	return letters.EncodeToString(raw[:]), s
}

// text writes a key as it is shown once and sent with requests.
func (s Secret) text(id string) string {
	return keyPrefix + id + "_" + letters.EncodeToString(append(s[:], s.checksum(id)...))
}

func (s Secret) checksum(id string) []byte {
	sum := crc32.NewIEEE()
	sum.Write([]byte(id))
	sum.Write(s[:])
	return sum.Sum(nil)[:checksumBytes]
}

// hash is what is stored of a secret.
func (s Secret) hash() string {
	sum := sha256.Sum256(s[:])
	return hex.EncodeToString(sum[:])
}

// is reports whether the secret has a hash, in a time that tells nothing of either.
func (s Secret) is(hash string) bool {
	return subtle.ConstantTimeCompare([]byte(s.hash()), []byte(hash)) == 1
}

// ParseKey takes a key apart; ErrKeyForm if it is none.
func ParseKey(text string) (id string, s Secret, err error) {
	rest, found := strings.CutPrefix(text, keyPrefix)
	id, tail, cut := strings.Cut(rest, "_")
	if !found || !cut || len(id) != idLength || len(tail) != secretLength {
		return "", s, ErrKeyForm
	}
	// Both lengths are of whole bytes; the decoder passes over line ends, which then lack.
	name, err := letters.DecodeString(id)
	if err != nil || len(name) != idBytes {
		return "", s, ErrKeyForm
	}
	raw, err := letters.DecodeString(tail)
	if err != nil || len(raw) != len(s)+checksumBytes {
		return "", s, ErrKeyForm
	}
	copy(s[:], raw)
	if string(raw[len(s):]) != string(s.checksum(id)) {
		return "", Secret{}, fmt.Errorf("%w: its checksum is wrong, so it was cut or mistyped", ErrKeyForm)
	}
	return id, s, nil
}
