package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"
)

// digests remembers the digests of files, which may take long to compute, by path
// and as long as size and time of change stay the same.
type digests struct {
	busy chan struct{} // held by the one who computes

	mu    sync.Mutex
	known map[string]fileDigest
}

type fileDigest struct {
	size    int64
	changed time.Time
	sum     string
}

// Digest identifies the bundle's files: "sha256:" and the SHA-256 of the lines that
// sha256sum prints for them, sorted by path. Hidden files do not count. The first
// call reads every file; later ones only those that changed.
func (b *Bundle) Digest(ctx context.Context) (string, error) {
	select {
	case b.digests.busy <- struct{}{}:
		defer func() { <-b.digests.busy }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	return b.digest(func(name string) (string, error) {
		return hashFile(b.Files, name, func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		})
	})
}

// KnownDigest returns the digest if it can be told at once, else "": of an embedded
// bundle always, of another when Digest has been called since it last changed.
func (b *Bundle) KnownDigest() string {
	if b.Problem != nil {
		return ""
	}
	compute := func(string) (string, error) { return "", errUnknown }
	if b.Source == Embedded {
		compute = func(name string) (string, error) {
			return hashFile(b.Files, name, func() error { return nil })
		}
	}
	digest, err := b.digest(compute)
	if err != nil {
		return ""
	}
	return digest
}

var errUnknown = errors.New("not computed yet")

// digest puts the digests of the files together and has the unknown ones computed.
func (b *Bundle) digest(compute func(name string) (string, error)) (string, error) {
	all := sha256.New()
	err := fs.WalkDir(b.Files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(e.Name(), ".") && name != "." {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := fs.Stat(b.Files, name)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		sum, err := b.digests.of(path.Join(b.Source, b.ID, name), info, func() (string, error) { return compute(name) })
		if err != nil {
			return err
		}
		fmt.Fprintf(all, "%s  %s\n", sum, name)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hub: digest of %s: %w", b.ID, err)
	}
	return "sha256:" + hex.EncodeToString(all.Sum(nil)), nil
}

// of returns the digest of the file with the key, computing it if it is not known.
func (d *digests) of(key string, info fs.FileInfo, compute func() (string, error)) (string, error) {
	d.mu.Lock()
	known, ok := d.known[key]
	d.mu.Unlock()
	if ok && known.size == info.Size() && known.changed.Equal(info.ModTime()) {
		return known.sum, nil
	}
	sum, err := compute()
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[key] = fileDigest{size: info.Size(), changed: info.ModTime(), sum: sum}
	return sum, nil
}

// hashFile returns the SHA-256 of a file; stop ends it early by an error.
func hashFile(fsys fs.FS, name string, stop func() error) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := stop(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if err == io.EOF {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
