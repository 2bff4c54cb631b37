package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"

	"helicon/models/bench"
	"helicon/models/hub"
)

// benchLMCmd measures a language model.
type benchLMCmd struct {
	benchFlags
	Models   string `help:"Folder of model bundles; ${default} unless given." default:"${data}/models" placeholder:"DIR" type:"path"`
	Model    string `arg:"" optional:"" help:"Model to measure: an id, a folder or a GGUF file; the embedded one unless given."`
	Shape    string `help:"Measure random weights of this shape in the place of a model: gpt2-124m, tinyllama-1.1b, llama-3.2-1b or llama-3.1-8b. They are kept in a temporary file." placeholder:"NAME"`
	Type     string `help:"With --shape: type of the weights." placeholder:"TYPE"`
	Prompt   int    `help:"Tokens of the prompt." default:"512"`
	Generate int    `help:"Tokens that each text is written with." default:"64"`
	Batch    []int  `help:"How many texts are written side by side; may be repeated." default:"1,16"`
}

// Validate refuses settings that mean nothing.
func (c *benchLMCmd) Validate() error {
	if err := c.benchFlags.Validate(); err != nil {
		return err
	}
	if c.Prompt < 1 || c.Generate < 2 {
		return errors.New("--prompt and --generate: want at least 1 and 2")
	}
	for _, n := range c.Batch {
		if n < 1 {
			return errors.New("--batch: want at least 1")
		}
	}
	switch {
	case c.Shape == "" && c.Type != "":
		return errors.New("--type needs --shape: a model has the types of its file")
	case c.Shape != "" && c.Model != "":
		return errors.New("give a model or --shape, not both")
	case c.Shape == "":
		return nil
	}
	if _, err := c.shape(); err != nil {
		return err
	}
	_, err := parseType(c.weights())
	return err
}

func (c *benchLMCmd) weights() string { return cmp.Or(c.Type, "q8_0") }

// shape returns the shape that is asked for.
func (c *benchLMCmd) shape() (bench.Shape, error) {
	var known []string
	for _, s := range bench.Shapes() {
		if s.Name == c.Shape {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return bench.Shape{}, fmt.Errorf("--shape: %q is not one of %s", c.Shape, strings.Join(known, ", "))
}

// Run measures the model.
func (c *benchLMCmd) Run(ctx context.Context, env *environment) error {
	files, done, err := c.files(ctx)
	if err != nil {
		return err
	}
	defer done()
	return c.with(ctx, env, func(b *bencher) error {
		m, err := b.LM(ctx, files, bench.LM{Prompt: c.Prompt, Generate: c.Generate, Batches: c.Batch}, b.add)
		if err != nil {
			return err
		}
		b.view.Model = &m
		if !b.json {
			fmt.Fprintf(env.stdout, "\n%s, %s: %s, loaded in %.0f ms; memory %s loaded, %s used (%.2f and %.2f of the file)\n",
				m.Architecture, m.Type, humanize.Bytes(uint64(m.FileBytes)), m.LoadTime,
				humanize.Bytes(uint64(max(0, m.ResidentLoaded))), humanize.Bytes(uint64(max(0, m.ResidentUsed))),
				float64(m.ResidentLoaded)/float64(m.FileBytes), float64(m.ResidentUsed)/float64(m.FileBytes))
		}
		return nil
	})
}

// files returns the folder of the model. done releases what was made for it.
func (c *benchLMCmd) files(ctx context.Context) (files fs.FS, done func(), err error) {
	if c.Shape != "" {
		return c.random(ctx)
	}
	if c.Model != "" {
		if info, err := os.Stat(c.Model); err == nil {
			if info.IsDir() {
				return os.DirFS(c.Model), func() {}, nil
			}
			dir, name := filepath.Split(c.Model)
			return hub.OneFile(os.DirFS(cmp.Or(dir, ".")), name), func() {}, nil
		}
	}
	h, err := hub.Open(hub.Config{Dir: c.Models})
	if err != nil {
		return nil, nil, err
	}
	b, err := h.Bundle(cmp.Or(c.Model, "helicon-text"))
	if err != nil {
		return nil, nil, err
	}
	return b.Files, func() {}, b.Problem
}

// random makes a model of random weights in a temporary folder.
func (c *benchLMCmd) random(ctx context.Context) (files fs.FS, done func(), err error) {
	shape, err := c.shape()
	if err != nil {
		return nil, nil, err
	}
	d, err := parseType(c.weights())
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "helicon-bench-*")
	if err != nil {
		return nil, nil, err
	}
	if err := shape.Write(ctx, dir, d); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return os.DirFS(dir), func() { os.RemoveAll(dir) }, nil
}
