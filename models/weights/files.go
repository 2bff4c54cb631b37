package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
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
// will take can be known before it is loaded. The first of these that is there counts:
//
//   - base.safetensors, or the files that base.safetensors.index.json lists;
//   - base.gguf or else the only model in a *.gguf file, or in several named
//     *-00001-of-00003.gguf and so on (files mmproj-* and mtp-* are parts of others);
//   - base.bin, or the files that base.bin.index.json lists, or the same of pytorch_base;
//   - base.pt, base.pth or base.ckpt.
//
// The error wraps fs.ErrNotExist if one is not there, and ErrFormat if there are
// several models in *.gguf files.
func Files(fsys fs.FS, base string) ([]File, error) {
	if files, err := filesOrIndex(fsys, base+".safetensors"); files != nil || err != nil {
		return files, err
	}
	if name, err := findGGUF(fsys, base); err != nil {
		return nil, err
	} else if name != "" {
		return filesOf(fsys, name)
	}
	dir, last := path.Split(base)
	for _, name := range []string{base + ".bin", dir + "pytorch_" + last + ".bin", base + ".pt", base + ".pth", base + ".ckpt"} {
		if files, err := filesOrIndex(fsys, name); files != nil || err != nil {
			return files, err
		}
	}
	return nil, fmt.Errorf("weights: no %s.safetensors, no index of it, and no weights of another format: %w", base, fs.ErrNotExist)
}

// filesOrIndex returns a file, or those that its index lists, or nil if there is neither.
func filesOrIndex(fsys fs.FS, name string) ([]File, error) {
	files := []File{{Name: name}}
	if _, err := fs.Stat(fsys, name); errors.Is(err, fs.ErrNotExist) {
		files, err = readIndex(fsys, name+".index.json")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("weights: %w", err)
		}
	}
	return measured(fsys, files)
}

// filesOf returns the file of a name, or all that a GGUF model is split into if it is
// the first of them.
func filesOf(fsys fs.FS, name string) ([]File, error) {
	files := []File{{Name: name}}
	if prefix, part, parts, ok := SplitName(name); ok {
		if part != 1 {
			return nil, fmt.Errorf("weights: %s is not the first of the %d files of its model: %w", name, parts, ErrFormat)
		}
		files = files[:0]
		for i := range parts {
			files = append(files, File{Name: fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, i+1, parts)})
		}
	}
	return measured(fsys, files)
}

// measured returns the files with their sizes.
func measured(fsys fs.FS, files []File) ([]File, error) {
	for i := range files {
		info, err := fs.Stat(fsys, files[i].Name)
		if err != nil {
			return nil, fmt.Errorf("weights: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("weights: %s is not a regular file: %w", files[i].Name, ErrFormat)
		}
		files[i].Size = info.Size()
	}
	return files, nil
}

// SplitName takes apart the name of one of the files that a GGUF model is split into:
// prefix-00001-of-00003.gguf is part 1 of 3. It is not ok for any other name.
func SplitName(name string) (prefix string, part, parts int, ok bool) {
	const form = "-00001-of-00001.gguf"
	if len(name) <= len(form) {
		return "", 0, 0, false
	}
	prefix, end := name[:len(name)-len(form)], name[len(name)-len(form):]
	var err error
	if part, err = strconv.Atoi(end[1:6]); err != nil {
		return "", 0, 0, false
	}
	if parts, err = strconv.Atoi(end[10:15]); err != nil {
		return "", 0, 0, false
	}
	ok = part >= 1 && part <= parts && end == fmt.Sprintf("-%05d-of-%05d.gguf", part, parts)
	return prefix, part, parts, ok
}

// findGGUF returns the file of a model, or the first of its files, in the folder of
// base, and "" if there is none.
func findGGUF(fsys fs.FS, base string) (string, error) {
	if _, err := fs.Stat(fsys, base+".gguf"); err == nil {
		return base + ".gguf", nil
	}
	dir := path.Dir(base)
	list, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return "", nil // a file system that cannot list, or no folder
	}
	found := ""
	for _, e := range list {
		name := e.Name()
		if e.IsDir() || FormatOf(name) != GGUF || strings.HasPrefix(name, "mmproj-") || strings.HasPrefix(name, "mtp-") {
			continue
		}
		if _, part, _, ok := SplitName(name); ok && part != 1 {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("weights: %s and %s are two models in one folder: %w", found, name, ErrFormat)
		}
		found = name
	}
	if found == "" {
		return "", nil
	}
	return path.Join(dir, found), nil
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
	files, err := parseIndex(data, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return files, nil
}

// parseIndex reads the index of a name: {"metadata": {…}, "weight_map": {tensor: file, …}}.
// The files lie beside it and are of its format.
func parseIndex(data []byte, name string) ([]File, error) {
	dir, format := path.Dir(name), FormatOf(strings.TrimSuffix(name, ".index.json"))
	r := newReader(data)
	shards := map[string]*File{}
	err := r.object(func(key string) error {
		if key != "weight_map" {
			return r.skip()
		}
		return r.object(func(tensor string) error {
			file, err := r.text()
			if err != nil {
				return err
			}
			if !fs.ValidPath(file) || path.Base(file) != file || FormatOf(file) != format {
				return fmt.Errorf("file %q is not beside the index or not of format %s: %w", file, format, ErrFormat)
			}
			if shards[file] == nil {
				shards[file] = &File{Name: path.Join(dir, file)}
			}
			shards[file].Tensors = append(shards[file].Tensors, tensor)
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

// contents is the bytes of a file.
type contents struct {
	data  []byte
	unmap func() error // nil if the bytes are not mapped
}

// openContents gives the bytes of a file: mapped if the file is the operating system's,
// in place if it is in memory, else read.
func openContents(fsys fs.FS, name string) (contents, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return contents{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return contents{}, err
	}
	switch f := f.(type) {
	case *os.File:
		return mapFile(f, info.Size())
	case inMemory:
		return contents{data: f.Bytes()}, nil
	}
	data, err := readFile(f, info.Size())
	return contents{data: data}, err
}

// readFile reads a file of a known size.
func readFile(f fs.File, size int64) ([]byte, error) {
	if size != int64(int(size)) {
		return nil, fmt.Errorf("%d bytes do not fit in memory: %w", size, ErrFormat)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}
