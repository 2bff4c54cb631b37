package generators

import (
	"errors"
	"strings"
	"testing"
	"time"
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
