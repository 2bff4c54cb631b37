package text

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// person is a schema as users write them, small enough for the test model's window.
const person = `{"type":"object","properties":{"name":{"type":"string","maxLength":6},"age":{"type":"integer","minimum":0,"maximum":120},"tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":2}},"required":["name","age"],"additionalProperties":false}`

// formatOf is the response_format of a schema.
func formatOf(schema string) object {
	return object{"type": "json_schema", "json_schema": object{"name": "x", "strict": true, "schema": json.RawMessage(schema)}}
}

// checkJSON checks that a finished answer satisfies a schema.
func checkJSON(t testing.TB, schema string, c choice) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(c.Text))
	if err != nil {
		t.Fatalf("%q: %v", c.Text, err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("s:", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("s:")
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%q: %v", c.Text, err)
	}
}

// TestAnswersHaveTheirForm has a model of random weights answer in JSON: what it
// finishes is valid, and of what it does not finish max_tokens is the reason.
func TestAnswersHaveTheirForm(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 2)
	finished := 0
	for _, schema := range []string{person, `{"type":"boolean"}`, `{"type":"array","items":{"type":"integer","minimum":1,"maximum":9},"minItems":2,"maxItems":3}`, `{"enum":["yes","no"]}`} {
		for seed := range uint64(4) {
			job := jobOf(t, taskChat, "chatty", object{
				"messages": []message{{Role: user, Content: "Who?"}}, "max_tokens": 140, "n": 3, "response_format": formatOf(schema),
			})
			job.Seed = seed
			w, _ := generate(t, g, job)
			for _, c := range w.meta.Choices {
				if c.FinishReason == finishLength {
					continue
				}
				finished++
				checkJSON(t, schema, c)
			}
			if again, _ := generate(t, g, job); again.Text != w.Text {
				t.Errorf("%s: %q, then %q", schema, w.Text, again.Text)
			}
		}
	}
	if finished < 24 {
		t.Errorf("%d of 48 answers came to their end", finished)
	}
	w, _ := generate(t, g, jobOf(t, taskChat, "chatty", object{
		"messages": []message{{Role: user, Content: "Who?"}}, "max_tokens": 3, "response_format": formatOf(person),
	}))
	if w.meta.FinishReason != finishLength || w.Usage.OutputTokens != 3 {
		t.Errorf("%q ended by %s", w.Text, w.meta.FinishReason)
	}
}

func TestGrammar(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	w, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{
		"prompt": "A word: ", "grammar": "root ::= \" \"? (\"日本\" | \"né\") \"!\"", "logprobs": 0,
	}))
	if text := strings.TrimPrefix(w.Text, " "); text != "日本!" && text != "né!" {
		t.Errorf("text %q", w.Text)
	}
	if w.meta.FinishReason != finishStop || w.Usage.OutputTokens != len(w.Text) {
		t.Errorf("ended by %s after %d tokens", w.meta.FinishReason, w.Usage.OutputTokens)
	}
	w, _ = generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "x", "response_format": object{"type": "json_object"}, "max_tokens": 30}))
	if !strings.HasPrefix(w.Text, "{") {
		t.Errorf("text %q", w.Text)
	}
	w, _ = generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "x", "response_format": object{"type": "text"}, "max_tokens": 3}))
	if w.Usage.OutputTokens == 0 {
		t.Error("free text is not written")
	}
}

func TestFormsThatCannotBe(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	ask := []message{{Role: user, Content: "x"}}
	tools := []object{{"type": "function", "function": object{"name": "f"}}}
	for name, c := range map[string]struct {
		input           object
		pointer, detail string
	}{
		"grammar":         {object{"grammar": "root ::= a"}, "/grammar", "line 1, column 10: there is no rule named a"},
		"schema":          {object{"response_format": formatOf(`{"type":"object","properties":{"a":{"not":{}}}}`)}, "/response_format/json_schema/schema/properties/a/not", "not supported"},
		"no schema":       {object{"response_format": object{"type": "json_schema"}}, "/response_format/json_schema", "want an object with a schema"},
		"format":          {object{"response_format": object{"type": "yaml"}}, "/response_format/type", "want text"},
		"two forms":       {object{"response_format": object{"type": "json_object"}, "grammar": `root ::= "x"`}, "/grammar", "contradicts"},
		"form and tools":  {object{"response_format": object{"type": "json_object"}, "tools": tools}, "/tools", "given form"},
		"no tools":        {object{"tool_choice": "required"}, "/tool_choice", "no tools"},
		"choice":          {object{"tools": tools, "tool_choice": "perhaps"}, "/tool_choice", "want none"},
		"unknown tool":    {object{"tools": tools, "tool_choice": object{"type": "function", "function": object{"name": "g"}}}, "/tool_choice", "no tool named g"},
		"tool name":       {object{"tools": []object{{"type": "function", "function": object{"name": "a b"}}}}, "/tools/0/function/name", "letters"},
		"twice":           {object{"tools": append(tools, tools...)}, "/tools/1/function/name", "two tools"},
		"unsupported":     {object{"tools": tools}, "/tools", "does not call tools"},
		"beams":           {object{"num_beams": 2, "grammar": `root ::= "x"`}, "/grammar", "beam search"},
		"beams too many":  {object{"num_beams": 17}, "/num_beams", "from 1 to 16"},
		"beams by luck":   {object{"num_beams": 3, "temperature": 0.5}, "/temperature", "beam search"},
		"more than beams": {object{"num_beams": 2, "n": 3}, "/n", "at most num_beams"},
		"no beams":        {object{"length_penalty": 2}, "/length_penalty", "num_beams"},
	} {
		c.input["messages"] = ask
		problem := problemOf(t, g, jobOf(t, taskChat, "chatty", c.input))
		if len(problem.Errors) == 0 || problem.Errors[0].Pointer != c.pointer || !strings.Contains(problem.Errors[0].Detail, c.detail) {
			t.Errorf("%s: %+v", name, problem)
		}
	}
}

// TestBeamSearch checks the task around the search, which package lm tests.
func TestBeamSearch(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	job := jobOf(t, taskComplete, "plain", object{"prompt": "Search", "max_tokens": 20, "num_beams": 4, "n": 2, "length_penalty": 0.5, "echo": true})
	w, out := generate(t, g, job)
	if p := w.meta.Parameters; p.Beams == nil || p.Beams.NumBeams != 4 || p.Beams.LengthPenalty != 0.5 || p.Temperature != 0 {
		t.Errorf("parameters %+v", p)
	}
	if len(w.meta.Choices) != 2 || w.meta.Choices[0].Text == w.meta.Choices[1].Text || !strings.HasPrefix(w.Text, "Search") {
		t.Errorf("choices %+v", w.meta.Choices)
	}
	if len(out.progress) == 0 || w.Usage.OutputTokens == 0 {
		t.Errorf("%d steps, usage %+v", len(out.progress), w.Usage)
	}
	again, _ := generate(t, g, job)
	if again.Text != w.Text {
		t.Errorf("%q, then %q", w.Text, again.Text)
	}
	greedy, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Search", "max_tokens": 20, "temperature": 0, "repetition_penalty": 1, "top_k": 0}))
	one, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Search", "max_tokens": 20, "num_beams": 1, "temperature": 0, "repetition_penalty": 1, "top_k": 0}))
	if greedy.Text != one.Text {
		t.Errorf("one beam writes %q, greedy decoding %q", one.Text, greedy.Text)
	}
}
