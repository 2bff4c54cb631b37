package openai_test

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

// calling answers with a text and two calls of tools.
func calling(ctx context.Context, l *queue.Lease) error {
	const said = "Let me see."
	if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: said}}); err != nil {
		return err
	}
	var in struct {
		Messages []struct{ Role string }
	}
	if err := json.Unmarshal(l.Job.Input, &in); err != nil {
		return err
	}
	result := &queue.Result{Text: said, Usage: &queue.Usage{InputTokens: 5, OutputTokens: 9}, Meta: json.RawMessage(`{"finish_reason":"stop"}`)}
	if in.Messages[len(in.Messages)-1].Role != "tool" {
		result.Meta = json.RawMessage(`{"finish_reason":"tool_calls","tool_calls":[
			{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}},
			{"id":"call_2","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Rome\"}"}}]}`)
	}
	return l.Succeed(ctx, result)
}

var weather = []sdk.ChatCompletionToolUnionParam{sdk.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
	Name: "weather", Description: sdk.String("The weather in a city."), Strict: sdk.Bool(true),
	Parameters: shared.FunctionParameters{
		"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}},
		"required": []string{"city"}, "additionalProperties": false,
	},
})}

// TestTools has the SDK hold a conversation with tools, whole and streamed.
func TestTools(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", calling)
	c := client(h)
	params := sdk.ChatCompletionNewParams{
		Model: harness.Model, Messages: user("Is it warm?"), Tools: weather, ParallelToolCalls: sdk.Bool(true),
		ToolChoice: sdk.ToolChoiceOptionFunctionToolChoice(sdk.ChatCompletionNamedToolChoiceFunctionParam{Name: "weather"}),
	}
	var response *http.Response
	answer, err := c.Chat.Completions.New(t.Context(), params, option.WithResponseInto(&response))
	if err != nil {
		t.Fatal(err)
	}
	job, err := h.Queue.Job(t.Context(), response.Header.Get("X-Helicon-Job"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"tools":[{"function":{"name":"weather"`, `"tool_choice":{"function":{"name":"weather"},"type":"function"}`, `"parallel_tool_calls":true`} {
		if !strings.Contains(string(job.Input), part) {
			t.Errorf("input %s, want %s", job.Input, part)
		}
	}
	one := answer.Choices[0]
	if one.FinishReason != "tool_calls" || one.Message.Content != "Let me see." || len(one.Message.ToolCalls) != 2 {
		t.Fatalf("choice %s", one.RawJSON())
	}
	if call := one.Message.ToolCalls[1]; call.ID != "call_2" || call.Type != "function" || call.Function.Name != "weather" || call.Function.Arguments != `{"city":"Rome"}` {
		t.Errorf("call %s", call.RawJSON())
	}

	params.Messages = append(params.Messages, one.Message.ToParam(), sdk.ToolMessage("7 degrees", "call_1"), sdk.ToolMessage("21 degrees", "call_2"))
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	var whole sdk.ChatCompletionAccumulator
	for stream.Next() {
		whole.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if got := whole.Choices[0]; got.FinishReason != "stop" || got.Message.Content != "Let me see." || len(got.Message.ToolCalls) != 0 {
		t.Errorf("after the tools: %+v", got)
	}

	params.Messages = user("Is it warm?")
	stream = c.Chat.Completions.NewStreaming(t.Context(), params)
	whole = sdk.ChatCompletionAccumulator{}
	finished := 0
	for stream.Next() {
		whole.AddChunk(stream.Current())
		if _, ok := whole.JustFinishedToolCall(); ok {
			finished++
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	got := whole.Choices[0]
	if got.FinishReason != "tool_calls" || len(got.Message.ToolCalls) != 2 || finished != 2 {
		t.Fatalf("streamed: %+v, %d finished", got, finished)
	}
	for i, city := range []string{"Oslo", "Rome"} {
		call := got.Message.ToolCalls[i]
		if call.Function.Name != "weather" || call.Function.Arguments != `{"city":"`+city+`"}` || call.ID == "" {
			t.Errorf("call %d: %+v", i, call)
		}
	}
}

// TestResponseFormat checks what the worker is told of the form of an answer.
func TestResponseFormat(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	c := client(h)
	input := func(p sdk.ChatCompletionNewParams) string {
		t.Helper()
		p.Model, p.Messages = harness.Model, user("a")
		var response *http.Response
		if _, err := c.Chat.Completions.New(t.Context(), p, option.WithResponseInto(&response)); err != nil {
			t.Fatal(err)
		}
		job, err := h.Queue.Job(t.Context(), response.Header.Get("X-Helicon-Job"))
		if err != nil {
			t.Fatal(err)
		}
		return string(job.Input)
	}
	schema := sdk.ChatCompletionNewParams{ResponseFormat: sdk.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "x", Strict: sdk.Bool(true), Schema: map[string]any{"type": "integer"}},
	}}}
	if in := input(schema); !strings.Contains(in, `"response_format":{"json_schema":{"name":"x","strict":true,"schema":{"type":"integer"}},"type":"json_schema"}`) {
		t.Errorf("input %s", in)
	}
	object := sdk.ChatCompletionNewParams{ResponseFormat: sdk.ChatCompletionNewParamsResponseFormatUnion{OfJSONObject: &shared.ResponseFormatJSONObjectParam{}}}
	if in := input(object); !strings.Contains(in, `"response_format":{"type":"json_object"}`) {
		t.Errorf("input %s", in)
	}
	plain := sdk.ChatCompletionNewParams{ResponseFormat: sdk.ChatCompletionNewParamsResponseFormatUnion{OfText: &shared.ResponseFormatTextParam{}}}
	if in := input(plain); strings.Contains(in, "response_format") {
		t.Errorf("input %s", in)
	}
}

// embedding answers with two vectors.
func embedding(ctx context.Context, l *queue.Lease) error {
	meta := json.RawMessage(`{"embeddings":["AACAPwAAAAA=","AAAAAAAAgL8="]}`) // 1, 0 and 0, -1
	return l.Succeed(ctx, &queue.Result{Usage: &queue.Usage{InputTokens: 7}, Meta: meta})
}

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", embedding)
	c := client(h)
	var response *http.Response
	answer, err := c.Embeddings.New(t.Context(), sdk.EmbeddingNewParams{
		Model: harness.Model, Dimensions: sdk.Int(2),
		Input: sdk.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}},
	}, option.WithResponseInto(&response))
	if err != nil {
		t.Fatal(err)
	}
	job, err := h.Queue.Job(t.Context(), response.Header.Get("X-Helicon-Job"))
	if err != nil {
		t.Fatal(err)
	}
	if job.Task != "text.embed" || string(job.Input) != `{"dimensions":2,"input":["a","b"]}` {
		t.Errorf("job %s %s", job.Task, job.Input)
	}
	if len(answer.Data) != 2 || answer.Data[1].Index != 1 || answer.Usage.TotalTokens != 7 || answer.Usage.PromptTokens != 7 || answer.Model != harness.Model {
		t.Fatalf("answer %s", answer.RawJSON())
	}
	if v := answer.Data[1].Embedding; len(v) != 2 || math.Abs(v[1]+1) > 1e-9 {
		t.Errorf("vector %v", v)
	}
	raw := h.Do(t, "POST", "/v1/embeddings", `{"model":"test-model","input":[1,2],"encoding_format":"base64"}`)
	if raw.Status != 200 || !strings.Contains(string(raw.Body), `"embedding":"AACAPwAAAAA="`) {
		t.Errorf("base64: %d %s", raw.Status, raw.Body)
	}
}
