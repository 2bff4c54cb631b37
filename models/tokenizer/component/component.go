// Package component reads what the components of a tokenizer.json have in
// common: a type, sequences of others, and shared fields.
package component

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxDepth bounds sequences inside sequences.
const MaxDepth = 16

// ErrDepth reports sequences that are nested more than MaxDepth deep.
var ErrDepth = errors.New("sequences are nested too deeply")

// Absent reports whether an optional component is missing or null.
func Absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// Type returns the type of a component.
func Type(raw json.RawMessage) (string, error) {
	var c struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", err
	}
	if c.Type == "" {
		return "", errors.New("type is missing")
	}
	return c.Type, nil
}

// List parses the components of a sequence, whose field is name.
func List[T any](name string, list []json.RawMessage, parse func(json.RawMessage) (T, error)) ([]T, error) {
	out := make([]T, 0, len(list))
	for i, raw := range list {
		item, err := parse(raw)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", name, i, err)
		}
		out = append(out, item)
	}
	return out, nil
}

// Metaspace holds the fields that a Metaspace has as a pre-tokenizer and as a
// decoder.
type Metaspace struct {
	Replacement    string  `json:"replacement"`
	PrependScheme  *string `json:"prepend_scheme"`
	AddPrefixSpace *bool   `json:"add_prefix_space"` // of files of old versions
}

// Scheme checks m and returns its prepend scheme: "always", "first" or
// "never".
func (m *Metaspace) Scheme() (string, error) {
	if m.Replacement == "" {
		return "", errors.New("replacement is empty")
	}
	scheme := "always"
	switch {
	case m.PrependScheme != nil:
		scheme = *m.PrependScheme
	case m.AddPrefixSpace != nil && !*m.AddPrefixSpace:
		scheme = "never"
	}
	switch scheme {
	case "always", "first", "never":
		return scheme, nil
	}
	return "", fmt.Errorf("prepend_scheme %q is not supported", scheme)
}
