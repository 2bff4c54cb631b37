package openai

import (
	"encoding/json"
	"errors"
	"testing"

	"helicon/gateway/strict"
	"helicon/queue"
)

// FuzzRequest feeds bodies to the translation of both routes: none may panic it, and
// what it translates is a job's input.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}],"stop":["a"],"logprobs":true,"top_logprobs":2,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","messages":[{"role":"developer","content":[{"type":"text","text":"hi"}]}],"response_format":{"type":"text"},"tools":[]}`,
		`{"model":"m","prompt":["a","b"],"logprobs":1,"best_of":1,"n":1,"top_k":-1}`, `{"model":"m","prompt":[[1]]}`,
		`{"model":"m","messages":[null]}`, `{"model":"m","messages":[{"role":"user","content":[null]}]}`, `{"stream_options":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if strict.Check(body) != nil {
			return
		}
		var chat chatRequest
		err := strict.Object(body, "", &chat)
		if err == nil {
			err = translated(chat.call())
		}
		check(t, err)
		var text completionRequest
		err = strict.Object(body, "", &text)
		if err == nil {
			err = translated(text.call())
		}
		check(t, err)
	})
}

var errNoInput = errors.New("a call without input")

func translated(c *call, err error) error {
	if err != nil {
		return err
	}
	if len(c.inputs) == 0 || c.model == "" || c.task == "" || c.dialect == nil {
		return errNoInput
	}
	for _, in := range c.inputs {
		if _, err := json.Marshal(in); err != nil {
			return err
		}
	}
	return nil
}

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
