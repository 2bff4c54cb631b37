package batch

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"helicon/gateway/batch/table"
	"helicon/gateway/strict"
	"helicon/queue"
)

const schema = `{"type":"object","properties":{
	"prompt":{"type":"string"},"steps":{"type":"integer"},"guidance":{"type":["number","null"]},
	"preview":{"type":"boolean"},"stop":{"type":"array"},"hires":{"type":"object","properties":{"scale":{"type":"number"}}}}}`

func TestTemplate(t *testing.T) {
	t.Parallel()
	cells := map[string]any{
		"colour": "red", "animal": "<cat> & dog", "n": " 20 ", "g": "7.5", "yes": "TRUE", "none": "", "word": "many",
		"list": `["a","b"]`, "two words": "x", "nul": "a\x00b", "big": "1e999",
	}
	object := map[string]any{"s": "text", "i": json.Number("3"), "b": true, "o": map[string]any{"k": "v"}, "z": nil}
	for name, c := range map[string]struct {
		template string
		values   map[string]any
		want     string
		fault    string // code/param
	}{
		"within text":      {`{"prompt":"a {{colour}} {{ animal }}!"}`, cells, `{"prompt":"a red <cat> & dog!"}`, ""},
		"alone":            {`{"prompt":"{{colour}}"}`, cells, `{"prompt":"red"}`, ""},
		"spaces in a name": {`{"prompt":"{{two words}}"}`, cells, `{"prompt":"x"}`, ""},
		"integer":          {`{"steps":"{{n}}"}`, cells, `{"steps":20}`, ""},
		"number":           {`{"guidance":"{{g}}"}`, cells, `{"guidance":7.5}`, ""},
		"boolean":          {`{"preview":"{{yes}}"}`, cells, `{"preview":true}`, ""},
		"array":            {`{"stop":"{{list}}"}`, cells, `{"stop":["a","b"]}`, ""},
		"deeper":           {`{"hires":{"scale":"{{g}}"}}`, cells, `{"hires":{"scale":7.5}}`, ""},
		"no number":        {`{"steps":"{{word}}"}`, cells, `{"steps":"many"}`, ""},
		"out of range":     {`{"steps":"{{big}}"}`, cells, `{"steps":"1e999"}`, ""},
		"number as text":   {`{"prompt":"{{n}}"}`, cells, `{"prompt":" 20 "}`, ""},
		"empty number":     {`{"prompt":"p","steps":"{{none}}"}`, cells, `{"prompt":"p"}`, ""},
		"empty text":       {`{"prompt":"{{none}}"}`, cells, `{"prompt":""}`, ""},
		"in a list":        {`{"stop":["{{colour}}","x{{g}}"]}`, cells, `{"stop":["red","x7.5"]}`, ""},
		"literals":         {`{"steps":4,"preview":false,"prompt":"}} {x}"}`, cells, `{"preview":false,"prompt":"}} {x}","steps":4}`, ""},
		"nul":              {`{"prompt":"{{nul}}"}`, cells, "", "invalid_cell/nul"},
		"missing":          {`{"prompt":"{{what}}"}`, cells, "", "missing_column/what"},
		"json kept":        {`{"prompt":"{{s}}","steps":"{{i}}","preview":"{{b}}","hires":"{{o}}","x":"{{z}}"}`, object, `{"hires":{"k":"v"},"preview":true,"prompt":"text","steps":3,"x":null}`, ""},
		"json written":     {`{"prompt":"{{i}} {{b}} {{o}} {{z}}."}`, object, `{"prompt":"3 true {\"k\":\"v\"} ."}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template, err := ParseTemplate(json.RawMessage(c.template), json.RawMessage(schema))
			if err != nil {
				t.Fatal(err)
			}
			row := &table.Row{Number: 1}
			if _, isJSON := c.values["o"]; !isJSON {
				row.Cells = []string{}
			}
			got, faults := template.Render(row, c.values)
			if c.fault != "" {
				if len(faults) != 1 || faults[0].Code+"/"+faults[0].Param != c.fault {
					t.Errorf("faults %+v, want %s", faults, c.fault)
				}
				return
			}
			if string(got) != c.want || faults != nil {
				t.Errorf("%s, %v; want %s", got, faults, c.want)
			}
		})
	}
}

func TestTemplateRefused(t *testing.T) {
	t.Parallel()
	for template, pointer := range map[string]string{
		`"x"`:                           "/template",
		`{"prompt":"{{colour"}`:         "/template/prompt",
		`{"prompt":"{{}}"}`:             "/template/prompt",
		`{"prompt":"{{{a}}}"}`:          "/template/prompt",
		`{"a":{"b~/":["{{"]}}`:          "/template/a/b~0~1/0",
		`{"prompt":"{{other}} {{no}}"}`: "/template/prompt",
	} {
		parsed, err := ParseTemplate(json.RawMessage(template), nil)
		if err == nil {
			err = parsed.Check([]string{"other"})
		}
		var problem *queue.Problem
		if !errors.As(err, &problem) || len(problem.Errors) != 1 || problem.Errors[0].Pointer != pointer {
			t.Errorf("%s: %v %+v", template, err, problem)
		}
	}
}

func TestEveryColumn(t *testing.T) {
	t.Parallel()
	template := EveryColumn([]string{"custom_id", "prompt", "", "steps"}, json.RawMessage(schema))
	got, faults := template.Render(&table.Row{Cells: []string{}}, map[string]any{"custom_id": "x", "prompt": "p", "steps": "3"})
	if string(got) != `{"prompt":"p","steps":3}` || faults != nil {
		t.Errorf("%s, %v", got, faults)
	}
}

// FuzzTemplate: whatever the template and the cell, what comes out is JSON that passes for
// a request, with the cell in it unchanged.
func FuzzTemplate(f *testing.F) {
	f.Add(`{"prompt":"a {{c}}"}`, "red")
	f.Add(`{"steps":"{{c}}","x":[{"y":"{{ c }}"}]}`, "12")
	f.Add(`{"stop":"{{c}}"}`, `[[[1,{"a":2}]]]`)
	f.Add(`{"preview":"{{c}}{{"}`, "\"}")
	f.Fuzz(func(t *testing.T, source, value string) {
		template, err := ParseTemplate(json.RawMessage(source), json.RawMessage(schema))
		if err != nil {
			var problem *queue.Problem
			if !errors.As(err, &problem) {
				t.Fatalf("not a problem: %v", err)
			}
			return
		}
		row := &table.Row{Cells: []string{value}}
		input, faults := template.Render(row, map[string]any{"c": value})
		if faults != nil {
			return
		}
		if !json.Valid(input) {
			t.Fatalf("%s", input)
		}
		if err := strict.Check(input); err != nil && strings.ToValidUTF8(value, "") == value && !strings.Contains(err.Error(), "nested") {
			t.Fatalf("%s: %v", input, err)
		}
	})
}

func TestCell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "plain": "plain", "1": "1", "-1": "-1", "+3.5e-4": "+3.5e-4", "-.5": "-.5", "-5.": "-5.",
		"=1+1": "'=1+1", "+A1": "'+A1", "-A1": "'-A1", "@SUM(1)": "'@SUM(1)", "\t=1": "'\t=1", "\r=1": "'\r=1",
		"-1+2": "'-1+2", "-": "'-", "+": "'+", "-1e": "'-1e", "=": "'=", "a=1": "a=1", "'=1": "'=1",
	} {
		if got := cell(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestRowIDs(t *testing.T) {
	t.Parallel()
	batch, last := queue.NewID(), ""
	for _, at := range [][2]int{{0, 0}, {0, 2}, {1, 0}, {1, 1}, {2, 0}, {table.MaxRows, maxSlots - 1}} {
		id := rowID(batch, at[0], at[1])
		if !queue.ValidID(id) || id <= last || id != rowID(batch, at[0], at[1]) {
			t.Errorf("row %v: %s after %s", at, id, last)
		}
		if id == rowID(queue.NewID(), at[0], at[1]) {
			t.Errorf("row %v has the same id in another batch", at)
		}
		last = id
	}
}
