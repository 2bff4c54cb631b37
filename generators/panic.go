package generators

import (
	"fmt"
	"runtime"
	"strings"
)

// panicError is a panic of a model, caught with where it happened.
type panicError struct {
	value any
	stack string // innermost first, one "function file:line" a line
}

// Error returns the value of the panic, without the trace.
func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// panicFrames bounds the trace of a panic.
const panicFrames = 24

// newPanicError describes a recovered panic; it must be called by the deferred function.
func newPanicError(value any) *panicError {
	if e, ok := value.(*panicError); ok {
		return e
	}
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var lines []string
	thrown := false
	for len(lines) < panicFrames {
		f, more := frames.Next()
		switch {
		case thrown && !strings.HasPrefix(f.Function, "runtime."):
			lines = append(lines, fmt.Sprintf("%s %s:%d", f.Function, f.File, f.Line))
		case strings.HasPrefix(f.Function, "runtime.gopanic"), strings.HasPrefix(f.Function, "runtime.panic"):
			thrown = true
		}
		if !more || strings.HasSuffix(f.Function, "generators.(*attempt).run") {
			break
		}
	}
	return &panicError{value: value, stack: strings.Join(lines, "\n")}
}
