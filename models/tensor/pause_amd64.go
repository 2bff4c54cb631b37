//go:build !purego

package tensor

// pause tells the processor that a loop waits for another thread, which leaves more of a
// core to the threads that share it.
func pause()
