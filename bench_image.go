package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"helicon/models/bench"
	"helicon/models/tensor"
)

// benchImageCmd measures the networks of a diffusion model.
type benchImageCmd struct {
	benchFlags
	Shape  string   `help:"Shape of the model, with random weights: sd15, sd21 or sdxl." default:"sd15" placeholder:"NAME"`
	Width  int      `help:"Width of the picture in pixels; the model's own unless given."`
	Height int      `help:"Height of the picture in pixels; the model's own unless given."`
	Type   []string `help:"What to compute in: f32, bf16 or int8 (weights and activations of 8 bits); may be repeated; all unless given." placeholder:"TYPE"`
	Steps  int      `help:"Steps of the whole picture." default:"4"`
}

// Validate refuses settings that mean nothing.
func (c *benchImageCmd) Validate() error {
	_, err := c.image()
	return errors.Join(c.benchFlags.Validate(), err)
}

// image returns what is to be measured.
func (c *benchImageCmd) image() (bench.Image, error) {
	i := bench.Image{Height: c.Height, Width: c.Width, Steps: c.Steps}
	var known []string
	for _, s := range bench.ImageShapes() {
		if known = append(known, s.Name); s.Name == c.Shape {
			i.Shape = s
		}
	}
	if i.Shape.Name == "" {
		return i, fmt.Errorf("--shape: %q is not one of %s", c.Shape, strings.Join(known, ", "))
	}
	for _, side := range []*int{&i.Height, &i.Width} {
		if *side == 0 {
			*side = i.Shape.Size
		}
		if *side < 64 || *side > 4096 || *side%64 != 0 {
			return i, errors.New("--width and --height: want multiples of 64 from 64 to 4096")
		}
	}
	if c.Steps < 1 {
		return i, errors.New("--steps: want at least 1")
	}
	types := c.Type
	if len(types) == 0 {
		types = []string{"f32", "bf16", "int8"}
	}
	for _, name := range types {
		d, ok := computing(name)
		if !ok {
			return i, fmt.Errorf("--type: %q is not one of f32, bf16, int8", name)
		}
		i.Types = append(i.Types, d)
	}
	return i, nil
}

// computing returns the type of that name that a diffusion model can be computed in.
func computing(name string) (tensor.DType, bool) {
	switch strings.ToLower(name) {
	case "f32":
		return tensor.F32, true
	case "bf16":
		return tensor.BF16, true
	case "int8":
		return tensor.I8, true
	}
	return 0, false
}

// Run measures the networks one after the other, from a temporary file.
func (c *benchImageCmd) Run(ctx context.Context, env *environment) (err error) {
	image, err := c.image()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "helicon-bench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return c.with(ctx, env, func(b *bencher) error { return b.Image(ctx, dir, image, b.add) })
}
