package tensor

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Pool is a fixed set of goroutines that share the work of operations. It serves
// concurrent callers: each works on its own task, and idle goroutines join whichever
// tasks have parts left. The nil pool runs everything on the caller.
type Pool struct {
	threads  int
	features features
	workers  sync.WaitGroup

	mu     sync.Mutex
	wake   sync.Cond    // a job was added, or closed
	jobs   []*job       // jobs that may have parts left, oldest first
	open   atomic.Int64 // len(jobs), to be watched without the lock
	closed bool
}

// spinTime is how long a thread watches for the next operation, or for the end of one,
// before it sleeps. An operation of a decoding step takes no longer than waking a thread
// does, and the next one follows soon.
const spinTime = 100 * time.Microsecond

// watch waits for the count to be 0, or not to be, and returns whether it came to that
// before the thread should sleep.
func watch(count *atomic.Int64, zero bool) bool {
	const looks = 16 // at the count for each at the clock
	for start := time.Now(); time.Since(start) < spinTime; {
		for range looks {
			if (count.Load() == 0) == zero {
				return true
			}
			pause()
		}
	}
	return false
}

// task is work cut into parts that can run in any order and at the same time.
type task interface {
	part(i int)
}

// job is one task in progress. It belongs to an Exec, which reuses it.
type job struct {
	task  task
	parts int64
	next  atomic.Int64
	panic atomic.Pointer[panicked]
	stop  atomic.Bool // see Exec.Until

	helpers atomic.Int64  // goroutines of the pool at work on it; changed under Pool.mu
	idle    chan struct{} // signalled when helpers falls to 0 and the caller sleeps
	asleep  bool          // the caller waits on idle; under Pool.mu
}

type panicked struct{ value any }

// Config says what a pool computes with.
type Config struct {
	// Threads is how many threads an operation may use, of which its caller is one. 0
	// means as many as Go may run at once.
	Threads int

	// Level bounds the instructions that are used. 0, or more than the machine has,
	// means all that it has.
	Level Level

	// Exact keeps the activations of products with BF16 weights in float32. Otherwise
	// they are rounded to BF16, as exact as the weights are, where the machine multiplies
	// BF16: by AMX several times as fast, by AVX512-BF16 up to twice or, on processors
	// that have AMX and do without it, half as fast.
	Exact bool
}

// NewPool starts a pool.
func NewPool(c Config) *Pool {
	if c.Threads <= 0 {
		c.Threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{threads: c.Threads, features: detect().limit(c.Level)}
	if c.Exact {
		p.features.bf16, p.features.tiles = false, false
	}
	p.wake.L = &p.mu
	for range c.Threads - 1 {
		p.workers.Go(p.work)
	}
	return p
}

// Threads returns the number of threads an operation can use.
func (p *Pool) Threads() int {
	if p == nil {
		return 1
	}
	return p.threads
}

// Level returns the instructions that operations use.
func (p *Pool) Level() Level { return p.uses().best() }

// FastBF16 reports whether products in BF16 take much less time than in float32. By
// AVX512-BF16 they do not on processors that have AMX for it.
func (p *Pool) FastBF16() bool {
	f := p.uses()
	return f.tiles || f.bf16 && !detect().tiles
}

// uses returns what kernels may use.
func (p *Pool) uses() features {
	if p == nil {
		return detect()
	}
	return p.features
}

// Close ends the pool's goroutines and waits for them. Operations that follow run
// on their caller alone.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wake.Broadcast()
	p.workers.Wait()
}

// run executes parts 0 to parts-1 of t and returns when all are done. A panic in a
// part surfaces here, on the caller's goroutine.
func (p *Pool) run(j *job, t task, parts int) {
	if p == nil || p.threads == 1 || parts <= 1 {
		for i := 0; i < parts && !j.stop.Load(); i++ {
			t.part(i)
		}
		return
	}
	j.task, j.parts = t, int64(parts)
	j.next.Store(0)
	j.panic.Store(nil)

	p.mu.Lock()
	p.jobs = append(p.jobs, j)
	p.open.Add(1)
	p.mu.Unlock()
	for range min(p.threads, parts) - 1 {
		p.wake.Signal()
	}
	j.work()
	p.join(j)
	j.task = nil
	if pv := j.panic.Load(); pv != nil {
		panic(pv.value)
	}
}

// join takes j off the list and waits for the goroutines that are at work on it.
func (p *Pool) join(j *job) {
	p.mu.Lock()
	p.remove(j)
	p.mu.Unlock()
	if watch(&j.helpers, true) {
		return
	}
	p.mu.Lock()
	j.asleep = j.helpers.Load() > 0
	asleep := j.asleep
	p.mu.Unlock()
	if asleep {
		<-j.idle
	}
}

// work is the life of one of the pool's goroutines.
func (p *Pool) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		p.await()
		if len(p.jobs) == 0 {
			return
		}
		j := p.jobs[0]
		j.helpers.Add(1)
		p.mu.Unlock()

		j.work()

		p.mu.Lock()
		p.remove(j) // it has no parts left to begin
		if j.helpers.Add(-1) == 0 && j.asleep {
			j.asleep = false
			j.idle <- struct{}{}
		}
	}
}

// await returns when there is a job, or none will come. It is called with the lock
// and returns with it.
func (p *Pool) await() {
	if len(p.jobs) == 0 {
		p.mu.Unlock()
		watch(&p.open, false)
		p.mu.Lock()
	}
	for len(p.jobs) == 0 && !p.closed {
		p.wake.Wait()
	}
}

// remove takes j off the list, if it is still there.
func (p *Pool) remove(j *job) {
	for i, other := range p.jobs {
		if other == j {
			copy(p.jobs[i:], p.jobs[i+1:])
			p.jobs[len(p.jobs)-1] = nil
			p.jobs = p.jobs[:len(p.jobs)-1]
			p.open.Add(-1)
			return
		}
	}
}

// work runs parts until none is left to begin.
func (j *job) work() {
	defer func() {
		if v := recover(); v != nil {
			j.next.Store(j.parts)
			j.panic.CompareAndSwap(nil, &panicked{v})
		}
	}()
	for {
		i := j.next.Add(1) - 1
		if i >= j.parts || j.stop.Load() {
			return
		}
		j.task.part(int(i))
	}
}

// Exec runs operations on a pool for one caller at a time and keeps what they
// reuse, so that an operation allocates nothing.
type Exec struct {
	pool       *Pool
	features   features
	job        job
	kernels    kernelSet
	prepare    prepareTask
	product    productTask
	rows       rowTask
	store      storeTask
	attend     attendTask
	attendTile tileAttendTask
	groups     groupTask
	contiguous contiguous
	conv       convTask
	pixels     directTask
	resize     resizeTask
}

// NewExec returns an Exec over pool. Without a pool it computes on its caller alone, at
// the best level of the machine.
func NewExec(pool *Pool) *Exec {
	f := pool.uses()
	return &Exec{pool: pool, features: f, kernels: newKernelSet(f), job: job{idle: make(chan struct{}, 1)}}
}

func (e *Exec) run(t task, parts int) { e.pool.run(&e.job, t, parts) }

// Until has operations end early, at their next part, once ctx has ended: what they and
// those that follow then compute is of no use, so a caller looks at ctx before it uses a
// result. An attention over many pixels takes a minute, a cancel should not. release
// takes it back; it must be called, by the goroutine that uses e.
func (e *Exec) Until(ctx context.Context) (release func()) {
	done := make(chan struct{})
	forget := context.AfterFunc(ctx, func() {
		defer close(done)
		e.job.stop.Store(true)
	})
	return func() {
		if !forget() {
			<-done
		}
		e.job.stop.Store(false)
	}
}
