//go:build !unix

package weights

import "os"

// mapFile reads the file: this system has no mapping here.
func mapFile(f *os.File, size int64) ([]byte, func() error, error) {
	return readFile(f, size)
}
