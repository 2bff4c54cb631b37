package tensor

import (
	"sync"
	"unsafe"
)

// Arena owns the memory of packed matrices, which lies outside the garbage
// collector's and in large pages where the system has them. The zero Arena is ready;
// any number of goroutines may pack into it at once. The nil Arena takes memory from
// the collector's heap.
type Arena struct {
	mu     sync.Mutex
	free   []byte   // the rest of the last chunk
	chunks [][]byte // from the system
	used   int64
}

const (
	arenaChunk = 32 << 20 // bytes asked of the system at a time
	hugePage   = 2 << 20
	alignment  = 64 // a line of the cache, and a vector
)

// Bytes returns the memory handed out.
func (a *Arena) Bytes() int64 {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

// Close gives the memory back. Matrices packed into it must not be used any more.
func (a *Arena) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var first error
	for _, c := range a.chunks {
		if err := release(c); err != nil && first == nil {
			first = err
		}
	}
	a.chunks, a.free, a.used = nil, nil, 0
	return first
}

// alloc returns n zero bytes that begin on a line of the cache.
func (a *Arena) alloc(n int) []byte {
	if a == nil {
		return alignedBytes(n)
	}
	size := roundUp(n, alignment)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used += int64(size)
	if size > len(a.free) {
		chunk := reserve(roundUp(max(size, arenaChunk), hugePage))
		a.chunks = append(a.chunks, chunk)
		if len(chunk)-size < len(a.free) { // the older rest is the more useful one
			return chunk[:n:n]
		}
		a.free = chunk
	}
	b := a.free[:n:n]
	a.free = a.free[size:]
	return b
}

// alignedBytes returns n zero bytes of the heap that begin on a line of the cache.
func alignedBytes(n int) []byte {
	b := make([]byte, n+alignment-1)
	past := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % alignment)
	skip := (alignment - past) % alignment
	return b[skip:][:n:n]
}
