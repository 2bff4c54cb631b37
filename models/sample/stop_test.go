package sample

import (
	"strings"
	"testing"
)

func TestStopMatcher(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		stops []string
		parts []string
		want  []string // what each Push returns, then Flush unless stopped
		match string
	}{
		{"none", nil, []string{"a", "b"}, []string{"a", "b", ""}, ""},
		{"in one part", []string{"END"}, []string{"textENDmore"}, []string{"text"}, "END"},
		{"divided", []string{"END"}, []string{"textE", "N", "Dmore"}, []string{"text", "", ""}, "END"},
		{"not completed", []string{"END"}, []string{"E", "N", "X"}, []string{"", "", "ENX", ""}, ""},
		{"at the end", []string{"END"}, []string{"tE", "N"}, []string{"t", "", "EN"}, ""},
		{"shortest tail", []string{"aab"}, []string{"aaa", "b"}, []string{"a", ""}, "aab"},
		{"first to end", []string{"abcd", "bc"}, []string{"abcd"}, []string{"a"}, "bc"},
		{"longer at the same end", []string{"c", "abc"}, []string{"xabc"}, []string{"x"}, "abc"},
		{"newlines", []string{"\n\n"}, []string{"a\n", "b\n", "\n"}, []string{"a", "\nb", ""}, "\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := NewStopMatcher(c.stops)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			stopped := false
			for _, part := range c.parts {
				var s string
				s, stopped = m.Push(part)
				got = append(got, s)
			}
			if !stopped {
				got = append(got, m.Flush())
			}
			if strings.Join(got, "|") != strings.Join(c.want, "|") || m.Matched() != c.match {
				t.Errorf("got %q, matched %q; want %q, %q", got, m.Matched(), c.want, c.match)
			}
			if s, again := m.Push("more"); stopped && (s != "" || !again) {
				t.Errorf("after the end: %q", s)
			}
		})
	}
	if _, err := NewStopMatcher([]string{"a", ""}); err == nil {
		t.Error("an empty stop string was accepted")
	}
}

// FuzzStopMatcher: how a text is divided must not change what is passed on,
// and no stop string may be.
func FuzzStopMatcher(f *testing.F) {
	f.Add("hello world", "lo w", "world", uint8(3))
	f.Add("aaaab", "aab", "ab", uint8(1))
	f.Fuzz(func(t *testing.T, text, stop1, stop2 string, size uint8) {
		if stop1 == "" || stop2 == "" || len(text) > 1000 {
			return
		}
		run := func(size int) (string, string) {
			m, err := NewStopMatcher([]string{stop1, stop2})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				s, stopped := m.Push(rest[:n])
				out.WriteString(s)
				if stopped {
					return out.String(), m.Matched()
				}
				rest = rest[n:]
			}
			out.WriteString(m.Flush())
			return out.String(), m.Matched()
		}
		whole, matchedWhole := run(len(text) + 1)
		parts, matchedParts := run(int(size)%7 + 1)
		if whole != parts || matchedWhole != matchedParts {
			t.Fatalf("whole %q (%q), in parts %q (%q)", whole, matchedWhole, parts, matchedParts)
		}
		if strings.Contains(whole, stop1) || strings.Contains(whole, stop2) {
			t.Fatalf("%q holds a stop string", whole)
		}
	})
}
