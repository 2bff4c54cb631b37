package grammar

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// validator returns the schema as an independent implementation reads it.
func validator(t testing.TB, schema string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("s:", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("s:")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// schemas have sentences (yes) and texts that are none.
var schemas = map[string]struct {
	schema  string
	yes, no []string
}{
	"anything":        {`{}`, []string{`{}`, `[1,"a",null,{"b":[]}]`, `"x"`, `-0.5e-7`, `true`}, []string{``, `{a}`, `01`, `"a`}},
	"an object":       {`{"type":"object"}`, []string{`{}`, `{"a":1,"b":{"c":[{}]}}`}, []string{`[]`, `{,}`}},
	"required":        {`{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{"type":"null"}},"required":["b"]}`, []string{`{"b":""}`, `{"a":1,"b":"x"}`, `{"a": 1, "b": "x", "c": null}`}, []string{`{}`, `{"a":1}`, `{"b":"","a":1}`, `{"b":"","d":1}`}},
	"all optional":    {`{"properties":{"a":{"const":1},"b":{"const":2}}}`, []string{`{}`, `{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`}, []string{`{,"b":2}`, `{"a":1,}`}},
	"additional":      {`{"properties":{"ab":{"type":"integer"}},"additionalProperties":{"type":"boolean"}}`, []string{`{"ab":1}`, `{"ab":1,"a":true,"abc":false,"":true}`, `{"b":true}`}, []string{`{"ab":true}`, `{"b":1}`, `{"b":true,"ab":true}`}},
	"map":             {`{"type":"object","additionalProperties":{"type":"integer"},"minProperties":1,"maxProperties":2}`, []string{`{"a":1}`, `{"a":1,"b":2}`}, []string{`{}`, `{"a":"x"}`}},
	"no members":      {`{"type":"object","properties":{}}`, []string{`{}`}, []string{`{"a":1}`}},
	"required only":   {`{"type":"object","required":["x"],"additionalProperties":{"type":"integer"}}`, []string{`{"x":1}`, `{"x":1,"y":2}`}, []string{`{}`, `{"y":2}`}},
	"array":           {`{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":3}`, []string{`[true,false]`, `[true, true, true]`}, []string{`[]`, `[true]`, `[true,true,true,true]`}},
	"tuple":           {`{"prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"},"minItems":1,"maxItems":4}`, []string{`[1]`, `[1,"a"]`, `[1,"a",null,null]`}, []string{`[]`, `["a"]`, `[1,null]`, `[1,"a",null,null,null]`}},
	"closed tuple":    {`{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false,"minItems":2}`, []string{`[1,"a"]`}, []string{`[1]`, `[1,"a",2]`}},
	"enum":            {`{"enum":["red",2,null,{"a":[1]}]}`, []string{`"red"`, `2`, `null`, `{"a":[1]}`}, []string{`"green"`, `3`}},
	"typed enum":      {`{"type":["string","integer"],"enum":["red",2,2.5,null]}`, []string{`"red"`, `2`}, []string{`null`, `2.5`}},
	"const":           {`{"const":"<é\"\n>"}`, []string{`"<é\"\n>"`}, []string{`"x"`}},
	"lengths":         {`{"type":"string","minLength":2,"maxLength":3}`, []string{`"ab"`, `"é日"`, `"\n\u00e9x"`, `"\ud83d\ude00a"`, `"😀😀😀"`}, []string{`"a"`, `"abcd"`, `"\ud83d\ude00"`, `"\ud83dab"`}},
	"pattern":         {`{"type":"string","pattern":"^[a-c]{2}(\\d+|x\"y)?$"}`, []string{`"ab"`, `"cc123"`, `"aax\"y"`}, []string{`"abx"`, `"a"`, `"abd"`}},
	"inner pattern":   {`{"type":"string","pattern":"b+"}`, []string{`"b"`, `"aabbcc"`}, []string{`"a"`, `""`}},
	"patterns":        {`{"type":"string","pattern":"^(a$|^b|.c)|d$"}`, nil, nil},
	"control pattern": {`{"type":"string","pattern":"^\\s\\W$"}`, []string{`"\n\""`, `" \\"`, `"\t\u0001"`}, []string{`" a"`}},
	"date":            {`{"type":"string","format":"date"}`, []string{`"2024-02-29"`, `"1999-12-31"`}, []string{`"2023-02-29"`, `"1900-02-29"`, `"2024-13-01"`}},
	"time":            {`{"type":"string","format":"time"}`, []string{`"23:59:59Z"`, `"00:00:00.5+02:00"`}, []string{`"24:00:00Z"`, `"10:00"`}},
	"date-time":       {`{"type":"string","format":"date-time"}`, []string{`"2024-02-29T12:00:00Z"`}, []string{`"2024-02-29"`}},
	"uuid":            {`{"type":"string","format":"uuid"}`, []string{`"00000000-0000-4000-8000-00000000000f"`}, []string{`"0"`}},
	"email":           {`{"type":"string","format":"email"}`, []string{`"a.b@example.com"`}, []string{`"a"`}},
	"hostname":        {`{"type":"string","format":"hostname"}`, []string{`"example.com"`}, []string{`"-a"`}},
	"ipv4":            {`{"type":"string","format":"ipv4"}`, []string{`"10.0.0.255"`}, []string{`"10.0.0.256"`}},
	"ipv6":            {`{"type":"string","format":"ipv6"}`, []string{`"fe80:0:0:0:0:0:0:1"`}, []string{`"fe80"`}},
	"duration":        {`{"type":"string","format":"duration"}`, []string{`"P3W"`, `"PT1H30M"`, `"P1DT2H"`}, []string{`"P"`, `"PT"`}},
	"integers":        {`{"type":"integer"}`, []string{`0`, `-12`, `123456789012345678`}, []string{`01`, `1.5`, `-`}},
	"range":           {`{"type":"integer","minimum":-15,"maximum":108}`, []string{`-15`, `-9`, `0`, `9`, `99`, `108`}, []string{`-16`, `109`, `200`, `007`}},
	"from":            {`{"type":"integer","minimum":27}`, []string{`27`, `100`, `99999`}, []string{`26`, `-30`, `3`}},
	"up to":           {`{"type":"integer","exclusiveMaximum":10}`, []string{`9`, `0`, `-10000`}, []string{`10`, `11`}},
	"within":          {`{"type":"integer","exclusiveMinimum":1.5,"exclusiveMaximum":4}`, []string{`2`, `3`}, []string{`1`, `4`}},
	"share":           {`{"type":"number","minimum":0,"maximum":1}`, []string{`0`, `1`, `0.25`}, []string{`1.5`, `-0.1`, `2`, `1.0001`}},
	"open share":      {`{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1}`, []string{`0.25`, `0.001`}, []string{`0`, `1`, `0.0`, `1.0`}},
	"fractions":       {`{"type":"number","minimum":-2.5,"maximum":0.25}`, []string{`-2.50`, `0.25`, `0.00`, `-1.999`}, []string{`-2.51`, `0.26`}},
	"number":          {`{"type":"number"}`, []string{`1`, `-1.5`, `2e10`, `0.1E-5`}, []string{`.5`, `1.`, `+1`}},
	"two types":       {`{"type":["string","null"],"maxLength":1}`, []string{`null`, `"a"`}, []string{`"ab"`, `1`}},
	"anyOf":           {`{"anyOf":[{"type":"integer"},{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]}]}`, []string{`1`, `{"a":null}`}, []string{`"x"`, `{}`}},
	"beside anyOf":    {`{"type":"object","properties":{"k":{"type":"integer"}},"required":["k"],"anyOf":[{"properties":{"a":{"const":1}},"required":["a"]},{"properties":{"b":{"const":2}},"required":["b"]}]}`, []string{`{"a":1,"k":5}`, `{"b":2,"k":5}`}, []string{`{"k":5}`, `{"a":1}`}},
	"oneOf":           {`{"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind","x"]},{"type":"object","properties":{"kind":{"const":"b"}},"required":["kind"]},{"type":"string"}]}`, []string{`{"kind":"a","x":1}`, `{"kind":"b"}`, `"s"`}, []string{`{"kind":"b","x":1}`, `1`}},
	"allOf":           {`{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"a":{"minimum":5},"b":{"type":"null"}},"required":["b"]}]}`, []string{`{"a":5,"b":null}`}, []string{`{"a":4,"b":null}`, `{"a":5}`}},
	"refs":            {`{"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}},"$ref":"#/$defs/n"}`, []string{`{"v":1,"next":null}`, `{"v":1,"next":{"v":2,"next":null}}`}, []string{`{"v":1}`, `{"v":1,"next":{}}`}},
	"whole document":  {`{"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"}}},"required":["children"]}`, []string{`{"children":[{"children":[]}]}`}, []string{`{}`, `{"children":[1]}`}},
	"merged recursion": {`{"$defs":{"a":{"type":"object","properties":{"x":{"$ref":"#/$defs/a"}}},"b":{"type":"object","properties":{"x":{"$ref":"#/$defs/b"},"y":{"const":1}}}},"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}]}`,
		[]string{`{}`, `{"x":{"x":{},"y":1}}`}, []string{`{"z":1}`}},
	"through refs": {`{"$defs":{"u":{"anyOf":[{"type":"string"},{"$ref":"#/$defs/n"}]},"n":{"type":"integer"}},"type":"array","items":{"description":"either","$ref":"#/$defs/u"},"minItems":1}`, []string{`["a",1]`}, []string{`[]`, `[null]`}},
	"escaped refs": {`{"definitions":{"a/b c":{"const":7}},"$ref":"#/definitions/a~1b%20c"}`, []string{`7`}, []string{`8`}},
	"nested": {`{"type":"object","properties":{"users":{"type":"array","maxItems":3,"items":{"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,"maximum":150},"tags":{"type":"array","items":{"enum":["x","y"]},"maxItems":2}},"required":["name","age"],"additionalProperties":false}}},"required":["users"],"additionalProperties":false}`,
		[]string{`{"users":[{"name":"Ann","age":30,"tags":["x"]}]}`}, []string{`{"users":[{"name":"Ann"}]}`}},
}

func TestSchemas(t *testing.T) {
	t.Parallel()
	for name, c := range schemas {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := FromSchema([]byte(c.schema), true)
			if err != nil {
				t.Fatal(err)
			}
			m := NewAutomaton(g, testVocabulary()).NewMatcher()
			valid := validator(t, c.schema)
			for _, s := range c.yes {
				if err := validate(valid, s); err != nil {
					t.Errorf("the test is wrong: %s: %v", s, err)
				}
				if !is(m, s) {
					t.Errorf("%s cannot be written", s)
				}
			}
			for _, s := range c.no {
				if is(m, s) {
					t.Errorf("%s can be written", s)
				}
			}
		})
	}
}

func validate(schema *jsonschema.Schema, text string) error {
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// TestRandomTextsAreValid writes random texts under each schema: all that end must
// satisfy it, as an independent implementation judges.
func TestRandomTextsAreValid(t *testing.T) {
	t.Parallel()
	v := testVocabulary()
	for name, c := range schemas {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := FromSchema([]byte(c.schema), true)
			if err != nil {
				t.Fatal(err)
			}
			valid, a, ended := validator(t, c.schema), NewAutomaton(g, v), 0
			for seed := range uint64(60) {
				text, complete := randomText(t, a.NewMatcher(), seed)
				if !complete {
					continue
				}
				ended++
				if err := validate(valid, text); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, text, err)
				}
			}
			if ended == 0 {
				t.Error("no text came to its end")
			}
		})
	}
}

// randomText writes tokens at random, ever more of those that lead to the end.
func randomText(t testing.TB, m *Matcher, seed uint64) (text string, complete bool) {
	random := rand.New(rand.NewPCG(seed, 9))
	v := m.automaton.vocabulary
	var b bytes.Buffer
	for n := range 400 {
		allowed, best, bestScore := m.Allowed(), -1, 0.0
		for id := range v.size {
			if allowed[id/64]>>(id%64)&1 == 0 {
				continue
			}
			score := random.Float64()
			if s := string(v.bytesOf(id)); id == end || n > 20 && (s != "" && strings.Contains(`"]}`, s[:1])) {
				score += float64(n) / 40
			}
			if score > bestScore {
				best, bestScore = id, score
			}
		}
		if best < 0 {
			t.Fatalf("seed %d: no token may follow %q", seed, b.String())
		}
		if (best == end) != (best == end && m.Accepting()) {
			t.Fatal("the end is allowed too early")
		}
		if err := m.Accept(best); err != nil {
			t.Fatal(err)
		}
		if best != end {
			b.Write(v.bytesOf(best))
		}
		if m.Ended() {
			return b.String(), true
		}
	}
	return b.String(), false
}

func TestSchemaErrors(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		`{`:               "not valid JSON",
		`{} {}`:           "text behind",
		`7`:               "want a schema",
		`false`:           "nothing satisfies false",
		`{"type":"text"}`: "/type: want one or more of object, array",
		`{"type":7}`:      "/type: want one or more of",
		`{"properties":{"a":{"type":"string","minLength":-1}}}`: "/properties/a/minLength: want a whole number",
		`{"properties":[]}`:                                                  "/properties: want an object",
		`{"properties":{"a":3}}`:                                             "/properties/a: want a schema",
		`{"required":"a"}`:                                                   "/required: want an array of names",
		`{"items":[{}]}`:                                                     "use prefixItems",
		`{"enum":[]}`:                                                        "/enum: want an array",
		`{"type":"string","enum":[1]}`:                                       "no value of enum or const has the type",
		`{"type":"string","enum":["a"],"maxLength":3}`:                       "maxLength beside enum",
		`{"anyOf":[]}`:                                                       "/anyOf: want an array of schemas",
		`{"allOf":[{"type":"string"},{"type":"null"}]}`:                      "contradict",
		`{"oneOf":[{"type":"number"},{"type":"integer"}]}`:                   "/oneOf: a value might satisfy both 0 and 1; use anyOf",
		`{"$ref":"other.json"}`:                                              "/$ref: want a reference within the schema",
		`{"$ref":"#/$defs/x"}`:                                               "there is nothing at #/$defs/x",
		`{"not":{}}`:                                                         "/not: not is not supported; say what is allowed instead",
		`{"type":"array","uniqueItems":true}`:                                "/uniqueItems: uniqueItems is not supported; leave it out",
		`{"properties":{"a":{"multipleOf":2}}}`:                              "/properties/a/multipleOf: multipleOf is not supported",
		`{"type":"string","format":"regex"}`:                                 `the format "regex" is not supported; want one of date,`,
		`{"type":"string","pattern":"("}`:                                    "/pattern: the pattern cannot be used",
		`{"type":"string","pattern":"a\\bb"}`:                                "is not supported here",
		`{"type":"string","pattern":"a","maxLength":3}`:                      "say the length in the pattern",
		`{"type":"string","minLength":3,"maxLength":2}`:                      "cannot both hold",
		`{"type":"string","maxLength":1000000}`:                              "at most 100000 is supported",
		`{"type":"array","minItems":3,"maxItems":2,"items":{}}`:              "cannot both hold",
		`{"type":"integer","minimum":3,"maximum":2}`:                         "no number is within the limits",
		`{"type":"integer","minimum":1e300}`:                                 "/minimum: want a number from -2^53",
		`{"type":"number","minimum":0.12345678}`:                             "at most 6 digits",
		`{"type":"object","properties":{"a":false},"required":["a"]}`:        `"a" is required, but not allowed`,
		`{"type":"object","properties":{"a":{}},"maxProperties":0}`:          "maxProperties beside properties",
		`{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}`: "never ends",
		`{"anyOf":[{"$ref":"#"},{"type":"null"}]}`:                           "left recursion",
		`{"type":"array","items":{},"maxItems":100000}`:                      "too large",
		strings.Repeat(`{"items":`, 100) + `{}` + strings.Repeat("}", 100):   "nests deeper than 64",
		`{"title":"` + strings.Repeat("x", maxSource) + `"}`:                 "at most 262144",
	} {
		_, err := FromSchema([]byte(schema), true)
		var wrong *SchemaError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", schema, err, want)
		}
	}
}

// TestHostileSchemas checks that small schemas that stand for a lot are refused in good
// time, or read in good time where they only are long.
func TestHostileSchemas(t *testing.T) {
	t.Parallel()
	list := func(n int, item string) string { // of which %d is the number
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(item, "%d", strconv.Itoa(i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	enum := `{"enum":` + list(12000, `"%d"`) + `}`
	for name, tt := range map[string]struct{ schema, want string }{
		"two enumerations":       {`{"allOf":[` + enum + `,` + enum + `]}`, ""},
		"oneOf of constants":     {`{"oneOf":` + list(12000, `{"const":%d}`) + `}`, "combines too much"},
		"oneOf of objects":       {`{"oneOf":` + list(2500, `{"properties":{"a":{"const":%d}},"required":["a"]}`) + `}`, "combines too much"},
		"names":                  {`{"required":` + list(30000, `"%d"`) + `}`, "more than 5000 names"},
		"pattern":                {`{"pattern":"` + strings.Repeat("[^a]", 60000) + `"}`, "combines too much"},
		"product of anyOf":       {`{"allOf":` + list(13, `{"anyOf":[{"minimum":%d},{"minimum":1%d}]}`) + `}`, "combines too much"},
		"a long name many times": {`{"anyOf":` + list(1000, `{"minItems":%d}`) + `,"type":"object","additionalProperties":{},"properties":{"` + strings.Repeat("a", 100_000) + `":{}}}`, "combines too much"},
		"a long text many times": {`{"anyOf":` + list(1000, `{"title":"%d"}`) + `,"enum":["` + strings.Repeat("a", 200_000) + `"]}`, "combines too much"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := FromSchema([]byte(tt.schema), true)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %.200v, want %q", err, tt.want)
			}
		})
	}
}

func TestLenientSchemas(t *testing.T) {
	t.Parallel()
	for schema, text := range map[string]string{
		`{"not":{"type":"null"},"type":"string"}`:                                                 `"a"`,
		`{"type":"string","format":"regex"}`:                                                      `"a"`,
		`{"type":"string","pattern":"a\\bb","minLength":1}`:                                       `"x"`,
		`{"oneOf":[{"type":"number"},{"type":"integer"}]}`:                                        `2.5`,
		`{"anyOf":[{"type":"object","required":["a"],"properties":{"a":false}},{"type":"null"}]}`: `null`,
	} {
		g, err := FromSchema([]byte(schema), false)
		if err != nil {
			t.Errorf("%s: %v", schema, err)
			continue
		}
		if !is(NewAutomaton(g, testVocabulary()).NewMatcher(), text) {
			t.Errorf("%s: %s cannot be written", schema, text)
		}
	}
}

func TestBuilder(t *testing.T) {
	t.Parallel()
	b := NewBuilder()
	one, err := b.Schema([]byte(`{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"required":["a"],"$defs":{"x":{"const":1}}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	two, err := b.Schema([]byte(`{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"required":["a"],"$defs":{"x":{"const":2}}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := b.Compile(Sequence(Text("<"), Repeat(Choice(one, two), 1, -1), Text(">")))
	if err != nil {
		t.Fatal(err)
	}
	m := NewAutomaton(g, testVocabulary()).NewMatcher()
	if !is(m, `<{"a":1}{"a":2}>`) || is(m, `<{"a":3}>`) || is(m, `<>`) {
		t.Error("the parts are not put together")
	}
}

func FuzzSchema(f *testing.F) {
	for _, c := range schemas {
		f.Add(c.schema, true)
	}
	v := testVocabulary()
	f.Fuzz(func(t *testing.T, schema string, strict bool) {
		g, err := FromSchema([]byte(schema), strict)
		if err != nil {
			var wrong *SchemaError
			if !errors.As(err, &wrong) {
				t.Fatal(err)
			}
			return
		}
		m := NewAutomaton(g, v).NewMatcher()
		if text := walk(m, 1, 20); strings.HasSuffix(text, "!refused") {
			t.Fatalf("an allowed token is refused after %q", text)
		}
	})
}
