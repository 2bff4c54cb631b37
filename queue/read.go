package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sort"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Job returns a job as its last event left it; ErrNotFound if there is none.
func (q *Queue) Job(ctx context.Context, id string) (*Job, error) {
	job, _, err := q.load(ctx, id)
	return job, err
}

// load returns the job and its last event, which is nil for a job that has none yet.
func (q *Queue) load(ctx context.Context, id string) (*Job, *Event, error) {
	if err := q.connected(); err != nil {
		return nil, nil, err
	}
	if !ValidID(id) {
		return nil, nil, ErrNotFound
	}
	// A job without events is in JOBS. Between the two reads it may have been started
	// and ended, so a miss in JOBS is checked once more in EVENTS.
	for range 2 {
		last, err := q.lastEvent(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if last != nil {
			job, err := q.jobAt(ctx, last)
			if errors.Is(err, ErrNotFound) {
				continue // it ended and was deleted since
			}
			return job, last, err
		}
		msg, err := q.pending(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if msg != nil {
			job, err := decodeJob(msg.Data)
			return job, nil, err
		}
	}
	return nil, nil, ErrNotFound
}

// pending returns the job's message in JOBS, or nil.
func (q *Queue) pending(ctx context.Context, id string) (*jetstream.RawStreamMsg, error) {
	msg, err := q.jobs.GetMsg(ctx, 1, jetstream.WithGetMsgSubject("jobs.*.*.*."+id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: job %s: %w", id, q.explain(err))
	}
	return msg, nil
}

// lastEvent returns the job's last event, or nil.
func (q *Queue) lastEvent(ctx context.Context, id string) (*Event, error) {
	msg, err := q.events.GetLastMsgForSubject(ctx, "events."+id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: job %s: %w", id, q.explain(err))
	}
	return decodeEvent(msg)
}

// jobAt returns the job as event e left it.
func (q *Queue) jobAt(ctx context.Context, e *Event) (*Job, error) {
	state := e
	if e.Job == nil {
		msg, err := q.events.GetMsg(ctx, e.Snapshot)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return q.outlived(ctx, e)
		}
		if err != nil {
			return nil, fmt.Errorf("queue: job %s: snapshot %d: %w", e.JobID, e.Snapshot, q.explain(err))
		}
		if state, err = decodeEvent(msg); err != nil {
			return nil, err
		}
		if state.Job == nil {
			return nil, fmt.Errorf("queue: job %s: event %d carries no job", e.JobID, e.Snapshot)
		}
	}
	job := state.Job
	job.Revision = state.Seq
	if e.Progress != nil {
		job.Progress = e.Progress
	}
	return job, nil
}

// outlived returns a running job whose snapshot is older than the retention: its
// request as it was accepted, without the attempts made since.
func (q *Queue) outlived(ctx context.Context, e *Event) (*Job, error) {
	msg, err := q.pending(ctx, e.JobID)
	if err != nil {
		return nil, err
	}
	if msg == nil {
		return nil, ErrNotFound
	}
	job, err := decodeJob(msg.Data)
	if err != nil {
		return nil, err
	}
	job.State = Running
	job.Revision = e.Snapshot
	job.Progress = e.Progress
	return job, nil
}

func decodeJob(body []byte) (*Job, error) {
	job := new(Job)
	if err := json.Unmarshal(body, job); err != nil {
		return nil, fmt.Errorf("queue: stored job: %w", err)
	}
	return job, nil
}

func decodeEvent(msg *jetstream.RawStreamMsg) (*Event, error) {
	e := new(Event)
	if err := json.Unmarshal(msg.Data, e); err != nil {
		return nil, fmt.Errorf("queue: stored event %d: %w", msg.Sequence, err)
	}
	e.Seq = msg.Sequence
	e.Tenant = cmp.Or(e.Tenant, DefaultTenant) // events of before there were tenants name none
	if e.Job != nil {
		e.Job.Revision = e.Seq
	}
	return e, nil
}

// Filter selects jobs of a list. The zero value selects all.
type Filter struct {
	State State
	Task  string
	Tag   string
	Limit int    // jobs a page; default 50
	After string // id of the last job of the page before
}

// Page is one page of a list, newest jobs first.
type Page struct {
	Jobs []*Job
	Next string // Filter.After of the next page; empty on the last
}

// maxScan bounds how many jobs one page of a filtered list may look at.
const maxScan = 2000

// Jobs lists jobs from the newest to the oldest. A page of a filtered list may be
// short or empty and yet have a Next: it has then looked at 2,000 jobs.
func (q *Queue) Jobs(ctx context.Context, f Filter) (Page, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	ids, err := q.ids(ctx)
	if err != nil {
		return Page{}, err
	}
	start := 0
	if f.After != "" {
		start = sort.Search(len(ids), func(i int) bool { return ids[i] < f.After })
	}
	var page Page
	for i := start; i < len(ids); i++ {
		if len(page.Jobs) == f.Limit || i-start == maxScan {
			page.Next = ids[i-1]
			break
		}
		job, err := q.Job(ctx, ids[i])
		if errors.Is(err, ErrNotFound) {
			continue // deleted since the ids were listed
		}
		if err != nil {
			return Page{}, err
		}
		if f.matches(job) {
			page.Jobs = append(page.Jobs, job)
		}
	}
	return page, nil
}

func (f Filter) matches(job *Job) bool {
	if f.State != "" && job.State != f.State || f.Task != "" && job.Task != f.Task {
		return false
	}
	if f.Tag == "" {
		return true
	}
	for _, tag := range job.Tags {
		if tag == f.Tag {
			return true
		}
	}
	return false
}

// ids lists every job in JOBS or EVENTS, newest first.
func (q *Queue) ids(ctx context.Context) ([]string, error) {
	if err := q.connected(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, list := range []struct {
		stream jetstream.Stream
		filter string
	}{{q.jobs, "jobs.>"}, {q.events, "events.*"}} {
		info, err := list.stream.Info(ctx, jetstream.WithSubjectFilter(list.filter))
		if err != nil {
			return nil, fmt.Errorf("queue: list: %w", q.explain(err))
		}
		for subject := range info.State.Subjects {
			seen[subject[strings.LastIndexByte(subject, '.')+1:]] = true
		}
	}
	ids := make([]string, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(ids)))
	return ids, nil
}

// Watch yields the events of a job after sequence after (0: from its first) as they
// are stored, ends behind the terminal one, and never skips one that is retained.
// For a job whose first event is not stored yet it yields a queued event of
// sequence 0. A sequence that the job has not reached means from now on. The last
// value may be an error: ErrNotFound, ErrUnavailable, or the context's.
func (q *Queue) Watch(ctx context.Context, id string, after uint64) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		job, last, err := q.load(ctx, id)
		if err != nil {
			yield(nil, err)
			return
		}
		if last == nil && !yield(&Event{Type: EventQueued, JobID: id, Tenant: job.Tenant, Time: job.Created, Job: job}, nil) {
			return
		}
		var reached uint64
		if last != nil {
			reached = last.Seq
		}
		after = min(after, reached) // beyond it is the id of another job: go on from here
		if last != nil && last.Terminal() && last.Seq == after {
			return
		}
		for e, err := range q.follow(ctx, id, after) {
			if !yield(e, err) || err != nil || e.Terminal() {
				return
			}
		}
	}
}

// WatchAll yields the events of all jobs after sequence after, or from now on if it
// is 0 or was not reached yet.
func (q *Queue) WatchAll(ctx context.Context, after uint64) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		info, err := q.events.Info(ctx)
		if err != nil {
			yield(nil, fmt.Errorf("queue: watch: %w", q.explain(err)))
			return
		}
		if newest := info.State.LastSeq; after == 0 || after > newest {
			after = newest
		}
		q.follow(ctx, "*", after)(yield)
	}
}

// idlePoll is how long a watcher trusts its wake-ups before it looks by itself.
const idlePoll = 5 * time.Second

// follow reads the events of subject events.<id> one by one and, at the end, sleeps
// until a republished copy says that there is more. It reads by request rather than
// through a consumer: nothing is left on the server when the watcher goes.
func (q *Queue) follow(ctx context.Context, id string, after uint64) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		wake := make(chan struct{}, 1)
		sub, err := q.nc.Subscribe("live."+id, func(*nats.Msg) { poke(wake) })
		if err != nil {
			yield(nil, fmt.Errorf("queue: watch: %w", q.explain(err)))
			return
		}
		defer sub.Unsubscribe()
		poll := time.NewTicker(idlePoll)
		defer poll.Stop()
		for {
			msg, err := q.events.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject("events."+id))
			switch {
			case errors.Is(err, jetstream.ErrMsgNotFound):
				select {
				case <-wake:
				case <-poll.C:
					if err := q.exists(ctx, id); err != nil {
						yield(nil, err)
						return
					}
				case <-ctx.Done():
					yield(nil, context.Cause(ctx))
					return
				}
			case err != nil:
				yield(nil, fmt.Errorf("queue: watch: %w", q.explain(err)))
				return
			default:
				e, err := decodeEvent(msg)
				if !yield(e, err) || err != nil {
					return
				}
				after = e.Seq
			}
		}
	}
}

// exists returns ErrNotFound if a watched job has been deleted.
func (q *Queue) exists(ctx context.Context, id string) error {
	if id == "*" {
		return nil
	}
	_, err := q.Job(ctx, id)
	return err
}

// poke sets a flag channel of capacity one.
func poke(flag chan<- struct{}) {
	select {
	case flag <- struct{}{}:
	default:
	}
}

// Wait returns the job when it has ended, or as it stands when ctx ends, with the
// context's error. Of its events it reads the newest ones alone.
func (q *Queue) Wait(ctx context.Context, id string) (*Job, error) {
	wake := make(chan struct{}, 1)
	sub, err := q.nc.Subscribe("live."+id, func(*nats.Msg) { poke(wake) })
	if err != nil {
		return nil, fmt.Errorf("queue: wait: %w", q.explain(err))
	}
	defer sub.Unsubscribe()
	poll := time.NewTicker(idlePoll)
	defer poll.Stop()
	for {
		job, err := q.Job(ctx, id)
		if ctx.Err() == nil && (err != nil || job.State.Terminal()) {
			return job, err
		}
		select {
		case <-wake:
		case <-poll.C:
		case <-ctx.Done():
			job, err := q.Job(context.WithoutCancel(ctx), id)
			if err != nil {
				return nil, err
			}
			return job, context.Cause(ctx)
		}
	}
}
