package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"helicon/models/convert"
	"helicon/models/hub"
	"helicon/models/tokenizer"
	"helicon/models/weights"
)

type quantizeCmd struct {
	Models string `help:"Folder of model bundles; ${default} unless given." default:"${data}/models" placeholder:"DIR" type:"path"`

	In    string `arg:"" help:"Model: a folder in Hugging Face's layout, a GGUF file, or a model's id."`
	Type  string `help:"Type of the matrices: f32, f16, bf16, q8_0, q4_0, q4_k, q4_k_m, q5_k, q5_k_m or q6_k." required:"" placeholder:"TYPE"`
	Out   string `help:"GGUF file to write." short:"o" required:"" placeholder:"FILE" type:"path"`
	Force bool   `help:"Replace the file if it exists."`
}

// Help says what is done with which tensors.
func (c *quantizeCmd) Help() string {
	return `Vectors, norms and routers stay F32. In types smaller than Q8_0 the output matrix has
Q6_K, and the mixes _m give Q6_K to some matrices that matter more. Rows that are no whole
number of blocks have another type: Q5_0, Q5_1 and Q8_0 in the place of Q4_K, Q5_K and Q6_K,
and F16 where that does not fit either. A file whose matrices are quantised already cannot be
given another type.`
}

// Run writes the file.
func (c *quantizeCmd) Run(ctx context.Context, env *environment) error {
	if filepath.Ext(c.Out) != ".gguf" {
		return fmt.Errorf("%s: the name of the file must end in .gguf", c.Out)
	}
	files, o, err := c.source()
	if err != nil {
		return err
	}
	o.Type, o.Force = c.Type, c.Force
	progress := &progressLine{w: env.stderr}
	if isTerminal(env.stderr) {
		o.Progress = progress.show
	}
	report, err := convert.File(ctx, files, c.Out, o)
	progress.end()
	if errors.Is(err, convert.ErrExists) {
		return fmt.Errorf("%s exists; --force replaces it", c.Out)
	}
	if err != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(report.Fallbacks)) {
		fmt.Fprintf(env.stderr, "%d tensors are %v, as their rows are no whole number of larger blocks.\n", report.Fallbacks[d], d)
	}
	if errors.Is(report.NoTokenizer, tokenizer.ErrNoTokenizer) {
		fmt.Fprintln(env.stderr, "The model has no tokenizer, so the file has none.")
	}
	fmt.Fprintf(env.stdout, "%s: %d tensors, %s\n", c.Out, report.Tensors, humanize.Bytes(uint64(report.Bytes)))
	return nil
}

// source finds the model: what is there by that path, else by that id.
func (c *quantizeCmd) source() (fs.FS, convert.Options, error) {
	var o convert.Options
	info, err := os.Stat(c.In)
	switch {
	case err == nil && info.IsDir():
		o.Name = filepath.Base(filepath.Clean(c.In))
		return os.DirFS(c.In), o, nil
	case err == nil && weights.FormatOf(c.In) == weights.GGUF:
		return hub.OneFile(os.DirFS(filepath.Dir(c.In)), filepath.Base(c.In)), o, nil
	case err == nil:
		return nil, o, fmt.Errorf("%s is neither a folder nor a GGUF file", c.In)
	}
	h, err := hub.Open(hub.Config{Dir: c.Models})
	if err != nil {
		return nil, o, err
	}
	b, err := h.Bundle(c.In)
	if err != nil {
		return nil, o, fmt.Errorf("%s is no file or folder, nor a model in %s", c.In, c.Models)
	}
	if b.Problem != nil {
		return nil, o, b.Problem
	}
	o.Name, o.Licence = b.ID, b.Licence
	return b.Files, o, nil
}

// progressLine shows how far something is, on one line of a terminal.
type progressLine struct {
	w     io.Writer
	shown time.Time
}

func (p *progressLine) show(done, total int64) {
	if now := time.Now(); now.Sub(p.shown) > 100*time.Millisecond {
		p.shown = now
		fmt.Fprintf(p.w, "\r%3d%% of %s", 100*done/max(total, 1), humanize.Bytes(uint64(total)))
	}
}

// end makes room for what follows.
func (p *progressLine) end() {
	if !p.shown.IsZero() {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", 24))
	}
}
