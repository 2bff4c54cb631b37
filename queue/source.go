package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Source hands out queued jobs of some modalities to one worker. It takes the tenants in
// turn: the next job is of the one whose last is longest ago.
type Source struct {
	q          *Queue
	worker     string
	modalities []string
	wake       chan struct{}
	subs       []*nats.Subscription
	held       sync.Map // ids of the jobs whose leases are held
	tireless   bool

	turn     int       // jobs handed out so far
	surveyed time.Time // when the lines were last listed; zero: they are to be
	pace     time.Duration

	reconnects uint64 // of the connection, when it was last looked at

	mu    sync.Mutex
	lines map[line]*lineState // those in which there may be jobs
}

// lineState is what a source knows of a line.
type lineState struct {
	ready    bool               // a job may wait
	served   int                // the turn on which its last job was handed out
	visited  time.Time          // when it was last looked into
	consumer jetstream.Consumer // nil until it is needed
}

const (
	// sourcePoll is how often an idle worker looks by itself: for jobs that come back, of
	// which no message tells. It looks into at most pollLines lines, those longest unvisited.
	sourcePoll = time.Second
	pollLines  = 32

	// A survey lists all lines: at first, after an interruption, and then at a pace that
	// leaves it a small share of the time.
	surveyPace  = 10 * time.Second
	surveyShare = 100
)

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
// server may be away. The methods of a Source are for one goroutine.
func (q *Queue) NewSource(ctx context.Context, worker string, modalities ...string) (*Source, error) {
	s := &Source{q: q, worker: worker, modalities: modalities, wake: make(chan struct{}, 1), lines: map[line]*lineState{}}
	for _, modality := range modalities {
		sub, err := q.nc.Subscribe("wake."+modality+".*.*", s.woken)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("queue: source: %w", q.explain(err))
		}
		s.subs = append(s.subs, sub)
	}
	if err := s.survey(ctx); err != nil && !errors.Is(err, ErrUnavailable) {
		s.Close()
		return nil, err
	}
	return s, nil
}

// woken notes the line that a new job stands in.
func (s *Source) woken(msg *nats.Msg) {
	if l, ok := parseLine(msg.Subject[len("wake."):], "."); ok {
		s.mu.Lock()
		s.state(l).ready = true
		s.mu.Unlock()
		poke(s.wake)
	}
}

// state returns what is known of a line. s.mu is held.
func (s *Source) state(l line) *lineState {
	state := s.lines[l]
	if state == nil {
		state = &lineState{}
		s.lines[l] = state
	}
	return state
}

// Tireless makes the source hand out jobs however often they were begun: their attempts go
// on where the ones before stopped.
func (s *Source) Tireless() { s.tireless = true }

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
			s.revisit()
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
	if n := s.q.nc.Stats().Reconnects; n != s.reconnects {
		s.reconnects = n
		s.forget() // what was told in between was missed
	}
	if time.Since(s.surveyed) > s.pace {
		if err := s.survey(ctx); err != nil {
			return nil, false, err
		}
	}
	for _, p := range order(s.turn) {
		for {
			l, ok := s.choose(p)
			if !ok {
				break
			}
			msg, err := s.fetch(ctx, l)
			if err != nil {
				s.forget() // the message server that comes back may be a new one
				return nil, false, err
			}
			if msg == nil {
				continue
			}
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

// choose returns the line of a priority that is next: of those where a job may wait the
// one whose last job was handed out longest ago. It is then taken for empty, until it
// turns out not to be.
func (s *Source) choose(p Priority) (next line, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var longest *lineState
	for l, state := range s.lines {
		if l.priority != p || !state.ready || longest != nil && !state.before(longest) {
			continue
		}
		next, longest = l, state
	}
	if longest == nil {
		return next, false
	}
	longest.ready = false
	longest.visited = time.Now()
	return next, true
}

// before orders lines in which jobs wait.
func (l *lineState) before(other *lineState) bool {
	if l.served != other.served {
		return l.served < other.served
	}
	return l.visited.Before(other.visited)
}

// revisit has lines looked into in which there are jobs, but not for this worker when it
// last looked: they may have come back since.
func (s *Source) revisit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var resting []*lineState
	for _, state := range s.lines {
		if !state.ready {
			resting = append(resting, state)
		}
	}
	slices.SortFunc(resting, func(a, b *lineState) int { return a.visited.Compare(b.visited) })
	for _, state := range resting[:min(len(resting), pollLines)] {
		state.ready = true
	}
}

// forget has the lines listed anew before anything else.
func (s *Source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surveyed = time.Time{}
	for _, state := range s.lines {
		state.consumer = nil
	}
}

// survey lists the lines: it finds those in which jobs wait or may come back, lets those
// go that are idle, and opens those that should be there and are not.
func (s *Source) survey(ctx context.Context) error {
	if err := s.q.connected(); err != nil {
		return err
	}
	begun := time.Now()
	all, astray, err := s.q.reviewed(ctx)
	if err != nil {
		return err
	}
	var found []line
	if astray {
		if found, err = s.q.reopen(ctx, all); err != nil {
			return err
		}
	}
	s.mu.Lock()
	resting := map[line]bool{} // those known that nothing was told of since
	for l, state := range s.lines {
		resting[l] = !state.ready
	}
	var idle []line
	for _, l := range all {
		switch {
		case !slices.Contains(s.modalities, l.modality):
		case l.waiting > 0:
			s.state(l.line).ready = true
		case l.given > 0:
			s.state(l.line)
			delete(resting, l.line)
		case l.idle(s.q.opts.lineIdle):
			idle = append(idle, l.line)
		}
	}
	for _, l := range found {
		if slices.Contains(s.modalities, l.modality) {
			s.state(l).ready = true
		}
	}
	for l, rests := range resting {
		if rests && !s.lines[l].ready {
			delete(s.lines, l)
		}
	}
	s.mu.Unlock()
	for _, l := range idle {
		if err := s.q.closeLine(ctx, l); err != nil {
			return err
		}
	}
	s.surveyed = time.Now()
	s.pace = max(surveyPace, surveyShare*s.surveyed.Sub(begun))
	return nil
}

// fetch returns the next message of a line, or nil.
func (s *Source) fetch(ctx context.Context, l line) (jetstream.Msg, error) {
	s.mu.Lock()
	state := s.state(l)
	consumer := state.consumer
	s.mu.Unlock()
	var msg jetstream.Msg
	var err error
	if consumer != nil {
		msg, err = fetch(consumer)
	}
	if consumer == nil || err != nil { // it may have gone since
		if consumer, err = s.q.openLine(ctx, l); err != nil {
			return nil, err
		}
		if msg, err = fetch(consumer); err != nil {
			return nil, s.q.explain(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state.consumer = consumer
	if msg != nil {
		s.turn++
		state.served = s.turn
		state.ready = true
	}
	return msg, nil
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
	if l.Job.State == Running && !s.tireless {
		l.fault("the worker stopped without handing the job back")
	}
	if l.Job.Deadline != nil && time.Now().After(*l.Job.Deadline) {
		return nil, l.Fail(ctx, deadlineProblem)
	}
	if l.Job.Attempts >= s.q.opts.MaxAttempts && !s.tireless {
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
