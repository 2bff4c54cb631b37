package lm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/lm/family"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// families are small decoders of every family and form, as their config.json says them.
func families(t testing.TB) map[string]map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("family", "testdata", "families.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// eachFamily runs a test on every one of the families, in F32.
func eachFamily(t *testing.T, f func(t *testing.T, b bundle)) {
	t.Parallel()
	for name, config := range families(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, randomBundle(t, config))
		})
	}
}

// randomBundle draws the weights that a decoder of that configuration reads.
func randomBundle(t testing.TB, config map[string]any) bundle {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := family.ReadConfig(fstest.MapFS{"config.json": {Data: raw}})
	if err != nil {
		t.Fatal(err)
	}
	d := drawer{random: rand.New(rand.NewPCG(3, 4)), tensors: map[string]named{}, config: &c}
	d.decoder()
	return bundle{config: config, tensors: d.tensors}
}

// drawer draws tensors under the names of a layout.
type drawer struct {
	random  *rand.Rand
	tensors map[string]named
	config  *family.Config
}

func (d *drawer) tensor(name string, shape ...int) {
	n := 1
	for _, s := range shape {
		n *= s
	}
	x := named{shape: shape, data: make([]float32, n)}
	for i := range x.data {
		x.data[i] = float32(d.random.NormFloat64() / math.Sqrt(float64(shape[len(shape)-1])))
		if len(shape) == 1 {
			x.data[i] = float32(d.random.NormFloat64()) / 4
			if strings.HasSuffix(name, ".weight") && d.config.Norm != family.RMSNormLessOne {
				x.data[i]++
			}
		}
	}
	d.tensors[name] = x
}

// linear draws a matrix of a block.
func (d *drawer) linear(prefix, path string, out, in int, bias bool) {
	if path == "" {
		return
	}
	shape := []int{out, in}
	if d.config.Layout.Conv1D {
		shape = []int{in, out}
	}
	d.tensor(prefix+path+".weight", shape...)
	if bias {
		d.tensor(prefix+path+".bias", out)
	}
}

func (d *drawer) norm(prefix, path string, channels int) {
	if path == "" || d.config.Norm == family.PlainLayerNorm {
		return
	}
	d.tensor(prefix+path+".weight", channels)
	if d.config.Norm == family.LayerNorm {
		d.tensor(prefix+path+".bias", channels)
	}
}

func (d *drawer) headNorm(prefix, path string, heads int) {
	if !d.config.HeadNorms || path == "" {
		d.norm(prefix, path, d.config.HeadDim)
		return
	}
	for i := range heads {
		d.tensor(fmt.Sprintf("%s%s.norms.%d.weight", prefix, path, i), d.config.HeadDim)
	}
}

func (d *drawer) decoder() {
	c, n := d.config, &d.config.Layout
	root := n.Root + "."
	d.tensor(root+n.Embed+".weight", c.Vocab, c.EmbedWidth)
	if n.Positions != "" {
		d.tensor(root+n.Positions+".weight", c.PositionOffset+c.Context, c.Hidden)
	}
	d.norm(root, n.EmbedNorm, c.Hidden)
	if n.Widen != "" {
		d.tensor(root+n.Widen+".weight", c.Hidden, c.EmbedWidth)
		d.tensor(root+n.Narrow+".weight", c.EmbedWidth, c.Hidden)
	}
	d.norm(root, n.Norm, c.Hidden)
	if !c.Tied {
		d.tensor(n.Head+".weight", c.Vocab, c.EmbedWidth)
		if c.HeadBias {
			d.tensor(n.Head+".bias", c.Vocab)
		}
	}
	for i := range c.Layers {
		d.block(root+n.Blocks+"."+strconv.Itoa(i)+".", i)
	}
}

func (d *drawer) block(prefix string, i int) {
	c, n := d.config, &d.config.Layout
	for _, path := range []string{
		n.Attention.Before, n.Attention.After, n.Attention.Sum, n.MLP.Before, n.MLP.After, n.MLP.Sum,
	} {
		d.norm(prefix, path, c.Hidden)
	}
	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	d.linear(prefix, n.QKV, queries+2*keys, c.Hidden, c.AttentionBias)
	if n.QKV == "" {
		d.linear(prefix, n.Q, queries, c.Hidden, c.AttentionBias)
		d.linear(prefix, n.K, keys, c.Hidden, c.AttentionBias)
		d.linear(prefix, n.V, keys, c.Hidden, c.AttentionBias)
	}
	d.headNorm(prefix, n.QNorm, c.Heads)
	d.headNorm(prefix, n.KNorm, c.KVHeads)
	d.linear(prefix, n.O, c.Hidden, queries, c.OutputBias)
	if !c.Sparse(i) {
		d.linear(prefix, n.GateUp, 2*c.Intermediate, c.Hidden, c.MLPBias)
		d.linear(prefix, n.Gate, c.Intermediate, c.Hidden, c.MLPBias)
		d.linear(prefix, n.Up, c.Intermediate, c.Hidden, c.MLPBias)
		d.linear(prefix, n.Down, c.Hidden, c.Intermediate, c.MLPBias)
		return
	}
	x := c.Experts
	d.linear(prefix, n.Router, x.Count, c.Hidden, false)
	for i := range x.Count {
		expert := prefix + n.Experts + "." + strconv.Itoa(i) + "."
		d.linear(expert, n.Expert.Gate, x.Intermediate, c.Hidden, false)
		d.linear(expert, n.Expert.Up, x.Intermediate, c.Hidden, false)
		d.linear(expert, n.Expert.Down, c.Hidden, x.Intermediate, false)
	}
}

// TestFamiliesAgainstNaive compares every form of decoder with the one that is written
// out plainly in double precision.
func TestFamiliesAgainstNaive(t *testing.T) {
	eachFamily(t, func(t *testing.T, b bundle) {
		m := load(t, b.fsys(t, tensor.F32), 2)
		ids := someTokens(30, smallLlama.vocab)
		got := forward(t, m, newState(t, m, len(ids)), ids)
		want := naiveLogits(m, ids)
		if e := relativeError(got, want); !(e <= 1e-5) {
			t.Errorf("logits are off by %.3g of the largest, tolerance 1e-5", e)
		}
	})
}

// TestFamiliesEquivalence is TestEquivalence for the other families.
func TestFamiliesEquivalence(t *testing.T) {
	eachFamily(t, func(t *testing.T, b bundle) {
		testEquivalence(t, b.fsys(t, tensor.F32), chunkTokens+12)
	})
}

func TestFamiliesDecodeAllocatesNothing(t *testing.T) {
	for name, config := range families(t) {
		m := load(t, randomBundle(t, config).fsys(t, tensor.F32), 2)
		s := newState(t, m, 100)
		ctx, token := t.Context(), []int{3}
		if n := testing.AllocsPerRun(20, func() {
			if _, err := m.Forward(ctx, s, token); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a token allocates %v times", name, n)
		}
	}
}

// TestFamiliesMissTensors takes each tensor out of each family's file, and gives each
// another shape: the error names it and the file.
func TestFamiliesMissTensors(t *testing.T) {
	eachFamily(t, func(t *testing.T, b bundle) {
		for name, x := range b.tensors {
			if strings.Contains(name, ".0.") || strings.Contains(name, ".1.") {
				continue // the last block and expert will do
			}
			delete(b.tensors, name)
			_, err := Load(b.fsys(t, tensor.F32), Options{})
			if !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), strconv.Quote(name)) || !strings.Contains(err.Error(), "model.safetensors") {
				t.Errorf("without %s: error %v", name, err)
			}
			last := x.shape[len(x.shape)-1]
			b.tensors[name] = named{shape: append(slices.Clone(x.shape[:len(x.shape)-1]), last-1), data: x.data[:len(x.data)/last*(last-1)]}
			_, err = Load(b.fsys(t, tensor.F32), Options{})
			if !errors.Is(err, weights.ErrShape) || !strings.Contains(err.Error(), strconv.Quote(name)) || !strings.Contains(err.Error(), "model.safetensors") {
				t.Errorf("with another shape of %s: error %v", name, err)
			}
			b.tensors[name] = x
		}
	})
}

// TestFamiliesWithoutPrefix loads files of the network without its head, whose names
// lack all or a part of the root.
func TestFamiliesWithoutPrefix(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]string{"bloom": "transformer.", "gpt2": "transformer.", "opt": "model.", "opt, narrow": "model.decoder."} {
		b := randomBundle(t, families(t)[name])
		ids := someTokens(5, smallLlama.vocab)
		logits := func() []float32 {
			m := load(t, b.fsys(t, tensor.F32), 1)
			return forward(t, m, newState(t, m, 5), ids)
		}
		want := logits()
		bare := map[string]named{}
		for key, x := range b.tensors {
			bare[strings.TrimPrefix(key, cut)] = x
		}
		b.tensors = bare
		same(t, name+" without "+cut, logits(), want)
	}
}

// TestFalconGroups compares Falcon's groups, whose matrix has a key and a value for
// several queries, with a GPT-NeoX of the same weights, which has them for each query.
func TestFalconGroups(t *testing.T) {
	t.Parallel()
	const heads, groups, dim, hidden = 6, 2, 8, 48
	falcon := randomBundle(t, families(t)["falcon, groups"])
	neox := bundle{config: maps.Clone(families(t)["neox"]), tensors: map[string]named{}}
	neox.config["rotary_pct"], neox.config["intermediate_size"] = 1, 4*hidden
	zeros := func(name string, n int) { neox.tensors[name] = named{shape: []int{n}, data: make([]float32, n)} }
	for name, x := range falcon.tensors {
		for _, pair := range [][2]string{
			{"transformer.h.", "gpt_neox.layers."}, {"self_attention.", "attention."}, {"transformer.ln_f", "gpt_neox.final_layer_norm"},
			{"ln_attn", "input_layernorm"}, {"ln_mlp", "post_attention_layernorm"},
			{"transformer.word_embeddings", "embed_out"},
		} {
			name = strings.Replace(name, pair[0], pair[1], 1)
		}
		if strings.HasSuffix(name, "query_key_value.weight") {
			var rows []float32
			for h := range heads {
				group := x.data[h/(heads/groups)*(heads/groups+2)*dim*hidden:]
				rows = append(rows, group[h%(heads/groups)*dim*hidden:][:dim*hidden]...)
				rows = append(rows, group[heads/groups*dim*hidden:][:2*dim*hidden]...)
			}
			x = named{shape: []int{3 * hidden, hidden}, data: rows}
		}
		neox.tensors[name] = x
		if strings.Contains(name, "attention.") || strings.Contains(name, "mlp.") {
			zeros(strings.TrimSuffix(name, "weight")+"bias", x.shape[0])
		}
	}
	neox.tensors["gpt_neox.embed_in.weight"] = neox.tensors["embed_out.weight"]
	ids := someTokens(20, smallLlama.vocab)
	var logits [2][]float32
	for i, b := range []bundle{falcon, neox} {
		m := load(t, b.fsys(t, tensor.F32), 1)
		logits[i] = forward(t, m, newState(t, m, 20), ids)
	}
	same(t, "Falcon against GPT-NeoX", logits[0], logits[1])
}

// longrope is a Phi-3 with other angles beyond 150 positions.
func longrope(t testing.TB) map[string]any {
	config := families(t)["phi3"]
	config["original_max_position_embeddings"], config["sliding_window"] = 150, nil
	config["rope_scaling"] = map[string]any{"type": "su", "short_factor": []float64{1, 1.1, 1.2}, "long_factor": []float64{1, 4, 9}}
	return config
}

// TestLongrope checks that a sequence which passes the original context, forth and
// back, has the logits of one that was read in one go.
func TestLongrope(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longrope(t)).fsys(t, tensor.F32), 1)
	ids := someTokens(170, smallLlama.vocab)
	whole := func(n int) []float32 { return forward(t, m, newState(t, m, 170), ids[:n]) }
	if e := relativeError(whole(150), naiveLogits(m, ids[:150])); !(e <= 1e-5) {
		t.Errorf("short: logits are off by %.3g", e)
	}
	if e := relativeError(whole(151), naiveLogits(m, ids[:151])); !(e <= 1e-5) {
		t.Errorf("long: logits are off by %.3g", e)
	}

	s := newState(t, m, 170)
	forward(t, m, s, ids[:140])
	var positions []int
	seen := Observer{
		Logits: func(position int, _ []float32) { positions = append(positions, position) },
		Hidden: func(layer, position int, x []float32) {
			if position < 140 || position+len(x)/48 > 160 {
				t.Errorf("layer %d shows positions %d to %d", layer, position, position+len(x)/48-1)
			}
		},
	}
	if err := m.Observe(t.Context(), s, ids[140:160], seen); err != nil {
		t.Fatal(err)
	}
	if len(positions) != 20 || positions[0] != 140 || positions[19] != 159 {
		t.Errorf("logits of positions %v, want 140 to 159", positions)
	}
	same(t, "after the switch", s.logits, whole(160))
	same(t, "one more", forward(t, m, s, ids[160:161]), whole(161))
	s.Truncate(10)
	same(t, "back", forward(t, m, s, ids[10:120]), whole(120))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Forward(ctx, s, ids[120:155]); err == nil || s.Len() != 120 {
		t.Fatalf("error %v at length %d", err, s.Len())
	}
	same(t, "after a cancellation", forward(t, m, s, ids[120:130]), whole(130))
}

func TestKeepBest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n         int
		normalise bool
		p, want   []float32
	}{
		{2, false, []float32{0.125, 0.5, 0.25, 0.125}, []float32{0, 0.5, 0.25, 0}},
		{2, true, []float32{0.125, 0.375, 0.125, 0.375}, []float32{0, 0.5, 0, 0.5}},
		{1, true, []float32{0.25, 0.25, 0.25, 0.25}, []float32{1, 0, 0, 0}},
		{3, true, []float32{1, 0, 0, 0}, []float32{1, 0, 0, 0}},
	} {
		p := slices.Clone(tt.p)
		keepBest(p, tt.n, tt.normalise)
		if !slices.Equal(p, tt.want) {
			t.Errorf("best %d of %v are %v, want %v", tt.n, tt.p, p, tt.want)
		}
	}
}

// TestStateSizeDoesNotOverflow checks that a state of more bytes than an int64 counts is
// refused.
func TestStateSizeDoesNotOverflow(t *testing.T) {
	t.Parallel()
	c := family.Config{Layers: 1 << 12, Heads: 1 << 19, KVHeads: 1 << 19, HeadDim: 2, Vocab: 1, Hidden: 1, Context: family.MaxContext, EmbedWidth: 1}
	for _, tokens := range []int{family.MaxContext, family.MaxContext / 4, family.MaxContext / 64} {
		if err := checkLength(&c, tokens); !errors.Is(err, ErrFull) {
			t.Errorf("%d tokens: error %v, want ErrFull", tokens, err)
		}
	}
}
