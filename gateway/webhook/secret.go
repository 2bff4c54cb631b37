package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A secret is "whsec_" and the base64 of 24 to 64 bytes.
const (
	secretPrefix = "whsec_"
	minSecret    = 24 // bytes
	maxSecret    = 64 // bytes
	newSecret    = 32 // bytes
)

// NewSecret draws a secret.
func NewSecret() string {
	key := make([]byte, newSecret)
	rand.Read(key) // never fails: it ends the program first
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// CheckSecret reports what is wrong with a secret that a client chose, or nil.
func CheckSecret(secret string) error {
	_, err := decode(secret)
	return err
}

// decode returns the key that a secret spells.
func decode(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return nil, fmt.Errorf("want a secret that begins with %s", secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("want base64 behind " + secretPrefix)
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("want %d to %d bytes as base64, got %d", minSecret, maxSecret, len(key))
	}
	return key, nil
}

// sign returns the header webhook-signature of a message: one signature a secret, so
// that a receiver who knows any one of them can verify it.
func sign(secrets []string, id string, at time.Time, body string) (string, error) {
	var signatures []string
	for _, secret := range secrets {
		key, err := decode(secret)
		if err != nil {
			return "", fmt.Errorf("webhook: secret: %w", err)
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", id, strconv.FormatInt(at.Unix(), 10), body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " "), nil
}
