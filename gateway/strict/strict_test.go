package strict_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"helicon/gateway/strict"
	"helicon/queue"
)

type inner struct {
	Name string `json:"name"`
}

type embedded struct {
	Size *int `json:"size"`
}

type target struct {
	embedded
	On    bool            `json:"on"`
	Tags  []string        `json:"tags"`
	Inner *inner          `json:"inner"`
	At    *time.Time      `json:"at"`
	Any   json.RawMessage `json:"any"`

	own string // no member has its name
}

func TestObject(t *testing.T) {
	t.Parallel()
	var got target
	if err := strict.Object([]byte(`{"size":3,"on":true,"tags":["a"],"inner":{"name":"x"},"at":"2030-01-31T12:00:00Z","any":[1]}`), "", &got); err != nil {
		t.Fatal(err)
	}
	size, at := 3, time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	want := target{embedded{&size}, true, []string{"a"}, &inner{"x"}, &at, json.RawMessage("[1]"), ""}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var none target
	if err := strict.Object([]byte(`{"size":null,"inner":null,"at":null,"tags":null}`), "", &none); err != nil || none.Size != nil || none.Inner != nil || none.At != nil {
		t.Errorf("null: %+v, %v", none, err)
	}
}

func TestObjectRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, pointer, detail string }{
		{`{"size":"3"}`, "/at/size", "want an integer"},
		{`{"on":1}`, "/at/on", "want true or false"},
		{`{"tags":[1]}`, "/at/tags", "want an array of strings"},
		{`{"inner":{"nam":"x"}}`, "/at/inner/nam", "unknown member; the known ones are name"},
		{`{"inner":[]}`, "/at/inner", "want an object"},
		{`{"inner":{"name":1}}`, "/at/inner/name", "want a string"},
		{`{"at":"now"}`, "/at/at", "want a time such as 2030-01-31T12:00:00Z"},
		{`{"a/b~":1}`, "/at/a~1b~0", "unknown member; the known ones are any, at, inner, on, size, tags"},
		{`{"Size":1}`, "/at/Size", "unknown member; the known ones are any, at, inner, on, size, tags"},
		{`{"":1}`, "/at/", "unknown member; the known ones are any, at, inner, on, size, tags"},
		{`{"own":1}`, "/at/own", "unknown member; the known ones are any, at, inner, on, size, tags"},
		{`null`, "/at", "want an object"},
	} {
		var problem *queue.Problem
		if err := strict.Object([]byte(c.text), "/at", new(target)); !errors.As(err, &problem) {
			t.Errorf("%s: %v", c.text, err)
		} else if e := problem.Errors[0]; e.Pointer != c.pointer || e.Detail != c.detail {
			t.Errorf("%s: %+v, want %s: %s", c.text, e, c.pointer, c.detail)
		}
	}
}

// FuzzCheck: what passes is JSON that reads the same in every decoder.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e3,null,true,"x"]}`, `{"a":1,"a":2}`, `[1]x`, `1e400`, `1e-400000`, "\xff", `{"a":{"a":1}}`, strings.Repeat("[", 70), ` `, `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		err := strict.Check(text)
		var problem *queue.Problem
		switch {
		case err != nil && !errors.As(err, &problem):
			t.Fatalf("%v is no problem", err)
		case err == nil && !json.Valid(text):
			t.Fatalf("let through %q", text)
		}
		if err != nil {
			return
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
	})
}
