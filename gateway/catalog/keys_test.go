package catalog

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	id, secret := newSecret()
	text := secret.text(id)
	gotID, got, err := ParseKey(text)
	if err != nil || gotID != id || got != secret {
		t.Fatalf("%s became %s, %x, %v; want %s, %x", text, gotID, got, err, id, secret)
	}
	if !got.is(secret.hash()) || got.is(Secret{}.hash()) || got.is("") {
		t.Error("the hash does not tell secrets apart")
	}
	other := byte('0')
	if text[20] == other {
		other = '1'
	}
	for name, wrong := range map[string]string{
		"empty": "", "prefix": "sk_" + text[3:], "OpenAI's": "sk-proj-0123456789", "cut": text[:len(text)-1], "longer": text + "0",
		"a letter": text[:20] + string(other) + text[21:], "another id": "hk_00000000" + text[11:], "upper case": strings.ToUpper(text),
		"a line end within": text[:30] + "\n" + text[31:], "no separator": strings.Replace(text, id+"_", id+"0", 1), "id alone": "hk_" + id,
	} {
		if _, _, err := ParseKey(wrong); !errors.Is(err, ErrKeyForm) {
			t.Errorf("%s: %q: %v", name, wrong, err)
		}
	}
}

// FuzzParseKey checks that whatever is taken for a key has one spelling.
func FuzzParseKey(f *testing.F) {
	id, secret := newSecret()
	text := secret.text(id)
	for _, seed := range []string{text, strings.ToUpper(text), text[:67], "hk_", "hk__", "hk_\n\n\n\n\n\n\n\n_" + text[12:], text[:12] + strings.Repeat("\r", 56)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, secret, err := ParseKey(text)
		if err != nil {
			if !errors.Is(err, ErrKeyForm) {
				t.Fatal(err)
			}
			return
		}
		if again := secret.text(id); again != text {
			t.Fatalf("%q is taken for %q", text, again)
		}
	})
}

func TestKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		if found, err := c.HasKey(ctx); err != nil || found {
			t.Fatalf("HasKey of no keys: %v, %v", found, err)
		}
		end := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
		key := &Key{Tenant: "acme", Name: "CI 机器", Scopes: []string{ScopeWrite, ScopeRead, ScopeRead}, Expires: &end}
		text, err := c.CreateKey(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		id, secret, err := ParseKey(text)
		if err != nil || id != key.ID {
			t.Fatalf("key %q of %+v: %v", text, key, err)
		}
		stored, err := c.Key(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if stored.Tenant != "acme" || stored.Name != key.Name || strings.Join(stored.Scopes, " ") != "jobs:read jobs:write" ||
			!stored.Created.Equal(key.Created) || !stored.Expires.Equal(end) || stored.Used != nil || stored.Revoked != nil {
			t.Errorf("stored %+v, want %+v", stored, key)
		}
		if !stored.Opens(secret) || stored.Opens(Secret{}) {
			t.Error("the stored key does not tell secrets apart")
		}
		if stored.State(time.Now()) != "active" || stored.State(end) != "expired" {
			t.Errorf("states %s and %s", stored.State(time.Now()), stored.State(end))
		}
		if _, err := c.CreateKey(ctx, &Key{Tenant: "b", Scopes: []string{ScopeAdmin}}); err != nil {
			t.Fatal(err)
		}
		all, err := c.Keys(ctx, "")
		if err != nil || len(all) != 2 || all[0].Tenant != "acme" || all[1].Tenant != "b" {
			t.Fatalf("keys %v, %v", all, err)
		}
		if one, err := c.Keys(ctx, "b"); err != nil || len(one) != 1 || one[0].ID != all[1].ID {
			t.Errorf("keys of b: %v, %v", one, err)
		}
		if _, err := c.Key(ctx, "00000000"); !errors.Is(err, ErrNoKey) {
			t.Errorf("key of no id: %v", err)
		}
		for range 2 { // twice is once
			if err := c.RevokeKey(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		if stored, err = c.Key(ctx, id); err != nil || stored.State(time.Now()) != "revoked" {
			t.Errorf("revoked: %+v, %v", stored, err)
		}
		if err := c.RevokeKey(ctx, "00000000"); !errors.Is(err, ErrNoKey) {
			t.Errorf("revoked nothing: %v", err)
		}
		if found, err := c.HasKey(ctx); err != nil || !found {
			t.Errorf("HasKey: %v, %v", found, err)
		}
	})
}

func TestKeyUse(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		key := &Key{Tenant: "acme", Scopes: []string{ScopeRead}}
		if _, err := c.CreateKey(ctx, key); err != nil {
			t.Fatal(err)
		}
		used := func() time.Time {
			t.Helper()
			stored, err := c.Key(ctx, key.ID)
			if err != nil || stored.Used == nil {
				t.Fatalf("%+v, %v", stored, err)
			}
			return *stored.Used
		}
		if err := c.UseKey(ctx, key); err != nil {
			t.Fatal(err)
		}
		first := used()
		if time.Since(first) > time.Minute {
			t.Errorf("used at %v", first)
		}
		if err := c.UseKey(ctx, key); err != nil { // as another gateway, which has not seen the first
			t.Fatal(err)
		}
		if again := used(); !again.Equal(first) {
			t.Errorf("noted twice within a minute: %v and %v", first, again)
		}
	})
}

func TestRefusedKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		past := time.Now().Add(-time.Second)
		for name, k := range map[string]Key{
			"no tenant": {Scopes: []string{ScopeRead}}, "tenant": {Tenant: "a.b", Scopes: []string{ScopeRead}}, "wildcard": {Tenant: "*", Scopes: []string{ScopeRead}},
			"no scope": {Tenant: "a"}, "scope": {Tenant: "a", Scopes: []string{"jobs"}}, "expired": {Tenant: "a", Scopes: []string{ScopeRead}, Expires: &past},
			"name": {Tenant: "a", Name: strings.Repeat("a", 101), Scopes: []string{ScopeRead}}, "lines": {Tenant: "a", Name: "a\nb", Scopes: []string{ScopeRead}},
			"not UTF-8": {Tenant: "a", Name: "\xff", Scopes: []string{ScopeRead}},
		} {
			if _, err := c.CreateKey(t.Context(), &k); err == nil {
				t.Errorf("%s was accepted", name)
			}
		}
		if keys, err := c.Keys(t.Context(), ""); err != nil || len(keys) != 0 {
			t.Errorf("refused keys were stored: %v, %v", keys, err)
		}
	})
}

func TestLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		rate, burst, jobs, uploads := 2.5, 7, 0, int64(1)<<40
		for _, l := range []Limits{{Rate: &rate, Burst: &burst}, {Jobs: &jobs, Uploads: &uploads}} { // the second leaves what the first has set
			if err := c.SetLimits(ctx, "acme", l); err != nil {
				t.Fatal(err)
			}
		}
		l, err := c.Limits(ctx, "acme")
		if err != nil || l.Rate == nil || *l.Rate != rate || *l.Burst != burst || l.Jobs == nil || *l.Jobs != 0 || *l.Uploads != uploads {
			t.Fatalf("limits %+v, %v", l, err)
		}
		if l, err := c.Limits(ctx, "b"); err != nil || l != (Limits{}) {
			t.Errorf("limits of nobody: %+v, %v", l, err)
		}
		if err := c.SetLimits(ctx, "a b", Limits{}); err == nil {
			t.Error("a tenant of two words was accepted")
		}
		if all, err := c.Tenants(ctx); err != nil || len(all) != 1 || all[0].Name != "acme" || *all[0].Burst != burst {
			t.Errorf("tenants %+v, %v", all, err)
		}
		if err := c.UnsetLimits(ctx, "acme"); err != nil {
			t.Fatal(err)
		}
		if l, err := c.Limits(ctx, "acme"); err != nil || l != (Limits{}) {
			t.Errorf("limits that were unset: %+v, %v", l, err)
		}
	})
}
