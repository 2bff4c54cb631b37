package text

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"

	"helicon/models/hub"
	"helicon/models/sample"
	"helicon/models/tokenizer"
	"helicon/queue"
)

// Limits on the input, as the schemas state them.
const (
	maxTextLength   = 200_000 // characters
	maxMessages     = 1000
	maxTokens       = 4096
	maxTemperature  = 2
	maxTopK         = 1000
	maxRepetition   = 2
	maxPenalty      = 2
	maxStops        = 16
	maxStopLength   = 256 // characters
	maxLogprobs     = 20
	maxChoices      = 8
	maxProbableRows = 40_000  // log probabilities in one result, some 100 bytes each
	maxGrammar      = 200_000 // characters
	maxTools        = 128
)

// input is what either task takes.
type input struct {
	Prompt   string    `json:"prompt"`
	Echo     bool      `json:"echo"`
	Messages []message `json:"messages"`

	ResponseFormat *responseFormat `json:"response_format"`
	Grammar        string          `json:"grammar"`
	Tools          []tool          `json:"tools"`
	ToolChoice     *toolChoice     `json:"tool_choice"`
	Parallel       *bool           `json:"parallel_tool_calls"`
	beamInput
	sampling
}

// message is one message of a chat.
type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`   // of the assistant
	ToolCallID string     `json:"tool_call_id,omitempty"` // of a tool's answer
}

// The roles of messages.
const (
	system    = "system"
	user      = "user"
	assistant = "assistant"
	toolRole  = "tool"
)

// sampling is the members that both tasks share, nil where they were left out. A
// model's generation_config.json uses the same names.
type sampling struct {
	MaxTokens         *whole   `json:"max_tokens"`
	Temperature       *float64 `json:"temperature"`
	TopK              *whole   `json:"top_k"`
	TopP              *float64 `json:"top_p"`
	MinP              *float64 `json:"min_p"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`
	PresencePenalty   *float64 `json:"presence_penalty"`
	FrequencyPenalty  *float64 `json:"frequency_penalty"`
	Stop              []string `json:"stop"`
	Logprobs          *whole   `json:"logprobs"`
	N                 *whole   `json:"n"`
}

// whole is an integer as JSON Schema has it: 100, 100.0 and 1e2 are the same.
type whole int

// UnmarshalJSON implements json.Unmarshaler. Its error is a *json.UnmarshalTypeError.
func (w *whole) UnmarshalJSON(data []byte) error {
	var n float64
	wrong := &json.UnmarshalTypeError{Value: "number " + string(data)}
	// Where the value is no number at all, the decoder's error takes the place of wrong.
	if err := json.Unmarshal(data, &n); errors.As(err, &wrong) || n != math.Trunc(n) || math.Abs(n) > math.MaxInt32 {
		wrong.Type = reflect.TypeFor[int]()
		return wrong
	}
	*w = whole(n)
	return nil
}

// parameters are the values used, as the result states them.
type parameters struct {
	MaxTokens         int      `json:"max_tokens"`
	Temperature       float64  `json:"temperature"`
	TopK              int      `json:"top_k"`
	TopP              float64  `json:"top_p"`
	MinP              float64  `json:"min_p"`
	RepetitionPenalty float64  `json:"repetition_penalty"`
	PresencePenalty   float64  `json:"presence_penalty"`
	FrequencyPenalty  float64  `json:"frequency_penalty"`
	Stop              []string `json:"stop,omitempty"`
	Logprobs          *int     `json:"logprobs,omitempty"`
	N                 int      `json:"n"`
	Seed              uint64   `json:"seed"`

	Beams *beamParameters `json:"beams,omitempty"`
}

// defaults are the parameters where neither input nor model give one, as the
// schemas state them.
func defaults() parameters {
	return parameters{MaxTokens: 200, Temperature: 0.8, TopK: 40, TopP: 0.95, RepetitionPenalty: 1.1, N: 1}
}

// over returns the parameters with those of s in place where it has any.
func (s sampling) over(p parameters) parameters {
	p.MaxTokens = *cmp.Or((*int)(s.MaxTokens), &p.MaxTokens)
	p.Temperature = *cmp.Or(s.Temperature, &p.Temperature)
	p.TopK = *cmp.Or((*int)(s.TopK), &p.TopK)
	p.TopP = *cmp.Or(s.TopP, &p.TopP)
	p.MinP = *cmp.Or(s.MinP, &p.MinP)
	p.RepetitionPenalty = *cmp.Or(s.RepetitionPenalty, &p.RepetitionPenalty)
	p.PresencePenalty = *cmp.Or(s.PresencePenalty, &p.PresencePenalty)
	p.FrequencyPenalty = *cmp.Or(s.FrequencyPenalty, &p.FrequencyPenalty)
	p.N = *cmp.Or((*int)(s.N), &p.N)
	if s.Stop != nil {
		p.Stop = s.Stop
	}
	if s.Logprobs != nil {
		p.Logprobs = (*int)(s.Logprobs)
	}
	return p
}

// sample returns the parameters of one choice. Of the others, the seed is far from
// the job's in every bit (the finaliser of SplitMix64, Steele et al. 2014).
func (p parameters) sample(choice int) sample.Params {
	seed := p.Seed
	if choice > 0 {
		seed += uint64(choice) * 0x9E3779B97F4A7C15
		seed = (seed ^ seed>>30) * 0xBF58476D1CE4E5B9
		seed = (seed ^ seed>>27) * 0x94D049BB133111EB
		seed ^= seed >> 31
	}
	return sample.Params{
		Temperature: p.Temperature, TopK: p.TopK, TopP: p.TopP, MinP: p.MinP,
		RepetitionPenalty: p.RepetitionPenalty, PresencePenalty: p.PresencePenalty, FrequencyPenalty: p.FrequencyPenalty,
		Seed: seed,
	}
}

// request is a job's input with everything decided that can be without the model.
type request struct {
	bundle *hub.Bundle
	input  input
	chat   bool
	params parameters
	form   *form // nil: the text is free
}

// request reads a job. The error is a *queue.Problem where the job is at fault.
func (g *Generator) request(job *queue.Job) (*request, error) {
	b, err := g.bundle(job)
	if err != nil {
		return nil, err
	}
	profile, err := g.profile(b)
	if err != nil {
		return nil, unusable(b, err)
	}
	r := &request{bundle: b, chat: job.Task == taskChat}
	decoder := json.NewDecoder(bytes.NewReader(job.Input))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r.input); err != nil {
		return nil, unreadable(err)
	}
	r.params = r.input.over(profile.generation.over(defaults()))
	r.params.Seed = job.Seed
	if beams := r.input.beams(); beams != nil {
		r.params = r.params.search(beams)
	}
	if errs := r.validate(); errs != nil {
		return nil, &queue.Problem{Code: "invalid_request", Detail: "The input is not valid.", Errors: errs}
	}
	if r.form, err = g.form(&r.input); err != nil {
		return nil, err
	}
	switch {
	case !r.chat:
	case errors.Is(profile.chatErr, tokenizer.ErrNoChatTemplate):
		return nil, queue.Problemf("no_chat_template",
			"The model %s was not made for conversations: it has no chat template. Use text.complete, or another model.", b.ID)
	case profile.chatErr != nil:
		return nil, queue.Problemf("chat_unreadable", "The chat template of the model %s cannot be used: %v.", b.ID, profile.chatErr)
	}
	return r, nil
}

// unreadable is the problem of an input that is no JSON of the right types.
func unreadable(err error) *queue.Problem {
	if f, ok := misfit(err); ok {
		return &queue.Problem{Code: "invalid_request", Detail: "The input is not valid.", Errors: []queue.FieldError{f}}
	}
	return queue.Problemf("invalid_request", "The input is not a JSON object with members of the task's schema alone.")
}

// misfit tells which member of an input, or of generation_config.json, has a value of
// the wrong type. It reports false for any other error of package json.
func misfit(err error) (f queue.FieldError, ok bool) {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) || wrong.Field == "" {
		return f, false
	}
	// The path has the embedded struct, and leaves out indices.
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(wrong.Field, "sampling."), "beamInput."), ".")
	want := map[reflect.Kind]string{
		reflect.Int: "an integer", reflect.Float64: "a number", reflect.String: "a string",
		reflect.Bool: "true or false", reflect.Slice: "an array", reflect.Struct: "an object",
	}[wrong.Type.Kind()]
	return queue.FieldError{Pointer: "/" + name, Detail: fmt.Sprintf("want %s, got %s", want, wrong.Value)}, true
}

// findings collects what is wrong with an input.
type findings []queue.FieldError

func (f *findings) check(ok bool, pointer, format string, args ...any) {
	if !ok {
		*f = append(*f, queue.FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

func (f *findings) within(value, low, high float64, name string) {
	f.check(value >= low && value <= high, "/"+name, "want a number from %v to %v", low, high)
}

// validate lists every rule on the input. The gateway has checked it against the
// schema; this is for whoever comes past the gateway.
func (r *request) validate() findings {
	f := r.params.validate()
	in := r.input
	in.validateForm(&f)
	in.validateBeams(&f)
	if r.chat {
		f.check(in.Prompt == "" && !in.Echo, "/prompt", "is not part of a chat")
		f.check(len(in.Messages) >= 1 && len(in.Messages) <= maxMessages, "/messages", "want 1 to %d messages", maxMessages)
		for i, m := range in.Messages {
			m.validate(&f, fmt.Sprintf("/messages/%d", i))
		}
		in.validateTools(&f)
		return f
	}
	f.check(in.Messages == nil, "/messages", "are not part of a completion")
	f.check(in.Tools == nil && in.ToolChoice == nil, "/tools", "are not part of a completion")
	f.check(in.Prompt != "" && length(in.Prompt) <= maxTextLength, "/prompt", "want 1 to %d characters", maxTextLength)
	return f
}

func (m *message) validate(f *findings, at string) {
	f.check(m.Role == system || m.Role == user || m.Role == assistant || m.Role == toolRole, at+"/role", "want system, user, assistant or tool")
	f.check(length(m.Content) <= maxTextLength, at+"/content", "want at most %d characters", maxTextLength)
	f.check(m.ToolCalls == nil || m.Role == assistant, at+"/tool_calls", "are made by the assistant alone")
	f.check((m.ToolCallID != "") == (m.Role == toolRole), at+"/tool_call_id", "belongs to the messages of tools: it names the call that one answers")
	for i, c := range m.ToolCalls {
		f.check(c.Function.Name != "", fmt.Sprintf("%s/tool_calls/%d/function/name", at, i), "required, but missing")
		f.check(isObject([]byte(c.Function.Arguments)), fmt.Sprintf("%s/tool_calls/%d/function/arguments", at, i), "want the text of a JSON object")
	}
}

func (p parameters) validate() findings {
	var f findings
	f.within(float64(p.MaxTokens), 1, maxTokens, "max_tokens")
	f.within(p.Temperature, 0, maxTemperature, "temperature")
	f.within(float64(p.TopK), 0, maxTopK, "top_k")
	f.within(p.TopP, 0, 1, "top_p")
	f.within(p.MinP, 0, 1, "min_p")
	f.check(p.RepetitionPenalty > 0 && p.RepetitionPenalty <= maxRepetition, "/repetition_penalty", "want a number above 0, at most %d", maxRepetition)
	f.within(p.PresencePenalty, -maxPenalty, maxPenalty, "presence_penalty")
	f.within(p.FrequencyPenalty, -maxPenalty, maxPenalty, "frequency_penalty")
	f.within(float64(p.N), 1, maxChoices, "n")
	f.check(len(p.Stop) <= maxStops, "/stop", "want at most %d strings", maxStops)
	for i, s := range p.Stop {
		f.check(s != "" && length(s) <= maxStopLength, fmt.Sprintf("/stop/%d", i), "want 1 to %d characters", maxStopLength)
	}
	if p.Logprobs != nil {
		f.within(float64(*p.Logprobs), 0, maxLogprobs, "logprobs")
	}
	return f
}

func length(s string) int { return utf8.RuneCountInString(s) }

// Allowances for what a chat template writes beside the messages, in tokens.
const (
	templateTokens = 256
	turnTokens     = 32
)

// maxPromptTokens bounds the tokens of the prompt: each has a byte or more.
func (in *input) maxPromptTokens() int {
	n := len(in.Prompt) + templateTokens
	for _, m := range in.Messages {
		n += len(m.Content) + turnTokens
		for _, c := range m.ToolCalls {
			n += len(c.Function.Name) + len(c.Function.Arguments) + turnTokens
		}
	}
	for _, t := range in.Tools {
		n += len(t.Function.Name) + len(t.Function.Description) + 2*len(t.Function.Parameters) + turnTokens
	}
	return n
}
