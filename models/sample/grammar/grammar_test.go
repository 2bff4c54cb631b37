package grammar

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// end is the token that ends a text in testVocabulary.
const end = 0

// testVocabulary has every byte and some longer tokens, which cut characters too.
func testVocabulary() *Vocabulary {
	tokens := [][]byte{nil, nil}
	for b := range 256 {
		tokens = append(tokens, []byte{byte(b)})
	}
	for _, s := range []string{`{"`, `":`, `": `, `"}`, `",`, ` "`, "true", "false", "null", "the", " the", "ab", "abc", "12", "123", "0.", "-1",
		"é", "日本", "日\xe6", "\x9c\xac", "\\u", "\\n", `\"`, "]}", "[[", "}}", "\n  ", "  ", "2024-", "<tool_call>", "</tool_call>"} {
		tokens = append(tokens, []byte(s))
	}
	return NewVocabulary(len(tokens)+3, func(id int) []byte {
		if id >= len(tokens) {
			return nil // padding of the embedding
		}
		return tokens[id]
	}, []int{end})
}

func matcher(t testing.TB, source string) *Matcher {
	t.Helper()
	g, err := Parse(source)
	if err != nil {
		t.Fatalf("%v in\n%s", err, source)
	}
	return NewAutomaton(g, testVocabulary()).NewMatcher()
}

// is reports whether a text is a sentence of the matcher's grammar.
func is(m *Matcher, text string) bool {
	fresh := m.automaton.NewMatcher()
	return fresh.Push([]byte(text)) && fresh.Accepting()
}

const jsonGrammar = `
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
`

func TestSentences(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		grammar string
		yes, no []string
	}{
		"text":           {`root ::= "ab\n\x41\u00e9\U0001F600\"\\"`, []string{"ab\nAé😀\"\\"}, []string{"", "ab", "ab\nAé😀\"\\x"}},
		"choice":         {"root ::= \"a\" | \"b\" |\n \"\"", []string{"a", "b", ""}, []string{"ab", "c"}},
		"repetitions":    {`root ::= "a"? "b"* "c"+ "d"{2} "e"{1,} "f"{0,2}`, []string{"cdde", "abbcccddeeeff"}, []string{"cde", "aacdde", "cddefff"}},
		"of a group":     {"root ::= ( \"a\" | # one\n \"b\" ) {2,3}", []string{"ab", "bba"}, []string{"a", "abab"}},
		"twice repeated": {`root ::= ("a"* "b"?)* "c"`, []string{"c", "aabac", "bbc"}, []string{"ab"}},
		"class":          {`root ::= [a-cx\-\]]+ [^a-c"]`, []string{"ax-]é", "b日"}, []string{"ab", "a\"", "ya"}},
		"any":            {`root ::= . .`, []string{"ab", "\né", "日😀"}, []string{"a", "abc", "\xff\xff", "\xed\xa0\x80a"}},
		"ranges of wide": {`root ::= [ -~¡-퟿𐀀-𐿿]*`, []string{"", "é日𐌰"}, []string{"\n", "\U00020000"}},
		"recursion":      {"root ::= \"(\" root* \")\"", []string{"()", "(()(()))"}, []string{"(", "())"}},
		"right":          {"root ::= \"a\" root | \"b\"", []string{"b", strings.Repeat("a", 5000) + "b"}, []string{"a"}},
		"ambiguous":      {"root ::= x x x\nx ::= \"a\"*", []string{"", "aaaaaaaa"}, []string{"b"}},
		"palindromes":    {"root ::= \"a\" root \"a\" | \"b\" root \"b\" | \"\"", []string{"", "abba", "bbabbabb"}, []string{"ab", "a"}},
		"json": {jsonGrammar, []string{`{}`, `{"a": [1, -2.5e3, {"é\u00e9": null}], "b":true}`, "{\n  \"a\":\"\"}"},
			[]string{`{a:1}`, `{"a":01x}`, `[1]`, `{"a":1,}`}},
		"nothing to repeat": {`root ::= (""{100000}){100000} ("" ""*)* "x"`, []string{"x"}, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := matcher(t, c.grammar)
			for _, s := range c.yes {
				if !is(m, s) {
					t.Errorf("%.60q is no sentence", s)
				}
			}
			for _, s := range c.no {
				if is(m, s) {
					t.Errorf("%.60q is a sentence", s)
				}
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"":                                   "line 1, column 1: there is no rule named root",
		"a ::= \"x\"":                        "there is no rule named root",
		"root ::= a\n\nb ::= \"x\"":          "line 1, column 10: there is no rule named a",
		"root ::= \"a\"\nroot ::= \"b\"":     "line 2, column 1: the rule root is defined twice",
		"root \"a\"":                         "line 1, column 6: want ::=",
		"root ::= \"a":                       "line 1, column 10: the text does not end in its line",
		"root ::= [a\n]":                     "line 1, column 10: the set of characters does not end",
		"root ::= [b-a]":                     "column 11: the range from 'b' to 'a' is empty",
		"root ::= []":                        "no character is in the set",
		"root ::= \"\\q\"":                   "column 11: an unknown escape",
		"root ::= \"\\x1g\"":                 "want 2 hexadecimal digits",
		"root ::= \"\\x\x10\x10\"":           "want 2 hexadecimal digits",
		"root ::= \"\\uD800\"":               "U+D800 is no character",
		"root ::= (\"a\"":                    "want ) to end the group of line 1",
		"root ::= \"a\" )":                   "column 14: want a new line",
		"root ::= * \"a\"":                   "column 10: there is nothing before * to repeat",
		"root ::= \"a\"{3,2}":                "column 13: at least 3 and at most 2",
		"root ::= \"a\"{x}":                  "want a number",
		"root ::= \"a\"{1":                   "want }",
		"root ::= \"a\"{999999}":             "want a number from 0 to 100000",
		"root ::= <think>":                   "tokens by name or number are not supported",
		"root ::= root \"a\" | \"b\"":        "column 10: root comes back to itself",
		"root ::= a\na ::= \"\"? b\nb ::= a": "never ends",
		"root ::= \"x\" | a\na ::= [b]* b\nb ::= a \"c\" | \"d\"": "line 3, column 7: a comes back to itself before anything is read",
		"root ::= \"a\" root":                             "line 1, column 1: root never ends",
		"root ::= (((\"a\"{1000}){1000}){1000})":          "too large",
		"root ::= \xff":                                   "not valid UTF-8",
		"root ::= " + strings.Repeat("(", 100) + "\"a\"":  "nest deeper than 64",
		"root ::= \"a\"\n" + strings.Repeat("#", 300_000): "at most 262144",
	} {
		_, err := Parse(source)
		var wrong *Error
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", source, err, want)
		}
	}
}

// TestAllowed checks the tokens that may follow one by one against the definition.
func TestAllowed(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		m := matcher(t, jsonGrammar)
		v := m.automaton.vocabulary
		for range 60 {
			allowed := m.Allowed()
			var choices []int
			for id := range v.size {
				trial := *m
				want := trial.Accept(id) == nil
				if got := allowed[id/64]>>(id%64)&1 == 1; got != want {
					t.Fatalf("token %d %q: allowed %v, want %v", id, v.bytesOf(id), got, want)
				}
				if want {
					choices = append(choices, id)
				}
			}
			if len(choices) == 0 {
				t.Fatal("no token is allowed")
			}
			id := choices[random.IntN(len(choices))]
			if err := m.Accept(id); err != nil {
				t.Fatal(err)
			}
			if id == end {
				break
			}
		}
	}
}

// TestForgetting checks that matchers go on when what an automaton knows is dropped.
func TestForgetting(t *testing.T) {
	t.Parallel()
	m := matcher(t, jsonGrammar)
	a := m.automaton
	for i, b := range []byte(`{"a":[[1,{"b":"c"}],true]}`) {
		if i%3 == 0 {
			a.forget()
		}
		m.Allowed()
		if !m.Push([]byte{b}) {
			t.Fatalf("byte %d", i)
		}
	}
	if !m.Accepting() || len(a.states) > 100 {
		t.Errorf("accepting %v, %d states", m.Accepting(), len(a.states))
	}
	if a.epoch < 5 {
		t.Fatal("nothing was forgotten")
	}
	if a.start.epoch != a.epoch {
		t.Error("the start still leads to what was forgotten")
	}
	if again := a.NewMatcher(); !again.Push([]byte(`{"a":1}`)) || !again.Accepting() {
		t.Error("a new text cannot begin")
	}
}

// TestStatesAreBounded checks that states with many ways to read a text do not pile up.
func TestStatesAreBounded(t *testing.T) {
	t.Parallel()
	m := matcher(t, "root ::= "+strings.Repeat("[ab]? ", 1000)+strings.Repeat(`("a" | "b")? `, 200))
	a, most := m.automaton, 0
	for i := range 1000 {
		if !m.Push([]byte{"ab"[i%2]}) {
			t.Fatalf("byte %d may not follow", i)
		}
		kept := 0
		for _, s := range a.states {
			kept += len(s.configs) + len(s.next)
		}
		most = max(most, kept)
	}
	if a.epoch < 2 || most > maxKept {
		t.Errorf("%d words are kept in epoch %d, want %d at most", most, a.epoch, maxKept)
	}
}

// TestDepthIsBounded checks that texts cannot nest without end.
func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	m := matcher(t, "root ::= \"[\" root? \"]\"\n")
	n := 0
	for m.Push([]byte("[")) {
		n++
	}
	if n < 100 || n > 2*maxStack {
		t.Errorf("%d levels", n)
	}
	for range n {
		if !m.Push([]byte("]")) {
			t.Fatal("what is open cannot be closed")
		}
	}
	if !m.Ended() {
		t.Error("the text has not ended")
	}
}

func TestEnded(t *testing.T) {
	t.Parallel()
	m := matcher(t, `root ::= "ab" "c"?`)
	if m.Ended() || m.Accept(end) == nil || m.Accept(1) == nil || m.Accept(-1) == nil || m.Accept(9999) == nil {
		t.Error("an empty text has ended")
	}
	m.Push([]byte("ab"))
	if m.Ended() || !m.Accepting() {
		t.Error("the text may end or go on")
	}
	m.Push([]byte("c"))
	if !m.Ended() {
		t.Error("nothing can follow")
	}
	again := m.automaton.NewMatcher()
	again.Push([]byte("ab"))
	if err := again.Accept(end); err != nil || !again.Ended() {
		t.Errorf("the end: %v", err)
	}
}

// TestManyAtOnce checks that texts that share an automaton do not disturb each other.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	a := matcher(t, jsonGrammar).automaton
	done := make(chan string)
	for seed := range 8 {
		go func() { done <- walk(a.NewMatcher(), uint64(seed%2), 400) }()
	}
	texts := map[string]int{}
	for range 8 {
		texts[<-done]++
	}
	if len(texts) != 2 {
		t.Errorf("%d texts of two seeds", len(texts))
	}
}

// walk writes a random text of at most so many tokens.
func walk(m *Matcher, seed uint64, tokens int) string {
	random := rand.New(rand.NewPCG(seed, 3))
	var b strings.Builder
	v := m.automaton.vocabulary
	for range tokens {
		var choices []int
		for id := range v.size {
			if m.Allowed()[id/64]>>(id%64)&1 == 1 {
				choices = append(choices, id)
			}
		}
		if len(choices) == 0 {
			return b.String() + "!no token"
		}
		id := choices[random.IntN(len(choices))]
		if m.Accept(id) != nil {
			return b.String() + "!refused"
		}
		if id == end {
			break
		}
		b.Write(v.bytesOf(id))
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add(jsonGrammar)
	f.Add("root ::= [^\\x00-\\x1F]* (\"a\" | b){2,3}\nb ::= . b?")
	v := testVocabulary()
	f.Fuzz(func(t *testing.T, source string) {
		g, err := Parse(source)
		if err != nil {
			var wrong *Error
			if !errors.As(err, &wrong) || wrong.Line < 1 || wrong.Column < 1 {
				t.Fatalf("%v", err)
			}
			return
		}
		m := NewAutomaton(g, v).NewMatcher()
		text := walk(m, 1, 20)
		if strings.HasSuffix(text, "!refused") {
			t.Fatalf("an allowed token is refused after %q", text)
		}
		if m.Accepting() && !utf8.ValidString(strings.TrimSuffix(text, "!no token")) {
			t.Fatalf("%q is no text", text)
		}
	})
}

// BenchmarkAllowed is one step of a text over a vocabulary as large as that of Llama 3:
// in a state that was met before, and in one that is new each time.
func BenchmarkAllowed(b *testing.B) {
	const size = 128_256
	random := rand.New(rand.NewPCG(1, 1))
	const letters = " etaoinshrdlucmfwypvbgkjqxz\"{}[]:,0123456789"
	tokens := make([][]byte, size)
	for id := range tokens {
		if id < 256 {
			tokens[id] = []byte{byte(id)}
			continue
		}
		for range 1 + random.IntN(8) {
			tokens[id] = append(tokens[id], letters[random.IntN(len(letters))])
		}
	}
	v := NewVocabulary(size, func(id int) []byte { return tokens[id] }, nil)
	g, err := FromSchema([]byte(`{"type":"object","properties":{"a":{"type":"string","maxLength":5000}},"required":["a"]}`), true)
	if err != nil {
		b.Fatal(err)
	}
	a := NewAutomaton(g, v)
	begin := a.NewMatcher()
	begin.Push([]byte(`{"a":"`))
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			begin.Allowed()
		}
	})
	b.Run("new", func(b *testing.B) {
		m := *begin
		for b.Loop() {
			if !m.Push([]byte("x")) {
				m = *begin
			}
			m.Allowed()
		}
	})
}
