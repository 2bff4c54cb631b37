package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"helicon/gateway/strict"
	"helicon/queue"
)

// responseRequest is the body of POST /v1/responses. Members of type json.RawMessage have
// several forms or none that is supported.
type responseRequest struct {
	Model           string            `json:"model"`
	Input           json.RawMessage   `json:"input"`
	Instructions    *string           `json:"instructions"`
	Previous        string            `json:"previous_response_id"`
	MaxOutputTokens *int              `json:"max_output_tokens"`
	Temperature     *float64          `json:"temperature"`
	TopP            *float64          `json:"top_p"`
	TopLogprobs     *int              `json:"top_logprobs"`
	Include         []string          `json:"include"`
	Text            *textConfig       `json:"text"`
	Tools           []json.RawMessage `json:"tools"`
	ToolChoice      json.RawMessage   `json:"tool_choice"`
	Parallel        *bool             `json:"parallel_tool_calls"`
	Stream          bool              `json:"stream"`
	StreamOptions   *struct {
		IncludeObfuscation bool `json:"include_obfuscation"` // padding against eavesdroppers, which clients ignore; none is sent
	} `json:"stream_options"`
	Background bool              `json:"background"`
	Store      *bool             `json:"store"`
	Metadata   map[string]string `json:"metadata"`
	Truncation string            `json:"truncation"`
	Seed       *int64            `json:"seed"` // not OpenAI's

	// Taken as OpenAI takes them; they do not change the answer.
	User                 string `json:"user"`
	SafetyIdentifier     string `json:"safety_identifier"`
	PromptCacheKey       string `json:"prompt_cache_key"`
	PromptCacheRetention string `json:"prompt_cache_retention"`

	Conversation      json.RawMessage `json:"conversation"`
	ContextManagement json.RawMessage `json:"context_management"`
	MaxToolCalls      json.RawMessage `json:"max_tool_calls"`
	Moderation        json.RawMessage `json:"moderation"`
	Prompt            json.RawMessage `json:"prompt"`
	Reasoning         json.RawMessage `json:"reasoning"`
	ServiceTier       json.RawMessage `json:"service_tier"`
}

type textConfig struct {
	Format    json.RawMessage `json:"format"`
	Verbosity json.RawMessage `json:"verbosity"`
}

// memo is what the job of a response remembers of its request beside its input.
type memo struct {
	Response *responseMemo `json:"response,omitempty"`
}

type responseMemo struct {
	Instructed bool              `json:"instructed,omitempty"` // the first message is the instructions
	Carried    int               `json:"carried,omitempty"`    // messages of earlier responses, which come next
	Previous   string            `json:"previous,omitempty"`
	Background bool              `json:"background,omitempty"`
	Unstored   bool              `json:"unstored,omitempty"` // not to be asked for again
	Logprobs   bool              `json:"logprobs,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// responsePrefix stands before a job's id in that of a response.
const responsePrefix = "resp_"

// withLogprobs is the member of include that asks for log probabilities.
const withLogprobs = "message.output_text.logprobs"

// readResponse reads a request of POST /v1/responses.
func (a *API) readResponse(ctx context.Context, body []byte) (*Exchange, error) {
	request := new(responseRequest)
	if err := strict.Object(body, "", request); err != nil {
		return nil, err
	}
	if err := request.validate(); err != nil {
		return nil, err
	}
	about := &responseMemo{
		Previous: request.Previous, Background: request.Background, Metadata: request.Metadata,
		Unstored: request.Store != nil && !*request.Store,
	}
	in, err := request.settings(about)
	if err != nil {
		return nil, err
	}
	if in.Messages, err = a.conversation(ctx, request, about); err != nil {
		return nil, err
	}
	job := &queue.Job{Task: "text.chat", Model: request.Model, Seed: rand.Uint64N(queue.MaxSeed + 1)}
	if request.Seed != nil {
		job.Seed = uint64(*request.Seed)
	}
	if job.Input, err = json.Marshal(in); err != nil {
		return nil, fmt.Errorf("openai: input: %w", err)
	}
	if job.Memo, err = json.Marshal(memo{about}); err != nil {
		return nil, fmt.Errorf("openai: memo: %w", err)
	}
	x := &Exchange{
		Jobs: []*queue.Job{job}, whole: wholeResponse, background: request.Background,
		names: map[string]string{
			"max_tokens": "max_output_tokens", "logprobs": "top_logprobs", "response_format": "text/format", "messages": "input",
		},
	}
	if request.Stream {
		x.stream = streamResponse
	}
	return x, nil
}

// Limits on metadata, which are OpenAI's.
const (
	maxMetadata      = 16
	maxMetadataKey   = 64  // bytes
	maxMetadataValue = 512 // bytes
)

// validate lists what the route cannot honour, by name.
func (r *responseRequest) validate() error {
	switch {
	case r.Model == "":
		return strict.Invalid("/model", "required, but missing; GET /v1/models lists the models")
	case r.StreamOptions != nil && !r.Stream:
		return strict.Invalid("/stream_options", "only allowed when stream is true")
	case r.Background && r.Store != nil && !*r.Store:
		return strict.Invalid("/store", "a response in the background has to be stored: it is asked for later")
	case r.Truncation != "" && r.Truncation != "auto":
		return strict.Invalid("/truncation", "want auto: of a conversation that outgrows the model's context the oldest turns are left out")
	case r.Seed != nil && (*r.Seed < 0 || *r.Seed > queue.MaxSeed):
		return strict.Invalid("/seed", "want an integer from 0 to %d", int64(queue.MaxSeed))
	}
	if err := checkMetadata(r.Metadata); err != nil {
		return err
	}
	for i, wanted := range r.Include {
		if wanted != withLogprobs && wanted != "reasoning.encrypted_content" { // there is no reasoning to be encrypted
			return strict.Invalid(fmt.Sprintf("/include/%d", i), "not supported; only %s is accepted", withLogprobs)
		}
	}
	options := []option{
		{"conversation", r.Conversation, nil},
		{"context_management", r.ContextManagement, []string{"[]"}},
		{"max_tool_calls", r.MaxToolCalls, nil},
		{"moderation", r.Moderation, nil},
		{"prompt", r.Prompt, nil},
		{"reasoning", r.Reasoning, []string{"{}", `{"effort":"none"}`, `{"effort":null}`, `{"effort":null,"summary":null}`}},
		{"service_tier", r.ServiceTier, []string{`"auto"`, `"default"`}},
	}
	if r.Text != nil {
		options = append(options, option{"text/verbosity", r.Text.Verbosity, []string{`"medium"`}})
	}
	return refuse(options...)
}

// checkMetadata applies OpenAI's limits.
func checkMetadata(metadata map[string]string) error {
	if len(metadata) > maxMetadata {
		return strict.Invalid("/metadata", "at most %d members", maxMetadata)
	}
	for key, value := range metadata {
		if len(key) > maxMetadataKey || len(value) > maxMetadataValue {
			return strict.Invalid("/metadata/"+strict.Escape(key), "at most %d bytes in a name and %d in a value", maxMetadataKey, maxMetadataValue)
		}
	}
	return nil
}

// settings is the input of the job but for its messages.
func (r *responseRequest) settings(about *responseMemo) (*input, error) {
	in := &input{MaxTokens: r.MaxOutputTokens, Temperature: r.Temperature, TopP: r.TopP, Parallel: r.Parallel}
	for _, wanted := range r.Include {
		about.Logprobs = about.Logprobs || wanted == withLogprobs
	}
	switch {
	case about.Logprobs && r.TopLogprobs == nil:
		in.Logprobs = new(int)
	case about.Logprobs:
		in.Logprobs = r.TopLogprobs
	case r.TopLogprobs != nil && *r.TopLogprobs != 0:
		return nil, strict.Invalid("/top_logprobs", "only given when include has %s", withLogprobs)
	}
	if r.Text != nil && !absent(r.Text.Format) {
		var err error
		if in.ResponseFormat, err = readFormat(r.Text.Format); err != nil {
			return nil, err
		}
	}
	return in, r.tools(in)
}

// format is text.format. The members of a json_schema stand beside its type; chat completions
// have them one level further in.
type format struct {
	Type string `json:"type"`
	jsonSchema
}

type jsonSchema struct {
	Name        string          `json:"name,omitempty"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
}

// chatFormat is a format as the task has it.
type chatFormat struct {
	Type   string      `json:"type"`
	Schema *jsonSchema `json:"json_schema,omitempty"`
}

// readFormat reads the form that the answer is to have; nil stands for text.
func readFormat(text json.RawMessage) (json.RawMessage, error) {
	f := new(format)
	if err := strict.Object(text, "/text/format", f); err != nil {
		return nil, err
	}
	switch f.Type {
	case "text":
		return nil, nil
	case "json_object":
		return json.Marshal(chatFormat{Type: f.Type})
	case "json_schema":
		return json.Marshal(chatFormat{f.Type, &f.jsonSchema})
	}
	return nil, strict.Invalid("/text/format/type", "want text, json_object or json_schema")
}

// function is a tool as responses have it, with the members of its signature beside its type.
type function struct {
	Type string `json:"type"`
	signature
}

type signature struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
}

// chatFunction is a tool as the task has it.
type chatFunction struct {
	Type     string    `json:"type"`
	Function signature `json:"function"`
}

// tools reads the tools and which of them are to be called.
func (r *responseRequest) tools(in *input) error {
	if len(r.Tools) == 0 {
		in.Parallel = nil
		if refuse(option{"tool_choice", r.ToolChoice, []string{`"none"`, `"auto"`}}) != nil {
			return strict.Invalid("/tool_choice", "only allowed when there are tools")
		}
		return nil
	}
	tools := make([]chatFunction, len(r.Tools))
	for i, text := range r.Tools {
		at := fmt.Sprintf("/tools/%d", i)
		var kind struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(text, &kind) != nil || kind.Type != "function" {
			return strict.Invalid(at+"/type", "only tools of the type function are supported; the caller runs them")
		}
		var f function
		if err := strict.Object(text, at, &f); err != nil {
			return err
		}
		if absent(f.Parameters) {
			f.Parameters = nil
		}
		tools[i] = chatFunction{f.Type, f.signature}
	}
	var err error
	if in.Tools, err = json.Marshal(tools); err != nil {
		return fmt.Errorf("openai: tools: %w", err)
	}
	in.ToolChoice, err = readToolChoice(r.ToolChoice)
	return err
}

// readToolChoice reads a word, or the name of a function.
func readToolChoice(text json.RawMessage) (json.RawMessage, error) {
	if absent(text) {
		return nil, nil
	}
	var word string
	if json.Unmarshal(text, &word) == nil {
		return text, nil
	}
	var choice struct {
		Type string `json:"type"`
		Name string `json:"name"`
	}
	if err := strict.Object(text, "/tool_choice", &choice); err != nil {
		return nil, err
	}
	if choice.Type != "function" {
		return nil, strict.Invalid("/tool_choice/type", "want function, or none, auto or required in the place of the object")
	}
	return json.Marshal(map[string]any{"type": choice.Type, "function": map[string]string{"name": choice.Name}})
}

// conversation is what was said so far: the instructions, what came before, and the input.
func (a *API) conversation(ctx context.Context, r *responseRequest, about *responseMemo) ([]message, error) {
	var said []message
	if r.Instructions != nil && *r.Instructions != "" {
		said, about.Instructed = append(said, message{Role: "system", Content: *r.Instructions}), true
	}
	if r.Previous != "" {
		earlier, err := a.earlier(ctx, r.Previous)
		if err != nil {
			return nil, err
		}
		said, about.Carried = append(said, earlier...), len(earlier)
	}
	added, err := readItems(r.Input)
	if err != nil {
		return nil, err
	}
	return append(said, added...), nil
}

// earlier is the conversation that ends with the response of an id. Its instructions are not
// part of it.
func (a *API) earlier(ctx context.Context, id string) ([]message, error) {
	job, about, err := a.response(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return nil, strict.Invalid("/previous_response_id", "there is no response %q", id)
	}
	if err != nil {
		return nil, err
	}
	if job.State != queue.Succeeded {
		return nil, strict.Invalid("/previous_response_id", "the response is %s; only one that is completed can be continued", responseStatus(job))
	}
	var in input
	if err := json.Unmarshal(job.Input, &in); err != nil {
		return nil, fmt.Errorf("openai: job %s: input: %w", job.ID, err)
	}
	said := in.Messages
	if about.Instructed && len(said) > 0 {
		said = said[1:]
	}
	answers, err := choices(job, 1)
	if err != nil {
		return nil, err
	}
	return append(said, message{Role: "assistant", Content: answers[0].Text, ToolCalls: answers[0].ToolCalls}), nil
}

// response finds the job of a response and what it remembers. The error is queue.ErrNotFound
// if the caller has no such response, or asked for it not to be kept.
func (a *API) response(ctx context.Context, id string) (*queue.Job, *responseMemo, error) {
	ulid, ok := strings.CutPrefix(id, responsePrefix)
	if !ok || !queue.ValidID(ulid) {
		return nil, nil, queue.ErrNotFound
	}
	job, err := a.backend.Job(ctx, ulid)
	if err != nil {
		return nil, nil, err
	}
	about, err := recall(job)
	if err == nil && about.Unstored {
		err = queue.ErrNotFound
	}
	return job, about, err
}

// recall reads what the job of a response remembers; queue.ErrNotFound if it is none of one.
func recall(job *queue.Job) (*responseMemo, error) {
	var m memo
	if len(job.Memo) > 0 {
		if err := json.Unmarshal(job.Memo, &m); err != nil {
			return nil, fmt.Errorf("openai: job %s: memo: %w", job.ID, err)
		}
	}
	if m.Response == nil {
		return nil, queue.ErrNotFound
	}
	return m.Response, nil
}

// wholeResponse writes the response of the delivery's job, as far as it has come.
func wholeResponse(_ context.Context, d *delivery, w io.Writer) error {
	answer, err := newResponse(d.jobs[0])
	if err != nil {
		return err
	}
	return writeJSON(w, answer)
}

// streamResponse returns what streams the response of the delivery's job.
func streamResponse(_ context.Context, d *delivery, out *events) flow {
	return &responseFlow{job: d.jobs[0], out: out, after: -1}
}
