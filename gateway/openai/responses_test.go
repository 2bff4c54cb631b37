package openai_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

func textInput(text string) responses.ResponseNewParamsInputUnion {
	return responses.ResponseNewParamsInputUnion{OfString: sdk.String(text)}
}

func responseParams(text string) responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: harness.Model, Input: textInput(text)}
}

// inputJob returns the job behind a response.
func inputJob(t *testing.T, h *harness.Harness, id string) *queue.Job {
	t.Helper()
	job, err := h.Queue.Job(t.Context(), strings.TrimPrefix(id, "resp_"))
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// TestResponses holds a conversation of two turns and asks for the first one again.
func TestResponses(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	c := client(h)
	var raw *http.Response
	first, err := c.Responses.New(t.Context(), responses.ResponseNewParams{
		Model: harness.Model, Input: textInput("one two <three>"), Instructions: sdk.String("Be brief."),
		Metadata: map[string]string{"a": "b"}, MaxOutputTokens: sdk.Int(50), Temperature: sdk.Float(0.5),
	}, option.WithResponseInto(&raw))
	if err != nil {
		t.Fatal(err)
	}
	job := inputJob(t, h, first.ID)
	if string(job.Input) != `{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"one two \u003cthree\u003e"}],"max_tokens":50,"temperature":0.5}` {
		t.Errorf("input %s", job.Input)
	}
	if first.OutputText() != "one two <three>" || first.Status != "completed" || first.Model != harness.Model ||
		first.Instructions.OfString != "Be brief." || first.Metadata["a"] != "b" || first.MaxOutputTokens != 50 || first.Temperature != 0.5 ||
		int64(first.CreatedAt) != job.Created.Unix() || int64(first.CompletedAt) != job.Finished.Unix() || first.Text.Format.Type != "text" {
		t.Errorf("response %s", first.RawJSON())
	}
	if u := first.Usage; u.InputTokens != 3 || u.OutputTokens != 3 || u.TotalTokens != 6 {
		t.Errorf("usage %s", u.RawJSON())
	}
	if raw.Header.Get("Openai-Processing-Ms") == "" || raw.Header.Get("X-Request-Id") == "" || raw.Header.Get("X-Helicon-Job") != job.ID {
		t.Errorf("headers %v", raw.Header)
	}

	second, err := c.Responses.New(t.Context(), responses.ResponseNewParams{
		Model: harness.Model, PreviousResponseID: sdk.String(first.ID), Instructions: sdk.String("Be long."),
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
			responses.ResponseInputItemParamOfMessage("and four", responses.EasyInputMessageRoleDeveloper),
			responses.ResponseInputItemParamOfInputMessage(responses.ResponseInputMessageContentListParam{
				responses.ResponseInputContentParamOfInputText("five"), responses.ResponseInputContentParamOfInputText("six"),
			}, "user"),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var in request
	if err := json.Unmarshal(inputJob(t, h, second.ID).Input, &in); err != nil {
		t.Fatal(err)
	}
	want := "[{system Be long.} {user one two <three>} {assistant one two <three>} {system and four} {user five\nsix}]"
	if got := fmt.Sprint(in.Messages); got != want || second.PreviousResponseID != first.ID {
		t.Errorf("the conversation is\n%s\nwant\n%s", got, want)
	}

	again, err := c.Responses.Get(t.Context(), first.ID, responses.ResponseGetParams{})
	if err != nil || again.RawJSON() != first.RawJSON() {
		t.Errorf("asked for again it is %v, %v", again, err)
	}
	if err := c.Responses.Delete(t.Context(), first.ID); err != nil {
		t.Error(err)
	}
	_, err = c.Responses.Get(t.Context(), first.ID, responses.ResponseGetParams{})
	wantError(t, err, 404, "not_found", "")
	_, err = c.Responses.New(t.Context(), responses.ResponseNewParams{Model: harness.Model, Input: textInput("x"), PreviousResponseID: sdk.String(first.ID)})
	wantError(t, err, 400, "invalid_request", "previous_response_id")
}

// TestResponseForms checks what the worker is told of forms and tools, and what the response
// says of them.
func TestResponseForms(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", calling)
	c := client(h)
	params := responses.ResponseNewParams{
		Model: harness.Model, Input: textInput("Is it warm?"), ParallelToolCalls: sdk.Bool(true),
		Text: responses.ResponseTextConfigParam{Format: responses.ResponseFormatTextConfigUnionParam{
			OfJSONSchema: &responses.ResponseFormatTextJSONSchemaConfigParam{Name: "x", Strict: sdk.Bool(true), Schema: map[string]any{"type": "integer"}},
		}},
		Tools: []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{
			Name: "weather", Strict: sdk.Bool(true), Parameters: map[string]any{"type": "object"},
		}}},
		ToolChoice: responses.ResponseNewParamsToolChoiceUnion{OfFunctionTool: &responses.ToolChoiceFunctionParam{Name: "weather"}},
	}
	answer, err := c.Responses.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	job := inputJob(t, h, answer.ID)
	for _, part := range []string{
		`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"integer"},"strict":true}}`,
		`"tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object"},"strict":true}}]`,
		`"tool_choice":{"function":{"name":"weather"},"type":"function"}`, `"parallel_tool_calls":true`,
	} {
		if !strings.Contains(string(job.Input), part) {
			t.Errorf("input %s, want %s", job.Input, part)
		}
	}
	if len(answer.Output) != 3 || answer.Output[1].Type != "function_call" || answer.Output[2].CallID != "call_2" || answer.Output[2].Arguments.OfString != `{"city":"Rome"}` {
		t.Fatalf("output %s", answer.RawJSON())
	}
	if answer.Text.Format.Name != "x" || answer.Tools[0].Name != "weather" || answer.ToolChoice.Name != "weather" {
		t.Errorf("response %s", answer.RawJSON())
	}

	// What the tools said goes back, with the items of the answer in it.
	items := responses.ResponseInputParam{responses.ResponseInputItemParamOfMessage("Is it warm?", "user")}
	for _, item := range answer.Output {
		switch item := item.AsAny().(type) {
		case responses.ResponseOutputMessage:
			p := item.ToParam()
			items = append(items, responses.ResponseInputItemUnionParam{OfOutputMessage: &p})
		case responses.ResponseFunctionToolCall:
			p := item.ToParam()
			said := responses.ResponseInputItemParamOfFunctionCallOutput("7 degrees")
			said.OfFunctionCallOutput.CallID = sdk.String(item.CallID)
			items = append(items, responses.ResponseInputItemUnionParam{OfFunctionCall: &p}, said)
		}
	}
	params.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: items}
	if answer, err = c.Responses.New(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	var in struct {
		Messages []struct {
			Role, Content string
			ToolCalls     []json.RawMessage `json:"tool_calls"`
			ToolCallID    string            `json:"tool_call_id"`
		}
	}
	if err := json.Unmarshal(inputJob(t, h, answer.ID).Input, &in); err != nil {
		t.Fatal(err)
	}
	if len(in.Messages) != 5 || in.Messages[1].Content != "Let me see." || len(in.Messages[1].ToolCalls) != 1 || in.Messages[4].ToolCallID != "call_2" {
		t.Errorf("messages %+v", in.Messages)
	}
	if answer.OutputText() != "Let me see." || len(answer.Output) != 1 {
		t.Errorf("answer %s", answer.RawJSON())
	}
}

// collect reads a stream to its end and returns the types of its events, whose numbers have
// to follow each other, its text and its last event.
func collect(t *testing.T, stream interface {
	Next() bool
	Current() responses.ResponseStreamEventUnion
	Err() error
}, first int64) (types []string, text string, last responses.ResponseStreamEventUnion) {
	t.Helper()
	for stream.Next() {
		last = stream.Current()
		if last.SequenceNumber != first {
			t.Errorf("event %s, want number %d", last.RawJSON(), first)
		}
		first++
		if last.Type == "response.output_text.delta" {
			text += last.Delta
		}
		types = append(types, strings.TrimPrefix(last.Type, "response."))
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return types, text, last
}

func TestResponseStream(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	c := client(h)
	types, text, last := collect(t, c.Responses.NewStreaming(t.Context(), responses.ResponseNewParams{
		Model: harness.Model, Input: textInput("a b <c>"), MaxOutputTokens: sdk.Int(2),
		Include: []responses.ResponseIncludable{"message.output_text.logprobs"}, TopLogprobs: sdk.Int(1),
	}), 0)
	const want = "created in_progress output_item.added content_part.added output_text.delta output_text.delta " +
		"output_text.done content_part.done output_item.done incomplete"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("events\n%s, want\n%s", got, want)
	}
	r := last.Response
	if text != "a b " || r.OutputText() != text || r.Status != "incomplete" || r.IncompleteDetails.Reason != "max_output_tokens" || r.Usage.TotalTokens != 5 {
		t.Errorf("text %q, response %s", text, r.RawJSON())
	}
	if l := r.Output[0].Content[0].Logprobs; len(l) != 2 || l[1].Token != "b " || len(l[1].TopLogprobs) != 1 {
		t.Errorf("logprobs %s", r.RawJSON())
	}
}

func TestResponseStreamOfCalls(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", calling)
	types, text, last := collect(t, client(h).Responses.NewStreaming(t.Context(), responses.ResponseNewParams{
		Model: harness.Model, Input: textInput("Is it warm?"),
		Tools: []responses.ToolUnionParam{responses.ToolParamOfFunction("weather", map[string]any{"type": "object"}, false)},
	}), 0)
	const call = "output_item.added function_call_arguments.delta function_call_arguments.done output_item.done "
	const want = "created in_progress output_item.added content_part.added output_text.delta " +
		"output_text.done content_part.done output_item.done " + call + call + "completed"
	if got := strings.Join(types, " "); got != want || text != "Let me see." || len(last.Response.Output) != 3 {
		t.Errorf("events\n%s, want\n%s\n%s", got, want, last.RawJSON())
	}
}

// TestResponseInBackground leaves a response and comes back to it: its stream goes on behind
// the last event that was seen, with the same numbers.
func TestResponseInBackground(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	release := make(chan struct{})
	h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: "a "}}); err != nil {
			return err
		}
		select {
		case <-release:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return write(ctx, l, 1)
	})
	c := client(h)
	stream := c.Responses.NewStreaming(t.Context(), responses.ResponseNewParams{Model: harness.Model, Input: textInput("a b c"), Background: sdk.Bool(true)})
	var id string
	seen := int64(-1)
	for stream.Next() {
		e := stream.Current()
		seen = e.SequenceNumber
		if e.Type == "response.created" {
			id = e.Response.ID
		}
		if e.Type == "response.output_text.delta" {
			break
		}
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	var raw *http.Response
	now, err := c.Responses.Get(t.Context(), id, responses.ResponseGetParams{}, option.WithResponseInto(&raw))
	if err != nil || now.Status != "in_progress" || !now.Background || raw.Header.Get("Openai-Poll-After-Ms") == "" {
		t.Fatalf("%v, %v, %v", now, err, raw.Header)
	}
	_, err = c.Responses.New(t.Context(), responses.ResponseNewParams{Model: harness.Model, Input: textInput("x"), PreviousResponseID: sdk.String(id)})
	wantError(t, err, 400, "invalid_request", "previous_response_id")
	err = c.Responses.Delete(t.Context(), id, option.WithMaxRetries(0))
	wantError(t, err, 409, "job_not_finished", "")
	close(release)
	types, text, last := collect(t, c.Responses.GetStreaming(t.Context(), id, responses.ResponseGetParams{StartingAfter: sdk.Int(seen)}), seen+1)
	if text != "b c" || last.Type != "response.completed" || last.Response.OutputText() != "a b c" {
		t.Errorf("events %v, text %q, %s", types, text, last.RawJSON())
	}
	all, text, _ := collect(t, c.Responses.GetStreaming(t.Context(), id, responses.ResponseGetParams{}), 0)
	if text != "a b c" || all[1] != "queued" || len(all) != int(seen)+1+len(types) {
		t.Errorf("from the beginning: %v, %q", all, text)
	}
}

func TestResponseCanceled(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", hang)
	c := client(h)
	answer, err := c.Responses.New(t.Context(), responses.ResponseNewParams{Model: harness.Model, Input: textInput("x"), Background: sdk.Bool(true)})
	if err != nil || answer.Status != "queued" && answer.Status != "in_progress" {
		t.Fatalf("%v, %v", answer, err)
	}
	for range 2 { // a second time changes nothing
		answer, err = c.Responses.Cancel(t.Context(), answer.ID)
		if err != nil || answer.Status != "cancelled" {
			t.Errorf("%v, %v", answer, err)
		}
	}
	ctx, leave := context.WithTimeout(t.Context(), 10*time.Second)
	defer leave()
	stream := c.Responses.NewStreaming(ctx, responses.ResponseNewParams{Model: harness.Model, Input: textInput("x")})
	for stream.Next() {
		if stream.Current().Type == "response.output_text.delta" {
			answer.ID = "resp_" + strings.TrimPrefix(stream.Current().ItemID, "msg_")
			leave()
		}
	}
	if job, err := h.Queue.Wait(t.Context(), strings.TrimPrefix(answer.ID, "resp_")); err != nil || job.State != queue.Canceled {
		t.Errorf("the client left, the job is %v, %v", job, err)
	}
}

func TestResponseFailed(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		return l.Fail(ctx, queue.Problemf("prompt_too_long", "The prompt is too long."))
	})
	c := client(h)
	params := responses.ResponseNewParams{Model: harness.Model, Input: textInput("x")}
	var raw *http.Response
	_, err := c.Responses.New(t.Context(), params, option.WithResponseInto(&raw))
	wantError(t, err, 400, "context_length_exceeded", "")
	types, _, last := collect(t, c.Responses.NewStreaming(t.Context(), params), 0)
	if got := strings.Join(types, " "); got != "created in_progress failed" || last.Response.Error.Code != "context_length_exceeded" {
		t.Errorf("events %s: %s", got, last.RawJSON())
	}
	answer, err := c.Responses.Get(t.Context(), "resp_"+raw.Header.Get("X-Helicon-Job"), responses.ResponseGetParams{})
	if err != nil || answer.Status != "failed" || answer.Error.Message != "The prompt is too long." {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestResponseRefused(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	chat, err := client(h).Chat.Completions.New(t.Context(), sdk.ChatCompletionNewParams{Model: harness.Model, Messages: user("hi")})
	if err != nil {
		t.Fatal(err)
	}
	private, err := client(h).Responses.New(t.Context(), responses.ResponseNewParams{Model: harness.Model, Input: textInput("hi"), Store: sdk.Bool(false)})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{strings.Replace(chat.ID, "chatcmpl-", "resp_", 1), private.ID, "resp_x", "x"} {
		_, err := client(h).Responses.Get(t.Context(), id, responses.ResponseGetParams{})
		wantError(t, err, 404, "not_found", "")
	}
	const hi = `"model":"test-model","input":"hi"`
	for _, c := range []struct{ name, body, param, message string }{
		{"no model", `{"input":"hi"}`, "model", "required"},
		{"no input", `{"model":"test-model"}`, "input", "required"},
		{"no items", `{"model":"test-model","input":[]}`, "input", "at least one"},
		{"no object", `{"model":"test-model","input":["x"]}`, "input[0]", "want an item"},
		{"null item", `{"model":"test-model","input":[null]}`, "input[0]", "want an object"},
		{"picture", `{"model":"test-model","input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}`, "input[0].content[0].type", "pictures"},
		{"file", `{"model":"test-model","input":[{"role":"user","content":[{"type":"input_file"}]}]}`, "input[0].content[0].type", "not supported"},
		{"reasoning item", `{"model":"test-model","input":[{"type":"reasoning"}]}`, "input[0].type", "not supported"},
		{"role", `{"model":"test-model","input":[{"role":"king","content":"x"}]}`, "input[0].role", "want user"},
		{"call without id", `{"model":"test-model","input":[{"type":"function_call","name":"x","arguments":"{}"}]}`, "input[0]", "call_id"},
		{"output without id", `{"model":"test-model","input":[{"type":"function_call_output","output":"x"}]}`, "input[0].call_id", "call_id"},
		{"tool", `{` + hi + `,"tools":[{"type":"web_search"}]}`, "tools[0].type", "function"},
		{"tool name", `{` + hi + `,"tools":[{"type":"function","name":"a b"}]}`, "tools[0].function.name", "pattern"},
		{"tool_choice alone", `{` + hi + `,"tool_choice":"required"}`, "tool_choice", "only allowed"},
		{"format", `{` + hi + `,"text":{"format":{"type":"xml"}}}`, "text.format.type", "want text"},
		{"schema", `{` + hi + `,"text":{"format":{"type":"json_schema","name":"x"}}}`, "text.format", "required"},
		{"reasoning", `{` + hi + `,"reasoning":{"effort":"high"}}`, "reasoning", "not supported"},
		{"conversation", `{` + hi + `,"conversation":"x"}`, "conversation", "not supported"},
		{"truncation", `{` + hi + `,"truncation":"disabled"}`, "truncation", "want auto"},
		{"include", `{` + hi + `,"include":["file_search_call.results"]}`, "include[0]", "not supported"},
		{"tokens", `{` + hi + `,"max_output_tokens":5000}`, "max_output_tokens", "4096"},
		{"metadata", `{` + hi + `,"metadata":{"a":"` + strings.Repeat("x", 513) + `"}}`, "metadata.a", "512"},
		{"background and not stored", `{` + hi + `,"background":true,"store":false}`, "store", "stored"},
		{"previous", `{` + hi + `,"previous_response_id":"resp_x"}`, "previous_response_id", "no response"},
		{"stream options", `{` + hi + `,"stream_options":{}}`, "stream_options", "stream is true"},
		{"unknown", `{` + hi + `,"colour":1}`, "colour", "unknown member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var body struct {
				Error struct{ Message, Type, Param, Code string }
			}
			h.Do(t, "POST", "/v1/responses", c.body).JSON(t, 400, &body)
			if e := body.Error; e.Param != c.param || !strings.Contains(e.Message, c.message) || e.Type != "invalid_request_error" {
				t.Errorf("%+v", e)
			}
		})
	}
	_, err = client(h).Responses.New(t.Context(), responses.ResponseNewParams{Model: shared.ResponsesModel("gpt-9"), Input: textInput("x")})
	wantError(t, err, 404, "model_not_found", "model")
}
