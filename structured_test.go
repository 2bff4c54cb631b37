package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// reviewSchema is what the model below, which knows no JSON, must answer with.
const reviewSchema = `{"type":"object","properties":{
	"title":{"type":"string","minLength":3,"maxLength":24},
	"stars":{"type":"integer","minimum":1,"maximum":5},
	"sold":{"type":"boolean"},
	"day":{"type":"string","format":"date"},
	"tags":{"type":"array","items":{"enum":["toys","food","books"]},"minItems":1,"maxItems":3}
},"required":["title","stars","sold","day","tags"],"additionalProperties":false}`

// satisfies checks a JSON text against a schema with an independent implementation.
func satisfies(t *testing.T, schema, text string) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("s:", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("s:")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}

// TestStructuredAnswers has the embedded model answer in JSON and embed texts, through
// the command, the gateway and a worker, as OpenAI's SDK asks for it.
func TestStructuredAnswers(t *testing.T) {
	t.Parallel()
	p := launch(t, "--addr", "127.0.0.1:0", "--data", t.TempDir())
	server := p.address(t)
	awaitWorkers(t, server, 1)
	c := sdk.NewClient(option.WithBaseURL(server.base+"/v1"), option.WithAPIKey("none"), option.WithHTTPClient(http.DefaultClient))
	const model = "helicon-text"
	params := sdk.ChatCompletionNewParams{
		Model: model, Messages: []sdk.ChatCompletionMessageParamUnion{sdk.UserMessage("Review a book.")}, MaxTokens: sdk.Int(300),
		ResponseFormat: sdk.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "review", Strict: sdk.Bool(true), Schema: json.RawMessage(reviewSchema)},
		}},
	}
	for seed := range int64(3) {
		params.Seed = sdk.Int(seed)
		answer, err := c.Chat.Completions.New(t.Context(), params)
		if err != nil {
			t.Fatal(err)
		}
		if one := answer.Choices[0]; one.FinishReason != "stop" {
			t.Errorf("%q ended by %s", one.Message.Content, one.FinishReason)
		} else {
			satisfies(t, reviewSchema, one.Message.Content)
			t.Log(one.Message.Content)
		}
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	var whole sdk.ChatCompletionAccumulator
	for stream.Next() {
		whole.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	satisfies(t, reviewSchema, whole.Choices[0].Message.Content)

	params.ResponseFormat = sdk.ChatCompletionNewParamsResponseFormatUnion{}
	params.Tools = []sdk.ChatCompletionToolUnionParam{sdk.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "f"})}
	var refused *sdk.Error
	if _, err := c.Chat.Completions.New(t.Context(), params); !errors.As(err, &refused) || refused.Param != "tools" || refused.Code != "tools_unsupported" {
		t.Errorf("tools of a model without them: %v", err)
	}

	vectors, err := c.Embeddings.New(t.Context(), sdk.EmbeddingNewParams{
		Model: model, Input: sdk.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"The dog ran.", "The dog ran!", "春眠不觉晓"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	likeness := func(i, j int) (sum float64) {
		for k, x := range vectors.Data[i].Embedding {
			sum += x * vectors.Data[j].Embedding[k]
		}
		return sum
	}
	if near, far := likeness(0, 1), likeness(0, 2); near <= far || likeness(0, 0) < 0.999 || vectors.Usage.PromptTokens == 0 {
		t.Errorf("likeness of texts that are alike %v, of others %v", near, far)
	}

	schema := filepath.Join(t.TempDir(), "review.json")
	if err := os.WriteFile(schema, []byte(reviewSchema), 0o600); err != nil {
		t.Fatal(err)
	}
	grammar := filepath.Join(t.TempDir(), "answer.gbnf")
	if err := os.WriteFile(grammar, []byte(`root ::= "yes" | "no"`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t.Context(), "generate", "text", "A book:", "--schema", schema, "--max-tokens", "300", "--seed", "1", "--server", server.base).Output()
	if err != nil {
		t.Fatal(err)
	}
	satisfies(t, reviewSchema, strings.TrimSuffix(string(out), "\n"))
	out, err = command(t.Context(), "generate", "text", "Is it so?", "--grammar", grammar, "--server", server.base).Output()
	if text := strings.TrimSpace(string(out)); err != nil || text != "yes" && text != "no" {
		t.Errorf("%q (%v)", out, err)
	}
}
