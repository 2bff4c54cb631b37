package hub

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"helicon/models/weights"
)

// OneFile returns the part of a folder that is one model, given its file or the first of
// the GGUF files that it is split into: what a bundle of that model alone would be. A file
// of settings beside it that has its name is part of it.
func OneFile(folder fs.FS, first string) fs.FS {
	names := []string{first, strings.TrimSuffix(first, path.Ext(first)) + ".yaml"}
	if prefix, part, parts, ok := weights.SplitName(first); ok && part == 1 {
		names = names[:0]
		for i := range parts {
			names = append(names, fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, i+1, parts))
		}
	}
	return &oneFile{folder, names}
}

// oneFile shows some files of a folder.
type oneFile struct {
	folder fs.FS
	names  []string
}

// Open opens one of the files, or the folder itself.
func (f *oneFile) Open(name string) (fs.File, error) {
	if name != "." && !slices.Contains(f.names, name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f.folder.Open(name)
}

// ReadDir lists the files.
func (f *oneFile) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.folder, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return name != "." || !slices.Contains(f.names, e.Name()) }), err
}
