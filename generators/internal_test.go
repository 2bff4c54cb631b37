package generators

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"helicon/queue"
)

func TestRecordOfAJobIsBounded(t *testing.T) {
	t.Parallel()
	for length, want := range map[time.Duration]int{
		time.Second:        34,
		time.Hour:          4096,
		24 * time.Hour:     8192,
		7 * 24 * time.Hour: 1 << 15,
	} {
		events, spent := 0, time.Duration(0)
		for spent < length {
			spent += pauseAfter(events)
			events++
		}
		if events > want {
			t.Errorf("a job of %v appends %d events, want at most %d", length, events, want)
		}
	}
}

func innermost(m map[string]int) { m["x"] = 1 }

func TestPanicTraceIsTrimmed(t *testing.T) {
	t.Parallel()
	caught := func() (err *panicError) {
		defer func() { err = newPanicError(recover()) }()
		innermost(nil)
		return nil
	}()
	first, _, _ := strings.Cut(caught.stack, "\n")
	if !strings.Contains(first, "innermost") || strings.Contains(caught.stack, "runtime.") {
		t.Errorf("trace:\n%s", caught.stack)
	}
	if !strings.Contains(caught.Error(), "nil map") {
		t.Errorf("error %v", caught)
	}
	if again := newPanicError(caught); again != caught {
		t.Error("a panic that is passed on loses its trace")
	}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	if err := Transient(cause); !IsTransient(err) || !errors.Is(err, cause) || err.Error() != "cause" || IsTransient(cause) {
		t.Errorf("%v", err)
	}
}

// TestPreviews checks that of previews which come faster than events go out the last one
// stays, with its progress, and that one behind an artifact has an event of its own.
func TestPreviews(t *testing.T) {
	t.Parallel()
	o := &output{wake: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
	for i := range 3 {
		o.Progress(i+1, 6)
		o.Preview(fmt.Sprintf("data:%d", i))
	}
	o.Preview(strings.Repeat("x", MaxPreview+1))
	o.add(queue.Event{Type: queue.EventArtifact, Artifact: &queue.Artifact{}})
	o.Preview("data:next")
	if len(o.pending) != 3 {
		t.Fatalf("%d events, want 3", len(o.pending))
	}
	if e := o.pending[0]; e.Preview != "data:2" || e.Progress.Step != 3 || e.Type != queue.EventProgress {
		t.Errorf("event %+v, want the last preview", e)
	}
	if e := o.pending[2]; e.Preview != "data:next" || e.Progress == nil || e.Progress.Step != 3 {
		t.Errorf("event %+v, want the preview with the progress so far", e)
	}
}

// TestDeltasOfChoices checks that choices which are written side by side make one event
// each, however their tokens alternate.
func TestDeltasOfChoices(t *testing.T) {
	t.Parallel()
	o := &output{wake: make(chan struct{}, 1)}
	for i, word := range []string{"a", "b", "c"} {
		for choice := range 2 {
			o.Progress(2*i+choice+1, 6)
			o.Delta(queue.Delta{Text: word, Offset: i, Choice: choice})
		}
	}
	if len(o.pending) != 2 {
		t.Fatalf("%d events for two choices, want 2", len(o.pending))
	}
	for choice, e := range o.pending {
		if d := e.Delta; d == nil || d.Choice != choice || d.Text != "abc" || d.Offset != 0 {
			t.Errorf("event %d has the delta %+v, want all of the choice", choice, d)
		}
	}
	o.Delta(queue.Delta{Text: "x", Offset: 5, Choice: 1}) // not where the text ends
	if len(o.pending) != 3 {
		t.Errorf("%d events, want another one for a delta that goes on elsewhere", len(o.pending))
	}
}
