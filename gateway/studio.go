package gateway

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// studio is the web interface, read into memory once.
type studio struct{ files map[string]asset }

type asset struct {
	content   []byte
	mediaType string
	etag      string
}

// mediaTypes of the studio's files. The system's own table is not consulted first:
// a wrong one would keep browsers from running modules.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8", ".json": "application/json", ".webmanifest": "application/manifest+json",
	".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp", ".ico": "image/x-icon",
	".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
}

func newStudio(files fs.FS) (*studio, error) {
	s := &studio{files: map[string]asset{}}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		s.files["/"+name] = asset{
			content:   content,
			mediaType: cmp.Or(mediaTypes[path.Ext(name)], mime.TypeByExtension(path.Ext(name)), "application/octet-stream"),
			etag:      `"` + hex.EncodeToString(sum[:16]) + `"`,
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("gateway: studio: %w", err)
	}
	return s, nil
}

// studioPolicy allows the studio its own files and nothing else: no inline script, no
// other site, no frame around it.
const studioPolicy = "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// serveStudio answers everything that is no route of the API.
func (g *Gateway) serveStudio(c *gin.Context) error {
	r := c.Request
	unknown := queue.Problemf("not_found", "There is nothing at %s %s.", r.Method, r.URL.Path)
	if g.studio == nil || r.Method != http.MethodGet && r.Method != http.MethodHead || strings.HasPrefix(r.URL.Path, "/v1/") {
		return unknown
	}
	name := r.URL.Path
	if strings.HasSuffix(name, "/") {
		name += "index.html"
	}
	file, ok := g.studio.files[name]
	if !ok {
		return unknown
	}
	header := c.Writer.Header()
	header.Set("Content-Type", file.mediaType)
	header.Set("ETag", file.etag)
	header.Set("Cache-Control", "no-cache") // ask each time; the ETag saves the transfer
	header.Set("Content-Security-Policy", studioPolicy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	c.Status(http.StatusOK) // the router has noted a 404
	http.ServeContent(c.Writer, r, "", time.Time{}, bytes.NewReader(file.content))
	return nil
}
