package text

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"helicon/models/sample/grammar"
	"helicon/models/tokenizer"
	"helicon/queue"
)

// tool is a function that the model may call, as OpenAI's API has it.
type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description,omitempty"`
		Parameters  json.RawMessage `json:"parameters,omitempty"` // a JSON Schema
		Strict      *bool           `json:"strict,omitempty"`
	} `json:"function"`
}

// toolCall is a call of a tool.
type toolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function functionCall `json:"function"`
}

// functionCall is what a toolCall calls.
type functionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"` // the text of a JSON object
}

// toolChoice says whether tools are called.
type toolChoice struct {
	mode string
	name string // of the only tool that may be called, or ""
}

// The modes of a toolChoice.
const (
	callNone     = "none"
	callAuto     = "auto"
	callRequired = "required"
)

// UnmarshalJSON reads a mode, or {"type":"function","function":{"name":…}}.
func (c *toolChoice) UnmarshalJSON(data []byte) error {
	var named struct {
		Type     string `json:"type"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(data, &c.mode) == nil {
		return nil
	}
	err := json.Unmarshal(data, &named)
	if err == nil && (named.Type != "function" || named.Function.Name == "") {
		err = &json.UnmarshalTypeError{Value: "another object", Field: "tool_choice"}
	}
	c.mode, c.name = callRequired, named.Function.Name
	return err
}

// choice returns the mode, which depends on whether there are tools where none is given.
func (in *input) choice() toolChoice {
	switch {
	case in.ToolChoice != nil:
		return *in.ToolChoice
	case len(in.Tools) > 0:
		return toolChoice{mode: callAuto}
	}
	return toolChoice{mode: callNone}
}

// usesTools reports whether the answer may call tools.
func (in *input) usesTools() bool { return len(in.Tools) > 0 && in.choice().mode != callNone }

// toolName is what tools may be called.
var toolName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// validateTools checks the tools and the choice among them.
func (in *input) validateTools(f *findings) {
	f.check(len(in.Tools) <= maxTools, "/tools", "want at most %d tools", maxTools)
	seen := map[string]bool{}
	for i, t := range in.Tools {
		at := fmt.Sprintf("/tools/%d", i)
		f.check(t.Type == "function", at+"/type", "want function")
		f.check(toolName.MatchString(t.Function.Name), at+"/function/name", "want 1 to 64 letters, digits, _ or -")
		f.check(!seen[t.Function.Name], at+"/function/name", "two tools have the name %s", t.Function.Name)
		f.check(len(t.Function.Parameters) == 0 || isObject(t.Function.Parameters), at+"/function/parameters", "want a JSON Schema of an object")
		seen[t.Function.Name] = true
	}
	c := in.choice()
	f.check(c.mode == callNone || c.mode == callAuto || c.mode == callRequired, "/tool_choice", "want none, auto, required or a function by name")
	f.check(c.mode != callRequired || len(in.Tools) > 0, "/tool_choice", "there are no tools to call")
	f.check(c.name == "" || seen[c.name], "/tool_choice", "there is no tool named %s", c.name)
}

// offered returns the tools as templates read them: those of which one may be called.
func (in *input) offered() json.RawMessage {
	tools := make([]map[string]any, 0, len(in.Tools))
	for _, t := range in.Tools {
		function := map[string]any{"name": t.Function.Name, "description": t.Function.Description, "parameters": t.parameters()}
		tools = append(tools, map[string]any{"type": t.Type, "function": function})
	}
	body, err := json.Marshal(tools)
	if err != nil {
		return nil // cannot be: it was JSON before
	}
	return body
}

// parameters returns the schema of the tool's arguments.
func (t *tool) parameters() json.RawMessage {
	if len(t.Function.Parameters) == 0 {
		return json.RawMessage(`{"type":"object","properties":{}}`)
	}
	return t.Function.Parameters
}

// callStyle is how a family of models writes tool calls.
type callStyle struct {
	name      string
	sign      string // by which a template shows that it is this style
	opening   string // before the calls; for markup, before each
	closing   string
	arguments string   // the member with the arguments
	special   []string // tokens that decoders leave out, but are part of a call
	list      bool     // the calls are a JSON array
	bare      bool     // a call may also begin the answer without the opening
	split     string   // between name and arguments, where they are not members of an object
	shortIDs  bool     // ids of calls have nine letters and digits
}

// callStyles are the known ones. The first whose sign a template has is its own.
var callStyles = [...]callStyle{
	{name: "Hermes and Qwen", sign: "<tool_call>", opening: "<tool_call>", closing: "</tool_call>", arguments: "arguments"},
	{name: "Mistral", sign: "[ARGS]", opening: "[TOOL_CALLS]", split: "[ARGS]", special: []string{"[TOOL_CALLS]", "[ARGS]"}, shortIDs: true},
	{name: "Mistral", sign: "[TOOL_CALLS]", opening: "[TOOL_CALLS]", arguments: "arguments", special: []string{"[TOOL_CALLS]"}, list: true, shortIDs: true},
	{name: "Llama 3", sign: `"parameters":`, opening: "<|python_tag|>", arguments: "parameters", special: []string{"<|python_tag|>"}, bare: true},
}

// callStyle returns how the model writes tool calls. The error is a *queue.Problem for
// a model that was not made to call any.
func (e *engine) callStyle() (*callStyle, error) {
	if source := e.toolChat.Source(); strings.Contains(source, "tools") {
		for i := range callStyles {
			if strings.Contains(source, callStyles[i].sign) {
				return &callStyles[i], nil
			}
		}
	}
	return nil, &queue.Problem{
		Code: "tools_unsupported",
		Detail: fmt.Sprintf("The model %s was not made to call tools: its chat template has none, or writes calls in an unknown way. "+
			"Use another model, or response_format to be answered in JSON.", e.bundle.ID),
		Errors: []queue.FieldError{{Pointer: "/tools", Detail: "the model does not call tools"}},
	}
}

// markersOf returns the special tokens that are part of calls.
func (s *callStyle) markersOf(t *tokenizer.Tokenizer) map[int]string {
	markers := map[int]string{}
	for _, name := range s.special {
		if id, ok := t.ID(name); ok && t.Special(id) {
			markers[id] = name
		}
	}
	return markers
}

// openings are what begins a call.
func (s *callStyle) openings() []grammar.Opening {
	openings := []grammar.Opening{{Text: s.opening}}
	if s.bare {
		openings = append(openings, grammar.Opening{Text: "{", Leading: true})
	}
	return openings
}

// withTools completes a form of tools for the engine's model.
func (g *Generator) withTools(e *engine, in *input, f *form) (*form, error) {
	if f == nil || f.tools == nil {
		return f, nil
	}
	style, err := e.callStyle()
	if err != nil {
		return nil, err
	}
	c, parallel := in.choice(), in.Parallel == nil || *in.Parallel
	made := &form{style: style, tools: f.tools, pointer: "/tools", free: c.mode == callAuto}
	if c.name != "" {
		made.tools = slices.DeleteFunc(slices.Clone(f.tools), func(t tool) bool { return t.Function.Name != c.name })
	}
	key, err := json.Marshal(made.tools)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	made.grammar, err = g.compiled(fmt.Sprintf("tools %s %s %v %s", style.name, style.split, parallel, key), func() (*grammar.Grammar, error) {
		return style.grammar(made.tools, parallel)
	})
	if err == nil {
		return made, nil
	}
	var wrong *toolError
	if errors.As(err, &wrong) {
		at := slices.IndexFunc(in.Tools, func(t tool) bool { return t.Function.Name == wrong.name })
		return nil, formProblem(fmt.Sprintf("/tools/%d/function/parameters", at), wrong.error)
	}
	return nil, formProblem("/tools", err)
}

// toolError is an error of a tool's schema.
type toolError struct {
	name string
	error
}

// grammar returns the grammar of calls: one, or one and more.
func (s *callStyle) grammar(tools []tool, parallel bool) (*grammar.Grammar, error) {
	b := grammar.NewBuilder()
	calls := make([]grammar.Expression, len(tools))
	for i, t := range tools {
		strict := t.Function.Strict != nil && *t.Function.Strict
		arguments, err := b.Schema(t.parameters(), strict)
		if err != nil {
			return nil, &toolError{t.Function.Name, err}
		}
		if s.split != "" {
			calls[i] = grammar.Sequence(grammar.Text(t.Function.Name+s.split), arguments)
			continue
		}
		calls[i] = grammar.Sequence(grammar.Text(fmt.Sprintf(`{"name": %q, %q: `, t.Function.Name, s.arguments)), arguments, grammar.Text("}"))
	}
	one, more := grammar.Choice(calls...), 0
	if parallel {
		more = -1
	}
	space := grammar.Repeat(grammar.Text(" "), 0, 1)
	opening := grammar.Text(s.opening)
	switch {
	case s.list:
		rest := grammar.Repeat(grammar.Sequence(grammar.Text(", "), one), 0, more)
		return b.Compile(grammar.Sequence(opening, space, grammar.Text("["), one, rest, grammar.Text("]")))
	case s.bare:
		return b.Compile(grammar.Sequence(grammar.Repeat(opening, 0, 1), one))
	case s.split != "":
		call := grammar.Sequence(opening, one)
		return b.Compile(grammar.Sequence(call, grammar.Repeat(call, 0, more)))
	}
	call := grammar.Sequence(opening, grammar.Text("\n"), one, grammar.Text("\n"+s.closing))
	return b.Compile(grammar.Sequence(call, grammar.Repeat(grammar.Sequence(grammar.Text("\n"), call), 0, more)))
}

// render returns the message as templates read it. In the style of the model, ids of
// calls that its template would refuse are replaced, alike wherever they stand.
func (m *message) render(style *callStyle) tokenizer.Message {
	out := tokenizer.Message{Role: m.Role, Content: m.Content, ToolCallID: style.id(m.ToolCallID)}
	if m.ToolCalls == nil {
		return out
	}
	type function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	}
	type call struct {
		ID       string   `json:"id"`
		Type     string   `json:"type"`
		Function function `json:"function"`
	}
	calls := make([]call, len(m.ToolCalls))
	for i, c := range m.ToolCalls {
		calls[i] = call{style.id(c.ID), "function", function{c.Function.Name, json.RawMessage(c.Function.Arguments)}}
	}
	out.ToolCalls, _ = json.Marshal(calls) // cannot fail: the arguments are valid JSON
	return out
}

// shortID is how long ids of calls are in some styles.
const shortID = 9

// id returns the id of a call as the style has it.
func (s *callStyle) id(id string) string {
	if s == nil || !s.shortIDs || id == "" || len(id) == shortID {
		return id
	}
	return letters(id, shortID)
}

// letters returns letters and digits that follow from a text.
func letters(text string, n int) string {
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	sum := sha256.Sum256([]byte(text))
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[int(sum[i])%len(alphabet)]
	}
	return string(out)
}

// callReader separates the tool calls of an answer from its text. A nil one passes all
// text on.
type callReader struct {
	style *callStyle
	tools []tool
	seed  string

	held  string // text that may be the beginning of a call, or is one
	begun bool   // some text was passed on
	call  bool   // held is a call
}

// callReader returns one for an answer, nil if none of it can be a call.
func (b *boundForm) callReader(seed uint64, choice int) *callReader {
	if b.style == nil {
		return nil
	}
	return &callReader{style: b.style, tools: b.tools, seed: fmt.Sprint(seed, " ", choice)}
}

// push takes text and returns what is no part of a call.
func (r *callReader) push(text string) string {
	if r == nil {
		return text
	}
	r.held += text
	if r.call {
		return ""
	}
	from := -1
	if at := strings.Index(r.held, r.style.opening); at >= 0 {
		from = at
	}
	lead := strings.TrimLeftFunc(r.held, unicode.IsSpace)
	if r.style.bare && !r.begun && strings.HasPrefix(lead, "{") {
		from = len(r.held) - len(lead)
	}
	keep := from
	if r.call = from >= 0; !r.call {
		keep = len(r.held) - overlap(r.held, r.style.opening)
	}
	keep = len(strings.TrimRightFunc(r.held[:keep], unicode.IsSpace)) // space before a call is no text
	out := r.held[:keep]
	r.held = r.held[keep:]
	r.begun = r.begun || out != ""
	return out
}

// overlap returns how much of the end of text may be the beginning of word.
func overlap(text, word string) int {
	for n := min(len(text), len(word)-1); n > 0; n-- {
		if strings.HasSuffix(text, word[:n]) {
			return n
		}
	}
	return 0
}

// end takes the last text and returns what is no part of a call, and the calls. A call
// that is not complete, or of no tool that there is, is text.
func (r *callReader) end(text string) (string, []toolCall) {
	if r == nil {
		return text, nil
	}
	out := r.push(text)
	if r.call {
		if calls := r.parse(r.held); calls != nil {
			return out, calls
		}
	}
	return out + r.held, nil
}

// parse reads calls, nil if the text is anything else.
func (r *callReader) parse(text string) []toolCall {
	var calls []toolCall
	add := func(name string, arguments json.RawMessage) bool {
		var quoted string
		if json.Unmarshal(arguments, &quoted) == nil { // some models write the text of an object
			arguments = json.RawMessage(quoted)
		}
		known := slices.ContainsFunc(r.tools, func(t tool) bool { return t.Function.Name == name })
		if !known || !isObject(arguments) {
			return false
		}
		var compact bytes.Buffer
		if json.Compact(&compact, arguments) != nil {
			return false
		}
		call := toolCall{Type: "function", Function: functionCall{name, compact.String()}}
		id := fmt.Sprint(r.seed, " ", len(calls), " ", name, " ", compact.String())
		if call.ID = "call_" + letters(id, 24); r.style.shortIDs {
			call.ID = letters(id, shortID)
		}
		calls = append(calls, call)
		return true
	}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		text = strings.TrimSpace(strings.TrimPrefix(text, r.style.opening))
		name := ""
		if r.style.split != "" {
			name, text, _ = strings.Cut(text, r.style.split)
			name = strings.TrimSpace(name)
		}
		d := json.NewDecoder(strings.NewReader(text))
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil && !errors.Is(err, io.EOF) || raw == nil {
			return nil
		}
		text = strings.TrimSpace(text[d.InputOffset():])
		text = strings.TrimPrefix(strings.TrimPrefix(text, ";"), "\n")
		if r.style.closing != "" {
			text = strings.TrimPrefix(text, r.style.closing)
		}
		if name != "" {
			if !add(name, raw) {
				return nil
			}
			continue
		}
		objects := []json.RawMessage{raw}
		if r.style.list && json.Unmarshal(raw, &objects) != nil {
			return nil
		}
		for _, o := range objects {
			var c struct {
				Name       string          `json:"name"`
				Arguments  json.RawMessage `json:"arguments"`
				Parameters json.RawMessage `json:"parameters"`
			}
			if json.Unmarshal(o, &c) != nil {
				return nil
			}
			if c.Arguments == nil {
				c.Arguments = c.Parameters
			}
			if !add(c.Name, c.Arguments) {
				return nil
			}
		}
	}
	return calls
}
