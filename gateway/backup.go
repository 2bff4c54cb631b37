package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// backupPath is the route that only an administrator may call: it gives away everything.
const backupPath = "/v1/backup"

// backup answers GET /v1/backup with all that the server keeps, as helicon restore reads it.
func (g *Gateway) backup(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	if g.config.Backup == nil {
		return queue.Problemf("not_found", "This server does not keep its data itself: copy them where they are.")
	}
	if !g.copying.TryLock() {
		return queue.Problemf("unavailable", "A backup is being made already.")
	}
	defer g.copying.Unlock()
	ctx, end, err := g.hold(c.Writer, c.Request)
	if err != nil {
		return err
	}
	defer end()
	header := c.Writer.Header()
	header.Set("Content-Type", "application/x-tar")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Disposition", `attachment; filename="helicon.tar"`)
	err = g.config.Backup(ctx, &patientWriter{c.Writer, g.sender(c.Writer), ctx.Err})
	if err != nil && c.Writer.Written() {
		g.log.Error("the backup broke off", "request", requestID(c), "err", err)
		panic(http.ErrAbortHandler) // half a backup must not look like a whole one
	}
	return err
}
