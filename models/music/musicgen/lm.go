package musicgen

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrUnsupported is wrapped by errors about configurations that mean nothing or another
// network.
var ErrUnsupported = errors.New("unsupported music model")

// ErrInput is wrapped by errors about a call.
var ErrInput = errors.New("cannot be played")

// Config is a config.json of MusicgenForCausalLM.
type Config struct {
	Codes     int    `json:"vocab_size"` // of a codebook; the next id is what begins and pads
	Books     int    `json:"num_codebooks"`
	Width     int    `json:"hidden_size"`
	Layers    int    `json:"num_hidden_layers"`
	Heads     int    `json:"num_attention_heads"`
	FFN       int    `json:"ffn_dim"`
	Positions int    `json:"max_position_embeddings"`
	Act       string `json:"activation_function"`
	Scale     bool   `json:"scale_embedding"`
	Channels  int    `json:"audio_channels"`
}

// ParseConfig reads a config.json.
func ParseConfig(data []byte) (Config, error) {
	c := Config{Codes: 2048, Books: 4, Width: 1024, Layers: 24, Heads: 16, FFN: 4096, Positions: 2048, Act: "gelu", Channels: 1}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("musicgen: config: %w: %w", err, ErrUnsupported)
	}
	return c, c.validate()
}

func (c Config) validate() error {
	for _, v := range []struct {
		name        string
		value, most int
	}{
		{"vocab_size", c.Codes, 1 << 16}, {"num_codebooks", c.Books, 32}, {"hidden_size", c.Width, 1 << 13}, {"num_hidden_layers", c.Layers, 256},
		{"num_attention_heads", c.Heads, c.Width}, {"ffn_dim", c.FFN, 1 << 15}, {"max_position_embeddings", c.Positions, 1 << 16},
	} {
		if v.value < 1 || v.value > v.most {
			return fmt.Errorf("musicgen: config: %s is %d, want 1 to %d: %w", v.name, v.value, v.most, ErrUnsupported)
		}
	}
	switch {
	case c.Width%c.Heads != 0 || c.Width%2 != 0:
		return fmt.Errorf("musicgen: config: hidden_size %d with %d heads: %w", c.Width, c.Heads, ErrUnsupported)
	case c.Act != "gelu":
		return fmt.Errorf("musicgen: config: activation_function %q: %w", c.Act, ErrUnsupported)
	case c.Channels != 1:
		return fmt.Errorf("musicgen: config: audio_channels %d: %w", c.Channels, ErrUnsupported)
	}
	return nil
}

// Pad is the id that stands where a codebook has no code.
func (c Config) Pad() int { return c.Codes }

// LM is the language model over the codes of EnCodec. Any number of goroutines may use it.
type LM struct {
	config Config
	tokens []nn.Embedding // by codebook
	places []float32      // [Positions, C]
	layers []layer
	norm   nn.LayerNorm
	heads  []nn.Linear
}

type layer struct {
	self, cross         attention
	norm1, normX, norm2 nn.LayerNorm
	up, down            nn.Linear
}

type attention struct{ q, k, v, out nn.Linear }

// LoadLM reads a model. The errors are those of weights.Store, and wrap ErrUnsupported.
func LoadLM(s *weights.Store, c Config) (*LM, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &LM{config: c}
	at := s.Sub("model.decoder")
	for i := range c.Books {
		e, err := nn.LoadEmbedding(at.Sub(fmt.Sprintf("embed_tokens.%d", i)), c.Codes+1, c.Width)
		if err != nil {
			return nil, err
		}
		if c.Scale {
			e.Scale = float32(math.Sqrt(float64(c.Width)))
		}
		head, err := nn.LoadLinear(s.Sub(fmt.Sprintf("lm_heads.%d", i)), c.Codes, c.Width, false)
		if err != nil {
			return nil, err
		}
		m.tokens, m.heads = append(m.tokens, e), append(m.heads, head)
	}
	for i := range c.Layers {
		l, err := loadLayer(at.Sub(fmt.Sprintf("layers.%d", i)), c)
		if err != nil {
			return nil, err
		}
		m.layers = append(m.layers, l)
	}
	var err error
	if m.places, err = loadPlaces(at, c); err != nil {
		return nil, err
	}
	m.norm, err = nn.LoadLayerNorm(at.Sub("layer_norm"), c.Width, 1e-5)
	return m, err
}

// loadPlaces reads the vectors of places, or computes them where a checkpoint leaves them out:
// cosines, then sines (Vaswani et al. 2017).
func loadPlaces(s *weights.Store, c Config) ([]float32, error) {
	const name = "embed_positions.weights"
	if s.Has(name) {
		t, err := s.Tensor(name, c.Positions, c.Width)
		if err != nil {
			return nil, err
		}
		return slices.Clone(t.Float32s()), nil
	}
	half := c.Width / 2
	x := make([]float32, c.Positions*c.Width)
	for i := range half {
		step := math.Exp(-math.Log(10000) * float64(i) / float64(max(half-1, 1)))
		for n := range c.Positions {
			x[n*c.Width+i], x[n*c.Width+half+i] = float32(math.Cos(float64(n)*step)), float32(math.Sin(float64(n)*step))
		}
	}
	return x, nil
}

func loadLayer(s *weights.Store, c Config) (l layer, err error) {
	for _, p := range []struct {
		to   *attention
		name string
	}{{&l.self, "self_attn"}, {&l.cross, "encoder_attn"}} {
		for _, q := range []struct {
			to   *nn.Linear
			name string
		}{{&p.to.q, "q_proj"}, {&p.to.k, "k_proj"}, {&p.to.v, "v_proj"}, {&p.to.out, "out_proj"}} {
			if *q.to, err = nn.LoadLinear(s.Sub(p.name+"."+q.name), c.Width, c.Width, false); err != nil {
				return l, err
			}
		}
	}
	for _, p := range []struct {
		to   *nn.LayerNorm
		name string
	}{{&l.norm1, "self_attn_layer_norm"}, {&l.normX, "encoder_attn_layer_norm"}, {&l.norm2, "final_layer_norm"}} {
		if *p.to, err = nn.LoadLayerNorm(s.Sub(p.name), c.Width, 1e-5); err != nil {
			return l, err
		}
	}
	if l.up, err = nn.LoadLinear(s.Sub("fc1"), c.FFN, c.Width, false); err != nil {
		return l, err
	}
	l.down, err = nn.LoadLinear(s.Sub("fc2"), c.Width, c.FFN, false)
	return l, err
}

// Config returns the model's shape.
func (m *LM) Config() Config { return m.config }

// Tune is codes in the making: some sequences, each with a conditioning of its own, that grow
// together.
type Tune struct {
	m    *LM
	rows []row
	n    int // codes of each so far

	x, a, q, k, v, wide []float32 // [rows, C]

	embedded, final func(x []float32) // see states, for tests; or nil
}

// row is one of the sequences: keys and values of each layer, its own and those of the
// conditioning.
type row struct {
	keys, values         [][]float32 // [Positions, C]
	aboutKeys, aboutVals [][]float32 // [states, C]; nil is no conditioning
}

// NewTune begins sequences that are conditioned on states [N, C] each; nil is none, which
// stands for the reference's states of zeros behind a mask.
func (m *LM) NewTune(e *tensor.Exec, states ...[]float32) *Tune {
	c, n := m.config, len(states)
	t := &Tune{
		m: m, x: make([]float32, n*c.Width), a: make([]float32, n*c.Width), q: make([]float32, n*c.Width),
		k: make([]float32, n*c.Width), v: make([]float32, n*c.Width), wide: make([]float32, n*c.FFN),
	}
	for _, s := range states {
		var r row
		for i := range m.layers {
			r.keys, r.values = append(r.keys, nil), append(r.values, nil)
			if s == nil {
				continue
			}
			k, v := make([]float32, len(s)), make([]float32, len(s))
			e.MatMuls(s, m.layers[i].cross.k.Product(k), m.layers[i].cross.v.Product(v))
			r.aboutKeys, r.aboutVals = append(r.aboutKeys, k), append(r.aboutVals, v)
		}
		t.rows = append(t.rows, r)
	}
	return t
}

// Next reads the codes of one place, [rows][Books], and returns the logits of the next,
// [rows, Books, Codes].
func (t *Tune) Next(e *tensor.Exec, codes [][]int) ([]float32, error) {
	c := t.m.config
	if t.n == c.Positions || len(codes) != len(t.rows) {
		return nil, fmt.Errorf("musicgen: codes of %d sequences after %d, want %d after fewer than %d: %w", len(codes), t.n, len(t.rows), c.Positions, ErrInput)
	}
	if err := t.embed(codes); err != nil {
		return nil, err
	}
	for i := range t.m.layers {
		t.layer(e, i)
	}
	t.n++
	t.m.norm.Forward(e, t.a, t.x)
	if t.final != nil {
		t.final(t.a)
	}
	logits := make([]float32, len(t.rows)*c.Books*c.Codes)
	one := make([]float32, len(t.rows)*c.Codes)
	for b := range t.m.heads {
		t.m.heads[b].Forward(e, one, t.a)
		for r := range t.rows {
			copy(logits[(r*c.Books+b)*c.Codes:][:c.Codes], one[r*c.Codes:])
		}
	}
	return logits, nil
}

// embed writes to x the sums of the codes' vectors and of their place's.
func (t *Tune) embed(codes [][]int) error {
	c := t.m.config
	vector := make([]float32, c.Width)
	place := t.m.places[t.n*c.Width:][:c.Width]
	for r, own := range codes {
		x := t.x[r*c.Width:][:c.Width]
		copy(x, place)
		if len(own) != c.Books {
			return fmt.Errorf("musicgen: %d codes, want %d: %w", len(own), c.Books, ErrInput)
		}
		for b, code := range own {
			if code < 0 || code > c.Codes {
				return fmt.Errorf("musicgen: code %d, want 0 to %d: %w", code, c.Codes, ErrInput)
			}
			t.m.tokens[b].Forward(vector, []int{code})
			for j, v := range vector {
				x[j] += v
			}
		}
	}
	if t.embedded != nil {
		t.embedded(t.x)
	}
	return nil
}

func (t *Tune) layer(e *tensor.Exec, i int) {
	c, l := t.m.config, &t.m.layers[i]
	d := c.Width / c.Heads
	attend := func(out, q, k, v []float32) {
		e.Attention(tensor.Attention{
			Out: out, Q: q, K: k, V: v, Heads: c.Heads, KVHeads: c.Heads, HeadDim: d, Scale: float32(1 / math.Sqrt(float64(d))),
		})
	}
	l.norm1.Forward(e, t.a, t.x)
	e.MatMuls(t.a, l.self.q.Product(t.q), l.self.k.Product(t.k), l.self.v.Product(t.v))
	for r := range t.rows {
		w, own := &t.rows[r], func(x []float32) []float32 { return x[r*c.Width:][:c.Width] }
		w.keys[i], w.values[i] = append(w.keys[i], own(t.k)...), append(w.values[i], own(t.v)...)
		attend(own(t.q), own(t.q), w.keys[i], w.values[i])
	}
	l.self.out.Forward(e, t.a, t.q)
	e.Add(t.x, t.a)

	l.normX.Forward(e, t.a, t.x)
	l.cross.q.Forward(e, t.q, t.a)
	for r := range t.rows {
		w, own := &t.rows[r], t.q[r*c.Width:][:c.Width]
		if w.aboutKeys == nil {
			clear(own)
			continue
		}
		attend(own, own, w.aboutKeys[i], w.aboutVals[i])
	}
	l.cross.out.Forward(e, t.a, t.q)
	e.Add(t.x, t.a)

	l.norm2.Forward(e, t.a, t.x)
	l.up.Forward(e, t.wide, t.a)
	e.Activate(tensor.GELU, t.wide)
	l.down.Forward(e, t.a, t.wide)
	e.Add(t.x, t.a)
}
