//go:build unix

package tensor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reserve maps n zero bytes. Not to get them is, as for any allocation, fatal to the
// operation and not to be handled.
func reserve(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("tensor: memory of %d bytes: %v", n, err))
	}
	adviseHugePages(b)
	return b
}

// release unmaps what reserve returned.
func release(b []byte) error { return unix.Munmap(b) }
