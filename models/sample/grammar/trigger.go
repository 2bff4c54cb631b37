package grammar

import (
	"bytes"
	"unicode"
)

// Opening is what a Trigger waits for.
type Opening struct {
	Text    string
	Leading bool // only at the beginning of the text, white space aside
}

// Trigger leaves a text free until one of its openings has been written; from the
// opening on, the rest of the text is held to the grammar. What cannot begin a sentence
// of the grammar opens nothing. Trigger implements sample.Constraint and belongs to one
// text.
type Trigger struct {
	automaton *Automaton
	openings  []Opening
	matcher   *Matcher // nil while the text is free
	text      []byte   // that an opening may still begin in
	begun     bool     // something other than white space was written
}

// NewTrigger returns a Trigger for an empty text.
func (a *Automaton) NewTrigger(openings ...Opening) *Trigger {
	return &Trigger{automaton: a, openings: openings}
}

// Allowed returns the tokens that may come next; nil, for all of them, before an
// opening.
func (t *Trigger) Allowed() []uint64 {
	if t.matcher == nil {
		return nil
	}
	return t.matcher.Allowed()
}

// Ended reports whether the text is complete.
func (t *Trigger) Ended() bool { return t.matcher != nil && t.matcher.Ended() }

// Accept takes the next token. The error is that of Matcher.Accept.
func (t *Trigger) Accept(id int) error {
	if t.matcher != nil {
		return t.matcher.Accept(id)
	}
	t.text = append(t.text, t.automaton.vocabulary.bytesOf(id)...)
	for i := range t.text {
		for _, o := range t.openings {
			if (!o.Leading || !t.begun) && bytes.HasPrefix(t.text[i:], []byte(o.Text)) {
				if m := t.automaton.NewMatcher(); m.Push(t.text[i:]) {
					t.matcher, t.text = m, nil
					return nil
				}
			}
		}
		// An opening may be complete only with the next token.
		if t.mayOpen(t.text[i:]) {
			t.text = t.text[i:]
			return nil
		}
		t.begun = t.begun || !unicode.IsSpace(rune(t.text[i]))
	}
	t.text = t.text[:0]
	return nil
}

// mayOpen reports whether text is the beginning of an opening.
func (t *Trigger) mayOpen(text []byte) bool {
	for _, o := range t.openings {
		if (!o.Leading || !t.begun) && len(text) < len(o.Text) && bytes.HasPrefix([]byte(o.Text), text) {
			return true
		}
	}
	return false
}
