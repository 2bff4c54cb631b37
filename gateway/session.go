package gateway

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/access"
	"helicon/gateway/catalog"
	"helicon/gateway/strict"
)

// sessionPath is where the studio logs in. A browser cannot send a key with pictures and
// event streams; a cookie goes with them, and no script can read it.
const sessionPath = "/v1/session"

const (
	sessionCookie = "helicon_key"
	sessionLength = 30 * 24 * time.Hour // at most: the key may end before
	maxLogin      = 1 << 10             // bytes of a request
)

// loginRequest is the body of POST /v1/session.
type loginRequest struct {
	Key string `json:"key"`
}

// session is who calls, as the routes of the session tell.
type session struct {
	Tenant      string     `json:"tenant"`
	Scopes      []string   `json:"scopes"`
	KeyRequired bool       `json:"key_required"`
	KeyID       string     `json:"key_id,omitempty"`
	KeyName     string     `json:"key_name,omitempty"`
	Expires     *time.Time `json:"expires,omitempty"` // the key
}

func sessionOf(k *catalog.Key) session {
	return session{Tenant: k.Tenant, Scopes: k.Scopes, KeyRequired: true, KeyID: k.ID, KeyName: k.Name, Expires: k.Expires}
}

// showSession answers GET and HEAD /v1/session: which key the request carries.
func (g *Gateway) showSession(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	if g.keys == nil {
		anyone := access.Anyone()
		writeJSON(c, http.StatusOK, session{Tenant: anyone.Tenant, Scopes: anyone.Scopes})
		return nil
	}
	key, err := g.keys.Key(c.Request.Context(), bearer(c.Request), c.ClientIP())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, sessionOf(key))
	return nil
}

// openSession answers POST /v1/session: the browser keeps the key for this site's pages,
// out of reach of their scripts.
func (g *Gateway) openSession(c *gin.Context) error {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxLogin)
	var request loginRequest
	if _, err := strict.Read(c.Request, &request); err != nil {
		return err
	}
	if g.keys == nil {
		return g.showSession(c)
	}
	key, err := g.keys.Key(c.Request.Context(), request.Key, c.ClientIP())
	if err != nil {
		return err
	}
	length := sessionLength
	if key.Expires != nil {
		length = min(length, time.Until(*key.Expires))
	}
	setSession(c, request.Key, int(length.Seconds()))
	writeJSON(c, http.StatusOK, sessionOf(key))
	return nil
}

// closeSession answers DELETE /v1/session: the browser forgets the key.
func (g *Gateway) closeSession(c *gin.Context) error {
	setSession(c, "", -1)
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// setSession has the browser keep a key for so many seconds, or none if they are negative.
func setSession(c *gin.Context, key string, seconds int) {
	http.SetCookie(c.Writer, &http.Cookie{
		Name: sessionCookie, Value: key, Path: "/", MaxAge: seconds,
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: c.Request.TLS != nil || c.GetHeader("X-Forwarded-Proto") == "https",
	})
}
