package grammar

import "testing"

func TestTrigger(t *testing.T) {
	t.Parallel()
	g, err := Parse(`root ::= "<tool_call>" [0-9]+ "</tool_call>" | "{" [0-9] "}"`)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAutomaton(g, testVocabulary())
	token := func(s string) int {
		for id := range a.vocabulary.size {
			if string(a.vocabulary.bytesOf(id)) == s {
				return id
			}
		}
		t.Fatalf("no token %q", s)
		return 0
	}
	for name, c := range map[string]struct {
		tokens []string
		held   bool // to the grammar
		ended  bool
	}{
		"free":             {[]string{"the", " the", "<", "t", "h"}, false, false},
		"one token":        {[]string{"the", "<tool_call>"}, true, false},
		"spelled out":      {[]string{"<", "t", "o", "o", "l", "_", "c", "a", "l", "l", ">"}, true, false},
		"after a start":    {[]string{"<", "<", "t", "o", "o", "l", "_", "c", "a", "l", "l", ">", "12"}, true, false},
		"complete":         {[]string{"the", "<tool_call>", "12", "</tool_call>"}, true, true},
		"leading":          {[]string{" ", "  ", "{", "1"}, true, false},
		"not leading":      {[]string{"the", "{"}, false, false},
		"no sentence":      {[]string{`{"`, "ab"}, false, false},
		"leading complete": {[]string{"{", "1", "}"}, true, true},
	} {
		m := a.NewTrigger(Opening{Text: "<tool_call>"}, Opening{Text: "{", Leading: true})
		for _, s := range c.tokens {
			if err := m.Accept(token(s)); err != nil {
				t.Fatalf("%s: %q: %v", name, s, err)
			}
		}
		if held := m.Allowed() != nil; held != c.held || m.Ended() != c.ended {
			t.Errorf("%s: held %v, ended %v", name, held, m.Ended())
		}
		if c.held && m.Accept(token("the")) == nil {
			t.Errorf("%s: what the grammar forbids is accepted", name)
		}
	}
}
