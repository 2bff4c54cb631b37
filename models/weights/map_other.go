//go:build !unix

package weights

import "os"

// mapFile reads the file: this system has no mapping here.
func mapFile(f *os.File, size int64) (contents, error) {
	data, err := readFile(f, size)
	return contents{data: data}, err
}
