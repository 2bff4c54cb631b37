package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"helicon/queue"
)

// Usage is what jobs have consumed and made. It is counted when they end, by day, task
// and model, and stays when they are deleted or have grown too old for the catalog.
type Usage struct {
	Tenant string `json:"tenant,omitempty"`
	Day    string `json:"day,omitempty"` // on which they ended, in UTC: 2006-01-02
	Task   string `json:"task,omitempty"`
	Model  string `json:"model,omitempty"`

	Jobs           int64   `json:"jobs"` // that have ended
	Succeeded      int64   `json:"succeeded"`
	Failed         int64   `json:"failed"`
	Canceled       int64   `json:"canceled"`
	InputTokens    int64   `json:"input_tokens"`
	OutputTokens   int64   `json:"output_tokens"`
	Pixels         int64   `json:"pixels"`          // of pictures that were made
	MediaSeconds   float64 `json:"media_seconds"`   // of sound and video that was made
	ComputeSeconds float64 `json:"compute_seconds"` // for which workers computed
}

// add counts a job that has ended.
func (u *Usage) add(job *queue.Job) {
	switch job.State {
	case queue.Succeeded:
		u.Succeeded++
	case queue.Failed:
		u.Failed++
	case queue.Canceled:
		u.Canceled++
	}
	if job.Result == nil {
		return
	}
	for _, a := range job.Result.Artifacts {
		if strings.HasPrefix(a.MediaType, "image/") {
			u.Pixels += int64(a.Width) * int64(a.Height)
		}
		u.MediaSeconds += a.Duration
	}
	if used := job.Result.Usage; used != nil {
		u.InputTokens += int64(used.InputTokens)
		u.OutputTokens += int64(used.OutputTokens)
		u.ComputeSeconds += used.ComputeSeconds
	}
}

// usageKey is what usage is counted by.
type usageKey struct{ tenant, day, task, model string }

func (k usageKey) compare(other usageKey) int {
	return cmp.Or(cmp.Compare(k.tenant, other.tenant), cmp.Compare(k.day, other.day), cmp.Compare(k.task, other.task), cmp.Compare(k.model, other.model))
}

// store adds to what was counted before.
func (u *Usage) store(ctx context.Context, tx *sql.Tx, k usageKey) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO usage VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (tenant, day, task, model) DO UPDATE SET
			succeeded = usage.succeeded + excluded.succeeded,
			failed = usage.failed + excluded.failed,
			canceled = usage.canceled + excluded.canceled,
			input_tokens = usage.input_tokens + excluded.input_tokens,
			output_tokens = usage.output_tokens + excluded.output_tokens,
			pixels = usage.pixels + excluded.pixels,
			media_seconds = usage.media_seconds + excluded.media_seconds,
			compute_seconds = usage.compute_seconds + excluded.compute_seconds`,
		k.tenant, k.day, k.task, k.model, u.Succeeded, u.Failed, u.Canceled, u.InputTokens, u.OutputTokens, u.Pixels, u.MediaSeconds, u.ComputeSeconds)
	return err
}

// UsageFilter selects and groups usage.
type UsageFilter struct {
	Tenant string    // "": of all tenants
	From   time.Time // the first day
	To     time.Time // the last day
	By     []string  // any of UsageColumns; none: one sum
}

// UsageColumns returns what usage can be grouped by.
func UsageColumns() []string { return []string{"tenant", "day", "task", "model"} }

// maxUsage is how many sums one answer has at most.
const maxUsage = 10_000

// Usage returns sums of usage in the order of what they are grouped by. More than 10,000
// of them are a *queue.Problem.
func (c *Catalog) Usage(ctx context.Context, f UsageFilter) ([]Usage, error) {
	var group []string
	columns := make([]string, len(UsageColumns()))
	for i, name := range UsageColumns() {
		columns[i] = "''"
		if slices.Contains(f.By, name) {
			columns[i] = name
			group = append(group, name)
		}
	}
	query := "SELECT " + strings.Join(columns, ", ") + `, COALESCE(SUM(succeeded), 0), COALESCE(SUM(failed), 0), COALESCE(SUM(canceled), 0),
		COALESCE(SUM(input_tokens), 0), COALESCE(SUM(output_tokens), 0), COALESCE(SUM(pixels), 0),
		COALESCE(SUM(media_seconds), 0), COALESCE(SUM(compute_seconds), 0)
		FROM usage WHERE day >= $1 AND day <= $2 AND (tenant = $3 OR $3 = '')`
	if len(group) > 0 {
		query += " GROUP BY " + strings.Join(group, ", ") + " ORDER BY " + strings.Join(group, ", ")
	}
	query += fmt.Sprintf(" LIMIT %d", maxUsage+1)
	var sums []Usage
	found, err := c.read.QueryContext(ctx, query, f.From.UTC().Format(time.DateOnly), f.To.UTC().Format(time.DateOnly), f.Tenant)
	err = each(found, err, func(scan func(...any) error) error {
		var u Usage
		err := scan(&u.Tenant, &u.Day, &u.Task, &u.Model, &u.Succeeded, &u.Failed, &u.Canceled,
			&u.InputTokens, &u.OutputTokens, &u.Pixels, &u.MediaSeconds, &u.ComputeSeconds)
		u.Jobs = u.Succeeded + u.Failed + u.Canceled
		sums = append(sums, u)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("catalog: usage: %w", explain(err))
	}
	if len(sums) > maxUsage {
		return nil, queue.Problemf("invalid_request", "That is more than %d sums; ask for fewer days or group by less.", maxUsage)
	}
	return sums, nil
}
