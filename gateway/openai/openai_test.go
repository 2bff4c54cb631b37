package openai_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"go.uber.org/goleak"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

func TestMain(m *testing.M) {
	// nats.go 1.55.0 leaves it behind when an object is stored before it has begun to run.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// request is the input of the text tasks, as far as the test's worker looks at it.
type request struct {
	Prompt    string
	Messages  []struct{ Role, Content string }
	MaxTokens int `json:"max_tokens"`
	Stop      []string
	Logprobs  *int
	N         int
}

// words answers with the words of the prompt, or of the last message, each a token,
// numbered by the choice where there are several.
func words(ctx context.Context, l *queue.Lease) error {
	return write(ctx, l, 0)
}

// write emits the answer's tokens from the given one on and commits the result.
func write(ctx context.Context, l *queue.Lease, from int) error {
	in := request{N: 1, MaxTokens: 1000}
	if err := json.Unmarshal(l.Job.Input, &in); err != nil {
		return err
	}
	source := in.Prompt
	if in.Messages != nil {
		source = in.Messages[len(in.Messages)-1].Content
	}
	result := &queue.Result{Usage: &queue.Usage{InputTokens: len(strings.Fields(source))}}
	var answers []map[string]any
	for n := range in.N {
		text, reason := "", "stop"
		var logprobs []queue.TokenLogprob
		for i, word := range strings.SplitAfter(source, " ") {
			if in.N > 1 {
				word = fmt.Sprintf("%d%s", n, word)
			}
			if i == in.MaxTokens {
				reason = "length"
				break
			}
			if len(in.Stop) > 0 && strings.TrimSpace(word) == in.Stop[0] {
				break
			}
			e := queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: word, Offset: len(text), Choice: n}}
			if in.Logprobs != nil {
				e.Delta.Logprobs = []queue.TokenLogprob{logprob(word, -0.5)}
				for k := range *in.Logprobs {
					e.Delta.Logprobs[0].Top = append(e.Delta.Logprobs[0].Top, logprob(fmt.Sprint(word, k), -float64(k)))
				}
				logprobs = append(logprobs, e.Delta.Logprobs...)
			}
			if i >= from {
				if err := l.Emit(ctx, e); err != nil {
					return err
				}
			}
			text += word
			result.Usage.OutputTokens++
		}
		if n == 0 {
			result.Text = text
		}
		answers = append(answers, map[string]any{"index": n, "text": text, "finish_reason": reason, "logprobs": logprobs})
	}
	meta := map[string]any{"model": harness.Model, "digest": harness.Digest, "finish_reason": answers[0]["finish_reason"]}
	if in.N > 1 || in.Logprobs != nil {
		meta["choices"] = answers
	}
	var err error
	if result.Meta, err = json.Marshal(meta); err != nil {
		return err
	}
	return l.Succeed(ctx, result)
}

func logprob(token string, p float64) queue.TokenLogprob {
	t := queue.TokenLogprob{Token: token, Logprob: p}
	for _, b := range []byte(token) {
		t.Bytes = append(t.Bytes, int(b))
	}
	return t
}

// client returns OpenAI's SDK pointed at the gateway. Only the base URL is ours.
func client(h *harness.Harness, options ...option.RequestOption) *sdk.Client {
	c := sdk.NewClient(append([]option.RequestOption{
		option.WithBaseURL(h.URL + "/v1"), option.WithAPIKey("none"), option.WithHTTPClient(h.Client),
	}, options...)...)
	return &c
}

func user(text string) []sdk.ChatCompletionMessageParamUnion {
	return []sdk.ChatCompletionMessageParamUnion{sdk.SystemMessage("Be brief."), sdk.UserMessage(text)}
}

func TestModels(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	c := client(h)
	list, err := c.Models.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Data) != 1 || list.Data[0].ID != harness.Model || list.Data[0].OwnedBy != "helicon" || list.Data[0].Created == 0 {
		t.Errorf("models %+v", list.Data)
	}
	if m, err := c.Models.Get(t.Context(), harness.Model); err != nil || m.ID != harness.Model {
		t.Errorf("model %v, %v", m, err)
	}
	_, err = c.Models.Get(t.Context(), "org/gpt-9")
	wantError(t, err, http.StatusNotFound, "model_not_found", "")
}

func TestChat(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	var response *http.Response
	answer, err := client(h).Chat.Completions.New(t.Context(), sdk.ChatCompletionNewParams{
		Model: harness.Model, Messages: user("one two <three>"), Seed: sdk.Int(7), Temperature: sdk.Float(0.5),
		MaxCompletionTokens: sdk.Int(50), User: sdk.String("me"), Store: sdk.Bool(true), Metadata: map[string]string{"a": "b"},
	}, option.WithResponseInto(&response))
	if err != nil {
		t.Fatal(err)
	}
	id := response.Header.Get("X-Helicon-Job")
	job, err := h.Queue.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if answer.ID != "chatcmpl-"+id || answer.Object != "chat.completion" || answer.Model != harness.Model ||
		answer.Created != job.Created.Unix() || answer.SystemFingerprint != "fp_0123456789ab" {
		t.Errorf("answer %s", answer.RawJSON())
	}
	if len(answer.Choices) != 1 {
		t.Fatalf("answer %s", answer.RawJSON())
	}
	if one := answer.Choices[0]; one.Message.Content != "one two <three>" || one.Message.Role != "assistant" || one.FinishReason != "stop" {
		t.Errorf("choice %s", one.RawJSON())
	}
	if u := answer.Usage; u.PromptTokens != 3 || u.CompletionTokens != 3 || u.TotalTokens != 6 {
		t.Errorf("usage %s", u.RawJSON())
	}
	if job.Task != "text.chat" || job.Seed != 7 || job.Model != harness.Model ||
		string(job.Input) != `{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"one two \u003cthree\u003e"}],"max_tokens":50,"temperature":0.5}` {
		t.Errorf("job %s %d %s", job.Task, job.Seed, job.Input)
	}
}

func TestChatLengthStopAndChoices(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	c := client(h)
	ask := func(p sdk.ChatCompletionNewParams) *sdk.ChatCompletion {
		t.Helper()
		p.Model = harness.Model
		answer, err := c.Chat.Completions.New(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	short := ask(sdk.ChatCompletionNewParams{Messages: user("a b c"), MaxTokens: sdk.Int(2)})
	if short.Choices[0].FinishReason != "length" || short.Choices[0].Message.Content != "a b " {
		t.Errorf("max_tokens: %s", short.RawJSON())
	}
	for name, stop := range map[string]sdk.ChatCompletionNewParamsStopUnion{
		"string": {OfString: sdk.String("b")}, "array": {OfStringArray: []string{"b", "z"}},
	} {
		if a := ask(sdk.ChatCompletionNewParams{Messages: user("a b c"), Stop: stop}); a.Choices[0].Message.Content != "a " {
			t.Errorf("stop as %s: %s", name, a.RawJSON())
		}
	}
	two := ask(sdk.ChatCompletionNewParams{Messages: user("a b"), N: sdk.Int(2)})
	if len(two.Choices) != 2 || two.Choices[0].Message.Content != "0a 0b" || two.Choices[1].Message.Content != "1a 1b" || two.Choices[1].Index != 1 {
		t.Errorf("n: %s", two.RawJSON())
	}
	probable := ask(sdk.ChatCompletionNewParams{Messages: user("a b"), Logprobs: sdk.Bool(true), TopLogprobs: sdk.Int(2)})
	tokens := probable.Choices[0].Logprobs.Content
	if len(tokens) != 2 || tokens[0].Token != "a " || tokens[0].Logprob != -0.5 || len(tokens[0].Bytes) != 2 || len(tokens[0].TopLogprobs) != 2 {
		t.Errorf("logprobs: %s", probable.RawJSON())
	}
	parts := ask(sdk.ChatCompletionNewParams{Messages: []sdk.ChatCompletionMessageParamUnion{
		sdk.DeveloperMessage("Be brief."),
		sdk.UserMessage([]sdk.ChatCompletionContentPartUnionParam{sdk.TextContentPart("a"), sdk.TextContentPart("b")}),
	}})
	if parts.Choices[0].Message.Content != "a\nb" {
		t.Errorf("parts: %s", parts.RawJSON())
	}
}

func TestChatStream(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	stream := client(h).Chat.Completions.NewStreaming(t.Context(), sdk.ChatCompletionNewParams{
		Model: harness.Model, Messages: user("a b c"), N: sdk.Int(2), Logprobs: sdk.Bool(true),
		StreamOptions: sdk.ChatCompletionStreamOptionsParam{IncludeUsage: sdk.Bool(true)},
	})
	var sum sdk.ChatCompletionAccumulator
	var chunks []sdk.ChatCompletionChunk
	for stream.Next() {
		chunks = append(chunks, stream.Current())
		if !sum.AddChunk(stream.Current()) {
			t.Errorf("chunk %s does not fit the others", stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if len(sum.Choices) != 2 || sum.Choices[0].Message.Content != "0a 0b 0c" || sum.Choices[1].Message.Content != "1a 1b 1c" ||
		sum.Choices[1].FinishReason != "stop" || len(sum.Choices[1].Logprobs.Content) != 3 {
		t.Errorf("sum %+v", sum.ChatCompletion)
	}
	for i, c := range chunks {
		if c.Object != "chat.completion.chunk" || c.ID != chunks[0].ID || c.SystemFingerprint == "" {
			t.Errorf("chunk %s", c.RawJSON())
		}
		if last := i == len(chunks)-1; last {
			if len(c.Choices) != 0 || c.Usage.CompletionTokens != 6 || c.Usage.TotalTokens != 9 {
				t.Errorf("usage chunk %s", c.RawJSON())
			}
		} else if !strings.Contains(c.RawJSON(), `"usage":null`) {
			t.Errorf("chunk without usage: %s", c.RawJSON())
		}
	}
	if first := chunks[0].Choices[0].Delta; first.Role != "assistant" || first.Content != "" {
		t.Errorf("first chunk %s", chunks[0].RawJSON())
	}
}

// TestStreamOnTheWire checks the bytes that clients without an SDK parse.
func TestStreamOnTheWire(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	answer := h.Do(t, "POST", "/v1/chat/completions", `{"model":"test-model","messages":[{"role":"user","content":"a <b>"}],"stream":true}`)
	if answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", answer.Status, answer.Header)
	}
	id := answer.Header.Get("X-Helicon-Job")
	job, err := h.Queue.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	chunk := func(choice string) string {
		return fmt.Sprintf(`data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":%d,"model":"test-model","system_fingerprint":"fp_0123456789ab","choices":[%s]}`+"\n\n",
			id, job.Created.Unix(), choice)
	}
	want := chunk(`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`) +
		chunk(`{"index":0,"delta":{"content":"a "},"logprobs":null,"finish_reason":null}`) +
		chunk(`{"index":0,"delta":{"content":"<b>"},"logprobs":null,"finish_reason":null}`) +
		chunk(`{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}`) +
		"data: [DONE]\n\n"
	if string(answer.Body) != want {
		t.Errorf("got\n%swant\n%s", answer.Body, want)
	}
}

func TestCompletions(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	answer, err := client(h).Completions.New(t.Context(), sdk.CompletionNewParams{
		Model: harness.Model, N: sdk.Int(2), Logprobs: sdk.Int(1),
		Prompt: sdk.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"a b", "é d"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0a 0b", "1a 1b", "0é 0d", "1é 1d"}
	if len(answer.Choices) != len(want) || answer.Object != "text_completion" || !strings.HasPrefix(answer.ID, "cmpl-") {
		t.Fatalf("answer %s", answer.RawJSON())
	}
	for i, choice := range answer.Choices {
		if choice.Text != want[i] || choice.Index != int64(i) || choice.FinishReason != "stop" {
			t.Errorf("choice %d: %s", i, choice.RawJSON())
		}
	}
	l := answer.Choices[2].Logprobs
	if fmt.Sprint(l.Tokens, l.TokenLogprobs, l.TextOffset) != "[0é  0d] [-0.5 -0.5] [0 3]" || len(l.TopLogprobs) != 2 || len(l.TopLogprobs[0]) != 1 {
		t.Errorf("logprobs %s", l.RawJSON())
	}
	if u := answer.Usage; u.PromptTokens != 4 || u.CompletionTokens != 8 || u.TotalTokens != 12 {
		t.Errorf("usage %s", u.RawJSON())
	}
}

func TestCompletionsStream(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	stream := client(h).Completions.NewStreaming(t.Context(), sdk.CompletionNewParams{
		Model:         harness.Model,
		Prompt:        sdk.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"a b c", "d e", "f"}},
		StreamOptions: sdk.ChatCompletionStreamOptionsParam{IncludeUsage: sdk.Bool(true)},
	})
	texts, reasons, usage := map[int64]string{}, map[int64]string{}, int64(0)
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			texts[c.Index] += c.Text
			reasons[c.Index] += string(c.FinishReason)
		}
		usage += stream.Current().Usage.TotalTokens
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(texts) != "map[0:a b c 1:d e 2:f]" || fmt.Sprint(reasons) != "map[0:stop 1:stop 2:stop]" || usage != 12 {
		t.Errorf("texts %v, reasons %v, usage %d", texts, reasons, usage)
	}
}

// wantError checks an error of the SDK.
func wantError(t *testing.T, err error, status int, code, param string) *sdk.Error {
	t.Helper()
	var told *sdk.Error
	if !errors.As(err, &told) {
		t.Fatalf("error %v, want one of the API", err)
	}
	if told.StatusCode != status || told.Code != code || param != "" && told.Param != param || told.Message == "" || told.Type == "" {
		t.Errorf("%d %s; want %d, code %s, param %s", told.StatusCode, told.RawJSON(), status, code, param)
	}
	return told
}

func TestRefused(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	const chat, text = "chat/completions", "completions"
	const hi = `"model":"test-model","messages":[{"role":"user","content":"hi"}]`
	const go_ = `"model":"test-model","prompt":"hi"`
	for _, c := range []struct {
		name, route, body string
		status            int
		code, param       string
		message           string
	}{
		{"no model", chat, `{"messages":[{"role":"user","content":"hi"}]}`, 400, "invalid_request", "model", "required"},
		{"unknown model", chat, `{"model":"gpt-9","messages":[{"role":"user","content":"hi"}]}`, 404, "model_not_found", "model", "test-model"},
		{"unknown parameter", chat, `{` + hi + `,"tempature":1}`, 400, "invalid_request", "tempature", "unknown member"},
		{"mistyped", chat, `{` + hi + `,"temperature":"hot"}`, 400, "invalid_request", "temperature", "want a number"},
		{"range", chat, `{` + hi + `,"temperature":3}`, 400, "invalid_input", "temperature", "want at most 2, got 3"},
		{"renamed", chat, `{` + hi + `,"max_completion_tokens":5000}`, 400, "invalid_input", "max_completion_tokens", "4096"},
		{"contradiction", chat, `{` + hi + `,"max_completion_tokens":5,"max_tokens":6}`, 400, "invalid_request", "max_tokens", "contradicts"},
		{"n", chat, `{` + hi + `,"n":0}`, 400, "invalid_input", "n", "at least 1"},
		{"seed", chat, `{` + hi + `,"seed":-1}`, 400, "invalid_request", "seed", "from 0"},
		{"stop", chat, `{` + hi + `,"stop":[1]}`, 400, "invalid_request", "stop", "array of strings"},
		{"stop length", chat, `{` + hi + `,"stop":""}`, 400, "invalid_input", "stop[0]", "at least 1 character"},
		{"top_logprobs alone", chat, `{` + hi + `,"top_logprobs":2}`, 400, "invalid_request", "top_logprobs", "only allowed"},
		{"top_logprobs range", chat, `{` + hi + `,"logprobs":true,"top_logprobs":21}`, 400, "invalid_input", "top_logprobs", "at most 20"},
		{"stream_options alone", chat, `{` + hi + `,"stream_options":{"include_usage":true}}`, 400, "invalid_request", "stream_options", "stream is true"},
		{"unknown stream option", chat, `{` + hi + `,"stream":true,"stream_options":{"usage":true}}`, 400, "invalid_request", "stream_options.usage", "unknown member"},
		{"tools", chat, `{` + hi + `,"tools":[{"type":"function"}]}`, 400, "invalid_input", "tools[0].function", "required"},
		{"tool type", chat, `{` + hi + `,"tools":[{"type":"custom","function":{"name":"f"}}]}`, 400, "invalid_input", "tools[0].type", "want \"function\""},
		{"tool name", chat, `{` + hi + `,"tools":[{"type":"function","function":{"name":"a b"}}]}`, 400, "invalid_input", "tools[0].function.name", "does not match pattern"},
		{"tool_choice alone", chat, `{` + hi + `,"tool_choice":"required"}`, 400, "invalid_request", "tool_choice", "only allowed when"},
		{"tool_choice", chat, `{` + hi + `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"maybe"}`, 400, "invalid_input", "tool_choice", "want one of"},
		{"functions", chat, `{` + hi + `,"functions":[{}]}`, 400, "invalid_request", "functions", "not supported"},
		{"response_format", chat, `{` + hi + `,"response_format":{"type":"xml"}}`, 400, "invalid_input", "response_format.type", "want one of"},
		{"response_format without schema", chat, `{` + hi + `,"response_format":{"type":"json_schema"}}`, 400, "invalid_input", "response_format.json_schema", "required"},
		{"logit_bias", chat, `{` + hi + `,"logit_bias":{"50256":-100}}`, 400, "invalid_request", "logit_bias", "not supported"},
		{"no messages", chat, `{"model":"test-model","messages":[]}`, 400, "invalid_request", "messages", "at least one"},
		{"role", chat, `{"model":"test-model","messages":[{"role":"king","content":"hi"}]}`, 400, "invalid_request", "messages[0].role", "want system"},
		{"tool message", chat, `{"model":"test-model","messages":[{"role":"tool","content":"hi"}]}`, 400, "invalid_request", "messages[0].tool_call_id", "want the id"},
		{"function message", chat, `{"model":"test-model","messages":[{"role":"function","content":"hi","name":"x"}]}`, 400, "invalid_request", "messages[0].role", "use tools"},
		{"calls of a user", chat, `{"model":"test-model","messages":[{"role":"user","content":"hi","tool_calls":[{}]}]}`, 400, "invalid_request", "messages[0].tool_calls", "not supported"},
		{"calls", chat, `{"model":"test-model","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f"},"x":1}]}]}`, 400, "invalid_request", "messages[0].tool_calls[0].x", "unknown member"},
		{"no content", chat, `{"model":"test-model","messages":[{"role":"user"}]}`, 400, "invalid_request", "messages[0].content", "required"},
		{"image", chat, `{"model":"test-model","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`, 400, "invalid_request", "messages[0].content[0]", "not supported"},
		{"name", chat, `{"model":"test-model","messages":[{"role":"user","content":"a","name":"x"}]}`, 400, "invalid_request", "messages[0].name", "not supported"},
		{"no prompt", text, `{"model":"test-model"}`, 400, "invalid_request", "prompt", "required"},
		{"empty prompt", text, `{"model":"test-model","prompt":""}`, 400, "invalid_input", "prompt", "at least 1 character"},
		{"token prompt", text, `{"model":"test-model","prompt":[1,2]}`, 400, "invalid_request", "prompt[0]", "token ids"},
		{"token prompts", text, `{"model":"test-model","prompt":[[1,2]]}`, 400, "invalid_request", "prompt[0]", "token ids"},
		{"second prompt empty", text, `{"model":"test-model","prompt":["a",""]}`, 400, "invalid_input", "prompt", "at least 1 character"},
		{"echo", text, `{` + go_ + `,"echo":true}`, 400, "invalid_request", "echo", "not supported"},
		{"suffix", text, `{` + go_ + `,"suffix":"x"}`, 400, "invalid_request", "suffix", "not supported"},
		{"best_of", text, `{` + go_ + `,"best_of":3}`, 400, "invalid_request", "best_of", "not supported"},
		{"not JSON", text, `{`, 400, "invalid_request", "", "ends within"},
		{"no embedding model", "embeddings", `{"input":"x"}`, 400, "invalid_request", "model", "required"},
		{"nothing to embed", "embeddings", `{"model":"test-model"}`, 400, "invalid_request", "input", "required"},
		{"empty text to embed", "embeddings", `{"model":"test-model","input":["a",""]}`, 400, "invalid_input", "input", ""},
		{"encoding", "embeddings", `{"model":"test-model","input":"a","encoding_format":"hex"}`, 400, "invalid_request", "encoding_format", "want float or base64"},
		{"dimensions", "embeddings", `{"model":"test-model","input":"a","dimensions":0}`, 400, "invalid_input", "dimensions", "at least 1"},
		{"unknown route", "edits", `{}`, 404, "not_found", "", "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := h.Do(t, "POST", "/v1/"+c.route, c.body)
			var body struct {
				Error struct {
					Message, Type, Param, Code string
				}
			}
			answer.JSON(t, c.status, &body)
			e := body.Error
			if e.Type != "invalid_request_error" || e.Code != c.code || e.Param != c.param || !strings.Contains(e.Message, c.message) {
				t.Errorf("%s", answer.Body)
			}
			if answer.Header.Get("X-Should-Retry") != "false" {
				t.Errorf("X-Should-Retry %q", answer.Header.Get("X-Should-Retry"))
			}
		})
	}
	jobs, err := h.Queue.Jobs(t.Context(), queue.Filter{State: queue.Queued})
	if err != nil || len(jobs.Jobs) != 0 {
		t.Errorf("refused requests left jobs: %v, %v", jobs, err)
	}
	_, err = client(h).Chat.Completions.New(t.Context(), sdk.ChatCompletionNewParams{Model: "gpt-9", Messages: user("hi")})
	wantError(t, err, 404, "model_not_found", "model")
}

// TestModerations checks that nothing is called harmless that nobody has looked at.
func TestModerations(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	_, err := client(h).Moderations.New(t.Context(), sdk.ModerationNewParams{Input: sdk.ModerationNewParamsInputUnion{OfString: sdk.String("x")}})
	wantError(t, err, http.StatusNotImplemented, "not_implemented", "")
}

func TestFailedJob(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		var in request
		if err := json.Unmarshal(l.Job.Input, &in); err != nil {
			return err
		}
		if in.Prompt == "late" {
			if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: "so far"}}); err != nil {
				return err
			}
		}
		if in.Prompt == "long" {
			return l.Fail(ctx, queue.Problemf("prompt_too_long", "The prompt is too long."))
		}
		return l.Fail(ctx, queue.Problemf("model_broken", "The model is broken."))
	})
	c := client(h)
	ask := func(prompt string) sdk.CompletionNewParams {
		return sdk.CompletionNewParams{Model: harness.Model, Prompt: sdk.CompletionNewParamsPromptUnion{OfString: sdk.String(prompt)}}
	}
	_, err := c.Completions.New(t.Context(), ask("x"))
	if e := wantError(t, err, 500, "model_broken", ""); e.Type != "server_error" || e.Message != "The model is broken." {
		t.Errorf("error %s", e.RawJSON())
	}
	_, err = c.Completions.New(t.Context(), ask("long"))
	wantError(t, err, 400, "context_length_exceeded", "")
	// Before the first text a stream fails as any answer does, after it within the stream.
	stream := c.Completions.NewStreaming(t.Context(), ask("long"))
	if stream.Next() {
		t.Error("a chunk before the failure")
	}
	wantError(t, stream.Err(), 400, "context_length_exceeded", "")
	stream = c.Completions.NewStreaming(t.Context(), ask("late"))
	if !stream.Next() || stream.Current().Choices[0].Text != "so far" || stream.Next() {
		t.Error("want one chunk")
	}
	var broke *ssestream.StreamError
	if !errors.As(stream.Err(), &broke) || !strings.Contains(broke.Message, "model_broken") {
		t.Errorf("error %v", stream.Err())
	}
	if page, err := h.Queue.Jobs(t.Context(), queue.Filter{}); err != nil || len(page.Jobs) != 4 {
		t.Errorf("%d jobs, want 4: the SDK tried again", len(page.Jobs))
	}
}

// TestRerunRepeatsNothing hands a job back in mid-stream: the second run writes the
// text from its beginning, in other pieces.
func TestRerunRepeatsNothing(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		pieces := []string{"Zoë ", "said ", "hel"}
		if l.Job.Attempts == 1 && len(l.Job.Failures) == 0 {
			return abort(ctx, l, pieces)
		}
		pieces = []string{"Zo", "ë sai", "d hello", "."}
		if err := emit(ctx, l, pieces); err != nil {
			return err
		}
		return l.Succeed(ctx, &queue.Result{Text: strings.Join(pieces, "") + " Bye.", Meta: json.RawMessage(`{"finish_reason":"length"}`)})
	})
	stream := client(h).Chat.Completions.NewStreaming(t.Context(), sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user("x")})
	var sum sdk.ChatCompletionAccumulator
	for stream.Next() {
		sum.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if got := sum.Choices[0]; got.Message.Content != "Zoë said hello. Bye." || got.FinishReason != "length" {
		t.Errorf("got %q, %s", got.Message.Content, got.FinishReason)
	}
}

func emit(ctx context.Context, l *queue.Lease, pieces []string) error {
	offset := 0
	for _, p := range pieces {
		if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: p, Offset: offset}}); err != nil {
			return err
		}
		offset += len(p)
	}
	return nil
}

func abort(ctx context.Context, l *queue.Lease, pieces []string) error {
	if err := emit(ctx, l, pieces); err != nil {
		return err
	}
	return l.Retry(ctx, "lost")
}

// hang writes one token and then runs until the job is canceled.
func hang(ctx context.Context, l *queue.Lease) error {
	if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: "and"}}); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestDisconnectCancels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		stream bool
		key    string
	}{{"stream", true, ""}, {"whole", false, ""}, {"with a key", true, "k"}} {
		t.Run(c.name, func(t *testing.T) {
			h := harness.Start(t, gateway.Config{})
			h.Worker(t, "w1", hang)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := fmt.Sprintf(`{"model":"test-model","prompt":"x","stream":%v}`, c.stream)
			request, err := http.NewRequestWithContext(ctx, "POST", h.URL+"/v1/completions", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if c.key != "" {
				request.Header.Set("Idempotency-Key", c.key)
			}
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				if response, err := h.Client.Do(request); err == nil {
					bufio.NewReader(response.Body).ReadString('\n')
					<-ctx.Done()
					response.Body.Close()
				}
			}()
			var job *queue.Job
			for e, err := range h.Queue.WatchAll(t.Context(), 1) { // the first event is the job's queued one
				if err != nil {
					t.Fatal(err)
				}
				if e.Type == queue.EventToken {
					job, _ = h.Queue.Job(t.Context(), e.JobID)
					break
				}
			}
			cancel()
			<-gone
			if c.key != "" {
				if job, err = h.Queue.Job(t.Context(), job.ID); err != nil || job.State != queue.Running {
					t.Errorf("a job that can be asked for again is %s, %v", job.State, err)
				}
				return
			}
			timed, stop := context.WithTimeout(t.Context(), 10*time.Second)
			defer stop()
			if job, err = h.Queue.Wait(timed, job.ID); err != nil || job.State != queue.Canceled {
				t.Errorf("the job is %v, %v", job, err)
			}
		})
	}
}

func TestCanceledElsewhere(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		_, err := h.Queue.Cancel(ctx, l.Job.ID)
		return err
	})
	_, err := client(h).Completions.New(t.Context(), sdk.CompletionNewParams{
		Model: harness.Model, Prompt: sdk.CompletionNewParamsPromptUnion{OfString: sdk.String("x")},
	})
	wantError(t, err, http.StatusConflict, "canceled", "")
	if page, err := h.Queue.Jobs(t.Context(), queue.Filter{}); err != nil || len(page.Jobs) != 1 {
		t.Errorf("%d jobs, want 1: the SDK tried again", len(page.Jobs))
	}
}

func TestRetryIsGivenTheFirstJob(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	const body = `{"model":"test-model","prompt":["a b","c"]}`
	post := func(retry string) string {
		answer := h.Do(t, "POST", "/v1/completions", body, "X-Stainless-Retry-Count", retry)
		if answer.Status != 200 {
			t.Fatalf("%d %s", answer.Status, answer.Body)
		}
		return answer.Header.Get("X-Helicon-Job") + string(answer.Body)
	}
	first := post("0")
	if again := post("1"); again != first {
		t.Errorf("a retry got\n%swant\n%s", again, first)
	}
	if other := post("0"); other == first {
		t.Error("a new request was given an old job")
	}
	keyed := func() string {
		return string(h.Do(t, "POST", "/v1/completions", body, "Idempotency-Key", "k").Body)
	}
	if one, two := keyed(), keyed(); one != two {
		t.Errorf("one key, two answers:\n%s%s", one, two)
	}
}

func TestShutdownEndsStreams(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", hang)
	stream := client(h).Completions.NewStreaming(t.Context(), sdk.CompletionNewParams{
		Model: harness.Model, Prompt: sdk.CompletionNewParamsPromptUnion{OfString: sdk.String("x")},
	})
	if !stream.Next() {
		t.Fatal(stream.Err())
	}
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if stream.Next() || stream.Err() == nil || !strings.Contains(stream.Err().Error(), "shutting_down") {
		t.Errorf("error %v", stream.Err())
	}
	page, err := h.Queue.Jobs(t.Context(), queue.Filter{})
	if err != nil || page.Jobs[0].State != queue.Running {
		t.Errorf("jobs %+v, %v", page.Jobs, err)
	}
}

func TestHeartbeatAndQueueAway(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{Heartbeat: 10 * time.Millisecond})
	release := make(chan struct{})
	stop := h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		<-release
		return words(ctx, l)
	})
	stream := client(h).Chat.Completions.NewStreaming(t.Context(), sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user("a b")})
	if !stream.Next() || stream.Current().Choices[0].Delta.Role != "assistant" {
		t.Fatalf("no role chunk while waiting: %v", stream.Err())
	}
	close(release)
	text := ""
	for stream.Next() {
		if len(stream.Current().Choices) > 0 {
			text += stream.Current().Choices[0].Delta.Content
		}
	}
	if text != "a b" || stream.Err() != nil {
		t.Errorf("text %q, %v", text, stream.Err())
	}
	stop()
	h.Disconnect()
	answer := h.Do(t, "POST", "/v1/completions", `{"model":"test-model","prompt":"x"}`)
	if answer.Status != 503 || answer.Header.Get("X-Should-Retry") != "true" || answer.Header.Get("Retry-After") == "" || !strings.Contains(string(answer.Body), `"type":"server_error"`) {
		t.Errorf("%d %v %s", answer.Status, answer.Header, answer.Body)
	}
}
