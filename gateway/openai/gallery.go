package openai

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"helicon/queue"
)

// imageAnswer is the body of an answer, but for the pictures.
type imageAnswer struct {
	Created      int64       `json:"created"` // Unix seconds
	Background   string      `json:"background"`
	OutputFormat string      `json:"output_format"`
	Quality      string      `json:"quality"`
	Size         string      `json:"size"`
	Usage        *imageUsage `json:"usage,omitempty"`
}

// imageDatum is one picture of an answer. Where the request does not say which form it
// wants, it has both: clients of different ages look for either.
type imageDatum struct {
	B64JSON string `json:"b64_json,omitempty"`
	URL     string `json:"url,omitempty"`
}

type imageUsage struct {
	InputTokens  int `json:"input_tokens"`
	InputDetails struct {
		TextTokens  int `json:"text_tokens"`
		ImageTokens int `json:"image_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens int `json:"output_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// newImageUsage is nil where no tokens were counted: diffusion models have none to be paid.
func newImageUsage(u *queue.Usage) *imageUsage {
	if u == nil || u.InputTokens+u.OutputTokens == 0 {
		return nil
	}
	out := &imageUsage{InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, TotalTokens: u.InputTokens + u.OutputTokens}
	out.InputDetails.TextTokens = u.InputTokens
	return out
}

// imageEvent is an event of a stream.
type imageEvent struct {
	Type         string      `json:"type"`
	B64JSON      string      `json:"b64_json"`
	CreatedAt    int64       `json:"created_at"`
	Size         string      `json:"size"`
	Quality      string      `json:"quality"`
	Background   string      `json:"background"`
	OutputFormat string      `json:"output_format"`
	Index        *int        `json:"partial_image_index,omitempty"`
	Usage        *imageUsage `json:"usage,omitempty"`
}

// quality names the quality of the request as OpenAI does now.
func (r *imageRequest) quality() string {
	switch q := r.Quality; q {
	case "", "standard":
		return "auto"
	case "hd":
		return "high"
	default:
		return q
	}
}

const opaque = "opaque"

func formatOf(a *queue.Artifact) string { return strings.TrimPrefix(a.MediaType, "image/") }

func sizeOf(a *queue.Artifact) string { return fmt.Sprintf("%dx%d", a.Width, a.Height) }

// whole writes the answer that the ended job makes. Pictures are written one by one: all of them together may be large.
func (r *imageRequest) whole(ctx context.Context, d *delivery, w io.Writer) error {
	ended := d.jobs[0]
	made := ended.Result.Artifacts
	if len(made) == 0 {
		return fmt.Errorf("openai: job %s: succeeded without a picture", ended.ID)
	}
	var head bytes.Buffer
	err := writeJSON(&head, imageAnswer{
		Created: ended.Created.Unix(), Background: opaque, OutputFormat: formatOf(&made[0]),
		Quality: r.quality(), Size: sizeOf(&made[0]), Usage: newImageUsage(ended.Result.Usage),
	})
	if err != nil {
		return err
	}
	before := append(bytes.TrimSuffix(bytes.TrimSpace(head.Bytes()), []byte("}")), `,"data":[`...)
	for i := range made {
		datum, err := r.datum(ctx, d, &made[i])
		if err != nil {
			return err
		}
		if _, err := w.Write(append(before, bytes.TrimSpace(datum)...)); err != nil {
			return err
		}
		before = []byte(",")
	}
	_, err = w.Write([]byte("]}\n"))
	return err
}

// datum is a picture in the form that the request wants. In a batch of many rows that do not
// say, a URL has to do.
func (r *imageRequest) datum(ctx context.Context, d *delivery, a *queue.Artifact) ([]byte, error) {
	var datum imageDatum
	if r.ResponseFormat != asB64 {
		datum.URL = d.origin + a.URL
	}
	if r.ResponseFormat == asB64 || r.ResponseFormat == "" && !d.batch {
		var err error
		if datum.B64JSON, err = d.base64(ctx, a); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	err := writeJSON(&out, datum)
	return out.Bytes(), err
}

// base64 reads a file that the first job has made.
func (d *delivery) base64(ctx context.Context, a *queue.Artifact) (string, error) {
	_, file, err := d.api.backend.Artifact(ctx, d.jobs[0].Tenant, a.SHA256)
	if err != nil {
		return "", err
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		return "", fmt.Errorf("openai: artifact %s: %w", a.SHA256, err)
	}
	return base64.StdEncoding.EncodeToString(data), nil
}

// flow returns what streams the pictures.
func (r *imageRequest) flow(_ context.Context, d *delivery, out *events) flow {
	return &gallery{request: r, delivery: d, out: out}
}

// gallery is the state of a streamed answer.
type gallery struct {
	request  *imageRequest
	delivery *delivery
	out      *events

	seen     int // artifacts of the current attempt
	sent     int // pictures
	partials int // partial pictures of the one that is being made
}

// open implements flow.
func (s *gallery) open() error { return nil }

// close implements flow.
func (s *gallery) close() error { return nil }

// fail implements flow.
func (s *gallery) fail(e *Error) error { return s.out.event("error", ErrorBody{e}) }

// take implements flow.
func (s *gallery) take(ctx context.Context, _ int, e *queue.Event) error {
	switch {
	case e.Type == queue.EventStarted: // again, if an attempt was lost: pictures are not sent twice
		s.seen, s.partials = 0, 0
	case e.Type == queue.EventProgress && e.Preview != "" && e.Progress != nil:
		return s.partial(e)
	case e.Type == queue.EventArtifact && e.Artifact != nil:
		return s.completed(ctx, e.Artifact)
	case e.Terminal():
		s.seen = 0
		for i := range e.Job.Result.Artifacts { // those that no event brought
			if err := s.completed(ctx, &e.Job.Result.Artifacts[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// partial sends a preview if as much of the picture is done as its turn asks for: of two,
// the first is sent at a third and the second at two thirds. It is a small JPEG.
func (s *gallery) partial(e *queue.Event) error {
	wanted, pictures := whole(s.request.Partials), max(1, whole(s.request.N))
	if s.partials >= wanted || s.seen < s.sent || e.Progress.Total == 0 {
		return nil
	}
	done := float64(e.Progress.Step)*float64(pictures)/float64(e.Progress.Total) - float64(s.seen)
	if done < float64(s.partials+1)/float64(wanted+1) {
		return nil
	}
	_, data, ok := strings.Cut(e.Preview, ";base64,")
	if !ok {
		return nil
	}
	index := s.partials
	s.partials++
	return s.event(imageEvent{Type: s.name("partial_image"), B64JSON: data, Size: s.size(), OutputFormat: asJPEG, Index: &index})
}

// size is the one that was asked for.
func (s *gallery) size() string {
	if s.request.Size == "" {
		return "auto"
	}
	return s.request.Size
}

// completed sends a picture unless it was sent before.
func (s *gallery) completed(ctx context.Context, a *queue.Artifact) error {
	s.seen++
	s.partials = 0
	if s.seen <= s.sent {
		return nil
	}
	data, err := s.delivery.base64(ctx, a)
	if err != nil {
		return err
	}
	s.sent = s.seen
	return s.event(imageEvent{Type: s.name("completed"), B64JSON: data, Size: sizeOf(a), OutputFormat: formatOf(a)})
}

func (s *gallery) name(event string) string {
	if s.request.edit {
		return "image_edit." + event
	}
	return "image_generation." + event
}

func (s *gallery) event(e imageEvent) error {
	e.CreatedAt, e.Quality, e.Background = s.delivery.jobs[0].Created.Unix(), s.request.quality(), opaque
	return s.out.event(e.Type, e)
}
