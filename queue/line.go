package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// line is where the jobs of one modality, priority and tenant wait: a durable consumer
// of JOBS, which hands them out in the order of their acceptance. It is opened before
// the first of them is accepted and goes when there has been none for a while.
type line struct {
	modality string
	priority Priority
	tenant   string
}

func lineOf(job *Job) line { return line{job.Modality(), job.Priority, job.Tenant} }

// name is the consumer's.
func (l line) name() string { return l.modality + "-" + string(l.priority) + "-" + l.tenant }

// subject is that of a job in the line; "*" stands for all.
func (l line) subject(job string) string {
	return "jobs." + l.modality + "." + string(l.priority) + "." + l.tenant + "." + job
}

// parseLine reads what lies between separators: a consumer's name or the middle of a subject.
func parseLine(s, separator string) (line, bool) {
	parts := strings.SplitN(s, separator, 3)
	if len(parts) != 3 {
		return line{}, false
	}
	return line{parts[0], Priority(parts[1]), parts[2]}, true
}

// answerTimeout is how long an answer about a line is waited for.
const answerTimeout = 5 * time.Second

const (
	// lineTrust is how long a process that submits relies on a line that it has opened.
	lineTrust = 5 * time.Minute
	// lineIdle is for how long nothing must have moved in an empty line before it goes. It
	// is longer than lineTrust, so that lines rarely go under a submission's feet; where one
	// does, a worker opens it again: at once when it is told of the job, else in its survey.
	lineIdle = 15 * time.Minute
)

// openLine creates a line if it is missing. One that is there is only read: an update,
// even to what it is, writes to the server's disk.
func (q *Queue) openLine(ctx context.Context, l line) (jetstream.Consumer, error) {
	// Reading one waits for an answer as long as the context lasts, and a server that went
	// away meanwhile never answers.
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c, err := q.jobs.Consumer(ctx, l.name())
	if err == nil && c.CachedInfo().Config.AckWait == q.opts.AckWait {
		return c, nil
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("queue: line %s: %w", l.name(), q.explain(err))
	}
	c, err = q.jobs.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       l.name(),
		FilterSubject: l.subject("*"),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       q.opts.AckWait,
		MaxDeliver:    -1, // attempts are counted in EVENTS, where hand-backs are free
		MaxAckPending: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("queue: line %s: %w", l.name(), q.explain(err))
	}
	return c, nil
}

// ensureLine opens the line of a job that is about to be submitted, unless this process
// has done so a short while ago. Many that need the same line open it once.
func (q *Queue) ensureLine(ctx context.Context, l line) error {
	if opened, ok := q.lines.Load(l); ok && time.Since(opened.(time.Time)) < lineTrust {
		return nil
	}
	opening := q.opening.DoChan(l.name(), func() (any, error) {
		_, err := q.openLine(context.WithoutCancel(ctx), l)
		if err == nil {
			q.lines.Store(l, time.Now())
		}
		return nil, err
	})
	select {
	case done := <-opening:
		return done.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// standing is a line as it was found.
type standing struct {
	line
	waiting int       // jobs that nobody was given yet
	given   int       // jobs that are with a worker, put aside, or on their way back
	passed  uint64    // sequence in JOBS up to which jobs were handed out
	moved   time.Time // when the last job was handed out or ended, or the line opened
	seen    time.Time // when this was so, by the same clock
}

// idle reports whether the line may go.
func (s *standing) idle(after time.Duration) bool {
	return s.waiting == 0 && s.given == 0 && s.seen.Sub(s.moved) > after
}

// census lists all lines.
func (q *Queue) census(ctx context.Context) ([]standing, error) {
	var all []standing
	list := q.jobs.ListConsumers(ctx)
	for info := range list.Info() {
		l, ok := parseLine(info.Name, "-")
		if !ok {
			continue // somebody else's
		}
		s := standing{
			line: l, waiting: int(info.NumPending), given: info.NumAckPending,
			passed: info.Delivered.Stream, moved: info.Created, seen: info.TimeStamp,
		}
		for _, at := range []*time.Time{info.Delivered.Last, info.AckFloor.Last} {
			if at != nil && at.After(s.moved) {
				s.moved = *at
			}
		}
		all = append(all, s)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("queue: lines: %w", q.explain(err))
	}
	return all, nil
}

// reviewed is a census together with whether there are jobs that it does not count: they
// stand in no line, or so new is the last one that the server has yet to count it. That is
// told from the number of messages, so that it costs little: a few such jobs may be
// overlooked while many are submitted, but not for long.
func (q *Queue) reviewed(ctx context.Context) (lines []standing, astray bool, err error) {
	before, err := q.jobs.Info(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("queue: lines: %w", q.explain(err))
	}
	if lines, err = q.census(ctx); err != nil {
		return nil, false, err
	}
	after, err := q.jobs.Info(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("queue: lines: %w", q.explain(err))
	}
	counted := after.State.LastSeq - before.State.LastSeq // those that have come since
	for _, l := range lines {
		counted += uint64(l.waiting + l.given)
	}
	return lines, after.State.Msgs > counted, nil
}

// reopen opens the lines of all jobs in JOBS that have none, and returns all lines in
// which there are jobs. It reads the subject of every job.
func (q *Queue) reopen(ctx context.Context, known []standing) ([]line, error) {
	open := map[line]bool{}
	for _, l := range known {
		open[l.line] = true
	}
	info, err := q.jobs.Info(ctx, jetstream.WithSubjectFilter("jobs.>"))
	if err != nil {
		return nil, fmt.Errorf("queue: lines: %w", q.explain(err))
	}
	found := map[line]bool{}
	for subject := range info.State.Subjects {
		middle := subject[len("jobs."):strings.LastIndexByte(subject, '.')]
		l, ok := parseLine(middle, ".")
		if !ok || found[l] {
			continue
		}
		found[l] = true
		if !open[l] {
			if _, err := q.openLine(ctx, l); err != nil {
				return nil, err
			}
		}
	}
	return slices.Collect(maps.Keys(found)), nil
}

// closeLine removes an idle line. A job that is submitted meanwhile is found by a survey.
func (q *Queue) closeLine(ctx context.Context, l line) error {
	q.lines.Delete(l)
	err := q.jobs.DeleteConsumer(ctx, l.name())
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("queue: line %s: %w", l.name(), q.explain(err))
	}
	return nil
}
