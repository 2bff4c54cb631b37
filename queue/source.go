package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Source hands out queued jobs of some modalities to one worker.
type Source struct {
	q          *Queue
	worker     string
	modalities []string
	consumers  map[Priority][]jetstream.Consumer // one a modality; nil while they may be missing
	wake       chan struct{}
	subs       []*nats.Subscription
	turn       int
	held       sync.Map // ids of the jobs whose leases are held
}

// sourcePoll is how often an idle worker looks by itself: for jobs that come back,
// of which no message tells.
const sourcePoll = time.Second

// A job that cannot be leased now is put aside: one whose needs are not met for an
// eighth of its age, so that thousands of them leave time for the others.
const (
	asideLeast = 500 * time.Millisecond
	asideMost  = 30 * time.Second
	asideShare = 8
)

// aside is how long a job is put aside at the time now: not beyond its deadline.
func aside(job *Job, now time.Time) time.Duration {
	d := min(max(now.Sub(job.Created)/asideShare, asideLeast), asideMost)
	if job.Deadline != nil {
		d = min(d, max(job.Deadline.Sub(now), asideLeast))
	}
	return d
}

// NewSource prepares to lease jobs of the modalities to the named worker. The message
// server may be away.
func (q *Queue) NewSource(ctx context.Context, worker string, modalities ...string) (*Source, error) {
	s := &Source{q: q, worker: worker, modalities: modalities, wake: make(chan struct{}, 1)}
	for _, modality := range modalities {
		sub, err := q.nc.Subscribe("wake."+modality, func(*nats.Msg) { poke(s.wake) })
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("queue: source: %w", q.explain(err))
		}
		s.subs = append(s.subs, sub)
	}
	if err := s.open(ctx); err != nil && !errors.Is(err, ErrUnavailable) {
		s.Close()
		return nil, err
	}
	return s, nil
}

// open creates the consumers where they are missing.
func (s *Source) open(ctx context.Context) error {
	if err := s.q.connected(); err != nil {
		return err
	}
	consumers := map[Priority][]jetstream.Consumer{}
	for _, modality := range s.modalities {
		for _, p := range []Priority{High, Normal, Low} {
			c, err := s.q.jobs.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
				Durable:       modality + "-" + string(p),
				FilterSubject: fmt.Sprintf("jobs.%s.%s.*.*", modality, p),
				AckPolicy:     jetstream.AckExplicitPolicy,
				AckWait:       s.q.opts.AckWait,
				MaxDeliver:    -1, // attempts are counted in EVENTS, where hand-backs are free
				MaxAckPending: -1,
			})
			if err != nil {
				return fmt.Errorf("queue: consumer %s-%s: %w", modality, p, s.q.explain(err))
			}
			consumers[p] = append(consumers[p], c)
		}
	}
	s.consumers = consumers
	return nil
}

// Close stops listening. Leases that were handed out stay valid.
func (s *Source) Close() {
	for _, sub := range s.subs {
		sub.Unsubscribe()
	}
}

// Next waits for a job that can run now and leases it. Jobs that cannot (their
// deadline is over, a need failed, their attempts are used up) it ends on the way.
// It returns the context's cause when ctx ends and ErrUnavailable, after a short
// wait, while the message server cannot be reached.
func (s *Source) Next(ctx context.Context) (*Lease, error) {
	poll := time.NewTicker(sourcePoll)
	defer poll.Stop()
	for {
		lease, found, err := s.try(ctx)
		if lease != nil || err != nil && !errors.Is(err, ErrUnavailable) {
			return lease, err
		}
		if found && err == nil {
			continue
		}
		select {
		case <-s.wake:
		case <-poll.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
}

// try fetches at most one message. found says that there was one, even if its job
// turned out not to be runnable.
func (s *Source) try(ctx context.Context) (lease *Lease, found bool, err error) {
	if err := s.q.connected(); err != nil {
		return nil, false, err
	}
	if s.consumers == nil {
		if err := s.open(ctx); err != nil {
			return nil, false, err
		}
	}
	for _, p := range order(s.turn) {
		for i := range s.consumers[p] {
			// Another modality is first in each round of the order.
			c := s.consumers[p][(i+s.turn/round)%len(s.consumers[p])]
			msg, err := fetch(c)
			if err != nil {
				s.consumers = nil // the message server that comes back may be a new one
				return nil, false, s.q.explain(err)
			}
			if msg == nil {
				continue
			}
			s.turn++
			lease, err := s.take(ctx, msg)
			if errors.Is(err, ErrCanceled) || errors.Is(err, ErrLeaseLost) {
				err = nil // another was faster to decide about the job
			}
			if err != nil {
				// Not at once: it would come before all others again. If it cannot be said, it
				// comes when the lease is over.
				_ = msg.NakWithDelay(asideLeast)
			}
			return lease, true, err
		}
	}
	return nil, false, nil
}

// round is the number of turns after which the order of the priorities repeats.
const round = 8

// order is the sequence in which a worker looks at the priorities on its turn:
// the lower ones come first on every fourth and eighth.
func order(turn int) [3]Priority {
	switch {
	case turn%round == round-1:
		return [3]Priority{Low, High, Normal}
	case turn%(round/2) == round/2-1:
		return [3]Priority{Normal, High, Low}
	}
	return [3]Priority{High, Normal, Low}
}

func fetch(c jetstream.Consumer) (jetstream.Msg, error) {
	batch, err := c.FetchNoWait(1)
	if err != nil {
		return nil, fmt.Errorf("queue: fetch: %w", err)
	}
	for msg := range batch.Messages() {
		return msg, nil
	}
	if err := batch.Error(); err != nil {
		return nil, fmt.Errorf("queue: fetch: %w", err)
	}
	return nil, nil
}

// take decides what becomes of a fetched job: leased, ended, put aside, or nothing
// because it has ended already.
func (s *Source) take(ctx context.Context, msg jetstream.Msg) (*Lease, error) {
	l := &Lease{q: s.q, msg: msg, worker: s.worker, held: &s.held}
	id := msg.Subject()[strings.LastIndexByte(msg.Subject(), '.')+1:]
	if _, held := s.held.Load(id); held {
		// Its heartbeats were late, as the message server was away, but nobody else has
		// it: the lease goes on.
		return nil, msg.InProgress()
	}
	last, err := s.q.lastEvent(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case last == nil:
		if l.Job, err = decodeJob(msg.Data()); err != nil {
			l.Job = &Job{ID: id, Tenant: DefaultTenant, Task: "text.unknown", Priority: Normal, Created: time.Now().UTC()}
			return nil, l.Fail(ctx, Problemf("unreadable_job", "The stored job cannot be read: %v.", err))
		}
	case last.Terminal():
		return nil, l.ack(ctx)
	default:
		l.last = last.Seq
		if l.Job, err = s.q.jobAt(ctx, last); err != nil {
			return nil, err
		}
	}
	if l.Job.State == Running {
		l.fault("the worker stopped without handing the job back")
	}
	if l.Job.Deadline != nil && time.Now().After(*l.Job.Deadline) {
		return nil, l.Fail(ctx, deadlineProblem)
	}
	if l.Job.Attempts >= s.q.opts.MaxAttempts {
		return nil, l.Fail(ctx, l.exhausted())
	}
	return s.checkNeeds(ctx, l)
}

// checkNeeds returns the lease if every needed job has succeeded.
func (s *Source) checkNeeds(ctx context.Context, l *Lease) (*Lease, error) {
	for _, id := range l.Job.Needs {
		need, err := s.q.Job(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, l.Fail(ctx, Problemf("need_missing", "The job needs %s, which does not exist.", id))
		case err != nil:
			return nil, err
		case need.State == Succeeded:
			l.Needs = append(l.Needs, need)
		case need.State.Terminal():
			return nil, l.Fail(ctx, Problemf("need_failed", "The job needs %s, which %s.", id, ended[need.State]))
		default:
			return nil, l.msg.NakWithDelay(aside(l.Job, time.Now()))
		}
	}
	return l, nil
}

var ended = map[State]string{Failed: "failed", Canceled: "was canceled"}

var deadlineProblem = &Problem{Code: "deadline_exceeded", Detail: "The job's deadline passed before it ended."}
