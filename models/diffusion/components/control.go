package components

import (
	"errors"
	"fmt"
	"io/fs"

	"helicon/models/diffusion/checkpoint"
	"helicon/models/weights"
)

// Control is a ControlNet (Zhang et al. 2023) by itself: in a folder of diffusers, or the
// single file that it was published as.
type Control struct {
	Config []byte // as diffusers' config.json

	files fs.FS
	name  string // of the single file; empty: there is a folder's
}

// FindControl finds a ControlNet and reads none of its weights.
func FindControl(files fs.FS) (*Control, error) {
	raw, err := ReadText(files, "config.json")
	if !errors.Is(err, fs.ErrNotExist) {
		return &Control{Config: raw, files: files}, err
	}
	list, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	for _, entry := range list {
		if entry.IsDir() || weights.FormatOf(entry.Name()) == "" {
			continue
		}
		h, err := weights.ReadFileHeader(files, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("diffusion: %w", err)
		}
		layout, err := checkpoint.Inspect(h)
		if err == nil && layout.Has("controlnet") {
			return &Control{layout.Config("controlnet"), files, entry.Name()}, nil
		}
		if err != nil && !errors.Is(err, checkpoint.ErrUnsupported) {
			return nil, fmt.Errorf("diffusion: %w", err)
		}
	}
	return nil, fmt.Errorf("diffusion: no config.json, and no ControlNet in a single file: %w", fs.ErrNotExist)
}

// Open opens its weights, by diffusers' names.
func (c *Control) Open() (*weights.Store, error) {
	if c.name == "" {
		return OpenFolder(c.files, ".")
	}
	file, err := checkpoint.Open(c.files, c.name)
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	s, err := file.Part("controlnet")
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

// Tensors describes its tensors, of which no data are read.
func (c *Control) Tensors() ([]weights.Info, error) {
	s, err := c.Open()
	if err != nil {
		return nil, err
	}
	list, err := describe(s)
	return list, errors.Join(err, s.Close())
}

// describe describes all tensors of a store.
func describe(s *weights.Store) ([]weights.Info, error) {
	var list []weights.Info
	for _, name := range s.Names() {
		t, err := s.Describe(name)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}
