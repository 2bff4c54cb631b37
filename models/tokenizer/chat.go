package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"helicon/models/tokenizer/jinja"
	"helicon/models/tokenizer/subword"
)

// ErrNoChatTemplate is returned by ChatTemplate for a bundle without one.
var ErrNoChatTemplate = errors.New("tokenizer: the bundle has no chat template")

// Message is one turn of a conversation.
type Message struct {
	Role    string // system, developer, user, assistant, tool, function, ipython or model
	Content string
	Name    string // of the speaker or the tool; may be empty

	// ToolCalls is a JSON array of the calls that the assistant made, as in the
	// OpenAI API but with the arguments as an object; may be nil.
	ToolCalls json.RawMessage
	// ToolCallID names the call that a tool's message answers; may be empty.
	ToolCallID string
}

// roleNames are the roles that published templates know. Other words are refused:
// templates write the role inside the spelling of special tokens.
var roleNames = [...]string{"system", "developer", "user", "assistant", "tool", "function", "ipython", "model"}

// ChatOptions selects what Render adds to the messages.
type ChatOptions struct {
	// AddGenerationPrompt ends the text where the assistant's answer begins.
	AddGenerationPrompt bool
	// Tools is a JSON array of tool definitions; nil: none.
	Tools json.RawMessage
	// Now is the time for templates that tell the model the date. If it is
	// zero they are not told, and commonly fall back to a fixed date.
	Now time.Time
}

// ChatTemplate renders conversations to the text that a model was trained on.
// It is immutable and safe for concurrent use.
//
// What the messages and tools say cannot take on the role of the template: a
// special token spelled in a message is encoded as ordinary text, never as the
// special token. Before rendering, a guard, a private-use character that occurs
// nowhere in the input, is put inside every spelling of a control token in a
// message, and wherever a message begins or ends with a part of one. The
// template sees the message otherwise unchanged, so that it can trim it, split
// it and look into it; EncodePrompt finds the special tokens that the template
// wrote, for which the guard leaves no others, and then removes the guard.
// Text around a message is therefore encoded together with it, exactly as if
// there were no guard. Where a template rewrites text (replace, lower, upper),
// which could put a spelling together, every character with which a control
// token begins is guarded.
//
// Control tokens are the special tokens and other added tokens spelled <|…|>.
// One of a single character, which no published model has, cannot be guarded.
type ChatTemplate struct {
	template *jinja.Template
	source   string
	vars     map[string]any // of the tokenizer: bos_token …

	control  *subword.Trie
	spelling []string // of the control tokens
	rewrites bool
}

// rewriting finds what can put a control token together from its parts.
var rewriting = regexp.MustCompile(`\b(replace|lower|upper|title|capitalize)\b`)

// ChatTemplate returns the template of the bundle. The error is
// ErrNoChatTemplate, or says why the template cannot be used.
func (t *Tokenizer) ChatTemplate() (*ChatTemplate, error) {
	if t.chatSource == "" {
		return nil, ErrNoChatTemplate
	}
	return t.NewChatTemplate(t.chatSource)
}

// ToolTemplate returns the template of the bundle for conversations with tools, which
// commonly is ChatTemplate's. The errors are the same.
func (t *Tokenizer) ToolTemplate() (*ChatTemplate, error) {
	if t.toolSource == "" {
		return t.ChatTemplate()
	}
	return t.NewChatTemplate(t.toolSource)
}

// NewChatTemplate parses a Jinja2 template for conversations with this
// tokenizer's special tokens.
func (t *Tokenizer) NewChatTemplate(source string) (*ChatTemplate, error) {
	parsed, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: chat_template: %w", err)
	}
	c := &ChatTemplate{template: parsed, source: source, rewrites: rewriting.MatchString(source), vars: map[string]any{}}
	for name, id := range map[string]int{
		"bos_token": t.roles.bos, "eos_token": t.roles.eos, "pad_token": t.roles.pad, "unk_token": t.roles.unk,
	} {
		if token, ok := t.Token(id); ok {
			c.vars[name] = token
		}
	}
	for id := range t.added.all {
		if content := t.tokens[id]; t.Special(id) || isControl(content) {
			c.spelling = append(c.spelling, content)
		}
	}
	slices.Sort(c.spelling)
	c.control = subword.NewTrie(c.spelling, make([]int32, len(c.spelling)))
	return c, nil
}

// Source returns the template as the bundle has it.
func (c *ChatTemplate) Source() string { return c.source }

// isControl reports whether a token is spelled <|…|>, as tokens with a meaning
// in dialogues are, or with the full-width bars of DeepSeek.
func isControl(token string) bool {
	return strings.HasPrefix(token, "<|") && strings.HasSuffix(token, "|>") ||
		strings.HasPrefix(token, "<｜") && strings.HasSuffix(token, "｜>")
}

// Prompt is a rendered conversation.
type Prompt struct {
	text  string
	guard rune
}

// String returns the text of the prompt.
func (p Prompt) String() string { return strings.ReplaceAll(p.text, string(p.guard), "") }

// EncodePrompt returns the ids of a prompt. Nothing is added: templates write
// the begin-of-sequence token themselves.
func (t *Tokenizer) EncodePrompt(p Prompt) ([]int, error) {
	return t.encode(p.text, EncodeOptions{ParseSpecial: true}, p.guard)
}

// Render returns the text of a conversation. Besides malformed input, an
// error may be a *jinja.Raised: the template's own refusal, for the user to
// see, or jinja.ErrLimit.
func (c *ChatTemplate) Render(messages []Message, opts ChatOptions) (Prompt, error) {
	g := guard{template: c, char: c.guardFor(messages, opts.Tools)}
	vars := map[string]any{"add_generation_prompt": opts.AddGenerationPrompt, "tools": nil}
	for name, v := range c.vars {
		vars[name] = v
	}
	if !opts.Now.IsZero() {
		vars["strftime_now"] = jinja.Func(func(args []any) (any, error) { return strftime(opts.Now, args) })
	}
	list := make([]any, len(messages))
	for i, msg := range messages {
		d, err := g.message(msg)
		if err != nil {
			return Prompt{}, fmt.Errorf("tokenizer: messages[%d]: %w", i, err)
		}
		list[i] = d
	}
	vars["messages"] = list
	if opts.Tools != nil {
		tools, err := g.json(opts.Tools)
		if err != nil {
			return Prompt{}, fmt.Errorf("tokenizer: tools: %w", err)
		}
		vars["tools"] = tools
	}
	text, err := c.template.Render(vars)
	if err != nil {
		return Prompt{}, fmt.Errorf("tokenizer: chat_template: %w", err)
	}
	return Prompt{text, g.char}, nil
}

// guardFor returns a private-use character that occurs nowhere in the input.
// Being chosen afterwards, it cannot be forged.
func (c *ChatTemplate) guardFor(messages []Message, tools json.RawMessage) rune {
	used := map[rune]bool{}
	note := func(s string) {
		for _, r := range s {
			if r >= firstGuard {
				used[r] = true
			}
		}
	}
	note(c.source)
	for _, s := range c.spelling {
		note(s)
	}
	noteJSON := func(raw json.RawMessage) {
		var v any
		if json.Unmarshal(raw, &v) == nil { // escapes may spell it
			note(fmt.Sprint(v))
		}
	}
	for _, m := range messages {
		note(m.Content + m.Name + m.ToolCallID)
		noteJSON(m.ToolCalls)
	}
	noteJSON(tools)
	char := rune(firstGuard)
	for used[char] {
		char++
	}
	return char
}

// firstGuard begins the last plane of private-use characters.
const firstGuard = 0x100000

// guard marks control tokens in what messages say.
type guard struct {
	template *ChatTemplate
	char     rune
}

func (g guard) message(m Message) (*jinja.Dict, error) {
	if !slices.Contains(roleNames[:], m.Role) {
		return nil, fmt.Errorf("role %q is none of %s", m.Role, strings.Join(roleNames[:], ", "))
	}
	d := jinja.NewDict()
	d.Set("role", m.Role)
	d.Set("content", g.text(m.Content))
	if m.Name != "" {
		d.Set("name", g.text(m.Name))
	}
	if m.ToolCallID != "" {
		d.Set("tool_call_id", g.text(m.ToolCallID))
	}
	if m.ToolCalls != nil {
		calls, err := g.json(m.ToolCalls)
		if err != nil {
			return nil, fmt.Errorf("tool_calls: %w", err)
		}
		d.Set("tool_calls", calls)
	}
	return d, nil
}

// json decodes a value and guards its strings.
func (g guard) json(raw json.RawMessage) (any, error) {
	v, err := jinja.FromJSON(raw)
	if err != nil {
		return nil, err
	}
	return jinja.MapStrings(v, g.text), nil
}

// text guards a string.
func (g guard) text(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	c := g.template
	body := strings.TrimRightFunc(s, unicode.IsSpace) // a template may trim the rest
	start := len(s) - len(strings.TrimLeftFunc(s, unicode.IsSpace))
	var b strings.Builder
	for i, r := range s {
		if i == start && c.endsToken(s[i:]) {
			b.WriteRune(g.char)
		}
		b.WriteRune(r)
		if i < len(body) && c.beginsToken(body[i:]) {
			b.WriteRune(g.char)
		}
	}
	return b.String()
}

// beginsToken reports whether s begins with a control token, or is the
// beginning of one.
func (c *ChatTemplate) beginsToken(s string) bool {
	for i, n := 0, int32(0); i < len(s); i++ {
		var id int32
		if n, id = c.control.Step(n, s[i]); n == 0 || id >= 0 {
			return n != 0
		}
		if _, size := utf8.DecodeRuneInString(s); c.rewrites && i+1 == size {
			return true
		}
	}
	return true
}

// endsToken reports whether s begins with the end of a control token.
func (c *ChatTemplate) endsToken(s string) bool {
	for _, token := range c.spelling {
		for i := range token {
			if i > 0 && strings.HasPrefix(s, token[i:]) {
				return true
			}
		}
	}
	return false
}

// strftime formats a time by the directives of C that templates use.
func strftime(now time.Time, args []any) (string, error) {
	format, ok := "", false
	if len(args) == 1 {
		format, ok = args[0].(string)
	}
	if !ok {
		return "", errors.New("strftime_now takes one format")
	}
	layouts := map[byte]string{
		'd': "02", 'b': "Jan", 'B': "January", 'Y': "2006", 'y': "06", 'm': "01", 'H': "15", 'I': "03",
		'M': "04", 'S': "05", 'p': "PM", 'A': "Monday", 'a': "Mon", 'j': "002", 'Z': "MST", 'z': "-0700",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		layout, ok := layouts[format[i]]
		switch {
		case format[i] == '%':
			b.WriteByte('%')
		case !ok:
			return "", fmt.Errorf("strftime_now: directive %%%c is not supported", format[i])
		default:
			b.WriteString(now.Format(layout))
		}
	}
	return b.String(), nil
}
