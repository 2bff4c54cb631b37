package queue

import "time"

// EventType names what happened to a job.
type EventType string

// The types of events. All but progress, token and artifact change the state.
const (
	EventQueued    EventType = "queued"
	EventStarted   EventType = "started"
	EventProgress  EventType = "progress"
	EventToken     EventType = "token"
	EventArtifact  EventType = "artifact"
	EventSucceeded EventType = "succeeded"
	EventFailed    EventType = "failed"
	EventCanceled  EventType = "canceled"
)

// Event is one entry in the record of a job. An event that changes the state
// carries the whole job as it then was; the others carry only what is new and the
// sequence of the last one that did, so that any last event leads to the job.
type Event struct {
	Seq      uint64    `json:"-"` // place in the EVENTS stream; ordered, not consecutive, within a job
	Type     EventType `json:"type"`
	JobID    string    `json:"job_id"`
	Tenant   string    `json:"tenant"` // the job's
	Time     time.Time `json:"time"`
	Snapshot uint64    `json:"snapshot,omitempty"` // sequence of the event that carries the job

	Job      *Job      `json:"job,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Delta    *Delta    `json:"delta,omitempty"`
	Artifact *Artifact `json:"artifact,omitempty"`
	Preview  string    `json:"preview,omitempty"` // data URL of a small picture
}

// Terminal reports whether the event ends its job.
func (e *Event) Terminal() bool {
	return e.Type == EventSucceeded || e.Type == EventFailed || e.Type == EventCanceled
}

// Delta is text that a running job has written since its last delta.
type Delta struct {
	Text     string         `json:"text"`
	Offset   int            `json:"offset"`           // bytes of text written before this delta in its choice
	Choice   int            `json:"choice,omitempty"` // which of several answers it belongs to
	Logprobs []TokenLogprob `json:"logprobs,omitempty"`
}

// TokenLogprob is one sampled token with its natural log probability under the
// model's unfiltered distribution, and those of the likeliest tokens in its place.
type TokenLogprob struct {
	Token   string         `json:"token"`
	Bytes   []int          `json:"bytes"`
	Logprob float64        `json:"logprob"`
	Top     []TokenLogprob `json:"top,omitempty"`
}
