package access

import (
	"container/list"
	"sync"
)

// recent is a map of bounded size that forgets what was not used for the longest time.
type recent[K comparable, V any] struct {
	size int

	mu    sync.Mutex
	order *list.List // of *entry[K, V], the latest used in front
	at    map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](size int) *recent[K, V] {
	return &recent[K, V]{size: size, order: list.New(), at: map[K]*list.Element{}}
}

// get returns the value of a key, if it is remembered.
func (r *recent[K, V]) get(key K) (value V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.at[key]
	if !ok {
		return value, false
	}
	r.order.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

// put remembers the value of a key.
func (r *recent[K, V]) put(key K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store(key, value)
}

// orMake returns the value of a key, which it makes if none is remembered.
func (r *recent[K, V]) orMake(key K, fresh func() V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.at[key]; ok {
		r.order.MoveToFront(e)
		return e.Value.(*entry[K, V]).value
	}
	value := fresh()
	r.store(key, value)
	return value
}

func (r *recent[K, V]) store(key K, value V) {
	if e, ok := r.at[key]; ok {
		r.order.Remove(e)
	}
	r.at[key] = r.order.PushFront(&entry[K, V]{key, value})
	if r.order.Len() > r.size {
		oldest := r.order.Back()
		delete(r.at, r.order.Remove(oldest).(*entry[K, V]).key)
	}
}

// drop forgets a key.
func (r *recent[K, V]) drop(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.at[key]; ok {
		r.order.Remove(e)
		delete(r.at, key)
	}
}
