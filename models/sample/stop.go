package sample

import (
	"fmt"
	"strings"
)

// StopMatcher ends a streamed text at the first stop string that is complete
// in it. It holds back no more text than may still become a stop string, and
// never passes on a part of one. It belongs to one stream.
type StopMatcher struct {
	stops   []string
	held    string
	matched string
}

// NewStopMatcher returns a StopMatcher, or a *FieldError if a stop string is
// empty. With no stop strings, it passes all text on.
func NewStopMatcher(stops []string) (*StopMatcher, error) {
	for i, s := range stops {
		if s == "" {
			return nil, &FieldError{"stop", fmt.Sprintf("string %d is empty", i)}
		}
	}
	return &StopMatcher{stops: stops}, nil
}

// Push takes the next part of the text and returns what can be passed on.
// stopped reports that a stop string is complete: the text has ended before
// it, and all further text is dropped.
func (m *StopMatcher) Push(text string) (emit string, stopped bool) {
	if m.matched != "" {
		return "", true
	}
	text = m.held + text
	// The match that ends first does not depend on how the text was divided.
	end, start := len(text)+1, 0
	for _, s := range m.stops {
		i := strings.Index(text, s)
		if i >= 0 && (i+len(s) < end || i+len(s) == end && i < start) {
			start, end, m.matched = i, i+len(s), s
		}
	}
	if m.matched != "" {
		m.held = ""
		return text[:start], true
	}
	keep := 0
	for _, s := range m.stops {
		keep = max(keep, overlap(text, s))
	}
	cut := len(text) - keep
	m.held = text[cut:]
	return text[:cut], false
}

// Flush ends the text and returns what was held back.
func (m *StopMatcher) Flush() string {
	held := m.held
	m.held = ""
	return held
}

// Matched returns the stop string that ended the text, or "".
func (m *StopMatcher) Matched() string { return m.matched }

// overlap returns the length of the longest end of text that stop begins
// with, shorter than stop.
func overlap(text, stop string) int {
	for n := min(len(text), len(stop)-1); n > 0; n-- {
		if strings.HasSuffix(text, stop[:n]) {
			return n
		}
	}
	return 0
}
