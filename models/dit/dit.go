// Package dit has the diffusion transformers, which predict noise or velocity from
// latents cut into patches:
//
//   - DiT, by class (Peebles and Xie 2022; diffusers' DiTTransformer2DModel);
//   - PixArt, α and Σ, by text through cross attention (Chen et al. 2023, 2024;
//     PixArtTransformer2DModel);
//   - SD3, Stable Diffusion 3 and 3.5, with text and image as two streams that attend to
//     one another (MMDiT, Esser et al. 2024; SD3Transformer2DModel);
//   - Flux, two streams first and one later, with rotary positions (Black Forest Labs
//     2024; FluxTransformer2DModel).
//
// The names of tensors are those of diffusers. All networks are used in the same way: a
// State is made for a picture's shape, Condition gives it the text, and Forward is called
// once a step. Axes: B batch, H and W latent pixels, T image tokens, S text tokens, C
// width of the network. Members of a batch are computed one after another, as each has
// hundreds of tokens to fill the kernels with; so results do not depend on the batch.
package dit

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// ErrUnsupported is wrapped by errors about configurations of networks that this package
// does not compute.
var ErrUnsupported = errors.New("unsupported transformer")

// Shape is the size of what a network is to compute at once.
type Shape struct {
	Batch         int
	Height, Width int // of the latents, multiples of the patch
	Tokens        int // of the text, S; 0 without text
}

// Condition is what a picture is to show, for each member of a batch. A network reads the
// fields that its paper has.
type Condition struct {
	States     []float32 // [B, S, text width], of the text encoder
	Mask       []bool    // [B, S]: false hides a token from PixArt; nil shows all
	Pooled     []float32 // [B, pooled width], one vector of each text: SD3 and Flux
	Labels     []int     // [B], classes: DiT
	Guidance   float32   // the guidance scale as an input of Flux; commonly 3.5
	Resolution [2]int    // height and width of the picture in pixels: PixArt α at 1024; 0 is 8 times the latents'
}

// State is the memory of a picture in the making: activations, and what depends on the
// condition but not on the time. It belongs to one goroutine at a time, and to the network
// that made it.
type State struct {
	owner  any // the network
	shape  Shape
	layout layout

	// Of the member of the batch at work, text before image.
	x, h, q, k, v []float32 // [S+T, C]
	second        []float32 // [T, C], input of the second attention of SD3.5
	mlp           []float32 // [mlpTokens, inner]
	joined        []float32 // [mlpTokens, C+inner], of Flux
	patches       []float32 // [T, a patch's floats]
	frequencies   []float32 // [timeChannels], of the time
	time          []float32 // [C], its embedding
	embed         []float32 // [C], of what else a vector is made of
	active        []float32 // [C], silu(time)
	mod           []float32 // modulations of a block
	scale         []float32 // [C], of a modulated norm

	// Of all members, and the same at all times.
	positions []float32   // [T, C]
	cos, sin  []float32   // [S+T, D/2]
	context   []float32   // [B, S, C], embedded text
	pooled    []float32   // [B, C], embedded vectors
	labels    []int       // [B]
	lengths   []int       // [B], tokens that are not hidden
	cross     [][]float32 // keys and values of the text for each block, [2, B, S, C]

	// observe, if not nil, is shown activations by the names that diffusers' modules have.
	observe func(name string, x []float32)
}

// layout is the sizes of a state's memory, in floats.
type layout struct {
	stream, text, image        int // (S+T)·C, S·C and T·C
	second, mlp, joined        int
	patches, width, mod        int
	angles                     int
	contexts, pooled, cross    int // of all members; cross of a block
	blocks                     int // with keys and values of the text
	batch, heads, dim, longest int
}

// mlpTokens is how many tokens pass a feed-forward network together: enough that its
// weights are read from memory once for many, few enough that its wide middle stays small.
const mlpTokens = 512

// timeChannels is the number of sines and cosines that a time is embedded by.
const timeChannels = 256

// backbone is the dimensions that the networks have in common.
type backbone struct {
	heads, dim int // H, D
	inner      int // of the feed-forward networks
	patch      int // side of a patch, pixels
	in, out    int // channels of the latents
}

func (n backbone) width() int { return n.heads * n.dim }

// tokens returns T.
func (n backbone) tokens(s Shape) int { return s.Height / n.patch * (s.Width / n.patch) }

// layout returns the memory that all networks need.
func (n backbone) layout(s Shape) layout {
	c, t := n.width(), n.tokens(s)
	return layout{
		text: s.Tokens * c, image: t * c, stream: (s.Tokens + t) * c,
		mlp: min(s.Tokens+t, mlpTokens) * n.inner, patches: t * n.patch * n.patch * max(n.in, n.out),
		width: c, mod: 6 * c, batch: s.Batch, heads: n.heads, dim: n.dim, longest: s.Tokens + t,
	}
}

// Limits of a shape: far beyond any use, and far below what overflows.
const (
	maxBatch  = 1 << 10
	maxTokens = 1 << 20
)

// check returns an error if the network cannot compute the shape.
func (n backbone) check(s Shape, text bool) error {
	switch {
	case s.Batch < 1 || s.Batch > maxBatch:
		return fmt.Errorf("dit: batch of %d, want 1 to %d", s.Batch, maxBatch)
	case min(s.Height, s.Width) < n.patch || s.Height%n.patch != 0 || s.Width%n.patch != 0 || s.Height > maxTokens || s.Width > maxTokens:
		return fmt.Errorf("dit: latents of %d×%d, want multiples of %d", s.Height, s.Width, n.patch)
	case n.tokens(s) > maxTokens:
		return fmt.Errorf("dit: latents of %d×%d make %d tokens, more than %d", s.Height, s.Width, n.tokens(s), maxTokens)
	case text && (s.Tokens < 1 || s.Tokens > maxTokens):
		return fmt.Errorf("dit: %d text tokens, want 1 to %d", s.Tokens, maxTokens)
	case !text && s.Tokens != 0:
		return fmt.Errorf("dit: %d text tokens for a network without text", s.Tokens)
	}
	return nil
}

func newState(owner any, s Shape, l layout) *State {
	room := func(n int) []float32 { return make([]float32, n) }
	st := &State{
		owner: owner, shape: s, layout: l,
		x: room(l.stream), h: room(l.stream), q: room(l.stream), k: room(l.stream), v: room(l.stream),
		second: room(l.second), mlp: room(l.mlp), joined: room(l.joined), patches: room(l.patches),
		frequencies: room(timeChannels), time: room(l.width), embed: room(l.width), active: room(l.width),
		mod: room(l.mod), scale: room(l.width),
		positions: room(l.image), cos: room(l.angles), sin: room(l.angles), context: room(l.contexts), pooled: room(l.pooled),
		labels: make([]int, l.batch), lengths: make([]int, l.batch),
	}
	for range l.blocks {
		st.cross = append(st.cross, room(l.cross))
	}
	return st
}

// bytes returns the memory of a state, and of what tensor.Exec keeps beside it: keys and
// values in the kernels' order, and the activations of a product.
func (l layout) bytes() int64 {
	own := 5*l.stream + l.second + l.mlp + l.joined + l.patches + timeChannels + 4*l.width + l.mod +
		l.image + 2*l.angles + l.contexts + l.pooled + l.blocks*l.cross + 4*l.batch
	keys := (l.longest + 128) * l.heads * (l.dim + 16)
	return 4 * int64(own+2*keys+max(l.stream, l.mlp, l.joined))
}

// Bytes returns the memory of the state and of the operations on it.
func (st *State) Bytes() int64 { return st.layout.bytes() }

// textPart, imagePart and whole return streams of the member at work.
func (st *State) textPart() part  { return st.part(0, st.layout.text) }
func (st *State) imagePart() part { return st.part(st.layout.text, st.layout.stream) }
func (st *State) whole() part     { return st.part(0, st.layout.stream) }

// part is some tokens of the member at work: their residual stream x, and room.
type part struct{ x, h, q, k, v []float32 }

func (st *State) part(lo, hi int) part {
	return part{st.x[lo:hi], st.h[lo:hi], st.q[lo:hi], st.k[lo:hi], st.v[lo:hi]}
}

func (st *State) show(name string, x []float32) {
	if st.observe != nil {
		st.observe(name, x)
	}
}

func (st *State) showBlock(i int, x []float32) {
	if st.observe != nil {
		st.observe("block"+strconv.Itoa(i), x)
	}
}

// call is what Forward was given.
type call struct {
	y, x, t []float32
}

// check returns an error unless the call fits network and state.
func (st *State) check(owner any, n backbone, c call) error {
	s := st.shape
	pixels := s.Batch * s.Height * s.Width
	switch {
	case st.owner != owner:
		return errors.New("dit: the state belongs to another network")
	case len(c.x) != pixels*n.in || len(c.y) != pixels*n.out || len(c.t) != s.Batch:
		return fmt.Errorf("dit: %d floats into %d at %d times, want latents [%d, %d, %d, %d] and %d channels of output",
			len(c.x), len(c.y), len(c.t), s.Batch, s.Height, s.Width, n.in, n.out)
	}
	return nil
}

// member returns the latents and the output of member b.
func (st *State) member(n backbone, c call, b int) (y, x []float32) {
	pixels := st.shape.Height * st.shape.Width
	return c.y[b*pixels*n.out:][:pixels*n.out], c.x[b*pixels*n.in:][:pixels*n.in]
}

// sines writes the sines and cosines of a number, commonly a time, into st.frequencies.
// shift is downscale_freq_shift.
func (st *State) sines(t float32, shift float64) {
	nn.Timesteps{Channels: timeChannels, Flip: true, FreqShift: shift}.Forward(st.frequencies, []float32{t})
}

// embedTime makes the vector that modulates member b: that of its time, added to what the
// condition made of other vectors.
func (st *State) embedTime(e *tensor.Exec, f embedder, t float32, b int) {
	st.sines(t, 0)
	f.forward(e, st.time, st.frequencies, st.scale)
	e.Add(st.time, st.pooled[b*st.layout.width:][:st.layout.width])
	st.show("time_text_embed", st.time)
	st.activate(e)
}

// activate makes what the linear layers of modulations read.
func (st *State) activate(e *tensor.Exec) {
	copy(st.active, st.time)
	e.Activate(tensor.SiLU, st.active)
}

// stop returns the reason if the call is over.
func stop(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
