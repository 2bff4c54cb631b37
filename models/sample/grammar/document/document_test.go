package document

import (
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	t.Parallel()
	const source = `{"z":[1,-2.50,true,null],"a/b":{"~":"é<\n"},"a":{}}`
	v, err := Read([]byte(" " + source + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Write(v); got != source {
		t.Errorf("%s is written as %s", source, got)
	}
	for pointer, want := range map[string]string{"": source, "/z/1": "-2.50", Step(Step("", "a/b"), "~"): `"é<\n"`, Step("/z", 3): "null", "/a": "{}"} {
		if got, ok := LookUp(v, pointer); !ok || Write(got) != want {
			t.Errorf("at %q: %s, want %s", pointer, Write(got), want)
		}
	}
	for _, pointer := range []string{"a", "/b", "/z/4", "/z/-1", "/z/x", "/z/0/0"} {
		if _, ok := LookUp(v, pointer); ok {
			t.Errorf("there is something at %q", pointer)
		}
	}
	for _, broken := range []string{"", "{", `{"a"`, `{"a":}`, "[1,", "[1}", "{} {}", strings.Repeat("[", 100)} {
		if _, err := Read([]byte(broken)); err == nil {
			t.Errorf("%.20q is read", broken)
		}
	}
}
