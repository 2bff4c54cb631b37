package gateway

import (
	"cmp"
	"context"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/openai"
	"helicon/queue"
)

// openAI serves an OpenAI-compatible route under the limits of the native ones.
func (g *Gateway) openAI(h openai.Handler) handler {
	return func(c *gin.Context) error {
		r := c.Request
		r.Body = http.MaxBytesReader(c.Writer, r.Body, int64(h.Files)*g.config.MaxUpload+h.Body+g.maxBody())
		if h.Files > 0 || h.Body > 0 {
			r.Body = &patientReader{ReadCloser: r.Body, control: http.NewResponseController(c.Writer)}
		}
		for _, p := range c.Params {
			r.SetPathValue(p.Key, p.Value)
		}
		return h.Serve(c.Writer, r)
	}
}

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

// Job returns a job of the caller.
func (b backend) Job(ctx context.Context, id string) (*queue.Job, error) { return b.g.record(ctx, id) }

// Cancel ends a job of the caller.
func (b backend) Cancel(ctx context.Context, id string) (*queue.Job, error) {
	if _, err := b.g.job(ctx, id); err != nil {
		return nil, err
	}
	return b.g.queue.Cancel(ctx, id)
}

// Delete removes a job of the caller that has ended.
func (b backend) Delete(ctx context.Context, id string) error { return b.g.forget(ctx, id) }

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

// Artifact opens a stored file of a tenant.
func (b backend) Artifact(ctx context.Context, tenant, digest string) (queue.Artifact, io.ReadSeekCloser, error) {
	return b.g.queue.Artifact(ctx, tenant, digest)
}

// KeepFile stores a file, by the rules for uploads but for their size.
func (b backend) KeepFile(ctx context.Context, file io.Reader, limit int64, declared, name string) (*queue.File, error) {
	stored, err := b.g.storeLarge(ctx, file, limit, declared, name)
	if err != nil {
		return nil, err
	}
	return &queue.File{Name: cmp.Or(cleanName(name), "file"), Artifact: stored}, nil
}

// File returns a file of the caller.
func (b backend) File(ctx context.Context, id string) (*queue.File, error) {
	return b.g.queue.File(ctx, principalOf(ctx).Tenant, id)
}

// Files returns the records of files and who calls.
func (b backend) Files(ctx context.Context) (*queue.Records, string) {
	return b.g.queue.Files(), principalOf(ctx).Tenant
}

// SendFile answers with the bytes of a file, to be saved rather than shown.
func (b backend) SendFile(w http.ResponseWriter, r *http.Request, f *queue.File) error {
	about, content, err := b.g.queue.Artifact(r.Context(), principalOf(r.Context()).Tenant, f.Artifact.SHA256)
	if err != nil {
		return err
	}
	defer content.Close()
	about.Name, about.MediaType = f.Name, "application/octet-stream"
	return b.g.send(w, r, about, content, true)
}

// Explain returns what an error means to a client.
func (b backend) Explain(err error) (int, *queue.Problem) { return explain(err) }

// Sender writes to a client that may be slow.
func (b backend) Sender(w http.ResponseWriter) func([]byte) error { return b.g.sender(w) }

// Heartbeat is the pause after which a silent stream is pinged.
func (b backend) Heartbeat() time.Duration { return b.g.config.Heartbeat }
