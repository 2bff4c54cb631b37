package gateway

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

const requestIDHeader = "X-Request-Id"

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// identify gives the request an id, the client's own where it sends a sane one.
func (g *Gateway) identify(c *gin.Context) {
	id := c.GetHeader(requestIDHeader)
	if !requestIDForm.MatchString(id) {
		id = queue.NewID()
	}
	header := c.Writer.Header()
	header.Set(requestIDHeader, id)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if g.draining.Load() {
		header.Set("Connection", "close") // the next request goes to another server
	}
	c.Next()
}

func requestID(c *gin.Context) string { return c.Writer.Header().Get(requestIDHeader) }

// account writes the access log, without query, headers and body, and turns a panic
// into an answer.
func (g *Gateway) account(c *gin.Context) {
	start := time.Now()
	defer func() {
		reason := recover()
		if err, ok := reason.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(reason)
		}
		if reason != nil {
			g.log.Error("panic", "request", requestID(c), "route", c.FullPath(), "reason", reason, "stack", string(debug.Stack()))
			if c.Writer.Written() {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			c.Abort()
			g.fail(c, queue.Problemf("internal", "The server failed; its log has the reason under this answer's X-Request-Id."))
		}
		g.log.LogAttrs(c.Request.Context(), level(c), "request",
			slog.String("request", requestID(c)),
			slog.String("method", c.Request.Method),
			slog.String("path", c.Request.URL.Path),
			slog.Int("status", c.Writer.Status()),
			slog.Int("bytes", max(c.Writer.Size(), 0)),
			slog.Duration("duration", time.Since(start)),
			slog.String("job", jobOf(c)),
			slog.String("tenant", principalOf(c.Request.Context()).Tenant),
			slog.String("key", principalOf(c.Request.Context()).KeyID),
			slog.String("remote", c.ClientIP()),
		)
	}()
	c.Next()
}

// jobOf is the id of the job that the request made or is about, or "".
func jobOf(c *gin.Context) string {
	if id := c.Writer.Header().Get("X-Helicon-Job"); id != "" {
		return id
	}
	if id, ok := strings.CutPrefix(c.Writer.Header().Get("Location"), "/v1/jobs/"); ok {
		return id
	}
	if strings.HasPrefix(c.FullPath(), "/v1/jobs/:id") {
		return c.Param("id")
	}
	return ""
}

// level keeps probes and the studio's files out of the ordinary log.
func level(c *gin.Context) slog.Level {
	switch {
	case c.Writer.Status() >= http.StatusInternalServerError:
		return slog.LevelWarn
	case !strings.HasPrefix(c.Request.URL.Path, "/v1/"):
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// guard refuses what a web page elsewhere could make a browser send: requests under
// a foreign host name (DNS rebinding) and changes that another site asks for.
func (g *Gateway) guard(c *gin.Context) {
	if !g.hostAllowed(c.Request.Host) {
		c.Abort()
		g.fail(c, queue.Problemf("host_not_allowed",
			"This server does not answer for the host %q. Call it by localhost or its IP address, or name the host in its settings.", c.Request.Host))
		return
	}
	if err := g.origins.Check(c.Request); err != nil {
		c.Abort()
		g.fail(c, queue.Problemf("cross_origin",
			"A page of another site (%s) may not change anything here. Name the origin in the server's settings to allow it.", c.GetHeader("Origin")))
		return
	}
	if origin := c.GetHeader("Origin"); slices.Contains(g.config.Origins, origin) {
		if g.share(c, origin) {
			return
		}
	}
	c.Next()
}

// share lets a page of a trusted origin read the answer, and answers its preflight
// request itself.
func (g *Gateway) share(c *gin.Context, origin string) (answered bool) {
	header := c.Writer.Header()
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, X-Helicon-Job, Idempotency-Replayed, Preference-Applied")
	header.Add("Vary", "Origin")
	if c.Request.Method != http.MethodOptions || c.GetHeader("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE")
	header.Set("Access-Control-Allow-Headers", c.GetHeader("Access-Control-Request-Headers"))
	header.Set("Access-Control-Max-Age", "600")
	c.AbortWithStatus(http.StatusNoContent)
	return true
}

// hostAllowed admits localhost, IP addresses (which no foreign name service decides)
// and the configured names.
func (g *Gateway) hostAllowed(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	// A client without a host name is too old to be a browser.
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return slices.ContainsFunc(g.config.Hosts, func(allowed string) bool {
		return allowed == "*" || strings.EqualFold(allowed, name)
	})
}
