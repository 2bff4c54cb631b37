package terms

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"helicon/queue"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, indexed, asked string }{
		{"Hello, World", "hello world", "hello world"},
		{"", "", ""},
		{" .,-!?\"'", "", ""},
		{"猫", "猫", "猫"},
		{"小猫", "小 猫 小猫", "小猫"},
		{"SD模型v2", "sd 模 型 模型 v2", "sd 模型 v2"},
		{"x² ½ №5", "x2 1 2 no5", "x2 1 2 no5"},
		{"né à Göteborg", "ne a goteborg", "ne a goteborg"},
		{"हिन्दी", "हिन्दी", "हिन्दी"},
		{"がぎ", "が ぎ がぎ", "がぎ"},
		{"🙂🙂🚀", "🙂 🚀", "🙂 🚀"},
		{"§sabc", "sabc", "sabc"},
		{strings.Repeat("a", 100), strings.Repeat("a", maxWord), strings.Repeat("a", maxWord)},
	} {
		for query, want := range map[bool]string{false: c.indexed, true: c.asked} {
			s := newSet()
			s.words(c.text, query)
			if got := strings.Join(s.list, " "); got != want {
				t.Errorf("%q (query %v): %q, want %q", c.text, query, got, want)
			}
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for document, want := range map[string][]string{
		`{}`: nil, `null`: nil, `"a"`: {"a"}, `{"a":"b"}`: {"b"}, `{"a" : ["b", "c", {"d":"e"}]}`: {"b", "c", "e"},
		`{"a":"say \"x\": y"}`: {`say "x": y`}, `{"a\"":"b"}`: {"b"}, `{"a":"\u732b"}`: {"猫"}, `{"a":1,"b":true}`: nil,
		`{"data":"` + strings.Repeat("A", 257) + `","b":"c"}`: {"c"},
	} {
		var got []string
		texts([]byte(document), func(text string) bool { got = append(got, text); return true })
		if !slices.Equal(got, want) {
			t.Errorf("%.60s: %q, want %q", document, got, want)
		}
	}
}

func TestIndexedTextsAreBounded(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 100_000 {
		many.WriteString(string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + " ")
	}
	input, err := json.Marshal(map[string]string{"prompt": many.String(), "more": many.String()})
	if err != nil {
		t.Fatal(err)
	}
	terms := OfJob(&queue.Job{Tenant: "t", Task: "a.b", Input: input, Result: &queue.Result{Text: many.String()}})
	if n := len(terms); n > 2*maxIndexed+1000 {
		t.Errorf("%d bytes of terms", n)
	}
}

// FuzzTerms checks, for any text, that what is indexed is found by the text itself and by
// every line of it, and that no word can pass for a value or break a query.
func FuzzTerms(f *testing.F) {
	for _, seed := range []string{"Hello world", "一只猫", "a\x00b", "\"quoted\" OR *", "né ﬁ ½", "🚀👨‍👩‍👧", "§sabc §", "\xff\xfe", "İI", "ꙮ̂"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > maxIndexed/4 || !utf8.ValidString(text) {
			t.Skip()
		}
		input, err := json.Marshal(map[string]string{"prompt": text})
		if err != nil {
			t.Fatal(err)
		}
		var found bool
		texts(input, func(got string) bool { found = got == text; return true })
		if !found && !opaque(text) {
			t.Fatalf("the text %q is not found in %s", text, input)
		}
		if opaque(text) {
			t.Skip()
		}
		indexed := map[string]bool{}
		for term := range strings.FieldsSeq(OfJob(&queue.Job{Tenant: "t", Input: input})) {
			indexed[term] = true
		}
		for line := range strings.Lines(text) {
			for _, term := range OfQuery(line) {
				if !indexed[term] {
					t.Errorf("%q of %q is not indexed: %v", term, line, indexed)
				}
				if len(term) > maxWord+2*utf8.UTFMax || strings.Contains(term, mark) {
					t.Errorf("the term %q", term)
				}
				for _, r := range term {
					if r < utf8.RuneSelf && !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9') {
						t.Errorf("the term %q has %q in it", term, r)
					}
				}
			}
		}
	})
}

// FuzzTexts checks that any JSON document has the texts that a decoder finds in it.
func FuzzTexts(f *testing.F) {
	for _, seed := range []string{`{"a":"b"}`, `["a",{"b":["c"]}]`, `{"a":"\"","b":"\\"}`, `"\ud83d\ude80"`, `{"a":{"b":{}}}`, `"a" `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		var decoded any
		if json.Unmarshal(document, &decoded) != nil {
			texts(document, func(string) bool { return true }) // must only not panic
			t.Skip()
		}
		var got []string
		texts(document, func(text string) bool { got = append(got, text); return true })
		var want []string
		var walk func(any)
		walk = func(v any) {
			switch v := v.(type) {
			case string:
				if !opaque(v) {
					want = append(want, v)
				}
			case []any:
				for _, e := range v {
					walk(e)
				}
			case map[string]any:
				for _, e := range v {
					walk(e)
				}
			}
		}
		walk(decoded)
		// A member that appears twice is decoded once, and the order of members is lost.
		for _, text := range want {
			if !slices.Contains(got, text) {
				t.Errorf("%s: %q, want %q among them", document, got, text)
			}
		}
	})
}
