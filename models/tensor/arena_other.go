//go:build !unix

package tensor

// reserve returns n zero bytes.
func reserve(n int) []byte { return alignedBytes(n) }

// release leaves the bytes to the garbage collector.
func release([]byte) error { return nil }
