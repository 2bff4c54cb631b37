package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"testing"

	"helicon/gateway/catalog"
	"helicon/queue"
)

func open(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // some tests close it themselves
	return c
}

func TestRecent(t *testing.T) {
	t.Parallel()
	r := newRecent[int, string](3)
	for i := range 4 {
		r.put(i, fmt.Sprint(i))
	}
	if _, ok := r.get(0); ok {
		t.Error("0 is remembered beside three later ones")
	}
	r.get(1) // 2 is now the one that was not used for the longest time
	if made := r.orMake(4, func() string { return "four" }); made != "four" {
		t.Errorf("made %q", made)
	}
	if _, ok := r.get(2); ok {
		t.Error("2 is remembered, and was used before 1")
	}
	r.put(1, "one")
	if v, ok := r.get(1); !ok || v != "one" {
		t.Errorf("1 is %q", v)
	}
	if kept := r.orMake(4, func() string { return "again" }); kept != "four" {
		t.Errorf("4 is %q", kept)
	}
	r.drop(1)
	r.drop(1)
	if _, ok := r.get(1); ok || r.order.Len() != 2 || len(r.at) != 2 {
		t.Errorf("%d and %d are left, want 2", r.order.Len(), len(r.at))
	}
}

// TestOutage takes the catalog away: keys that were in use stay good, others are not known.
func TestOutage(t *testing.T) {
	t.Parallel()
	c := open(t)
	text, err := c.CreateKey(t.Context(), &catalog.Key{Tenant: "acme", Scopes: []string{catalog.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	late, err := c.CreateKey(t.Context(), &catalog.Key{Tenant: "late", Scopes: []string{catalog.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	k := NewKeyring(c, slog.New(slog.DiscardHandler))
	if _, err := k.Principal(t.Context(), text, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	id, _, _ := catalog.ParseKey(text)
	found, _ := k.known.get(id)
	found.asked = found.asked.Add(-keyAge) // the catalog is asked again
	p, err := k.Principal(t.Context(), text, "192.0.2.1")
	if err != nil || p.Tenant != "acme" || !p.May(catalog.ScopeRead) || p.May(catalog.ScopeWrite) {
		t.Errorf("a known key: %+v, %v", p, err)
	}
	if err := k.Valid(t.Context(), id); err != nil {
		t.Errorf("a known key: %v", err)
	}
	var problem *queue.Problem
	if _, err := k.Principal(t.Context(), late, "192.0.2.1"); err == nil || errors.As(err, &problem) {
		t.Errorf("a key that was not in use: %v, want the catalog's error", err)
	}
	found, _ = k.known.get(id)
	found.asked, found.read = found.asked.Add(-keyOutage), found.read.Add(-keyOutage)
	if _, err := k.Principal(t.Context(), text, "192.0.2.1"); err == nil {
		t.Error("a key is good long after the catalog was seen")
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "x": "invalid Prefix",
	} {
		if got := network(address).String(); got != want {
			t.Errorf("%s is in %s, want %s", address, got, want)
		}
	}
}

// TestBoundedMemory sends more false keys and names more tenants than are remembered.
func TestBoundedMemory(t *testing.T) {
	t.Parallel()
	k, l := NewKeyring(open(t), slog.New(slog.DiscardHandler)), NewLimiter(Limits{Rate: 1}, nil)
	header := http.Header{}
	for i := range 2 * maxAddresses {
		k.failed(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		ctx := With(t.Context(), &Principal{Tenant: fmt.Sprint("t", i)})
		if err := l.Request(ctx, header); err != nil {
			t.Fatal(err)
		}
	}
	if addresses, tenants := len(k.failures.at), len(l.accounts.at); addresses != maxAddresses || tenants != maxAllowances {
		t.Errorf("%d addresses and %d tenants are remembered", addresses, tenants)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 64<<20 {
		t.Errorf("%d MiB are in use", m.HeapAlloc>>20)
	}
	runtime.KeepAlive(k)
	runtime.KeepAlive(l)
}

// BenchmarkRequest is what a request costs before its handler begins.
func BenchmarkRequest(b *testing.B) {
	c := open(b)
	text, err := c.CreateKey(b.Context(), &catalog.Key{Tenant: "acme", Scopes: []string{catalog.ScopeAdmin}})
	if err != nil {
		b.Fatal(err)
	}
	k, l := NewKeyring(c, slog.New(slog.DiscardHandler)), NewLimiter(Limits{Rate: MaxRate}, c)
	header := http.Header{}
	for b.Loop() {
		p, err := k.Principal(b.Context(), text, "192.0.2.1")
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Request(With(context.WithoutCancel(b.Context()), p), header); err != nil {
			b.Fatal(err)
		}
	}
}
