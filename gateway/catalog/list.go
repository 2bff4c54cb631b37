package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"helicon/gateway/catalog/terms"
	"helicon/queue"
)

// Filter selects jobs of a tenant. The zero value of each field selects all.
type Filter struct {
	State    queue.State
	Task     string
	Model    string
	Tag      string
	Batch    string
	Pipeline string
	From, To time.Time // of acceptance, To excluded
	Query    string    // words that occur, all of them, in the job's input or its text
	After    string    // id of the last job of the page before
	Limit    int       // jobs a page; default 50
}

// Page is one page of a list, newest jobs first.
type Page struct {
	Jobs []*queue.Job
	Next string // Filter.After of the next page; empty on the last

	size int // bytes of the jobs
}

// Limits on a page and on the work that it takes.
const (
	defaultPage   = 50
	maxPageBytes  = 16 << 20
	MaxQuery      = 1000 // bytes of Filter.Query
	maxQueryTerms = 64
	patience      = 25 * time.Millisecond
	window        = 8000 // jobs that are looked at first in SQLite
	widening      = 4    // how many times longer the next window is
	glance        = 800  // jobs that are looked at first in PostgreSQL
	few           = 4000 // and at last, if it takes too long
)

// Jobs lists a tenant's jobs from the newest to the oldest, as their last change of state
// left them. Pages are stable: jobs that come in while a client turns them change no
// later page. A page may be short or empty and yet have a Next: if what is asked for is
// so rare a combination of common things that it is not found within about 25 ms, it ends
// there, and if the jobs are large, it ends at 16 MiB.
// A query without a word is a *queue.Problem.
func (c *Catalog) Jobs(ctx context.Context, tenant string, f Filter) (Page, error) {
	if f.Limit <= 0 {
		f.Limit = defaultPage
	}
	s, err := c.selection(ctx, tenant, f)
	if err != nil {
		return Page{}, err
	}
	var page Page
	switch {
	case c.postgres:
		err = c.hasty(ctx, s, &page)
	case len(s.terms) > 0:
		err = c.widen(ctx, s, &page)
	default:
		err = c.fill(ctx, s, &page)
	}
	if err != nil {
		return Page{}, fmt.Errorf("catalog: list: %w", explain(err))
	}
	return page, nil
}

// selection is a filter in the terms of the tables.
type selection struct {
	tenant   string
	columns  []string // conditions on jobs beside tenant and num, for PostgreSQL
	values   []any
	terms    []string
	from, to int64 // numbers; to excluded
	limit    int
	near     bool // from and to have few jobs between them
}

func (c *Catalog) selection(ctx context.Context, tenant string, f Filter) (*selection, error) {
	s := &selection{tenant: tenant, to: math.MaxInt64, limit: f.Limit}
	for _, by := range []struct {
		column string
		kind   terms.Kind
		value  string
	}{
		{"state", terms.State, string(f.State)}, {"task", terms.Task, f.Task}, {"model", terms.Model, f.Model},
		{"batch", terms.Batch, f.Batch}, {"pipeline", terms.Pipeline, f.Pipeline}, {"", terms.Tag, f.Tag},
	} {
		switch {
		case by.value == "":
		case c.postgres && by.column != "":
			s.columns = append(s.columns, by.column)
			s.values = append(s.values, by.value)
		default:
			s.terms = append(s.terms, terms.Facet(by.kind, tenant, by.value))
		}
	}
	if f.Query != "" {
		words := terms.OfQuery(f.Query)
		if len(words) == 0 {
			return nil, queue.Problemf("invalid_request", "q=%q has no letter, digit or symbol to search for.", f.Query)
		}
		if len(words) > maxQueryTerms {
			return nil, queue.Problemf("invalid_request", "q has %d words to search for; at most %d.", len(words), maxQueryTerms)
		}
		s.terms = append(s.terms, words...)
	}
	if len(s.terms) > 0 {
		s.terms = append(s.terms, terms.Facet(terms.Tenant, tenant, tenant))
	}
	if !f.From.IsZero() {
		s.from = numAt(f.From)
	}
	if !f.To.IsZero() {
		s.to = numAt(f.To)
	}
	if f.After != "" {
		after, err := c.number(ctx, tenant, f.After)
		if err != nil {
			return nil, fmt.Errorf("catalog: list: %w", explain(err))
		}
		s.to = min(s.to, after)
	}
	return s, nil
}

// number is the number of a tenant's job; of one that was deleted since, the first behind
// those of the millisecond in its id.
func (c *Catalog) number(ctx context.Context, tenant, id string) (int64, error) {
	var num int64
	found, err := c.read.QueryContext(ctx, "SELECT num FROM jobs WHERE id = $1 AND tenant = $2", id, tenant)
	err = each(found, err, func(scan func(...any) error) error { return scan(&num) })
	if err != nil || num != 0 {
		return num, err
	}
	when, err := ulid.ParseStrict(id)
	if err != nil {
		return 0, queue.Problemf("invalid_request", "after=%q is not the id of a job.", id)
	}
	return numAt(ulid.Time(when.Time() + 1)), nil
}

// fill adds the newest jobs that are selected to a page, and says in Next whether there
// are more.
func (c *Catalog) fill(ctx context.Context, s *selection, page *Page) error {
	query, args := c.statement(s, s.limit+1-len(page.Jobs))
	found, err := c.read.QueryContext(ctx, query, args...)
	return each(found, err, func(scan func(...any) error) error {
		var version int64
		var body []byte
		if page.Next != "" {
			return nil
		}
		if len(page.Jobs) == s.limit || page.size > maxPageBytes {
			page.Next = page.Jobs[len(page.Jobs)-1].ID
			return nil
		}
		if err := scan(&version, &body); err != nil {
			return err
		}
		job, err := decode(body, version)
		if err != nil {
			return err
		}
		page.Jobs = append(page.Jobs, job)
		page.size += len(body)
		return nil
	})
}

// decode returns the job of a row.
func decode(body []byte, version int64) (*queue.Job, error) {
	job := new(queue.Job)
	if err := json.Unmarshal(body, job); err != nil {
		return nil, err
	}
	job.Revision = sequence(version)
	return job, nil
}

// statement is the query of the first jobs of a selection.
func (c *Catalog) statement(s *selection, limit int) (string, []any) {
	args := []any{s.tenant, s.from, s.to}
	param := func(value any) string {
		args = append(args, value)
		return fmt.Sprintf("$%d", len(args))
	}
	from, num := "jobs j", "j.num"
	var where strings.Builder
	for i, column := range s.columns {
		where.WriteString(" AND j." + column + " = " + param(s.values[i]))
	}
	switch {
	case len(s.terms) == 0:
	case c.postgres:
		table := "terms"
		if s.near { // so few that reading them all is better than the index
			table = "(SELECT * FROM terms WHERE num >= $2 AND num < $3 OFFSET 0)"
		}
		from += " JOIN " + table + " t ON t.num = j.num AND t.num >= $2 AND t.num < $3"
		where.WriteString(" AND t.terms @@ " + param("'"+strings.Join(s.terms, "' & '")+"'") + "::text::tsquery")
	default:
		from, num = "terms t CROSS JOIN jobs j ON j.num = t.rowid", "t.rowid"
		where.WriteString(" AND t.terms MATCH " + param(`"`+strings.Join(s.terms, `" AND "`)+`"`))
	}
	selected := from + " WHERE j.tenant = $1 AND " + num + " >= $2 AND " + num + " < $3" + where.String() +
		" ORDER BY " + num + " DESC LIMIT " + param(limit)
	if c.postgres {
		// Numbers first, which an index may have all of: only then is it cheaper to its
		// planner than to look for what is frequent in the order of time.
		return "SELECT j.version, j.body FROM (SELECT j.num FROM " + selected + ") s JOIN jobs j ON j.num = s.num ORDER BY j.num DESC", args
	}
	return "SELECT j.version, j.body FROM " + selected, args
}

// hasty fills a page with what PostgreSQL finds in a moment. Its planner knows well what is
// frequent, but neither where nor what comes together, so it has help: what is frequent is
// found among the newest jobs, and where the planner was wrong, a page ends with the next
// few thousand.
func (c *Catalog) hasty(ctx context.Context, s *selection, page *Page) error {
	if len(s.terms) > 0 {
		err := c.near(ctx, s, page, glance)
		if err != nil || page.Next == "" || len(page.Jobs) == s.limit || page.size > maxPageBytes {
			return err
		}
		*page = Page{}
	}
	brief, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := c.fill(brief, s, page)
	if err == nil || brief.Err() == nil || ctx.Err() != nil {
		return err
	}
	*page = Page{}
	return c.near(ctx, s, page, few)
}

// near fills a page from the next jobs only, as many as the window is wide.
func (c *Catalog) near(ctx context.Context, s *selection, page *Page, window int) error {
	num, id, err := c.skip(ctx, s, window)
	if err != nil {
		return err
	}
	bounded := *s
	bounded.from, bounded.near = max(s.from, num), true
	if err := c.fill(ctx, &bounded, page); err != nil {
		return err
	}
	page.Next = cmp.Or(page.Next, id)
	return nil
}

// skip returns the number and the id of the tenant's job that has n newer ones in the
// times of the selection; zeros if there is none.
func (c *Catalog) skip(ctx context.Context, s *selection, n int) (num int64, id string, err error) {
	found, err := c.read.QueryContext(ctx, `SELECT num, id FROM jobs WHERE tenant = $1 AND num >= $2 AND num < $3
		ORDER BY num DESC LIMIT 1 OFFSET $4`, s.tenant, s.from, s.to, n)
	return num, id, each(found, err, func(scan func(...any) error) error { return scan(&num, &id) })
}

// widen fills a page from SQLite's index of terms, which is in the order of time and steps
// quickly to what all terms have in common. But a step cannot be interrupted, and is long
// where terms are frequent and have nothing in common. So it looks at a window of time, of
// the next 8,000 jobs, and then at longer and longer ones before it, as long as another
// one may be expected to fit into the time for a page.
func (c *Catalog) widen(ctx context.Context, s *selection, page *Page) error {
	oldest, newest, err := c.extent(ctx, s)
	if err != nil {
		return err
	}
	start, _, err := c.skip(ctx, s, window)
	if err != nil {
		return err
	}
	part := *s
	part.from = max(part.from, align(start))
	length := newest - part.from
	for begun := time.Now(); ; {
		last := time.Now()
		if err := c.fill(ctx, &part, page); err != nil || page.Next != "" || part.from <= oldest {
			return err
		}
		if time.Since(begun)+widening*time.Since(last) > patience {
			page.Next = cursor(part.from)
			return nil
		}
		length *= widening
		part.to = part.from
		part.from = oldest
		if length < part.to-oldest {
			part.from = align(part.to - length)
		}
	}
}

// extent returns the numbers of the tenant's oldest and newest job in the times of the
// selection.
func (c *Catalog) extent(ctx context.Context, s *selection) (oldest, newest int64, err error) {
	const jobs = "(num) FROM jobs WHERE tenant = $1 AND num >= $2 AND num < $3), 0)"
	err = c.read.QueryRowContext(ctx, "SELECT COALESCE((SELECT min"+jobs+", COALESCE((SELECT max"+jobs, s.tenant, s.from, s.to).Scan(&oldest, &newest)
	return oldest, newest, err
}

// align returns the lowest number of the millisecond that the number is of.
func align(num int64) int64 { return num - num%(1000<<numBits) }

// cursor is an id behind which a page begins below an aligned number: as number reads it,
// as that of a job that was deleted.
func cursor(num int64) string {
	var id ulid.ULID
	// It cannot fail for a time that is in the tables.
	_ = id.SetTime(uint64(num>>numBits/1000 - 1))
	return id.String()
}

// Job returns a tenant's job as its last change of state left it; queue.ErrNotFound if
// the catalog has none.
func (c *Catalog) Job(ctx context.Context, tenant, id string) (*queue.Job, error) {
	var job *queue.Job
	found, err := c.read.QueryContext(ctx, "SELECT version, body FROM jobs WHERE id = $1 AND tenant = $2", id, tenant)
	err = each(found, err, func(scan func(...any) error) error {
		var version int64
		var body []byte
		if err := scan(&version, &body); err != nil {
			return err
		}
		job, err = decode(body, version)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("catalog: job %s: %w", id, explain(err))
	}
	if job == nil {
		return nil, queue.ErrNotFound
	}
	return job, nil
}
