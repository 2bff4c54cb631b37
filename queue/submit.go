package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Submit accepts a job: when it returns without error the job is durable and will
// end. It fills ID, Tenant, Priority and Created where they are empty and sets the
// state. The errors are a *Problem for an invalid job, ErrTooLarge, ErrFull and
// ErrUnavailable; after ErrUnavailable the job may have been accepted or not, and
// submitting the same ID again does not make a second one.
func (q *Queue) Submit(ctx context.Context, job *Job) error {
	if err := q.prepare(job); err != nil {
		return err
	}
	if err := q.refer(ctx, job); err != nil {
		return err
	}
	return q.publish(ctx, job)
}

func (q *Queue) prepare(job *Job) error {
	if job.ID == "" {
		job.ID = NewID()
	}
	if job.Tenant == "" {
		job.Tenant = DefaultTenant
	}
	if job.Priority == "" {
		job.Priority = Normal
	}
	if len(job.Input) == 0 {
		job.Input = json.RawMessage("{}")
	}
	job.State = Queued
	job.Created = time.Now().UTC()
	if problem := job.Validate(); problem != nil {
		return problem
	}
	if len(job.Input) > q.MaxInput() {
		return fmt.Errorf("%w: input of %d bytes, at most %d", ErrTooLarge, len(job.Input), q.MaxInput())
	}
	return q.writable()
}

// publish is the moment of acceptance: one append to JOBS. The queued event that
// follows is a courtesy to watchers and may be lost: readers find the job in JOBS.
func (q *Queue) publish(ctx context.Context, job *Job) error {
	body, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("queue: job %s: %w", job.ID, err)
	}
	if largest := int(q.nc.MaxPayload()) - envelope; len(body) > largest {
		// Its events, which carry the job, could not be stored: it would never end.
		return fmt.Errorf("%w: job of %d bytes, at most %d", ErrTooLarge, len(body), largest)
	}
	l := lineOf(job)
	if err := q.ensureLine(ctx, l); err != nil {
		return err
	}
	msg := nats.NewMsg(l.subject(job.ID))
	msg.Data = body
	msg.Header.Set(jetstream.MsgIDHeader, job.ID)
	ack, err := q.store(ctx, q.accepting, msg)
	if err != nil {
		return fmt.Errorf("queue: submit: %w", q.explain(err))
	}
	if !ack.Duplicate {
		q.accepted.Add(1)
		q.tally.submitted(job.Tenant)
		// An error changes nothing: the job is accepted, and its first stored event will be
		// started, which may even have come first.
		_, _ = q.record(ctx, &Event{Type: EventQueued, JobID: job.ID, Tenant: job.Tenant, Time: time.Now().UTC()}, body, 0)
		return nil
	}
	// Accepted before, perhaps with another seed. If it was deleted since, a queued event
	// would bring back a job that no worker is ever given.
	accepted, err := q.Job(ctx, job.ID)
	if err != nil {
		return err
	}
	*job = *accepted
	_, _ = q.append(ctx, &Event{Type: EventQueued, JobID: job.ID, Job: job}, 0)
	return nil
}

// key is what the idempotency bucket remembers of a request.
type key struct {
	JobID       string    `json:"job_id"`
	Fingerprint string    `json:"fingerprint"`
	Created     time.Time `json:"created"`
}

// SubmitOnce submits a job unless one was already submitted with the same key by
// the same tenant within window (at most 24 h), and returns the job that holds the
// key and whether it is the earlier one. fingerprint identifies the content of the
// request: ErrKeyReused if the key was used with another. A window of 0 always
// submits, and takes the key over from whichever job holds it.
func (q *Queue) SubmitOnce(ctx context.Context, idempotencyKey, fingerprint string, window time.Duration, job *Job) (*Job, bool, error) {
	if err := q.prepare(job); err != nil {
		return nil, false, err
	}
	if err := q.refer(ctx, job); err != nil {
		return nil, false, err
	}
	held, err := q.claim(ctx, keyName(job.Tenant, idempotencyKey), key{JobID: job.ID, Fingerprint: fingerprint, Created: job.Created}, window)
	if err != nil {
		return nil, false, fmt.Errorf("queue: idempotency key: %w", q.explain(err))
	}
	if held.Fingerprint != fingerprint {
		return nil, false, ErrKeyReused
	}
	if held.JobID != job.ID {
		earlier, err := q.Job(ctx, held.JobID)
		if !errors.Is(err, ErrNotFound) {
			return earlier, true, err
		}
		// Whoever claimed the key died before the job was accepted: accept it now, under
		// the id that was claimed, so that two who find this at once make one job.
		job.ID = held.JobID
	}
	err = q.publish(ctx, job)
	if errors.Is(err, ErrNotFound) {
		// The key's job was deleted a moment ago: the request stands for a new one.
		job.ID = NewID()
		return q.SubmitOnce(ctx, idempotencyKey, fingerprint, 0, job)
	}
	if err != nil {
		return nil, false, err
	}
	return job, false, nil
}

// keyName is the name of a tenant's key in the bucket, whatever characters it has.
func keyName(tenant, idempotencyKey string) string {
	sum := sha256.Sum256([]byte(tenant + "\x00" + idempotencyKey))
	return hex.EncodeToString(sum[:])
}

// claim stores the key if it is free or older than window and returns the one that holds the name.
func (q *Queue) claim(ctx context.Context, name string, k key, window time.Duration) (key, error) {
	value, err := json.Marshal(k)
	if err != nil {
		return key{}, err
	}
	for {
		_, err := q.keys.Create(ctx, name, value)
		if err == nil {
			return k, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return key{}, err
		}
		entry, err := q.keys.Get(ctx, name)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // it expired in between
		}
		if err != nil {
			return key{}, err
		}
		var held key
		if err := json.Unmarshal(entry.Value(), &held); err != nil {
			return key{}, err
		}
		if window > 0 && k.Created.Sub(held.Created) < window {
			return held, nil
		}
		if _, err := q.keys.Update(ctx, name, value, entry.Revision()); err == nil {
			return k, nil
		} else if !errors.Is(err, jetstream.ErrKeyExists) && !isConflict(err) {
			return key{}, err
		}
	}
}

// errConflict says that another event was appended to the job first.
var errConflict = errors.New("queue: another event came first")

// append stores an event behind the job's event of sequence last (0: the first)
// and returns its sequence; errConflict if another came first.
func (q *Queue) append(ctx context.Context, e *Event, last uint64) (uint64, error) {
	if e.Job == nil {
		return q.record(ctx, e, nil, last)
	}
	job, err := json.Marshal(e.Job)
	if err != nil {
		return 0, fmt.Errorf("queue: event %s of job %s: %w", e.Type, e.JobID, err)
	}
	e.Tenant = e.Job.Tenant
	return q.record(ctx, e, job, last)
}

// record is append with the event's job, if it carries one, in JSON already.
func (q *Queue) record(ctx context.Context, e *Event, job []byte, last uint64) (uint64, error) {
	if err := q.connected(); err != nil {
		return 0, err
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	bare := *e
	bare.Job = nil
	body, err := json.Marshal(&bare)
	if err != nil {
		return 0, fmt.Errorf("queue: event %s of job %s: %w", e.Type, e.JobID, err)
	}
	if job != nil {
		body = slices.Concat(body[:len(body)-1], []byte(`,"job":`), job, []byte("}"))
	}
	msg := nats.NewMsg("events." + e.JobID)
	msg.Data = body
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(last, 10))
	ack, err := q.store(ctx, q.recording, msg)
	if isConflict(err) {
		return 0, errConflict
	}
	if err != nil {
		return 0, fmt.Errorf("queue: event %s of job %s: %w", e.Type, e.JobID, q.explain(err))
	}
	e.Seq = ack.Sequence
	return ack.Sequence, nil
}

func isConflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
