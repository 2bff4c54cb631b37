// Package whisper is Whisper (Radford et al. 2022), a transformer that reads a window of sound
// and writes what was said, in its language or in English. It has the tensor names of Hugging
// Face's WhisperForConditionalGeneration. Axes: T frames, N tokens, M mel bands, C channels.
package whisper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrInput is wrapped by errors about a call.
var ErrInput = errors.New("cannot be recognised")

const normEps = 1e-5

// Model is a loaded recogniser. Any number of goroutines may use it.
type Model struct {
	config   Config
	listener *listener

	conv1, conv2 nn.Conv2d
	places       []float32 // [Frames, C]
	encoder      []layer
	encoderNorm  nn.LayerNorm

	tokens      nn.Embedding
	positions   nn.Embedding
	decoder     []layer
	decoderNorm nn.LayerNorm
	logits      nn.Linear // the tokens' table
}

// layer is a block of the encoder, or of the decoder, which reads the encoder's states too.
type layer struct {
	self, cross         attention
	norm1, normX, norm2 nn.LayerNorm
	up, down            nn.Linear
}

type attention struct{ q, k, v, out nn.Linear }

// Load reads a model. The errors are those of weights.Store, and wrap ErrUnsupported.
func Load(s *weights.Store, c Config) (*Model, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if s.Has("model.encoder.conv1.weight") {
		s = s.Sub("model")
	}
	m := &Model{config: c, listener: newListener(c.Mels)}
	if err := m.loadEncoder(s.Sub("encoder")); err != nil {
		return nil, err
	}
	return m, m.loadDecoder(s.Sub("decoder"))
}

func (m *Model) loadEncoder(s *weights.Store) (err error) {
	c := m.config
	if m.conv1, err = nn.LoadConv2d(s.Sub("conv1"), nn.Sequence(c.Mels, c.Width, 3, 1), true); err != nil {
		return err
	}
	half := nn.Sequence(c.Width, c.Width, 3, 1)
	half.Stride = [2]int{1, 2}
	if m.conv2, err = nn.LoadConv2d(s.Sub("conv2"), half, true); err != nil {
		return err
	}
	places, err := s.Tensor("embed_positions.weight", c.Frames, c.Width)
	if err != nil {
		return err
	}
	m.places = slices.Clone(places.Float32s())
	for i := range c.EncoderLayers {
		l, err := loadLayer(s.Sub(fmt.Sprintf("layers.%d", i)), c.Width, c.EncoderFFN, false)
		if err != nil {
			return err
		}
		m.encoder = append(m.encoder, l)
	}
	m.encoderNorm, err = nn.LoadLayerNorm(s.Sub("layer_norm"), c.Width, normEps)
	return err
}

func (m *Model) loadDecoder(s *weights.Store) (err error) {
	c := m.config
	if m.tokens, err = nn.LoadEmbedding(s.Sub("embed_tokens"), c.Vocab, c.Width); err != nil {
		return err
	}
	if c.ScaleTokens {
		m.tokens.Scale = float32(math.Sqrt(float64(c.Width)))
	}
	if m.logits, err = nn.LoadLinear(s.Sub("embed_tokens"), c.Vocab, c.Width, false); err != nil {
		return err
	}
	if m.positions, err = nn.LoadEmbedding(s.Sub("embed_positions"), c.Context, c.Width); err != nil {
		return err
	}
	for i := range c.DecoderLayers {
		l, err := loadLayer(s.Sub(fmt.Sprintf("layers.%d", i)), c.Width, c.DecoderFFN, true)
		if err != nil {
			return err
		}
		m.decoder = append(m.decoder, l)
	}
	m.decoderNorm, err = nn.LoadLayerNorm(s.Sub("layer_norm"), c.Width, normEps)
	return err
}

func loadLayer(s *weights.Store, width, ffn int, crosses bool) (l layer, err error) {
	if l.self, err = loadAttention(s.Sub("self_attn"), width); err != nil {
		return l, err
	}
	norms := []struct {
		to   *nn.LayerNorm
		name string
	}{{&l.norm1, "self_attn_layer_norm"}, {&l.norm2, "final_layer_norm"}, {&l.normX, "encoder_attn_layer_norm"}}
	if crosses {
		if l.cross, err = loadAttention(s.Sub("encoder_attn"), width); err != nil {
			return l, err
		}
	} else {
		norms = norms[:2]
	}
	for _, n := range norms {
		if *n.to, err = nn.LoadLayerNorm(s.Sub(n.name), width, normEps); err != nil {
			return l, err
		}
	}
	if l.up, err = nn.LoadLinear(s.Sub("fc1"), ffn, width, true); err != nil {
		return l, err
	}
	l.down, err = nn.LoadLinear(s.Sub("fc2"), width, ffn, true)
	return l, err
}

func loadAttention(s *weights.Store, width int) (a attention, err error) {
	for _, p := range []struct {
		to   *nn.Linear
		name string
		bias bool
	}{{&a.q, "q_proj", true}, {&a.k, "k_proj", false}, {&a.v, "v_proj", true}, {&a.out, "out_proj", true}} {
		if *p.to, err = nn.LoadLinear(s.Sub(p.name), width, width, p.bias); err != nil {
			return a, err
		}
	}
	return a, nil
}

// Config returns the model's shape.
func (m *Model) Config() Config { return m.config }

// Window returns how many samples at 16 kHz the model hears at once.
func (m *Model) Window() int { return 2 * m.config.Frames * hop }

// heard is what the encoder has made of a window: for every layer of the decoder the keys and
// values that it reads there, [Frames, C] each.
type heard struct{ keys, values [][]float32 }

// encode hears a window of samples at 16 kHz; what is missing is silence. between, if not nil,
// sees the states after the convolutions and at the end.
func (m *Model) encode(ctx context.Context, e *tensor.Exec, features []float32, between func(name string, x []float32)) (*heard, error) {
	c := m.config
	wide := make([]float32, 2*c.Frames*c.Width)
	m.conv1.Forward(e, tensor.Convolution{Y: wide, X: features, Height: 1, Width: 2 * c.Frames, Activation: tensor.GELU})
	x := make([]float32, c.Frames*c.Width)
	m.conv2.Forward(e, tensor.Convolution{Y: x, X: wide, Height: 1, Width: 2 * c.Frames, Activation: tensor.GELU})
	e.Add(x, m.places)
	if between != nil {
		between("encoder_conv", x)
	}
	w := newWork(len(x), c.Frames*c.EncoderFFN)
	for i := range m.encoder {
		l := &m.encoder[i]
		l.norm1.Forward(e, w.a, x)
		e.MatMuls(w.a, l.self.q.Product(w.q), l.self.k.Product(w.k), l.self.v.Product(w.v))
		d := c.Width / c.EncoderHeads
		e.Attention(tensor.Attention{
			Out: w.q, Q: w.q, K: w.k, V: w.v, Heads: c.EncoderHeads, KVHeads: c.EncoderHeads, HeadDim: d,
			Scale: scaleOf(d), BF16: true,
		})
		l.self.out.Forward(e, w.a, w.q)
		e.Add(x, w.a)
		l.feed(e, x, w)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	m.encoderNorm.Forward(e, x, x)
	if between != nil {
		between("encoder_out", x)
	}
	h := new(heard)
	for i := range m.decoder {
		k, v := make([]float32, len(x)), make([]float32, len(x))
		e.MatMuls(x, m.decoder[i].cross.k.Product(k), m.decoder[i].cross.v.Product(v))
		h.keys, h.values = append(h.keys, k), append(h.values, v)
	}
	return h, nil
}

func scaleOf(headDim int) float32 { return float32(1 / math.Sqrt(float64(headDim))) }

// work is memory of a pass.
type work struct{ a, q, k, v, wide []float32 }

func newWork(states, wide int) *work {
	return &work{make([]float32, states), make([]float32, states), make([]float32, states), make([]float32, states), make([]float32, wide)}
}

// feed adds the block's feed-forward part to x.
func (l *layer) feed(e *tensor.Exec, x []float32, w *work) {
	l.norm2.Forward(e, w.a, x)
	l.up.Forward(e, w.wide, w.a)
	e.Activate(tensor.GELU, w.wide)
	l.down.Forward(e, w.a, w.wide)
	e.Add(x, w.a)
}

// text is a text in the making: the tokens' keys and values so far.
type text struct {
	m      *Model
	heard  *heard
	n      int         // tokens
	keys   [][]float32 // by layer: [Context, C]
	values [][]float32
}

func (m *Model) newText(h *heard) *text {
	t := &text{m: m, heard: h}
	for range m.decoder {
		t.keys = append(t.keys, make([]float32, m.config.Context*m.config.Width))
		t.values = append(t.values, make([]float32, m.config.Context*m.config.Width))
	}
	return t
}

// read takes in tokens, and returns the logits [Vocab] behind the last of them, or behind each,
// [N, Vocab]. final, if not nil, sees the states before the logits.
func (t *text) read(e *tensor.Exec, ids []int, each bool, final func(x []float32)) ([]float32, error) {
	c := t.m.config
	n := len(ids)
	if n == 0 || t.n+n > c.Context {
		return nil, fmt.Errorf("whisper: %d tokens after %d, at most %d: %w", n, t.n, c.Context, ErrInput)
	}
	x, at := make([]float32, n*c.Width), make([]float32, n*c.Width)
	t.m.tokens.Forward(x, ids)
	places := make([]int, n)
	for i := range places {
		places[i] = t.n + i
	}
	t.m.positions.Forward(at, places)
	e.Add(x, at)
	w := newWork(len(x), n*c.DecoderFFN)
	d := c.Width / c.DecoderHeads
	for i := range t.m.decoder {
		l := &t.m.decoder[i]
		from, to := t.n*c.Width, (t.n+n)*c.Width
		l.norm1.Forward(e, w.a, x)
		e.MatMuls(w.a, l.self.q.Product(w.q), l.self.k.Product(t.keys[i][from:to]), l.self.v.Product(t.values[i][from:to]))
		e.Attention(tensor.Attention{
			Out: w.q, Q: w.q, K: t.keys[i][:to], V: t.values[i][:to], Heads: c.DecoderHeads, KVHeads: c.DecoderHeads, HeadDim: d,
			Scale: scaleOf(d), Causal: true, Start: t.n,
		})
		l.self.out.Forward(e, w.a, w.q)
		e.Add(x, w.a)
		l.normX.Forward(e, w.a, x)
		l.cross.q.Forward(e, w.q, w.a)
		e.Attention(tensor.Attention{
			Out: w.q, Q: w.q, K: t.heard.keys[i], V: t.heard.values[i], Heads: c.DecoderHeads, KVHeads: c.DecoderHeads, HeadDim: d, Scale: scaleOf(d),
		})
		l.cross.out.Forward(e, w.a, w.q)
		e.Add(x, w.a)
		l.feed(e, x, w)
	}
	t.n += n
	t.m.decoderNorm.Forward(e, x, x)
	if final != nil {
		final(x)
	}
	if !each {
		x = x[(n-1)*c.Width:]
	}
	logits := make([]float32, len(x)/c.Width*c.Vocab)
	t.m.logits.Forward(e, logits, x)
	return logits, nil
}
