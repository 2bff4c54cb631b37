package sample

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// goldenTensor is an entry of the header of a safetensors file.
type goldenTensor struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
	data    []byte
}

func (g goldenTensor) float32s() []float32 {
	out := make([]float32, len(g.data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(g.data[4*i:]))
	}
	return out
}

func (g goldenTensor) ints() []int {
	out := make([]int, len(g.data)/8)
	for i := range out {
		out[i] = int(binary.LittleEndian.Uint64(g.data[8*i:]))
	}
	return out
}

// readGolden reads a safetensors file: a length, a JSON header, the data.
func readGolden(t *testing.T, path string) map[string]goldenTensor {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := 8 + int(binary.LittleEndian.Uint64(raw))
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:start], &header); err != nil {
		t.Fatal(err)
	}
	out := map[string]goldenTensor{}
	for name, entry := range header {
		if name == "__metadata__" {
			continue
		}
		var g goldenTensor
		if err := json.Unmarshal(entry, &g); err != nil {
			t.Fatal(err)
		}
		g.data = raw[start+g.Offsets[0] : start+g.Offsets[1]]
		out[name] = g
	}
	return out
}

// removedLogit stands for removed entries in the reference.
const removedLogit = -1e30

func TestGoldenLogitsProcessors(t *testing.T) {
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	dir := filepath.Join(root, "text", "logits_processors")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("reference cases are absent: %s (set HELICON_GOLDENS)", dir)
	}
	tensors := readGolden(t, filepath.Join(dir, "golden.safetensors"))
	var info struct {
		Tensors map[string]struct {
			Tolerance *float64 `json:"tolerance"`
		} `json:"tensors"`
	}
	raw, err := os.ReadFile(filepath.Join(dir, "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		t.Fatal(err)
	}

	filters := func(edit func(*Params)) func([]float32, []int) []float32 {
		return func(logits []float32, ids []int) []float32 {
			s := processed(t, edit, logits, ids)
			s.filter()
			return spread(&s.kept, len(logits), removedLogit, func(x candidate) float32 { return x.logit })
		}
	}
	penalties := func(edit func(*Params)) func([]float32, []int) []float32 {
		return func(logits []float32, ids []int) []float32 {
			out := processed(t, edit, logits, ids).logits
			for i, l := range out {
				out[i] = max(l, removedLogit)
			}
			return out
		}
	}
	processors := map[string]func(logits []float32, ids []int) []float32{
		"temperature":        filters(func(p *Params) { p.Temperature = 0.7 }),
		"top_k":              filters(func(p *Params) { p.TopK = 10 }),
		"top_p":              filters(func(p *Params) { p.TopP = 0.9 }),
		"min_p":              filters(func(p *Params) { p.MinP = 0.1 }),
		"typical_p":          filters(func(p *Params) { p.TypicalP = 0.9 }),
		"repetition_penalty": penalties(func(p *Params) { p.RepetitionPenalty = 1.3 }),
		"no_repeat_ngram":    penalties(func(p *Params) { p.NoRepeatNGram = 3 }),
		"chain_probs": func(logits []float32, ids []int) []float32 {
			s := processed(t, func(p *Params) {
				p.RepetitionPenalty, p.Temperature, p.TopK, p.TopP = 1.3, 0.7, 10, 0.9
			}, logits, ids)
			s.filter()
			return spread(&s.kept, len(logits), 0, func(x candidate) float32 { return float32(x.weight / s.kept.total) })
		},
	}

	logits, ids := tensors["logits"], tensors["input_ids"]
	rows, vocab, length := logits.Shape[0], logits.Shape[1], ids.Shape[1]
	for name, tensor := range info.Tensors {
		if tensor.Tolerance == nil {
			continue
		}
		process, ok := processors[name]
		if !ok {
			t.Logf("%s: skipped, there is no such processor", name)
			continue
		}
		want := tensors[name].float32s()
		var got []float32
		for r := range rows {
			row := slices.Clone(logits.float32s()[r*vocab : (r+1)*vocab])
			got = append(got, process(row, ids.ints()[r*length:(r+1)*length])...)
		}
		worst := largestError(got, want)
		t.Logf("%s: largest error %.2g, tolerance %.2g", name, worst, *tensor.Tolerance)
		if !(worst <= *tensor.Tolerance) {
			t.Errorf("%s: largest error %v exceeds %v", name, worst, *tensor.Tolerance)
		}
	}
}

// processed returns a Sampler that has read ids and penalised logits.
func processed(t *testing.T, edit func(*Params), logits []float32, ids []int) *Sampler {
	t.Helper()
	p := Default()
	edit(&p)
	s, err := New(p, len(logits))
	if err != nil {
		t.Fatal(err)
	}
	s.Prompt(ids)
	copy(s.logits, logits)
	s.penalize()
	return s
}

// spread writes a value of every candidate to a row of all tokens.
func spread(c *candidates, vocab int, absent float32, value func(candidate) float32) []float32 {
	row := make([]float32, vocab)
	for i := range row {
		row[i] = absent
	}
	for _, x := range c.list {
		row[x.id] = value(x)
	}
	return row
}

// largestError compares separately what was removed and what was not, as the
// mark of removed entries dwarfs all logits.
func largestError(got, want []float32) float64 {
	worst, scale := 0.0, 0.0
	for i := range want {
		if (got[i] == removedLogit) != (want[i] == removedLogit) {
			return math.Inf(1)
		}
		if want[i] != removedLogit {
			worst = max(worst, math.Abs(float64(got[i])-float64(want[i])))
			scale = max(scale, math.Abs(float64(want[i])))
		}
	}
	return worst / scale
}
