package gateway

import (
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// Facts are what the bytes of a file say about it.
type Facts struct {
	Width  int `json:"-"` // pixels, as is Height; they belong to the artifact
	Height int `json:"-"`
	// Parameters is how another program's text says that the file was made.
	Parameters string `json:"parameters,omitempty"`
	// Generation is the part of POST /v1/jobs that makes it again.
	Generation json.RawMessage `json:"generation,omitempty"`
}

// artifactInfo answers GET and HEAD /v1/artifacts/{sha256}/info: the artifact and what its
// bytes say.
func (g *Gateway) artifactInfo(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	ctx := c.Request.Context()
	about, content, err := g.queue.Artifact(ctx, principalOf(ctx).Tenant, c.Param("sha256"))
	if err != nil {
		return err
	}
	defer content.Close()
	answer := struct {
		queue.Artifact
		Facts
	}{Artifact: about}
	if g.config.Inspect != nil {
		if answer.Facts, err = g.config.Inspect(content, about); err != nil {
			return err
		}
	}
	if answer.Facts.Width > 0 {
		answer.Artifact.Width, answer.Artifact.Height = answer.Facts.Width, answer.Facts.Height
	}
	writeJSON(c, http.StatusOK, answer)
	return nil
}
