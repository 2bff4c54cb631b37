package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"helicon/gateway/access"
	"helicon/gateway/catalog"
	"helicon/queue"
)

// principalOf returns who calls, from the context of the request.
func principalOf(ctx context.Context) *access.Principal { return access.Of(ctx) }

// job returns a job of the caller's tenant; ErrNotFound for anyone else's.
func (g *Gateway) job(ctx context.Context, id string) (*queue.Job, error) {
	job, err := g.queue.Job(ctx, id)
	if err == nil && job.Tenant != principalOf(ctx).Tenant {
		return nil, queue.ErrNotFound
	}
	return job, err
}

// open lists what needs no key: whether the server lives, how it is called, and logging in.
// The studio's files, which are no routes, need none either.
var open = []string{"/healthz", "/readyz", "/openapi.json", sessionPath}

// scopeOf returns the scope that a route needs, or "" for none.
func scopeOf(method, route, path string) string {
	switch {
	case slices.Contains(open, route):
		return ""
	case route == "" && !strings.HasPrefix(path, "/v1/"):
		return ""
	case route == backupPath, route == garbagePath:
		return catalog.ScopeAdmin
	case route == "/metrics":
		return catalog.ScopeMetrics
	case strings.HasPrefix(route, "/v1/webhooks"):
		return catalog.ScopeWebhooks
	case method == http.MethodGet, method == http.MethodHead:
		return catalog.ScopeRead
	}
	return catalog.ScopeWrite
}

// authenticate finds out who calls, refuses who may not, and counts the request against
// its tenant's limits.
func (g *Gateway) authenticate(c *gin.Context) {
	scope := scopeOf(c.Request.Method, c.FullPath(), c.Request.URL.Path)
	if scope == "" {
		c.Next()
		return
	}
	if g.keys != nil {
		p, err := g.keys.Principal(c.Request.Context(), bearer(c.Request), c.ClientIP())
		if err != nil {
			g.refuse(c, err)
			return
		}
		c.Request = c.Request.WithContext(access.With(c.Request.Context(), p))
		if !p.May(scope) {
			g.refuse(c, queue.Problemf("scope_missing", "The key %s does not allow this: it lacks the scope %s.", p.KeyID, scope))
			return
		}
	}
	if err := g.limiter.Request(c.Request.Context(), c.Writer.Header()); err != nil {
		g.refuse(c, err)
		return
	}
	c.Next()
}

// refuse answers a request in place of its handler.
func (g *Gateway) refuse(c *gin.Context, err error) {
	c.Abort()
	g.fail(c, err)
}

// challenges say how to authenticate (RFC 6750), by the code of the problem.
var challenges = map[string]string{
	"key_required":  `Bearer realm="helicon"`,
	"key_invalid":   `Bearer realm="helicon", error="invalid_token"`,
	"scope_missing": `Bearer realm="helicon", error="insufficient_scope"`,
}

// bearer returns the key that a request carries: that of its header, or else that of the
// studio's session. "" if there is none.
func bearer(r *http.Request) string {
	header := r.Header.Get("Authorization")
	if header == "" {
		if cookie, err := r.Cookie(sessionCookie); err == nil {
			return cookie.Value
		}
		return ""
	}
	scheme, key, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return header // a key alone is understood, too; nothing else is a key
	}
	return strings.TrimSpace(key)
}

// SetLimits changes the limits of the tenants that have none of their own. It takes
// effect within seconds.
func (g *Gateway) SetLimits(limits access.Limits) error {
	if err := limits.Validate(); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	g.limiter.Set(limits)
	return nil
}
