package text

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"helicon/queue"
)

// TestWholeNumbers checks that integers may be written in any way that JSON has.
func TestWholeNumbers(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	body := `{"prompt":"x","max_tokens":1e1,"top_k":30.0,"n":2.0e0,"logprobs":10e-1}`
	r, err := g.request(&queue.Job{Task: taskComplete, Model: "plain", Input: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.params; p.MaxTokens != 10 || p.TopK != 30 || p.N != 2 || *p.Logprobs != 1 {
		t.Errorf("read as %+v", p)
	}
	testBundle{generation: object{"max_new_tokens": json.RawMessage("1.2e1"), "top_k": json.RawMessage("5.0")}}.write(t, bundleDir(t, g, "plain"))
	g.Models() // finds the change
	if w, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "x"})); w.meta.Parameters.MaxTokens != 12 || w.meta.Parameters.TopK != 5 {
		t.Errorf("recommended: %+v", w.meta.Parameters)
	}
}

// TestUnreadableInput checks what is said of inputs that come past the gateway.
func TestUnreadableInput(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	for body, want := range map[string]queue.FieldError{
		`{"prompt":"x","max_tokens":1.5}`:                     {Pointer: "/max_tokens", Detail: "want an integer, got number 1.5"},
		`{"prompt":"x","max_tokens":1e30}`:                    {Pointer: "/max_tokens", Detail: "want an integer, got number 1e30"},
		`{"prompt":"x","top_k":"many"}`:                       {Pointer: "/top_k", Detail: "want an integer, got string"},
		`{"prompt":"x","logprobs":true}`:                      {Pointer: "/logprobs", Detail: "want an integer, got bool"},
		`{"prompt":"x","n":[]}`:                               {Pointer: "/n", Detail: "want an integer, got array"},
		`{"prompt":"x","temperature":"hot"}`:                  {Pointer: "/temperature", Detail: "want a number, got string"},
		`{"prompt":"x","stop":"end"}`:                         {Pointer: "/stop", Detail: "want an array, got string"},
		`{"prompt":"x","stop":["end",2]}`:                     {Pointer: "/stop", Detail: "want a string, got number"},
		`{"prompt":{}}`:                                       {Pointer: "/prompt", Detail: "want a string, got object"},
		`{"prompt":"x","echo":1}`:                             {Pointer: "/echo", Detail: "want true or false, got number"},
		`{"messages":[{"role":"user","content":"x"},"more"]}`: {Pointer: "/messages", Detail: "want an object, got string"},
		`{"messages":[{"role":"user","content":3}]}`:          {Pointer: "/messages", Detail: "want a string, got number"},
		`["prompt"]`:                    {},
		`{"prompt":"x","colour":"red"}`: {},
		`{"prompt":`:                    {},
	} {
		_, err := g.request(&queue.Job{Task: taskComplete, Model: "plain", Input: []byte(body)})
		var problem *queue.Problem
		if !errors.As(err, &problem) || problem.Code != "invalid_request" {
			t.Errorf("%s: %v", body, err)
			continue
		}
		var got queue.FieldError
		if len(problem.Errors) > 0 {
			got = problem.Errors[0]
		}
		if got != want || strings.Contains(problem.Detail, "json") || strings.Contains(problem.Detail, "Go ") {
			t.Errorf("%s: %q with %+v, want %+v", body, problem.Detail, got, want)
		}
	}
}
