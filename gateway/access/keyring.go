package access

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"helicon/gateway/catalog"
	"helicon/queue"
)

var (
	errNoKey = queue.Problemf("key_required",
		"A key is required: send it as Authorization: Bearer hk_…. Whoever runs the server makes keys with helicon keys create.")
	errKeyUnknown = queue.Problemf("key_invalid", "The key is not valid. It is mistyped, or was never made here.")
	errKeyRevoked = queue.Problemf("key_invalid", "The key is no longer valid: it has been revoked.")
	errKeyExpired = queue.Problemf("key_invalid", "The key is no longer valid: it has expired.")
)

// Keyring knows the keys that were used lately. Its methods may be called concurrently.
type Keyring struct {
	catalog  *catalog.Catalog
	log      *slog.Logger
	known    *recent[string, *credential] // by id
	lookups  singleflight.Group           // by id
	failures *recent[netip.Prefix, *rate.Limiter]
}

// credential is a key as the catalog had it.
type credential struct {
	key   *catalog.Key
	read  time.Time   // when it was so
	asked time.Time   // when the catalog was last asked; later than read while it does not answer
	noted atomic.Bool // that it is used
}

// usable returns a *queue.Problem for a key that was ended.
func (f *credential) usable() error {
	switch {
	case f.key.Revoked != nil:
		return errKeyRevoked
	case f.key.Expired(time.Now()):
		return errKeyExpired
	}
	return nil
}

const (
	keyAge    = 2 * time.Second // for how long a key is trusted: as long as a revocation takes
	keyOutage = 5 * time.Minute // the same while the catalog cannot be read
	maxKnown  = 1 << 14

	keyPatience   = 5 * time.Second // for an answer of the catalog
	knownPatience = time.Second     // the same for a key that is known already
	notePatience  = time.Second

	// Keys cannot be guessed. What is limited is the work that attempts make.
	maxAddresses  = 1 << 14
	failureRate   = 1 // a second
	failureBurst  = 20
	addressBitsV6 = 64 // what one customer has
)

// NewKeyring returns a Keyring of the catalog's keys.
func NewKeyring(c *catalog.Catalog, log *slog.Logger) *Keyring {
	return &Keyring{
		catalog: c, log: log,
		known: newRecent[string, *credential](maxKnown), failures: newRecent[netip.Prefix, *rate.Limiter](maxAddresses),
	}
}

// Principal returns whose key a text is, which came from an address. A *queue.Problem, or
// a *Limited, says why it is nobody's.
func (k *Keyring) Principal(ctx context.Context, text, address string) (*Principal, error) {
	key, err := k.Key(ctx, text, address)
	if err != nil {
		return nil, err
	}
	return &Principal{Tenant: key.Tenant, KeyID: key.ID, Scopes: key.Scopes}, nil
}

// Key returns the key that a text is. The errors are those of Principal.
func (k *Keyring) Key(ctx context.Context, text, address string) (*catalog.Key, error) {
	if text == "" {
		return nil, errNoKey
	}
	id, secret, err := catalog.ParseKey(text)
	if err != nil {
		return nil, errKeyUnknown
	}
	found, known := k.known.get(id)
	if !known || !found.key.Opens(secret) { // who is known does not suffer for his neighbours
		if err := k.admit(address); err != nil {
			return nil, err
		}
	}
	found, err = k.current(ctx, id)
	switch {
	case errors.Is(err, catalog.ErrNoKey), err == nil && !found.key.Opens(secret):
		k.failed(address)
		return nil, errKeyUnknown
	case err != nil:
		return nil, err
	}
	k.note(ctx, found)
	return found.key, found.usable()
}

// Valid reports why a key that was good when a request began is so no longer, or nil.
func (k *Keyring) Valid(ctx context.Context, id string) error {
	found, err := k.current(ctx, id)
	switch {
	case errors.Is(err, catalog.ErrNoKey):
		return errKeyUnknown
	case err != nil:
		return nil // that the catalog cannot be read ends nobody's request
	}
	return found.usable()
}

// current returns a key as it was in the catalog seconds ago at most, read once for all
// who ask at the same time. While the catalog cannot be read a known key stays good:
// nobody can revoke it then either.
func (k *Keyring) current(ctx context.Context, id string) (*credential, error) {
	old, known := k.known.get(id)
	if known && time.Since(old.asked) < keyAge {
		return old, nil
	}
	patience := keyPatience
	if known {
		patience = knownPatience
	}
	found, err, _ := k.lookups.Do(id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		now := time.Now()
		found := &credential{read: now, asked: now}
		var err error
		found.key, err = k.catalog.Key(ctx, id)
		switch {
		case err == nil:
		case known && now.Sub(old.read) < keyOutage && !errors.Is(err, catalog.ErrNoKey):
			found.key, found.read = old.key, old.read
			found.noted.Store(true) // it could not be
		default:
			k.known.drop(id)
			return nil, err
		}
		k.known.put(id, found)
		return found, nil
	})
	if err != nil {
		return nil, err
	}
	return found.(*credential), nil
}

// note notes in the catalog that a key is being used, once each time it was read: the
// catalog keeps one note a minute. A note that fails costs nobody a request.
func (k *Keyring) note(ctx context.Context, found *credential) {
	if found.noted.Swap(true) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), notePatience)
	defer cancel()
	if err := k.catalog.UseKey(ctx, found.key); err != nil {
		k.log.Warn("the use of a key could not be noted", "key", found.key.ID, "err", err)
	}
}

// admit refuses an address from which too many false keys have come.
func (k *Keyring) admit(address string) error {
	failures, ok := k.failures.get(network(address))
	if !ok || failures.Tokens() >= 1 {
		return nil
	}
	return &Limited{queue.Problemf("too_many_failures", "Too many false keys have come from this address. Try again in a moment."), "failures", time.Second}
}

// failed counts a false key against its address.
func (k *Keyring) failed(address string) {
	k.failures.orMake(network(address), func() *rate.Limiter { return rate.NewLimiter(failureRate, failureBurst) }).Allow()
}

// network is what one client can be expected to have of addresses.
func network(address string) netip.Prefix {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = addressBitsV6
	}
	prefix, _ := ip.Prefix(bits) // fails for other lengths
	return prefix
}
