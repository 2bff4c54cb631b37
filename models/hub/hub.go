// Package hub finds model bundles: folders in the layout of a Hugging Face repository,
// some embedded in the binary, others in a folder of the user's, and single files that are
// whole models (GGUF, or a checkpoint of Stable Diffusion, a LoRA, an upscaler), alone in a
// folder of their own or beside others. It describes them from their small files and
// headers; loading is the business of the packages that know the networks.
//
// A bundle's id is its path below the models folder, "name" or "owner/name"; that of a
// single file beside others is the path of the file without the ending, "name", "owner/name" or
// "owner/name/file". The folder belongs to whoever runs Helicon, so links in it are
// followed, wherever they lead; ids are looked up among the bundles found and never become
// paths.
package hub

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"helicon/models/weights"
)

//go:embed defaults
var defaults embed.FS

// Embedded is the Source of the bundles that are part of the binary.
const Embedded = "embedded"

// ErrNotFound says that no bundle has the id.
var ErrNotFound = errors.New("hub: no such model")

// Config says where bundles are. The zero value has the embedded ones alone.
type Config struct {
	Dir string // folder of bundles, which need not exist; one in it hides an embedded one of the same id
}

// Hub is a set of bundles. Its methods may be called concurrently.
type Hub struct {
	dir     string
	digests digests

	mu      sync.Mutex
	bundles map[string]*Bundle
}

// Bundle is a model as its files describe it. It is not changed after it was made.
type Bundle struct {
	ID            string
	Files         fs.FS
	Architectures []string // class names, of config.json or model_index.json
	Context       int      // tokens; 0 if the model has no such limit
	Parameters    int64    // count of weights
	Bytes         int64    // of the weight files
	Type          string   // that most of the weights are stored in, such as BF16 or Q4_K
	Licence       string   // as the card's front matter states it
	Source        string   // Embedded, or the path of the folder
	Created       time.Time
	Problem       error // why it cannot be used; nil if it can

	fingerprint string // of the files at its top: names, sizes and times
	digests     *digests
}

// Open finds the bundles. A folder that is no sound bundle does not fail it: it is
// listed with its problem.
func Open(c Config) (*Hub, error) {
	h := &Hub{dir: c.Dir, digests: digests{known: map[string]fileDigest{}, busy: make(chan struct{}, 1)}}
	return h, h.Rescan()
}

// Rescan looks for new, changed and removed folders. Bundles that have not changed
// stay the same pointers. On an error what was known before stays.
func (h *Hub) Rescan() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := scan{hub: h, found: map[string]*Bundle{}}
	embedded, err := fs.Sub(defaults, "defaults")
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if err := s.tree(embedded, func(string) string { return Embedded }); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if h.dir != "" {
		dir, err := filepath.Abs(h.dir)
		if err != nil {
			return fmt.Errorf("hub: %w", err)
		}
		err = s.tree(os.DirFS(dir), func(id string) string { return filepath.Join(dir, filepath.FromSlash(id)) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a folder that is not there yet holds nothing
			return fmt.Errorf("hub: models folder: %w", err)
		}
	}
	h.bundles = s.found
	return nil
}

// Bundles lists all bundles, broken ones too, by id.
func (h *Hub) Bundles() []*Bundle {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*Bundle, 0, len(h.bundles))
	for _, b := range h.bundles {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b *Bundle) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Bundle returns the bundle with the id; ErrNotFound if there is none. Ask for its
// Problem before using it.
func (h *Hub) Bundle(id string) (*Bundle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b, ok := h.bundles[id]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
}

// scan collects the bundles of one look at the folders.
type scan struct {
	hub   *Hub
	found map[string]*Bundle
}

// tree takes in the bundles below the root of fsys, at a depth of one or two.
func (s *scan) tree(fsys fs.FS, source func(id string) string) error {
	owners, err := folders(fsys, ".")
	if err != nil {
		return err
	}
	s.loose(fsys, ".", source)
	for _, owner := range owners {
		if s.folder(fsys, owner, source(owner)) {
			continue
		}
		s.loose(fsys, owner, source)
		names, err := folders(fsys, owner)
		if err != nil {
			s.found[owner] = &Bundle{ID: owner, Source: source(owner), Problem: err}
			continue
		}
		for _, name := range names {
			id := path.Join(owner, name)
			if !s.folder(fsys, id, source(id)) {
				s.loose(fsys, id, source)
			}
		}
	}
	return nil
}

// folders lists the sub-folders of a folder, and the links to folders, but not the
// hidden ones.
func folders(fsys fs.FS, dir string) ([]string, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			info, err := fs.Stat(fsys, path.Join(dir, e.Name()))
			isDir = err != nil || info.IsDir() // a broken link is told of, not passed over
		}
		if isDir {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// folder takes in the bundle in a folder and reports whether it is one.
func (s *scan) folder(fsys fs.FS, id, source string) bool {
	files, err := fs.Sub(fsys, id)
	if err == nil {
		var fingerprint string
		var is bool
		if fingerprint, is, err = look(files); err == nil {
			if is {
				s.found[id] = s.bundle(id, source, files, fingerprint)
			}
			return is
		}
	}
	s.found[id] = &Bundle{ID: id, Source: source, Problem: err}
	return true
}

// loose takes in the models that are single files in a folder which is no bundle itself.
func (s *scan) loose(fsys fs.FS, dir string, source func(id string) string) {
	files, err := fs.Sub(fsys, dir)
	if err != nil {
		return
	}
	singles, err := Checkpoints(files)
	if err != nil {
		return
	}
	for _, first := range append(ggufModels(files), singles...) {
		name := strings.TrimSuffix(first, path.Ext(first))
		if prefix, _, _, ok := weights.SplitName(first); ok {
			name = prefix
		}
		id := path.Join(dir, name)
		if s.found[id] != nil { // of the same name but another ending, or a folder
			id = path.Join(dir, first)
		}
		one := OneFile(files, first)
		if fingerprint, is, err := look(one); err == nil && is {
			s.found[id] = s.bundle(id, source(path.Join(dir, first)), one, fingerprint)
		}
	}
}

// ggufModels lists the models in GGUF files at the top of a folder, by their first files.
func ggufModels(files fs.FS) []string {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil
	}
	var models []string
	for _, e := range entries {
		name := e.Name()
		_, part, _, split := weights.SplitName(name)
		if weights.FormatOf(name) == weights.GGUF && (!split || part == 1) && !strings.HasPrefix(name, ".") &&
			!strings.HasPrefix(name, "mmproj-") && !strings.HasPrefix(name, "mtp-") {
			models = append(models, name)
		}
	}
	return models
}

// bundle describes a bundle, or returns what is known of it if it has not changed.
func (s *scan) bundle(id, source string, files fs.FS, fingerprint string) *Bundle {
	if known := s.hub.bundles[id]; known != nil && known.fingerprint == fingerprint && known.Source == source {
		return known
	}
	b := &Bundle{ID: id, Source: source, Files: files, fingerprint: fingerprint, digests: &s.hub.digests}
	b.Problem = b.describe()
	return b
}

// look tells whether a folder is, or means to be, a bundle: it has a description or
// weights at its top, and these are not several models, each a file of its own, which are
// bundles each. The fingerprint changes whenever one of its files does.
func look(files fs.FS) (fingerprint string, is bool, err error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return "", false, err
	}
	var b strings.Builder
	described, singles := false, 0
	for _, e := range entries {
		info, err := fs.Stat(files, e.Name())
		if err != nil || info.IsDir() {
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", e.Name(), info.Size(), info.ModTime().UnixNano())
		switch {
		case e.Name() == configFile:
			described = true
		case e.Name() == pipelineFile, strings.HasSuffix(e.Name(), ".safetensors.index.json"):
			is = true
		case single(e.Name()):
			singles++
		}
	}
	models := len(ggufModels(files))
	if singles > 0 && models == 0 {
		is = is || described || singles == 1
	}
	return b.String(), is || models == 1 && singles == 0 || described && models == 0, nil
}
