package text

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"helicon/models/sample/grammar"
)

// Templates that write tool calls as families of models do, as short as the window of
// the test's model wants it.
var toolTemplates = map[string]string{
	"hermes": `{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}|{% endfor %}`,
	"llama":  `{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls %}{"name": {{ c.function.name | tojson }}, "parameters": {{ c.function.arguments | tojson }}}{% endfor %}|{% endfor %}`,
	"mistral": `{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}{% for m in messages %}{{ m.role }}:{{ m.content }}` +
		`{% if m.tool_calls is defined %}[TOOL_CALLS]{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}{{ c.id }}{{ c.function.name }}{% endfor %}{% endif %}{% if m.tool_call_id is defined %}{{ m.tool_call_id }}{% endif %}|{% endfor %}`,
	"args": `{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.tool_calls is defined %}{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}{% endif %}|{% endfor %}`,
}

// toolModels writes a bundle for each of the templates.
func toolModels(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, template := range toolTemplates {
		testBundle{seed: 3, template: template}.write(t, filepath.Join(dir, name))
	}
	return dir
}

// tools are two functions, one without arguments.
var testTools = []object{
	{"type": "function", "function": object{"name": "pick", "parameters": json.RawMessage(
		`{"type":"object","properties":{"n":{"type":"integer","minimum":1,"maximum":99},"colour":{"enum":["red","blue"]}},"required":["n"],"additionalProperties":false}`)}},
	{"type": "function", "function": object{"name": "stop"}},
}

// TestRequiredCalls has models of random weights call tools, in each of the styles.
func TestRequiredCalls(t *testing.T) {
	t.Parallel()
	g := open(t, toolModels(t), 2)
	for model := range toolTemplates {
		input := object{
			"messages": []message{{Role: user, Content: "?"}}, "tools": testTools, "tool_choice": "required",
			"max_tokens": 130, "n": 4, "parallel_tool_calls": false,
		}
		w, out := generate(t, g, jobOf(t, taskChat, model, input))
		finished := 0
		for _, c := range w.meta.Choices {
			if c.FinishReason == finishLength {
				continue
			}
			if finished++; c.FinishReason != finishToolCalls || len(c.ToolCalls) != 1 || c.Text != "" {
				t.Fatalf("%s: choice %+v", model, c)
			}
			call := c.ToolCalls[0]
			switch call.Function.Name {
			case "pick":
				var a struct{ N int }
				if err := json.Unmarshal([]byte(call.Function.Arguments), &a); err != nil || a.N < 1 || a.N > 99 {
					t.Errorf("%s: arguments %s", model, call.Function.Arguments)
				}
			case "stop":
				if call.Function.Arguments != "{}" {
					t.Errorf("%s: arguments %s", model, call.Function.Arguments)
				}
			default:
				t.Errorf("%s: call %+v", model, call)
			}
			if id := len(call.ID); call.Type != "function" || id != shortID && id != len("call_")+24 {
				t.Errorf("%s: call %+v", model, call)
			}
		}
		if finished == 0 || len(out.texts[0]) > 0 {
			t.Errorf("%s: %d of 4 came to their end, text %q", model, finished, out.texts[0])
		}
		if !reflect.DeepEqual(w.meta.ToolCalls, w.meta.Choices[0].ToolCalls) {
			t.Errorf("%s: the calls of the result are not those of its first choice", model)
		}
		delete(input, "n")
		input["tool_choice"] = object{"type": "function", "function": object{"name": "stop"}}
		w, _ = generate(t, g, jobOf(t, taskChat, model, input))
		if w.meta.FinishReason != finishToolCalls || w.meta.ToolCalls[0].Function.Name != "stop" || w.Text != "" {
			t.Errorf("%s: by name: %+v, text %q", model, w.meta, w.Text)
		}
	}
}

// TestFreeAnswers checks that tools may be left alone.
func TestFreeAnswers(t *testing.T) {
	t.Parallel()
	g := open(t, toolModels(t), 1)
	for _, choice := range []any{"auto", "none", nil} {
		input := object{"messages": []message{{Role: user, Content: "?"}}, "tools": testTools, "max_tokens": 30}
		if choice != nil {
			input["tool_choice"] = choice
		}
		w, _ := generate(t, g, jobOf(t, taskChat, "hermes", input))
		if w.Text == "" && w.meta.ToolCalls == nil {
			t.Errorf("%v: nothing is written: %+v", choice, w.meta)
		}
	}
	problem := problemOf(t, g, jobOf(t, taskChat, "hermes", object{"messages": []message{{Role: user, Content: "?"}}, "tools": []object{
		testTools[1], {"type": "function", "function": object{"name": "f", "strict": true, "parameters": object{"type": "object", "not": object{}}}},
	}}))
	if len(problem.Errors) == 0 || problem.Errors[0].Pointer != "/tools/1/function/parameters/not" {
		t.Errorf("problem %+v", problem)
	}
}

// TestToolConversation checks what the model reads of calls and of what came of them.
func TestToolConversation(t *testing.T) {
	t.Parallel()
	dir := toolModels(t)
	talk := []message{
		{Role: user, Content: "Q"},
		{Role: assistant, ToolCalls: []toolCall{{ID: "call_1", Type: "function", Function: functionCall{"pick", `{"n": 1}`}}}},
		{Role: toolRole, ToolCallID: "call_1", Content: "R"},
	}
	short := letters("call_1", shortID)
	for model, want := range map[string]string{
		"hermes":  `pick;stop;user:Q|assistant:<tool_call>{"name": "pick", "arguments": {"n": 1}}</tool_call>|tool:R|`,
		"llama":   `pick;stop;user:Q|assistant:{"name": "pick", "parameters": {"n": 1}}|tool:R|`,
		"mistral": `pick;stop;user:Q|assistant:[TOOL_CALLS]` + short + `pick|tool:R` + short + `|`,
		"args":    `pick;stop;user:Q|assistant:[TOOL_CALLS]pick[ARGS]{"n": 1}|tool:R|`,
	} {
		e := loadTest(t, filepath.Join(dir, model))
		body, err := json.Marshal(object{"messages": talk, "tools": testTools})
		if err != nil {
			t.Fatal(err)
		}
		var in input
		if err := json.Unmarshal(body, &in); err != nil {
			t.Fatal(err)
		}
		ids, err := e.render(in.Messages, &in)
		if err != nil {
			t.Fatalf("%s: %v", model, err)
		}
		if got := e.tokenizer.Decode(ids, false); got != want {
			t.Errorf("%s: the model reads\n%s, want\n%s", model, got, want)
		}
	}
}

func TestCallReader(t *testing.T) {
	t.Parallel()
	tools := []tool{{}, {}}
	tools[0].Function.Name, tools[1].Function.Name = "pick", "stop"
	pick, stop := functionCall{"pick", `{"n":1}`}, functionCall{"stop", `{}`}
	for name, c := range map[string]struct {
		style   int
		text    string
		content string
		calls   []functionCall
	}{
		"hermes":             {0, "<tool_call>\n{\"name\": \"pick\", \"arguments\": {\"n\": 1}}\n</tool_call>", "", []functionCall{pick}},
		"text before":        {0, "Let me see.\n\n<tool_call>{\"name\":\"stop\",\"arguments\":{}}</tool_call>", "Let me see.", []functionCall{stop}},
		"two":                {0, "<tool_call>{\"name\":\"stop\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"pick\",\"arguments\":{\"n\":1}}</tool_call>", "", []functionCall{stop, pick}},
		"not closed":         {0, "<tool_call>{\"name\":\"stop\",\"arguments\":{}}", "", []functionCall{stop}},
		"cut off":            {0, "a <tool_call>{\"name\":\"stop\",", "a <tool_call>{\"name\":\"stop\",", nil},
		"unknown tool":       {0, "<tool_call>{\"name\":\"x\",\"arguments\":{}}</tool_call>", "<tool_call>{\"name\":\"x\",\"arguments\":{}}</tool_call>", nil},
		"no call":            {0, "1 < 2 <tool", "1 < 2 <tool", nil},
		"arguments as text":  {0, `<tool_call>{"name":"pick","arguments":"{\"n\": 1}"}</tool_call>`, "", []functionCall{pick}},
		"args":               {1, `Hm. [TOOL_CALLS]pick[ARGS]{"n": 1}[TOOL_CALLS]stop[ARGS]{}`, "Hm.", []functionCall{pick, stop}},
		"args cut off":       {1, `[TOOL_CALLS]pick[ARGS]{"n"`, `[TOOL_CALLS]pick[ARGS]{"n"`, nil},
		"mistral":            {2, `[TOOL_CALLS] [{"name": "pick", "arguments": {"n": 1}}, {"name":"stop","arguments":{}}]`, "", []functionCall{pick, stop}},
		"mistral cut off":    {2, `[TOOL_CALLS] [{"name": "pick"`, `[TOOL_CALLS] [{"name": "pick"`, nil},
		"llama":              {3, `{"name": "pick", "parameters": {"n": 1}}`, "", []functionCall{pick}},
		"llama with tag":     {3, "<|python_tag|>{\"name\": \"pick\", \"parameters\": {\"n\": 1}}; {\"name\":\"stop\",\"parameters\":{}}", "", []functionCall{pick, stop}},
		"llama with space":   {3, "\n\n{\"name\": \"stop\", \"parameters\": {}}", "", []functionCall{stop}},
		"llama, JSON within": {3, `It is {"name": "stop", "parameters": {}}`, `It is {"name": "stop", "parameters": {}}`, nil},
		"llama, other JSON":  {3, `{"a": 1}`, `{"a": 1}`, nil},
	} {
		for _, size := range []int{1, 3, 1000} {
			r := &callReader{style: &callStyles[c.style], tools: tools, seed: "1"}
			var content strings.Builder
			for text := c.text; text != ""; {
				n := min(size, len(text))
				content.WriteString(r.push(text[:n]))
				text = text[n:]
			}
			rest, calls := r.end("")
			content.WriteString(rest)
			var got []functionCall
			for _, call := range calls {
				got = append(got, call.Function)
			}
			if content.String() != c.content || !reflect.DeepEqual(got, c.calls) {
				t.Errorf("%s by %d: text %q, calls %v", name, size, content.String(), got)
			}
			if len(calls) == 2 && calls[0].ID == calls[1].ID {
				t.Errorf("%s: two calls have the id %s", name, calls[0].ID)
			}
		}
	}
}

// TestStyles checks that what the grammar of a style allows is what its reader reads,
// and that the grammar begins with an opening.
func TestStyles(t *testing.T) {
	t.Parallel()
	var tools []tool
	body, err := json.Marshal(testTools)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &tools); err != nil {
		t.Fatal(err)
	}
	vocabulary := grammar.NewVocabulary(257, func(id int) []byte { return []byte{byte(id)} }, []int{256})
	for i, text := range []string{
		"<tool_call>\n{\"name\": \"pick\", \"arguments\": {\"n\": 7}}\n</tool_call>\n<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>",
		`[TOOL_CALLS]pick[ARGS]{"n": 7}[TOOL_CALLS]stop[ARGS]{}`,
		`[TOOL_CALLS] [{"name": "pick", "arguments": {"n": 7}}, {"name": "stop", "arguments": {}}]`,
		`{"name": "pick", "parameters": {"n": 7, "colour": "red"}}`,
	} {
		style := &callStyles[i]
		g, err := style.grammar(tools, true)
		if err != nil {
			t.Fatal(err)
		}
		m := grammar.NewAutomaton(g, vocabulary).NewMatcher()
		if !m.Push([]byte(text)) || !m.Accepting() {
			t.Errorf("%s: %s is not allowed", style.name, text)
		}
		r := &callReader{style: style, tools: tools}
		if rest, calls := r.end(text); rest != "" || len(calls) == 0 {
			t.Errorf("%s: %s is not read: %q", style.name, text, rest)
		}
	}
}

func FuzzCallReader(f *testing.F) {
	f.Add("<tool_call>{\"name\":\"stop\",\"arguments\":{}}</tool_call>", 0)
	f.Add(`[TOOL_CALLS]stop[ARGS]{}`, 1)
	f.Add(`[TOOL_CALLS][{"name":"stop","arguments":{}}]`, 2)
	f.Add(`{"name":"stop","parameters":{}}`, 3)
	tools := []tool{{}}
	tools[0].Function.Name = "stop"
	f.Fuzz(func(t *testing.T, text string, style int) {
		r := &callReader{style: &callStyles[uint(style)%uint(len(callStyles))], tools: tools}
		out := ""
		for i := range len(text) {
			out += r.push(text[i : i+1])
		}
		rest, calls := r.end("")
		if calls == nil && out+rest != text {
			t.Fatalf("%q became %q", text, out+rest)
		}
		for _, c := range calls {
			if !isObject([]byte(c.Function.Arguments)) {
				t.Fatalf("arguments %q", c.Function.Arguments)
			}
		}
	})
}
