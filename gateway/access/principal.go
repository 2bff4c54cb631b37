// Package access decides who may call the gateway, and how much: which principal a key
// stands for, and how many requests, jobs and uploads are left to a tenant. It knows
// nothing of HTTP routes; the keys and the limits of single tenants are in the catalog.
package access

import (
	"context"
	"slices"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// Principal is who calls: a tenant, by a key of his. The gateway alone knows keys; below
// it a tenant is a name.
type Principal struct {
	Tenant string
	KeyID  string   // "" where no key is required
	Scopes []string // what the key allows
}

// Anyone is who calls a gateway that requires no keys.
func Anyone() *Principal {
	return &Principal{Tenant: queue.DefaultTenant, Scopes: []string{catalog.ScopeAdmin}}
}

// May reports whether the principal's key allows what a scope is for.
func (p *Principal) May(scope string) bool {
	return slices.Contains(p.Scopes, scope) || slices.Contains(p.Scopes, catalog.ScopeAdmin)
}

type principalKey struct{}

// With returns a context of a request of the principal.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Of returns who calls, from the context of a request.
func Of(ctx context.Context) *Principal {
	if p, ok := ctx.Value(principalKey{}).(*Principal); ok {
		return p
	}
	return Anyone()
}
