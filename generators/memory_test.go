package generators_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"helicon/generators"
	"helicon/queue"
)

// loaded is a model that knows whether it may still be used.
type loaded struct {
	name   string
	closed atomic.Bool
}

func (l *loaded) Close() error {
	if l.closed.Swap(true) {
		return errors.New("closed twice")
	}
	return nil
}

// use loads a model of the given size, or finds it loaded.
func use(ctx context.Context, m *generators.Memory, name string, bytes int64, loads *atomic.Int64) (*loaded, func(), error) {
	return generators.Use(ctx, m, generators.Footprint{Key: name, Bytes: bytes}, func(context.Context) (*loaded, error) {
		loads.Add(1)
		return &loaded{name: name}, nil
	})
}

func TestUseKeepsModelsUntilTheirRoomIsNeeded(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(100)
	var loads atomic.Int64
	get := func(name string, bytes int64) *loaded {
		t.Helper()
		model, done, err := use(t.Context(), m, name, bytes, &loads)
		if err != nil {
			t.Fatal(err)
		}
		done()
		done() // harmless
		return model
	}
	a := get("a", 40)
	b := get("b", 40)
	if get("a", 40) != a || loads.Load() != 2 {
		t.Fatalf("a was loaded again")
	}
	get("c", 30) // b is the longest unused
	if a.closed.Load() || !b.closed.Load() {
		t.Errorf("closed a %t, b %t; want b alone", a.closed.Load(), b.closed.Load())
	}
	if m.Used() != 70 {
		t.Errorf("used %d, want 70", m.Used())
	}
	get("d", 100)
	if !a.closed.Load() || m.Used() != 100 {
		t.Errorf("a closed %t, used %d", a.closed.Load(), m.Used())
	}
	m.Close()
	if m.Used() != 0 {
		t.Errorf("used %d after Close", m.Used())
	}
}

func TestModelInUseIsNeverClosed(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(100)
	var loads atomic.Int64
	a, done, err := use(t.Context(), m, "a", 60, &loads)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, done, err := use(t.Context(), m, "b", 60, &loads)
		if err == nil {
			done()
			if !a.closed.Load() {
				err = errors.New("120 bytes are loaded in 100")
			}
		}
		got <- err
	}()
	// A further use of a goes ahead of the one who waits for it to go.
	again, doneAgain, err := use(t.Context(), m, "a", 60, &loads)
	if err != nil || again != a || a.closed.Load() {
		t.Fatalf("second use: %v, closed %t", err, a.closed.Load())
	}
	done()
	doneAgain()
	if err := receive(t, got, "the load of b"); err != nil {
		t.Error(err)
	}
	m.Close()
}

func TestLoadIsSharedAndItsErrorsAreNot(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(100)
	var loads atomic.Int64
	broken := errors.New("broken file")
	load := func(context.Context) (*loaded, error) {
		if loads.Add(1) == 1 {
			return nil, broken
		}
		return &loaded{}, nil
	}
	f := generators.Footprint{Key: "a", Bytes: 50}
	if _, _, err := generators.Use(t.Context(), m, f, load); !errors.Is(err, broken) {
		t.Fatalf("error %v, want %v", err, broken)
	}
	if m.Used() != 0 {
		t.Errorf("a model that could not be loaded takes %d bytes", m.Used())
	}
	var users sync.WaitGroup
	for range 16 {
		users.Go(func() {
			_, done, err := generators.Use(t.Context(), m, f, load)
			if err != nil {
				t.Error(err)
				return
			}
			defer done()
		})
	}
	users.Wait()
	if loads.Load() != 2 {
		t.Errorf("%d loads, want 2", loads.Load())
	}
	m.Close()
}

func TestLoadThatPanicsGivesItsRoomBack(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(100)
	_, _, err := generators.Use(t.Context(), m, generators.Footprint{Key: "a", Bytes: 50}, func(context.Context) (*loaded, error) {
		panic("bad file")
	})
	if err == nil || !strings.Contains(err.Error(), "bad file") || m.Used() != 0 {
		t.Errorf("error %v, used %d", err, m.Used())
	}
}

func TestNeedAboveTheBudgetIsRefused(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(3 << 30)
	_, err := m.Acquire(t.Context(), generators.Need{Memory: 1 << 20, Model: generators.Footprint{Key: "big", Bytes: 3 << 30}})
	var problem *queue.Problem
	if !errors.As(err, &problem) || problem.Code != "model_too_large" {
		t.Fatalf("error %v", err)
	}
	for _, figure := range []string{"big", "3.0 GiB", "1.0 MiB"} {
		if !strings.Contains(problem.Detail, figure) {
			t.Errorf("%q does not name %s", problem.Detail, figure)
		}
	}
}

func TestAcquireEndsWithItsContext(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(1)
	free, err := m.Acquire(t.Context(), generators.Need{Memory: 1})
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan error)
	for range 2 { // one waits for room, the other for its turn
		go func() {
			_, err := m.Acquire(ctx, generators.Need{Memory: 1})
			got <- err
		}()
	}
	cancel(cause)
	for range 2 {
		if err := receive(t, got, "the end of the wait"); !errors.Is(err, cause) {
			t.Errorf("error %v, want %v", err, cause)
		}
	}
	free()
	if m.Used() != 0 {
		t.Errorf("used %d", m.Used())
	}
}

// TestMemoryUnderLoad has many jobs share little room: none may see its model
// closed, the budget must hold, and all must end.
func TestMemoryUnderLoad(t *testing.T) {
	t.Parallel()
	m := generators.NewMemory(100)
	var loads, running atomic.Int64
	var jobs sync.WaitGroup
	for i := range 64 {
		jobs.Go(func() {
			name := fmt.Sprint("model ", i%5)
			need := generators.Need{Memory: 10, Model: generators.Footprint{Key: name, Bytes: 30}}
			free, err := m.Acquire(t.Context(), need)
			if err != nil {
				t.Error(err)
				return
			}
			defer free()
			running.Add(1)
			model, done, err := use(t.Context(), m, name, 30, &loads)
			if err != nil {
				t.Error(err)
				return
			}
			defer done()
			if model.name != name || model.closed.Load() || m.Used() > m.Total() {
				t.Errorf("model %q for %q, closed %t, %d bytes used", model.name, name, model.closed.Load(), m.Used())
			}
		})
	}
	jobs.Wait()
	if running.Load() != 64 {
		t.Errorf("%d jobs ran", running.Load())
	}
	m.Close()
	if m.Used() != 0 {
		t.Errorf("used %d", m.Used())
	}
}
