// Package generators runs jobs: it holds the contract between a modality and the
// queue (Generator), and the Worker that leases jobs, admits them to memory, runs
// them and commits what became of them. It knows no model and no modality.
package generators

import (
	"context"
	"errors"
	"io"

	"helicon/queue"
)

// Generator makes the results of the tasks of one modality. Its methods may be
// called concurrently.
type Generator interface {
	// Tasks describes what it can do.
	Tasks() []queue.Task
	// Models lists the models that it can do it with, as they are now.
	Models() []queue.Model
	// Estimate says what a job will take while it runs, without loading anything.
	// Input that can be judged so early is refused here, by a *queue.Problem.
	Estimate(job *queue.Job) (Need, error)
	// Generate runs a job; needs are the succeeded jobs that the job names as its
	// needs. It returns soon (within one step or token) after ctx has ended.
	//
	// The kind of the error decides the job's fate: a *queue.Problem is final and shown
	// to the user, a Transient error is tried again after a pause, and so is any other,
	// of which the user sees only that it happened and the log the rest.
	Generate(ctx context.Context, job *queue.Job, needs []*queue.Job, out Output) (*queue.Result, error)
}

// Together is implemented by a Generator whose jobs gain from each other's company, as
// those do whose tokens are computed in one batch.
type Together interface {
	// Together is how many of its jobs a worker should run at once.
	Together() int
}

// Output takes what a running job has to show before its end. Deltas and progress
// of a choice are passed on in the order of the calls, gathered so that watchers see a
// few events a second; neither call waits for the network. Both may be called
// concurrently.
type Output interface {
	// Progress says that step of total steps are done. The time left is worked out
	// from the speed between calls.
	Progress(step, total int)
	// Delta adds text to one choice, at the offset that the delta states.
	Delta(d queue.Delta)
	// Preview shows what the running step has made so far, as a data URL of a small picture
	// of at most MaxPreview bytes; a longer one is left out. Of several that a watcher
	// would see at once, the last one stays.
	Preview(url string)
	// Artifact stores the bytes of r under their digest, waiting for the message server
	// if need be, announces them, and returns the description for the result.
	Artifact(ctx context.Context, r io.ReadSeeker, about queue.Artifact) (queue.Artifact, error)
}

// MaxPreview is the length of a preview's data URL at most.
const MaxPreview = 32 << 10

// Need is what a job takes while it runs.
type Need struct {
	Memory int64     // bytes of its own: activations, KV cache
	Model  Footprint // the model it runs on, shared with other jobs; the zero value is none
}

// Footprint names a model that takes memory while it is loaded.
type Footprint struct {
	Key   string // unique among the generators that share a Memory; the model's id, unless ID is set
	Bytes int64
	ID    string // the model's id where Key says more, such as what is merged into it
}

// transientError marks an error as worth another attempt.
type transientError struct{ error }

// Unwrap returns the error that was marked.
func (e transientError) Unwrap() error { return e.error }

// Transient marks err as passing: the job is tried again after a pause. If err is
// or wraps a *queue.Problem, its sentence is recorded as the reason of the failed
// attempt, for the user to see.
func Transient(err error) error { return transientError{err} }

// IsTransient reports whether err was marked by Transient.
func IsTransient(err error) bool {
	var t transientError
	return errors.As(err, &t)
}
