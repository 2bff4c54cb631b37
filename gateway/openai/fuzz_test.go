package openai

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"helicon/queue"
)

// FuzzRequest feeds bodies to the translation of all routes: none may panic it, and what it
// translates is jobs.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}],"stop":["a"],"logprobs":true,"top_logprobs":2,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","messages":[{"role":"developer","content":[{"type":"text","text":"hi"}]}],"response_format":{"type":"text"},"tools":[]}`,
		`{"model":"m","prompt":["a","b"],"logprobs":1,"best_of":1,"n":1,"top_k":-1}`, `{"model":"m","prompt":[[1]]}`,
		`{"model":"m","input":"hi","instructions":"x","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"f"},"text":{"format":{"type":"json_schema","schema":{}}}}`,
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"}]}`,
		`{"model":"m","input":"x","previous_response_id":"resp_01ARZ3NDEKTSV4RRFFQ69G5FAV"}`, `{"prompt":"x","size":"512x512","n":2,"quality":"hd"}`,
		`{"model":"m","messages":[null]}`, `{"model":"m","messages":[{"role":"user","content":[null]}]}`, `{"stream_options":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		api := New(nobody{})
		for _, path := range Endpoints() {
			x, err := api.Translate(t.Context(), path, "", body)
			check(t, err)
			if err != nil {
				continue
			}
			if len(x.Jobs) == 0 || x.whole == nil {
				t.Fatalf("%s: %q became no job", path, body)
			}
			for _, job := range x.Jobs {
				if job.Task == "" || !json.Valid(job.Input) {
					t.Fatalf("%s: %q became the job %+v", path, body, job)
				}
				job.ID, job.State = "x", queue.Running
				if path == responsePath {
					if _, err := newResponse(job); err != nil {
						t.Fatalf("%q: %v", body, err)
					}
				}
			}
		}
	})
}

// nobody is a backend in which there is no job.
type nobody struct{ Backend }

// Job implements Backend.
func (nobody) Job(context.Context, string) (*queue.Job, error) { return nil, queue.ErrNotFound }

func check(t *testing.T, err error) {
	t.Helper()
	var problem *queue.Problem
	if err != nil && !errors.As(err, &problem) {
		t.Fatalf("refused without a problem: %v", err)
	}
	if problem != nil && NewError(400, problem).Message == "" {
		t.Fatalf("%v has no message", problem)
	}
}

func TestParam(t *testing.T) {
	t.Parallel()
	for pointer, want := range map[string]string{
		"/input/messages/0/role": "messages[0].role", "/model": "model", "/input": "input", "/stop/1": "stop[1]",
		"/input/1": "input[1]", "/input/input/1": "input[1]",
		"/metadata/a~1b": "metadata.a/b", "/0": "0",
	} {
		if got := param(pointer); got != want {
			t.Errorf("%s: %q, want %q", pointer, got, want)
		}
	}
}
