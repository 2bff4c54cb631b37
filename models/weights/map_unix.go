//go:build unix

package weights

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps a file read-only. It must not shrink while it is mapped.
func mapFile(f *os.File, size int64) (contents, error) {
	if size == 0 || size != int64(int(size)) {
		data, err := readFile(f, size)
		return contents{data: data}, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return contents{}, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return contents{data: data, unmap: func() error { return unix.Munmap(data) }}, nil
}
