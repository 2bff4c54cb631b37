package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// tallyAge is how old counts may be that are asked for again and again. Counting many
// lines takes longer and is done less often.
const (
	tallyAge   = 100 * time.Millisecond // a quota of jobs refuses by it
	tallyShare = 20                     // the time between two counts is at least so many times that of one
)

// tally remembers how many jobs each tenant has.
type tally struct {
	counting sync.Mutex // held by the one that counts

	mu     sync.Mutex
	valid  time.Time      // until when counted may be used
	counts map[string]int // unfinished jobs by tenant, at the last count
	since  map[string]int // submitted by this process since then
}

func (t *tally) submitted(tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since == nil {
		t.since = map[string]int{}
	}
	t.since[tenant]++
}

func (t *tally) of(tenant string) (n int, valid bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[tenant] + t.since[tenant], time.Now().Before(t.valid)
}

// Unfinished returns how many jobs of a tenant are queued or running, as they were
// counted a moment ago, and those that this process has submitted since.
func (q *Queue) Unfinished(ctx context.Context, tenant string) (int, error) {
	t := &q.tally
	if n, valid := t.of(tenant); valid {
		return n, nil
	}
	t.counting.Lock()
	defer t.counting.Unlock()
	if n, valid := t.of(tenant); valid {
		return n, nil // another has counted meanwhile
	}
	if err := q.connected(); err != nil {
		return 0, err
	}
	t.mu.Lock()
	before := maps.Clone(t.since)
	t.mu.Unlock()
	begun := time.Now()
	lines, err := q.census(ctx)
	if err != nil {
		return 0, err
	}
	counts := map[string]int{}
	for _, l := range lines {
		counts[l.tenant] += l.waiting + l.given
	}
	now := time.Now()
	t.mu.Lock()
	t.counts, t.valid = counts, now.Add(max(tallyAge, tallyShare*now.Sub(begun)))
	for tenant, n := range before {
		if t.since[tenant] -= n; t.since[tenant] == 0 {
			delete(t.since, tenant)
		}
	}
	t.mu.Unlock()
	n, _ := t.of(tenant)
	return n, nil
}

// Depth is how many jobs of one modality and priority there are, and how long they wait.
type Depth struct {
	Modality string
	Priority Priority
	Waiting  int       // jobs that no worker was given yet
	Given    int       // jobs that are running, or wait for others or for their next attempt
	Oldest   time.Time // when the one was accepted that waits longest; zero if none waits
}

// Depth lists how many jobs wait, by modality and priority. It costs a few requests to
// the message server, however many jobs there are.
func (q *Queue) Depth(ctx context.Context) ([]Depth, error) {
	if err := q.connected(); err != nil {
		return nil, err
	}
	lines, err := q.census(ctx)
	if err != nil {
		return nil, err
	}
	groups := map[line][]standing{}
	for _, l := range lines {
		of := line{modality: l.modality, priority: l.priority}
		groups[of] = append(groups[of], l)
	}
	depths := make([]Depth, 0, len(groups))
	for of, lines := range groups {
		d := Depth{Modality: of.modality, Priority: of.priority}
		for _, l := range lines {
			d.Waiting += l.waiting
			d.Given += l.given
		}
		if d.Oldest, err = q.oldest(ctx, lines); err != nil {
			return nil, err
		}
		depths = append(depths, d)
	}
	slices.SortFunc(depths, func(a, b Depth) int {
		return strings.Compare(a.Modality+"."+string(a.Priority), b.Modality+"."+string(b.Priority))
	})
	return depths, nil
}

// oldestLooks bounds the requests that find the oldest job of a modality and priority.
const oldestLooks = 32

// oldest returns when the first job was accepted that waits in one of the lines. What
// waits in a line came after what was handed out of it, so that most need no look.
func (q *Queue) oldest(ctx context.Context, lines []standing) (at time.Time, err error) {
	waiting := slices.DeleteFunc(slices.Clone(lines), func(l standing) bool { return l.waiting == 0 })
	slices.SortFunc(waiting, func(a, b standing) int { return int(a.passed) - int(b.passed) })
	var first uint64
	for _, l := range waiting[:min(len(waiting), oldestLooks)] {
		if first > 0 && l.passed >= first {
			break
		}
		msg, err := q.jobs.GetMsg(ctx, l.passed+1, jetstream.WithGetMsgSubject(l.subject("*")))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // handed out since
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("queue: depth: %w", q.explain(err))
		}
		if first == 0 || msg.Sequence < first {
			first, at = msg.Sequence, msg.Time
		}
	}
	return at, nil
}
