package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// File is one file of a model's weights.
type File struct {
	Name    string
	Size    int64
	Tensors []string // that the index says it holds; nil if there is no index
}

// maxIndex bounds the size of an index, in bytes.
const maxIndex = 64 << 20

// Files returns the files that Open would open, without opening them: what a model
// will take can be known before it is loaded. The error wraps fs.ErrNotExist if one
// is not there.
func Files(fsys fs.FS, base string) ([]File, error) {
	files := []File{{Name: base + ".safetensors"}}
	if _, err := fs.Stat(fsys, files[0].Name); errors.Is(err, fs.ErrNotExist) {
		if files, err = readIndex(fsys, base+".safetensors.index.json"); err != nil {
			return nil, fmt.Errorf("weights: no %s.safetensors, and its index: %w", base, err)
		}
	}
	for i := range files {
		info, err := fs.Stat(fsys, files[i].Name)
		if err != nil {
			return nil, fmt.Errorf("weights: %w", err)
		}
		files[i].Size = info.Size()
	}
	return files, nil
}

func readIndex(fsys fs.FS, name string) ([]File, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxIndex {
		return nil, fmt.Errorf("%s: larger than %d bytes: %w", name, maxIndex, ErrFormat)
	}
	files, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return files, nil
}

// parseIndex reads {"metadata": {…}, "weight_map": {tensor: file, …}}.
func parseIndex(data []byte) ([]File, error) {
	r := newReader(data)
	shards := map[string]*File{}
	err := r.object(func(key string) error {
		if key != "weight_map" {
			return r.skip()
		}
		return r.object(func(name string) error {
			file, err := r.text()
			if err != nil {
				return err
			}
			if !fs.ValidPath(file) || path.Base(file) != file || !strings.HasSuffix(file, ".safetensors") {
				return fmt.Errorf("file %q is not beside the index or no safetensors: %w", file, ErrFormat)
			}
			if shards[file] == nil {
				shards[file] = &File{Name: file}
			}
			shards[file].Tensors = append(shards[file].Tensors, name)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if len(shards) == 0 {
		return nil, fmt.Errorf("no weight_map, or an empty one: %w", ErrFormat)
	}
	files := make([]File, 0, len(shards))
	for _, f := range shards {
		files = append(files, *f)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// skip reads a value of any kind.
func (r reader) skip() error {
	var value any
	if err := r.Decode(&value); err != nil {
		return fmt.Errorf("%v: %w", err, ErrFormat)
	}
	return nil
}

// inMemory is implemented by files whose bytes already lie in memory for good, as a
// file system over embedded data may do; they are used in place.
type inMemory interface {
	Bytes() []byte
}

// contents returns the bytes of a file and what releases them: mapped if the file
// is the operating system's, in place if it is in memory, else read.
func contents(fsys fs.FS, name string) ([]byte, func() error, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file: %w", name, ErrFormat)
	}
	switch f := f.(type) {
	case *os.File:
		return mapFile(f, info.Size())
	case inMemory:
		return f.Bytes(), func() error { return nil }, nil
	}
	return readFile(f, info.Size())
}

// readFile reads a file of a known size.
func readFile(f fs.File, size int64) ([]byte, func() error, error) {
	if size != int64(int(size)) {
		return nil, nil, fmt.Errorf("%d bytes do not fit in memory: %w", size, ErrFormat)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, nil, err
	}
	return data, func() error { return nil }, nil
}
