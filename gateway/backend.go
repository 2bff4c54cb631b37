package gateway

import (
	"context"
	"io"
	"iter"
	"net/http"
	"time"

	"helicon/queue"
)

// backend lends the OpenAI-compatible routes what they share with the native ones.
type backend struct{ g *Gateway }

// Accept validates and submits a job.
func (b backend) Accept(r *http.Request, body []byte, slot int, job *queue.Job) (*queue.Job, error) {
	accepted, _, err := b.g.accept(r, body, slot, job)
	return accepted, err
}

// Hold prepares a request to be answered slowly.
func (b backend) Hold(w http.ResponseWriter, r *http.Request) (context.Context, func(), error) {
	return b.g.hold(w, r)
}

// Watch yields a job's events until its end.
func (b backend) Watch(ctx context.Context, id string) iter.Seq2[*queue.Event, error] {
	return b.g.watch(ctx, id, 0)
}

// Cancel ends a job that nobody waits for any more.
func (b backend) Cancel(ctx context.Context, id string) error {
	_, err := b.g.queue.Cancel(ctx, id)
	return err
}

// Digest returns the digest of a model, or "" while no worker serves it.
func (b backend) Digest(ctx context.Context, model string) string {
	l, err := b.g.directory.list(ctx)
	if err != nil {
		return ""
	}
	if m := l.model(model); m != nil {
		return m.Digest
	}
	return ""
}

// Store keeps a file that is part of a request, by the rules for uploads.
func (b backend) Store(ctx context.Context, file io.Reader, declared, name string) (queue.Artifact, error) {
	return b.g.store(ctx, file, declared, name)
}

// Artifact opens a stored file.
func (b backend) Artifact(ctx context.Context, digest string) (queue.Artifact, io.ReadSeekCloser, error) {
	return b.g.queue.Artifact(ctx, digest)
}

// Explain returns what an error means to a client.
func (b backend) Explain(err error) (int, *queue.Problem) { return explain(err) }

// Sender writes to a client that may be slow.
func (b backend) Sender(w http.ResponseWriter) func([]byte) error { return b.g.sender(w) }

// Heartbeat is the pause after which a silent stream is pinged.
func (b backend) Heartbeat() time.Duration { return b.g.config.Heartbeat }
