package openai

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"helicon/queue"
)

// gallery is the state of an answer with pictures.
type gallery struct {
	api     *API
	request *imageRequest
	job     *queue.Job
	origin  string // of URLs
	edit    bool   // the events are named after edits
	answer  http.Header
	send    func([]byte) error

	open     bool // the answer has begun to be a stream
	seen     int  // artifacts of the current attempt
	sent     int  // pictures
	partials int  // partial pictures of the one that is being made
}

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
func (s *gallery) quality() string {
	switch q := s.request.Quality; q {
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

// whole answers when the job has ended. Pictures are sent one by one: all of them together
// may be large.
func (s *gallery) whole(ctx context.Context) error {
	ended, err := s.await(ctx)
	if err != nil {
		return err
	}
	made := ended.Result.Artifacts
	if len(made) == 0 {
		return fmt.Errorf("openai: job %s: succeeded without a picture", s.job.ID)
	}
	head, err := encode(imageAnswer{
		Created: ended.Created.Unix(), Background: opaque, OutputFormat: formatOf(&made[0]),
		Quality: s.quality(), Size: sizeOf(&made[0]), Usage: newImageUsage(ended.Result.Usage),
	})
	if err != nil {
		return err
	}
	before := append(bytes.TrimSuffix(bytes.TrimSpace(head), []byte("}")), `,"data":[`...)
	for i := range made {
		datum, err := s.datum(ctx, &made[i])
		if err != nil {
			return err
		}
		s.answer.Set("Content-Type", "application/json")
		if err := s.send(append(before, bytes.TrimSpace(datum)...)); err != nil {
			return &sentError{err}
		}
		before = []byte(",")
	}
	if err := s.send([]byte("]}\n")); err != nil {
		return &sentError{err}
	}
	return nil
}

// datum is a picture in the form that the request wants.
func (s *gallery) datum(ctx context.Context, a *queue.Artifact) ([]byte, error) {
	var d imageDatum
	if s.request.ResponseFormat != asB64 {
		d.URL = s.origin + a.URL
	}
	if s.request.ResponseFormat != asURL {
		var err error
		if d.B64JSON, err = s.base64(ctx, a); err != nil {
			return nil, err
		}
	}
	return encode(d)
}

// base64 reads a stored picture.
func (s *gallery) base64(ctx context.Context, a *queue.Artifact) (string, error) {
	_, file, err := s.api.backend.Artifact(ctx, a.SHA256)
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

// stream answers with events while the job runs.
func (s *gallery) stream(ctx context.Context) error {
	happenings, stop := s.api.follow(ctx, []*queue.Job{s.job})
	defer stop()
	heartbeat := time.NewTicker(s.api.backend.Heartbeat())
	defer heartbeat.Stop()
	for {
		var err error
		var ended bool
		select {
		case h := <-happenings:
			if err = h.err; err == nil {
				err = s.take(ctx, h.event)
				ended = h.event.Terminal()
			}
			heartbeat.Reset(s.api.backend.Heartbeat())
		case <-heartbeat.C:
			err = s.ping()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return s.fail(err)
		}
		if ended {
			return nil
		}
	}
}

// take passes on what an event of the job adds.
func (s *gallery) take(ctx context.Context, e *queue.Event) error {
	switch {
	case e.Type == queue.EventStarted: // again, if an attempt was lost: pictures are not sent twice
		s.seen, s.partials = 0, 0
	case e.Type == queue.EventProgress && e.Preview != "" && e.Progress != nil:
		return s.partial(e)
	case e.Type == queue.EventArtifact && e.Artifact != nil:
		return s.completed(ctx, e.Artifact)
	case e.Terminal():
		if err := outcome(e.Job); err != nil {
			return err
		}
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
	data, err := s.base64(ctx, a)
	if err != nil {
		return err
	}
	s.sent = s.seen
	return s.event(imageEvent{Type: s.name("completed"), B64JSON: data, Size: sizeOf(a), OutputFormat: formatOf(a)})
}

func (s *gallery) name(event string) string {
	if s.edit {
		return "image_edit." + event
	}
	return "image_generation." + event
}

func (s *gallery) event(e imageEvent) error {
	e.CreatedAt, e.Quality, e.Background = s.job.Created.Unix(), s.quality(), opaque
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("openai: event: %w", err)
	}
	return s.write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", e.Type, text))
}

// write sends a part of the stream, which it begins if need be.
func (s *gallery) write(b []byte) error {
	if !s.open {
		s.open = true
		s.answer.Set("Content-Type", "text/event-stream")
		s.answer.Set("Cache-Control", "no-store")
		s.answer.Set("X-Accel-Buffering", "no") // for nginx
	}
	if err := s.send(b); err != nil {
		return &sentError{err}
	}
	return nil
}

func (s *gallery) ping() error { return s.write([]byte(": ping\n\n")) }

// fail tells an error within the stream if it has begun; else the route answers with it.
func (s *gallery) fail(err error) error {
	var sent *sentError
	if !s.open || errors.As(err, &sent) {
		return err
	}
	status, problem := s.api.backend.Explain(rename(err, imageNames()))
	text, failed := encode(ErrorBody{NewError(status, problem)})
	if failed != nil {
		return failed
	}
	if failed := s.write(fmt.Appendf(nil, "event: error\ndata: %s\n", text)); failed != nil {
		return failed
	}
	return &sentError{err}
}
