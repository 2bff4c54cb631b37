package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"helicon/gateway/strict"
	"helicon/queue"
)

// sampling is what both routes take. Members of type json.RawMessage have several
// forms or none that is supported.
type sampling struct {
	Model            string          `json:"model"`
	MaxTokens        *int            `json:"max_tokens"`
	Temperature      *float64        `json:"temperature"`
	TopP             *float64        `json:"top_p"`
	N                *int            `json:"n"`
	Seed             *int64          `json:"seed"`
	Stop             json.RawMessage `json:"stop"`
	PresencePenalty  *float64        `json:"presence_penalty"`
	FrequencyPenalty *float64        `json:"frequency_penalty"`
	LogitBias        json.RawMessage `json:"logit_bias"`
	Stream           bool            `json:"stream"`
	StreamOptions    *streamOptions  `json:"stream_options"`

	// What other local servers take as well.
	TopK              *int     `json:"top_k"`
	MinP              *float64 `json:"min_p"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`
	Grammar           string   `json:"grammar"` // in GBNF

	// Taken as OpenAI takes them; they do not change the answer.
	User     string            `json:"user"`
	Metadata map[string]string `json:"metadata"`
	Store    bool              `json:"store"`
}

type streamOptions struct {
	IncludeUsage       bool `json:"include_usage"`
	IncludeObfuscation bool `json:"include_obfuscation"` // padding against eavesdroppers, which clients ignore; none is sent
}

type chatRequest struct {
	sampling
	Messages            []json.RawMessage `json:"messages"`
	MaxCompletionTokens *int              `json:"max_completion_tokens"`
	Logprobs            bool              `json:"logprobs"`
	TopLogprobs         *int              `json:"top_logprobs"`

	SafetyIdentifier     string `json:"safety_identifier"`
	PromptCacheKey       string `json:"prompt_cache_key"`
	PromptCacheRetention string `json:"prompt_cache_retention"`
	ParallelToolCalls    *bool  `json:"parallel_tool_calls"`

	Audio            json.RawMessage `json:"audio"`
	FunctionCall     json.RawMessage `json:"function_call"`
	Functions        json.RawMessage `json:"functions"`
	Modalities       json.RawMessage `json:"modalities"`
	Prediction       json.RawMessage `json:"prediction"`
	ReasoningEffort  json.RawMessage `json:"reasoning_effort"`
	ResponseFormat   json.RawMessage `json:"response_format"`
	ServiceTier      json.RawMessage `json:"service_tier"`
	ToolChoice       json.RawMessage `json:"tool_choice"`
	Tools            json.RawMessage `json:"tools"`
	Verbosity        json.RawMessage `json:"verbosity"`
	WebSearchOptions json.RawMessage `json:"web_search_options"`
}

type completionRequest struct {
	sampling
	Prompt   json.RawMessage `json:"prompt"`
	Logprobs *int            `json:"logprobs"`
	Echo     bool            `json:"echo"`
	BestOf   *int            `json:"best_of"`
	Suffix   string          `json:"suffix"`
}

// input is the input of text.chat and text.complete.
type input struct {
	Prompt            *string   `json:"prompt,omitempty"`
	Messages          []message `json:"messages,omitempty"`
	MaxTokens         *int      `json:"max_tokens,omitempty"`
	Temperature       *float64  `json:"temperature,omitempty"`
	TopK              *int      `json:"top_k,omitempty"`
	TopP              *float64  `json:"top_p,omitempty"`
	MinP              *float64  `json:"min_p,omitempty"`
	RepetitionPenalty *float64  `json:"repetition_penalty,omitempty"`
	PresencePenalty   *float64  `json:"presence_penalty,omitempty"`
	FrequencyPenalty  *float64  `json:"frequency_penalty,omitempty"`
	Stop              []string  `json:"stop,omitempty"`
	Logprobs          *int      `json:"logprobs,omitempty"`
	N                 *int      `json:"n,omitempty"`

	// As OpenAI has them; the task's schema says what they may be.
	ResponseFormat json.RawMessage `json:"response_format,omitempty"`
	Grammar        string          `json:"grammar,omitempty"`
	Tools          json.RawMessage `json:"tools,omitempty"`
	ToolChoice     json.RawMessage `json:"tool_choice,omitempty"`
	Parallel       *bool           `json:"parallel_tool_calls,omitempty"`
}

type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

// toolCall is a call of a tool that the assistant made.
type toolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"` // the text of a JSON object
	} `json:"function"`
}

// call is a request of either route in the terms of the jobs it becomes.
type call struct {
	dialect  *dialect
	task     string
	model    string
	seed     uint64
	inputs   []input // one a job
	n        int     // answers a job gives
	logprobs bool
	stream   bool
	usage    bool              // a stream ends with the usage
	names    map[string]string // of input values whose name in the request differs
}

// readChat reads a request of POST /v1/chat/completions.
func readChat(_ context.Context, body []byte) (*Exchange, error) {
	request := new(chatRequest)
	if err := strict.Object(body, "", request); err != nil {
		return nil, err
	}
	c, err := request.call()
	if err != nil {
		return nil, err
	}
	return c.exchange()
}

// readCompletion reads a request of POST /v1/completions.
func readCompletion(_ context.Context, body []byte) (*Exchange, error) {
	request := new(completionRequest)
	if err := strict.Object(body, "", request); err != nil {
		return nil, err
	}
	c, err := request.call()
	if err != nil {
		return nil, err
	}
	return c.exchange()
}

// exchange makes the call's jobs.
func (c *call) exchange() (*Exchange, error) {
	x := &Exchange{names: c.names, whole: c.whole}
	if c.stream {
		x.stream = c.flow
	}
	for _, in := range c.inputs {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("openai: input: %w", err)
		}
		x.Jobs = append(x.Jobs, &queue.Job{Task: c.task, Model: c.model, Input: text, Seed: c.seed})
	}
	return x, nil
}

// call checks what both routes have in common and returns the call and the input
// that its jobs share.
func (s *sampling) call() (*call, input, error) {
	c := &call{model: s.Model, stream: s.Stream, n: 1, names: map[string]string{}}
	if s.Model == "" {
		return nil, input{}, strict.Invalid("/model", "required, but missing; GET /v1/models lists the models")
	}
	if s.StreamOptions != nil {
		if !s.Stream {
			return nil, input{}, strict.Invalid("/stream_options", "only allowed when stream is true")
		}
		c.usage = s.StreamOptions.IncludeUsage
	}
	if err := refuse(option{"logit_bias", s.LogitBias, []string{"{}"}}); err != nil {
		return nil, input{}, err
	}
	if s.N != nil {
		c.n = *s.N
	}
	c.seed = rand.Uint64N(queue.MaxSeed + 1)
	if s.Seed != nil {
		if *s.Seed < 0 || *s.Seed > queue.MaxSeed {
			return nil, input{}, strict.Invalid("/seed", "want an integer from 0 to %d", int64(queue.MaxSeed))
		}
		c.seed = uint64(*s.Seed)
	}
	stop, err := stops(s.Stop)
	if err != nil {
		return nil, input{}, err
	}
	topK := s.TopK
	if topK != nil && *topK == -1 { // as vLLM spells "off"
		topK = new(int)
	}
	return c, input{
		MaxTokens: s.MaxTokens, Temperature: s.Temperature, TopK: topK, TopP: s.TopP, MinP: s.MinP,
		RepetitionPenalty: s.RepetitionPenalty, PresencePenalty: s.PresencePenalty,
		FrequencyPenalty: s.FrequencyPenalty, Stop: stop, N: s.N, Grammar: s.Grammar,
	}, nil
}

// call translates a request of the chat route.
func (r *chatRequest) call() (*call, error) {
	c, in, err := r.sampling.call()
	if err != nil {
		return nil, err
	}
	c.dialect, c.task, c.logprobs = &chatDialect, "text.chat", r.Logprobs
	if err := refuse(r.options()...); err != nil {
		return nil, err
	}
	if r.MaxCompletionTokens != nil {
		if r.MaxTokens != nil && *r.MaxTokens != *r.MaxCompletionTokens {
			return nil, strict.Invalid("/max_tokens", "contradicts max_completion_tokens; send one of them")
		}
		in.MaxTokens = r.MaxCompletionTokens
		c.names["max_tokens"] = "max_completion_tokens"
	}
	c.names["logprobs"] = "top_logprobs"
	switch {
	case r.Logprobs && r.TopLogprobs != nil:
		in.Logprobs = r.TopLogprobs
	case r.Logprobs:
		in.Logprobs = new(int)
	case r.TopLogprobs != nil:
		return nil, strict.Invalid("/top_logprobs", "only allowed when logprobs is true")
	}
	if err := r.form(&in); err != nil {
		return nil, err
	}
	if len(r.Messages) == 0 {
		return nil, strict.Invalid("/messages", "want at least one message")
	}
	for i, text := range r.Messages {
		m, err := readMessage(fmt.Sprintf("/messages/%d", i), text)
		if err != nil {
			return nil, err
		}
		in.Messages = append(in.Messages, m)
	}
	c.inputs = []input{in}
	return c, nil
}

// form takes over what gives the answer a form. The schema of the task judges it.
func (r *chatRequest) form(in *input) error {
	if !absent(r.ResponseFormat) && refuse(option{"response_format", r.ResponseFormat, []string{`{"type":"text"}`}}) != nil {
		in.ResponseFormat = r.ResponseFormat
	}
	if absent(r.Tools) || refuse(option{"tools", r.Tools, []string{`[]`}}) == nil {
		if refuse(option{"tool_choice", r.ToolChoice, []string{`"none"`, `"auto"`}}) != nil {
			return strict.Invalid("/tool_choice", "only allowed when there are tools")
		}
		return nil
	}
	in.Tools, in.Parallel = r.Tools, r.ParallelToolCalls
	if !absent(r.ToolChoice) {
		in.ToolChoice = r.ToolChoice
	}
	return nil
}

// maxPrompts bounds how many jobs one request may make.
const maxPrompts = 64

// call translates a request of the completion route.
func (r *completionRequest) call() (*call, error) {
	c, in, err := r.sampling.call()
	if err != nil {
		return nil, err
	}
	c.dialect, c.task, c.logprobs = &textDialect, "text.complete", r.Logprobs != nil
	switch {
	case r.Echo:
		return nil, strict.Invalid("/echo", "not supported")
	case r.Suffix != "":
		return nil, strict.Invalid("/suffix", "not supported")
	case r.BestOf != nil && *r.BestOf != c.n:
		return nil, strict.Invalid("/best_of", "not supported; n gives several answers")
	}
	in.Logprobs = r.Logprobs
	prompts, err := readPrompts(r.Prompt)
	if err != nil {
		return nil, err
	}
	for _, prompt := range prompts {
		in.Prompt = &prompt
		c.inputs = append(c.inputs, in)
	}
	return c, nil
}

// option is a member of a request that only has an effect with values other than
// the harmless ones.
type option struct {
	name     string
	value    json.RawMessage
	harmless []string
}

func (r *chatRequest) options() []option {
	return []option{
		{"audio", r.Audio, nil},
		{"function_call", r.FunctionCall, []string{`"none"`, `"auto"`}},
		{"functions", r.Functions, []string{`[]`}},
		{"modalities", r.Modalities, []string{`["text"]`}},
		{"prediction", r.Prediction, nil},
		{"reasoning_effort", r.ReasoningEffort, []string{`"none"`}},
		{"service_tier", r.ServiceTier, []string{`"auto"`, `"default"`}},
		{"verbosity", r.Verbosity, []string{`"medium"`}},
		{"web_search_options", r.WebSearchOptions, nil},
	}
}

// refuse returns an error for the first option that would have an effect.
func refuse(options ...option) error {
	for _, o := range options {
		if absent(o.value) {
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, o.value); err != nil {
			return strict.Invalid("/"+o.name, "%v", err)
		}
		if slices.Contains(o.harmless, compact.String()) {
			continue
		}
		if len(o.harmless) > 0 {
			return strict.Invalid("/"+o.name, "not supported; only %s is accepted", strings.Join(o.harmless, " or "))
		}
		return strict.Invalid("/"+o.name, "not supported")
	}
	return nil
}

// absent reports whether a member was left out; null means the same.
func absent(value json.RawMessage) bool { return len(value) == 0 || string(value) == "null" }

// stops reads one stop sequence or several.
func stops(value json.RawMessage) ([]string, error) {
	if absent(value) {
		return nil, nil
	}
	var one string
	if json.Unmarshal(value, &one) == nil {
		return []string{one}, nil
	}
	var several []string
	if json.Unmarshal(value, &several) != nil {
		return nil, strict.Invalid("/stop", "want a string or an array of strings")
	}
	return several, nil
}

// readPrompts reads one prompt or several.
func readPrompts(value json.RawMessage) ([]string, error) {
	if absent(value) {
		return nil, strict.Invalid("/prompt", "required, but missing")
	}
	var one string
	if json.Unmarshal(value, &one) == nil {
		return []string{one}, nil
	}
	var several []json.RawMessage
	if json.Unmarshal(value, &several) != nil {
		return nil, strict.Invalid("/prompt", "want a string or an array of strings")
	}
	if len(several) == 0 || len(several) > maxPrompts {
		return nil, strict.Invalid("/prompt", "want 1 to %d prompts, got %d", maxPrompts, len(several))
	}
	prompts := make([]string, len(several))
	for i, p := range several {
		if absent(p) || json.Unmarshal(p, &prompts[i]) != nil {
			return nil, strict.Invalid(fmt.Sprintf("/prompt/%d", i), "want a string; token ids are not supported")
		}
	}
	return prompts, nil
}

// readMessage reads one message of a conversation.
func readMessage(at string, text json.RawMessage) (message, error) {
	var in struct {
		Role      string          `json:"role"`
		Content   json.RawMessage `json:"content"`
		Name      json.RawMessage `json:"name"`
		Refusal   json.RawMessage `json:"refusal"`
		ToolCalls json.RawMessage `json:"tool_calls"`
		ToolCall  json.RawMessage `json:"tool_call_id"`
		Function  json.RawMessage `json:"function_call"`
		Audio     json.RawMessage `json:"audio"`
		// The SDKs send these back with an answer that they were given.
		Annotations json.RawMessage `json:"annotations"`
	}
	if err := strict.Object(text, at, &in); err != nil {
		return message{}, err
	}
	refused := []option{
		{"name", in.Name, nil}, {"refusal", in.Refusal, []string{`""`}}, {"function_call", in.Function, nil},
		{"audio", in.Audio, nil}, {"annotations", in.Annotations, []string{"[]"}},
	}
	if in.Role != "assistant" {
		refused = append(refused, option{"tool_calls", in.ToolCalls, []string{"[]"}})
	}
	if in.Role != "tool" {
		refused = append(refused, option{"tool_call_id", in.ToolCall, nil})
	}
	out := message{Role: in.Role}
	switch in.Role {
	case "system", "user":
	case "assistant":
		if !absent(in.ToolCalls) {
			if err := readCalls(at+"/tool_calls", in.ToolCalls, &out); err != nil {
				return message{}, err
			}
		}
	case "tool":
		if absent(in.ToolCall) || json.Unmarshal(in.ToolCall, &out.ToolCallID) != nil {
			return message{}, strict.Invalid(at+"/tool_call_id", "want the id of the call that the message answers")
		}
	case "developer": // OpenAI's newer word for system
		out.Role = "system"
	case "function":
		return message{}, strict.Invalid(at+"/role", "functions are not supported; use tools and the role tool")
	default:
		return message{}, strict.Invalid(at+"/role", "want system, developer, user, assistant or tool")
	}
	for _, o := range refused {
		o.name = strings.TrimPrefix(at, "/") + "/" + o.name
		if err := refuse(o); err != nil {
			return message{}, err
		}
	}
	if absent(in.Content) && len(out.ToolCalls) > 0 {
		return out, nil
	}
	var err error
	out.Content, err = readContent(at+"/content", in.Content)
	return out, err
}

// readCalls reads the calls that an assistant made.
func readCalls(at string, value json.RawMessage, into *message) error {
	var calls []json.RawMessage
	if json.Unmarshal(value, &calls) != nil {
		return strict.Invalid(at, "want an array of calls")
	}
	into.ToolCalls = make([]toolCall, len(calls))
	for i, c := range calls {
		if err := strict.Object(c, fmt.Sprintf("%s/%d", at, i), &into.ToolCalls[i]); err != nil {
			return err
		}
	}
	return nil
}

// readContent reads a text, or the parts of one.
func readContent(at string, value json.RawMessage) (string, error) {
	if absent(value) {
		return "", strict.Invalid(at, "required, but missing")
	}
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text, nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(value, &parts) != nil {
		return "", strict.Invalid(at, "want a string or an array of text parts")
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		where := fmt.Sprintf("%s/%d", at, i)
		var kind struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(p, &kind) != nil || kind.Type != "text" {
			return "", strict.Invalid(where, `want {"type":"text","text":…}; other kinds of parts are not supported`)
		}
		var part struct {
			Type string  `json:"type"`
			Text *string `json:"text"`
		}
		if err := strict.Object(p, where, &part); err != nil {
			return "", err
		}
		if part.Text == nil {
			return "", strict.Invalid(where+"/text", "required, but missing")
		}
		texts[i] = *part.Text
	}
	return strings.Join(texts, "\n"), nil
}
