package generators

import (
	"context"
	"fmt"
	"io"
	"sync"

	"helicon/queue"
)

// Memory is the budget of bytes that models and running jobs share, and the place
// where loaded models stay until others need their room. Its methods may be called
// concurrently.
//
// A job acquires everything it needs in one step, so that no two jobs can each hold
// what the other waits for.
type Memory struct {
	total int64
	turn  chan struct{} // held by the one caller that waits for room: first come, first served

	mu     sync.Mutex
	used   int64
	models map[string]*resident
	uses   int64 // counts uses, to tell which model was used longest ago
	counts counts
	freed  chan struct{} // closed, and replaced, when room was made
}

// resident is a model that has room, whether it is loaded yet or not.
type resident struct {
	bytes   int64
	pins    int           // holders that use it or are about to
	lastUse int64         // value of Memory.uses
	loading chan struct{} // held by the one who loads it
	model   io.Closer     // nil until loaded; written under loading and Memory.mu, read under either
}

// NewMemory returns a budget of total bytes.
func NewMemory(total int64) *Memory {
	return &Memory{
		total:  total,
		turn:   make(chan struct{}, 1),
		models: map[string]*resident{},
		freed:  make(chan struct{}),
	}
}

// Total returns the budget in bytes.
func (m *Memory) Total() int64 { return m.total }

// Used returns how many bytes models and jobs take now.
func (m *Memory) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Acquire takes what need asks for, once it is free, unloading models that nobody
// uses. The model named in need has its room from then on, and stays, until free is
// called. A need above the whole budget is refused at once by a *queue.Problem; the
// other error is the context's cause.
func (m *Memory) Acquire(ctx context.Context, need Need) (free func(), err error) {
	if need.Memory+need.Model.Bytes > m.total {
		return nil, m.tooLarge(need)
	}
	if m.hasRoom(need) { // a model that is pinned already: must not queue behind those who wait for it to go
		return m.release(need), nil
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		ok, freed := m.take(need)
		if ok {
			return m.release(need), nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// hasRoom pins the model of a need that asks for nothing more, if it has its room.
func (m *Memory) hasRoom(need Need) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.models[need.Model.Key]
	if r == nil || need.Memory > 0 {
		return false
	}
	m.pin(r)
	return true
}

func (m *Memory) pin(r *resident) {
	r.pins++
	m.uses++
	r.lastUse = m.uses
}

// take does what Acquire promises if there is room, or returns what to wait on.
func (m *Memory) take(need Need) (ok bool, freed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.models[need.Model.Key]
	bytes := need.Memory
	if r == nil {
		bytes += need.Model.Bytes
	}
	if !m.makeRoom(bytes, r) {
		return false, m.freed
	}
	m.used += bytes
	if need.Model.Key != "" {
		if r == nil {
			r = &resident{bytes: need.Model.Bytes, loading: make(chan struct{}, 1)}
			m.models[need.Model.Key] = r
		}
		m.pin(r)
	}
	return true, nil
}

// makeRoom unloads idle models but keep, the longest unused first, until bytes are
// free. It unloads none if that would not be enough.
func (m *Memory) makeRoom(bytes int64, keep *resident) bool {
	var idle int64
	for _, r := range m.models {
		if r.pins == 0 && r != keep {
			idle += r.bytes
		}
	}
	if m.used-idle+bytes > m.total {
		return false
	}
	for m.used+bytes > m.total {
		var oldest string
		for key, r := range m.models {
			if r.pins == 0 && r != keep && (oldest == "" || r.lastUse < m.models[oldest].lastUse) {
				oldest = key
			}
		}
		m.unload(oldest)
		m.counts.evictions++
	}
	return true
}

// unload closes an idle model and gives its room back.
func (m *Memory) unload(key string) {
	r := m.models[key]
	delete(m.models, key)
	m.used -= r.bytes
	if r.model != nil {
		// Its files were only read: there is nothing to lose in a failing Close.
		_ = r.model.Close()
	}
}

// release returns the function that ends an acquisition; it may be called twice.
func (m *Memory) release(need Need) func() {
	var once sync.Once
	return func() { once.Do(func() { m.free(need) }) }
}

func (m *Memory) free(need Need) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= need.Memory
	if r := m.models[need.Model.Key]; r != nil {
		r.pins--
		if r.pins == 0 && r.model == nil {
			m.unload(need.Model.Key) // it was never loaded, or could not be
		}
	}
	close(m.freed)
	m.freed = make(chan struct{})
}

// Close unloads every model. None may be in use.
func (m *Memory) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.models {
		m.unload(key)
	}
}

// Use returns the loaded model, loading it if need be: of several callers one loads
// and the others wait for it. The model stays until done is called, and then until
// its room is needed. If loading fails, the next caller tries again.
func Use[M io.Closer](ctx context.Context, m *Memory, f Footprint, load func(context.Context) (M, error)) (model M, done func(), err error) {
	free, err := m.Acquire(ctx, Need{Model: f})
	if err != nil {
		return model, nil, err
	}
	loaded, err := m.load(ctx, f.Key, func(ctx context.Context) (io.Closer, error) { return load(ctx) })
	if err != nil {
		free()
		return model, nil, err
	}
	model, ok := loaded.(M)
	if !ok {
		free()
		return model, nil, fmt.Errorf("generators: model %s is a %T to one user and a %T to another", f.Key, loaded, model)
	}
	return model, free, nil
}

// load returns the model of a pinned key, loading it if it is not. A load that
// panics becomes an error, as its pin has to be given back.
func (m *Memory) load(ctx context.Context, key string, load func(context.Context) (io.Closer, error)) (model io.Closer, err error) {
	m.mu.Lock()
	r := m.models[key]
	m.mu.Unlock()
	select {
	case r.loading <- struct{}{}:
		defer func() { <-r.loading }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if r.model != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.counts.hits++
		return r.model, nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	err = within(ctx, "load "+key, func(ctx context.Context) (err error) {
		model, err = load(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.loads++
	r.model = model
	return model, nil
}

// tooLarge refuses a need that exceeds the whole budget.
func (m *Memory) tooLarge(need Need) *queue.Problem {
	if need.Model.Key == "" {
		return queue.Problemf("model_too_large", "The job needs %s of memory; this worker may use %s.", size(need.Memory), size(m.total))
	}
	return queue.Problemf("model_too_large", "The job needs %s of memory (%s for the model %s and %s to run it); this worker may use %s.",
		size(need.Memory+need.Model.Bytes), size(need.Model.Bytes), need.Model.Key, size(need.Memory), size(m.total))
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
