package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"helicon/gateway/garbage"
	"helicon/queue"
)

// garbagePath is the route that only an administrator may call: it deletes what belongs to
// any tenant.
const garbagePath = "/v1/gc"

// garbageRequest is the body of POST /v1/gc.
type garbageRequest struct {
	DryRun bool `json:"dry_run"`
}

// collectGarbage answers POST /v1/gc with what was deleted, or with dry_run would be.
func (g *Gateway) collectGarbage(c *gin.Context) error {
	var request garbageRequest
	if c.Request.ContentLength != 0 {
		if err := g.readSmall(c, &request); err != nil {
			return err
		}
	}
	if g.config.KeepArtifacts == 0 || g.config.Catalog == nil {
		return queue.Problemf("not_implemented", "This server keeps artifacts for good; its setting --keep-artifacts says for how long to keep those that nothing refers to.")
	}
	ctx, end, err := g.hold(c.Writer, c.Request)
	if err != nil {
		return err
	}
	defer end()
	collector := garbage.Collector{Queue: g.queue, Catalog: g.config.Catalog, Keep: g.config.KeepArtifacts}
	report, err := collector.Collect(ctx, request.DryRun)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, report)
	return nil
}
