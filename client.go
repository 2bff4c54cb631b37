package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tmaxmax/go-sse"

	"helicon/queue"
)

// client speaks to a gateway, as any program outside would.
type client struct {
	base string // http://host:port
	key  string // sent with every request; "": none
	http *http.Client
}

// serverURL is the address of a gateway, which people may write without its scheme
// or with a final slash.
type serverURL string

// UnmarshalText reads an address.
func (s *serverURL) UnmarshalText(text []byte) error {
	address := string(text)
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is not an address such as 127.0.0.1:8080 or https://example.org", text)
	}
	*s = serverURL(strings.TrimSuffix(address, "/"))
	return nil
}

// errUnreachable says that no gateway answers at the client's address.
var errUnreachable = errors.New("no server answers")

// alive reports whether a gateway answers.
func (c *client) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var health struct{ Status string }
	return c.call(ctx, http.MethodGet, "/healthz", nil, &health) == nil && health.Status == "ok"
}

// submit sends a job and returns it as accepted.
func (c *client) submit(ctx context.Context, job *submission) (*queue.Job, error) {
	accepted := new(queue.Job)
	return accepted, c.call(ctx, http.MethodPost, "/v1/jobs", job, accepted)
}

// submission is the body of POST /v1/jobs.
type submission struct {
	Task     string         `json:"task"`
	Model    string         `json:"model,omitempty"`
	Input    map[string]any `json:"input"`
	Seed     *uint64        `json:"seed,omitempty"`
	Priority queue.Priority `json:"priority,omitempty"`
}

// cancel ends a job.
func (c *client) cancel(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPost, "/v1/jobs/"+id+"/cancel", nil, nil)
}

// call makes one request. An answer that is not a success becomes the *queue.Problem
// that it carries.
func (c *client) call(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	resp, err := c.do(ctx, method, path, payload, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("answer of %s%s: %w", c.base, path, err)
	}
	return nil
}

func (c *client) do(ctx context.Context, method, path string, body io.Reader, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s: %w: %w", c.base, errUnreachable, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	problem := new(queue.Problem)
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(problem); err != nil || problem.Detail == "" {
		return nil, fmt.Errorf("%s%s: %s", c.base, path, resp.Status)
	}
	return nil, problem
}

// reconnects is how often in a row a lost event stream is opened again.
const reconnects = 20

// follow calls each for the events of a job until the terminal one, and opens the
// stream again behind the last event when the connection breaks.
func (c *client) follow(ctx context.Context, id string, each func(*queue.Event) error) error {
	var after uint64
	var lost error
	for tries := 0; tries < reconnects; tries++ {
		before := after
		ended, err := c.stream(ctx, id, &after, each)
		var problem *queue.Problem
		if ended || ctx.Err() != nil || errors.As(err, &problem) {
			return err
		}
		if lost = err; after != before {
			tries = 0
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return lost
}

// stream reads the events behind sequence after once, and says whether the job ended.
func (c *client) stream(ctx context.Context, id string, after *uint64, each func(*queue.Event) error) (ended bool, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/jobs/"+id+"/events", nil, map[string]string{
		"Accept": "text/event-stream", "Last-Event-ID": strconv.FormatUint(*after, 10),
	})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	for message, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: 64 << 20}) {
		if err != nil {
			return false, fmt.Errorf("%s: %w: %w", c.base, errUnreachable, err)
		}
		e := new(queue.Event)
		if err := json.NewDecoder(strings.NewReader(message.Data)).Decode(e); err != nil {
			return true, fmt.Errorf("event of job %s: %w", id, err)
		}
		if seq, err := strconv.ParseUint(message.LastEventID, 10, 64); err == nil {
			*after = seq
		}
		if err := each(e); err != nil {
			return true, err
		}
		if e.Terminal() {
			return true, nil
		}
	}
	return false, fmt.Errorf("%s: %w: the event stream broke off", c.base, errUnreachable)
}
