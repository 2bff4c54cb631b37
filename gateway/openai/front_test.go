package openai_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

// everything is work for all tasks: words for texts, and vectors. Two prompts are special:
// fail, and hang, which runs until it is canceled.
func everything(ctx context.Context, l *queue.Lease) error {
	if l.Job.Task == "text.embed" {
		return embedding(ctx, l)
	}
	in := request{}
	if err := json.Unmarshal(l.Job.Input, &in); err != nil {
		return err
	}
	said := in.Prompt
	if in.Messages != nil {
		said = in.Messages[len(in.Messages)-1].Content
	}
	switch said {
	case "fail":
		return l.Fail(ctx, queue.Problemf("model_broken", "The model is broken."))
	case "hang":
		return hang(ctx, l)
	}
	return words(ctx, l)
}

// front stands before a gateway as a bad network does. By the header X-Test-First of a request
// its first attempt is answered with that status, or reaches the gateway while its answer is
// lost. What is below /locked goes to a gateway that requires keys.
type front struct {
	gateway, locked http.Handler

	mu       sync.Mutex
	attempts map[string]int             // by path and header
	jobs     map[string]map[string]bool // that the attempts were given
}

// startFront starts gateways, their workers, and what stands before them.
func startFront(t *testing.T) (h *harness.Harness, address string) {
	h = harness.Start(t, gateway.Config{})
	h.Worker(t, "text", everything)
	h.ImageWorker(t, "image", paint(h))
	locked := harness.Start(t, gateway.Config{RequireKeys: true})
	server := httptest.NewServer(&front{
		gateway: h.Gateway, locked: http.StripPrefix("/locked", locked.Gateway),
		attempts: map[string]int{}, jobs: map[string]map[string]bool{},
	})
	t.Cleanup(server.Close)
	return h, server.URL
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/locked/") {
		f.locked.ServeHTTP(w, r)
		return
	}
	first := r.Header.Get("X-Test-First")
	if first == "" {
		f.gateway.ServeHTTP(w, r)
		return
	}
	name := r.URL.Path + " " + first
	f.mu.Lock()
	f.attempts[name]++
	attempt := f.attempts[name]
	f.mu.Unlock()
	if status, err := strconv.Atoi(first); err == nil && r.Header.Get("X-Stainless-Retry-Count") == "0" {
		w.Header().Set("Retry-After", "30")
		w.Header().Set("Retry-After-Ms", "10") // which SDKs prefer
		w.Header().Set("X-Should-Retry", "true")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, `{"error":{"message":"Not now.","type":"server_error","param":null,"code":"unavailable"}}`)
		return
	}
	if first == "lost" && attempt == 1 {
		lost := httptest.NewRecorder()
		f.gateway.ServeHTTP(lost, r)
		f.made(name, lost.Header())
		panic(http.ErrAbortHandler) // the connection breaks
	}
	w.Header().Set("X-Test-Attempts", strconv.Itoa(attempt))
	f.gateway.ServeHTTP(&counted{w, f, name}, r)
}

// made counts the jobs that the attempts at a request were given.
func (f *front) made(name string, answer http.Header) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.jobs[name] == nil {
		f.jobs[name] = map[string]bool{}
	}
	f.jobs[name][answer.Get("X-Helicon-Job")] = true
	return len(f.jobs[name])
}

// counted tells how many jobs the attempts at a request were given.
type counted struct {
	http.ResponseWriter
	front *front
	name  string
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	c.Header().Set("X-Test-Jobs", strconv.Itoa(c.front.made(c.name, c.Header())))
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find the connection.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// TestRetries has the SDK try again, after an answer that says when, and after one that was lost.
func TestRetries(t *testing.T) {
	t.Parallel()
	h, address := startFront(t)
	c := client(h, option.WithBaseURL(address+"/v1"))
	for _, first := range []string{"429", "503"} {
		var response *http.Response
		answer, err := c.Chat.Completions.New(t.Context(), sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user("a b")},
			option.WithHeader("X-Test-First", first), option.WithResponseInto(&response))
		if err != nil || answer.Choices[0].Message.Content != "a b" || response.Header.Get("X-Test-Attempts") != "2" {
			t.Errorf("%s first: %v, %v", first, answer, err)
		}
	}
	lose := option.WithHeader("X-Test-First", "lost")
	for name, call := range map[string]func(...option.RequestOption) error{
		"chat": func(o ...option.RequestOption) error {
			_, err := c.Chat.Completions.New(t.Context(), sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user("a b")}, o...)
			return err
		},
		"completions": func(o ...option.RequestOption) error {
			_, err := c.Completions.New(t.Context(), sdk.CompletionNewParams{Model: harness.Model, Prompt: sdk.CompletionNewParamsPromptUnion{OfString: sdk.String("a")}}, o...)
			return err
		},
		"responses": func(o ...option.RequestOption) error {
			_, err := c.Responses.New(t.Context(), responseParams("a b"), o...)
			return err
		},
		"embeddings": func(o ...option.RequestOption) error {
			_, err := c.Embeddings.New(t.Context(), sdk.EmbeddingNewParams{Model: harness.Model, Input: sdk.EmbeddingNewParamsInputUnion{OfString: sdk.String("a")}}, o...)
			return err
		},
		"images": func(o ...option.RequestOption) error {
			_, err := c.Images.Generate(t.Context(), sdk.ImageGenerateParams{Prompt: "a"}, o...)
			return err
		},
		"edits": func(o ...option.RequestOption) error {
			_, err := c.Images.Edit(t.Context(), sdk.ImageEditParams{Prompt: "a", Image: sdk.ImageEditParamsImageUnion{OfFile: picture(t)}}, o...)
			return err
		},
		"variations": func(o ...option.RequestOption) error {
			_, err := c.Images.NewVariation(t.Context(), sdk.ImageNewVariationParams{Image: picture(t)}, o...)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var response *http.Response
			if err := call(lose, option.WithResponseInto(&response)); err != nil {
				t.Fatal(err)
			}
			if made := response.Header.Get("X-Test-Jobs"); made != "1" || response.Header.Get("X-Test-Attempts") != "2" {
				t.Errorf("%s attempts made %s jobs", response.Header.Get("X-Test-Attempts"), made)
			}
		})
	}
}

// TestErrorClasses checks that the SDK sees the errors that it knows.
func TestErrorClasses(t *testing.T) {
	t.Parallel()
	h, address := startFront(t)
	c := client(h, option.WithBaseURL(address+"/v1"), option.WithMaxRetries(0))
	chat := func(text string, o ...option.RequestOption) error {
		_, err := c.Chat.Completions.New(t.Context(), sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user(text)}, o...)
		return err
	}
	wantError(t, chat("fail"), 500, "model_broken", "")
	key := option.WithHeader("Idempotency-Key", "k")
	if err := chat("a", key); err != nil {
		t.Error(err)
	}
	wantError(t, chat("b", key), 422, "idempotency_key_reused", "")
	wantError(t, chat("a", option.WithHeader("X-Test-First", "429")), 429, "unavailable", "")
	locked := option.WithBaseURL(address + "/locked/v1")
	if e := wantError(t, chat("a", locked), 401, "invalid_api_key", ""); e.Type != "authentication_error" {
		t.Errorf("error %s", e.RawJSON())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Chat.Completions.New(ctx, sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user("hang")})
	if err == nil || ctx.Err() == nil {
		t.Errorf("a call that hangs ended with %v", err)
	}
}
