// Package convert writes models as GGUF files, which other engines read too: from a
// folder in Hugging Face's layout or from another GGUF file, with matrices in a type of
// choice. It knows what to do with a tensor; what tensors a model has is the business of
// package lm, what a tokenizer looks like in GGUF that of package tokenizer.
//
// Names and numbers are those of llama.cpp, with whose own conversion the files agree as
// far as that goes: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"helicon/models/lm/family"
	"helicon/models/tensor"
	"helicon/models/tokenizer"
	"helicon/models/weights"
)

// Errors that callers tell apart.
var (
	// ErrExists is wrapped when the file that is to be written is there.
	ErrExists = errors.New("the file exists")
	// ErrQuantised is wrapped when a tensor that is quantised already is to have another type.
	ErrQuantised = errors.New("already quantised")
)

// Options are the choices of File.
type Options struct {
	Type     string                  // one of Types
	Name     string                  // general.name; "" is that of the source, if it has one
	Licence  string                  // general.license, likewise
	Force    bool                    // replace a file that exists
	Threads  int                     // 0 is one for each processor
	Progress func(done, total int64) // bytes of tensors written; or nil
}

// Report is what File has written.
type Report struct {
	Tensors int
	Bytes   int64 // of their data
	// Fallbacks counts the tensors whose rows do not fit the blocks of their type, by the
	// type that they have instead.
	Fallbacks map[tensor.DType]int
	// NoTokenizer says why the file has no tokenizer, if it has none.
	NoTokenizer error
}

// File writes the model in a folder, one of Hugging Face's layout or with a GGUF file, to
// a GGUF file of the name out, which appears when it is complete. Memory is needed for
// one tensor at a time. Errors are those of package lm for the source, ErrExists and
// ErrQuantised.
func File(ctx context.Context, fsys fs.FS, out string, o Options) (Report, error) {
	r, err := recipeOf(o.Type)
	if err != nil {
		return Report{}, err
	}
	if _, err := os.Stat(out); err == nil && !o.Force {
		return Report{}, fmt.Errorf("convert: %s: %w", out, ErrExists)
	}
	w := &work{recipe: r, options: o, report: Report{Fallbacks: map[tensor.DType]int{}}}
	if o.Threads == 0 {
		w.options.Threads = runtime.GOMAXPROCS(0)
	}
	files, err := weights.Files(fsys, "model")
	if err == nil && weights.FormatOf(files[0].Name) == weights.GGUF {
		err = w.openGGUF(fsys)
	} else {
		err = w.openFolder(fsys)
	}
	if err != nil {
		return Report{}, err
	}
	sources, err := w.sources()
	if err == nil {
		err = weights.WriteGGUF(ctx, out, w.pairs, sources)
	}
	if err != nil {
		return Report{}, errors.Join(fmt.Errorf("convert: %w", err), w.close())
	}
	w.report.Tensors, w.report.Bytes = len(sources), w.total
	return w.report, w.close()
}

// work is one conversion.
type work struct {
	recipe
	options Options
	report  Report
	config  family.Config
	parts   []family.Part
	pairs   []weights.Pair
	close   func() error

	total, done int64 // bytes
}

// openFolder takes in a model in Hugging Face's layout.
func (w *work) openFolder(fsys fs.FS) error {
	x, err := family.ToGGUF(fsys)
	if err != nil {
		return err
	}
	w.config, w.parts, w.close = x.Config, x.Parts, x.Close
	w.pairs = append(w.general(), x.Pairs...)
	said, err := tokenizer.ToGGUF(fsys, x.Config.Vocab)
	if err != nil {
		w.report.NoTokenizer = err
		said = []weights.Pair{{Key: "tokenizer.ggml.model", Value: "no_vocab"}}
	}
	w.pairs = append(w.pairs, said...)
	w.ends()
	return nil
}

// ends names the tokens that begin and end a text, if the tokenizer does not.
func (w *work) ends() {
	add := func(name string, ids []int) {
		key := "tokenizer.ggml." + name + "_token_id"
		if len(ids) > 0 && !slices.ContainsFunc(w.pairs, func(p weights.Pair) bool { return p.Key == key }) {
			w.pairs = append(w.pairs, weights.Pair{Key: key, Value: uint32(ids[0])})
		}
	}
	add("bos", w.config.BOS)
	add("eos", w.config.EOS)
}

// general returns what is said of any model.
func (w *work) general() []weights.Pair {
	pairs := []weights.Pair{
		{Key: "general.type", Value: "model"},
		{Key: "general.file_type", Value: w.fileType},
		{Key: "general.quantization_version", Value: uint32(2)},
	}
	if w.options.Name != "" {
		pairs = append(pairs, weights.Pair{Key: "general.name", Value: w.options.Name})
	}
	if w.options.Licence != "" {
		pairs = append(pairs, weights.Pair{Key: "general.license", Value: w.options.Licence})
	}
	return pairs
}

// openGGUF takes in a GGUF file: its tensors are what they are.
func (w *work) openGGUF(fsys fs.FS) error {
	if err := family.Check(fsys); err != nil {
		return err
	}
	s, err := weights.Open(fsys, "model")
	if err != nil {
		return err
	}
	w.close = s.Close
	w.pairs = w.general()
	for _, p := range s.Metadata().Pairs() {
		own := slices.ContainsFunc(w.pairs, func(q weights.Pair) bool { return q.Key == p.Key })
		if !own && !strings.HasPrefix(p.Key, "split.") {
			w.pairs = append(w.pairs, p)
		}
	}
	arch, err := s.Metadata().String("general.architecture")
	if err == nil {
		w.config.Layers, err = s.Metadata().Int(arch + ".block_count")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("convert: %w", err), s.Close())
	}
	w.config.Tied = !s.Has("output.weight")
	for _, info := range s.Header().Tensors() {
		part := family.Part{Name: info.Name, DType: info.DType, Shape: info.Shape}
		rows, columns := part.Rows()
		part.Open = func() (func([]float32, int), error) {
			t, err := s.Tensor(info.Name, info.Shape...)
			if err != nil {
				return nil, err
			}
			return tensor.NewMatrix(t.DType, rows, columns, t.Data).Row, nil
		}
		w.parts = append(w.parts, part)
	}
	return nil
}

// sources returns the tensors as they will be in the file.
func (w *work) sources() ([]weights.Source, error) {
	p := plan{recipe: w.recipe, layers: w.config.Layers, tied: w.config.Tied}
	list := make([]weights.Source, len(w.parts))
	for i, part := range w.parts {
		d, fell := p.typeOf(part.Name, part.Shape)
		if part.DType.Quantised() && part.DType != d {
			return nil, fmt.Errorf("tensor %q is %v, to be %v: what has been lost does not come back; start from the original weights: %w",
				part.Name, part.DType, d, ErrQuantised)
		}
		if fell {
			w.report.Fallbacks[d]++
		}
		source := weights.Source{Name: part.Name, DType: d, Shape: part.Shape}
		source.Write = func(out io.Writer) error { return w.write(out, &part, d) }
		n, err := source.Bytes()
		if err != nil {
			return nil, err
		}
		w.total += n
		list[i] = source
	}
	return list, nil
}

// batchBytes is how much of a tensor is encoded at a time.
const batchBytes = 16 << 20

// write encodes a tensor as type d, some rows at a time on all threads.
func (w *work) write(out io.Writer, part *family.Part, d tensor.DType) error {
	row, err := part.Open()
	if err != nil {
		return err
	}
	rows, columns := part.Rows()
	size := int(d.Bytes(columns))
	batch := max(1, min(rows, batchBytes/max(size, 1)))
	data := make([]byte, batch*size)
	for start := 0; start < rows; start += batch {
		n := min(batch, rows-start)
		w.encode(data[:n*size], d, columns, func(dst []float32, i int) { row(dst, start+i) })
		if _, err := out.Write(data[:n*size]); err != nil {
			return err
		}
		w.done += int64(n * size)
		if w.options.Progress != nil {
			w.options.Progress(w.done, w.total)
		}
	}
	return nil
}

// encode fills data with as many rows as it holds.
func (w *work) encode(data []byte, d tensor.DType, columns int, row func(dst []float32, i int)) {
	size := int(d.Bytes(columns))
	rows := len(data) / max(size, 1)
	var group sync.WaitGroup
	for t := range w.options.Threads {
		group.Go(func() {
			values := make([]float32, columns)
			for i := t; i < rows; i += w.options.Threads {
				row(values, i)
				tensor.Encode(data[i*size:][:size], d, values)
			}
		})
	}
	group.Wait()
}
