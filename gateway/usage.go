package gateway

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// Usage is asked for by days: at most two years of them, the last 30 unless told.
const (
	usageDays    = 30
	maxUsageDays = 2 * 366
)

// showUsage answers GET /v1/usage.
func (g *Gateway) showUsage(c *gin.Context) error {
	f, err := usageFilter(c, time.Now().UTC())
	if err != nil {
		return err
	}
	record, err := g.catalog()
	if err != nil {
		return err
	}
	sums, err := record.Usage(c.Request.Context(), f)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, listOf(sums))
	return nil
}

// usageFilter reads the query of a request for usage.
func usageFilter(c *gin.Context, now time.Time) (catalog.UsageFilter, error) {
	f := catalog.UsageFilter{Tenant: principalOf(c.Request.Context()).Tenant, To: now}
	if err := onlyQuery(c, "from", "to", "by"); err != nil {
		return f, err
	}
	var err error
	if text := c.Query("to"); text != "" {
		if f.To, err = time.Parse(time.DateOnly, text); err != nil {
			return f, queue.Problemf("invalid_request", "to=%q: want a day such as 2006-01-02.", text)
		}
	}
	f.From = f.To.AddDate(0, 0, 1-usageDays)
	if text := c.Query("from"); text != "" {
		if f.From, err = time.Parse(time.DateOnly, text); err != nil {
			return f, queue.Problemf("invalid_request", "from=%q: want a day such as 2006-01-02.", text)
		}
	}
	switch days := f.To.Sub(f.From) / (24 * time.Hour); {
	case f.From.After(f.To):
		return f, queue.Problemf("invalid_request", "from is behind to.")
	case days >= maxUsageDays:
		return f, queue.Problemf("invalid_request", "That is %d days; at most %d.", days+1, maxUsageDays)
	}
	if text := c.Query("by"); text != "" {
		f.By = strings.Split(text, ",")
	}
	known := []string{"day", "task", "model"}
	for i, by := range f.By {
		if !slices.Contains(known, by) || slices.Contains(f.By[:i], by) {
			return f, queue.Problemf("invalid_request", "by=%q: want some of %s, each once, with commas between them.", c.Query("by"), strings.Join(known, ", "))
		}
	}
	return f, nil
}
