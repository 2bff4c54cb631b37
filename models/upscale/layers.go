package upscale

import (
	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// state is the activations of a tile, allocated once a picture. p is source pixels, or of
// RRDBNet squares of them.
type state struct {
	features [4][]float32 // [p, Features]
	growth   []float32    // [p, Growth]
	joined   [2][]float32 // [p, Features + up to 4·Growth]
	large    [2][]float32 // [p·4^ups, Features]
	channels []float32    // [p, 3·Scale²], or of RRDBNet [p, 3·shuffle²]
}

// sizes returns the floats of a state's parts for so many source pixels.
func (n *Info) sizes(pixels int) (features, growth, joined, large, channels int) {
	if n.Architecture == SRVGGNetCompact {
		return pixels * n.Features, 0, 0, 0, pixels * 3 * n.Scale * n.Scale
	}
	p := pixels / (n.shuffle * n.shuffle)
	return p * n.Features, p * n.Growth, p * (n.Features + 4*n.Growth), p * n.Features << (2 * n.ups), pixels * 3
}

func (n *Info) newState(pixels int) *state {
	features, growth, joined, large, channels := n.sizes(pixels)
	st := &state{growth: make([]float32, growth), channels: make([]float32, channels)}
	for i := range n.copies() {
		st.features[i] = make([]float32, features)
	}
	for i := range 2 {
		st.joined[i], st.large[i] = make([]float32, joined), make([]float32, large)
	}
	return st
}

// copies is how many maps of features there are at once.
func (n *Info) copies() int {
	if n.Architecture == SRVGGNetCompact {
		return 2
	}
	return 4
}

// workspace returns the memory of a tile: its state, its pixels, and those of the result.
func (n Info) workspace(pixels int) int64 {
	features, growth, joined, large, channels := n.sizes(pixels)
	floats := n.copies()*features + growth + 2*(joined+large) + channels + 3*pixels*(1+n.Scale*n.Scale)
	return 4 * int64(floats)
}

// loader reads layers, adds up their memory, and remembers the first error.
type loader struct {
	bytes int64
	err   error
}

// conv reads a convolution of 3×3 whose result is as large as what it reads, enlarged
// before by upsample.
func (l *loader) conv(s *weights.Store, in, out, upsample int) nn.Conv2d {
	if l.err != nil {
		return nn.Conv2d{}
	}
	var c nn.Conv2d
	config := tensor.ConvConfig{In: in, Out: out, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}, Upsample: upsample}
	if c, l.err = nn.LoadConv2d(s, config, true); l.err == nil {
		l.bytes += c.Bytes()
	}
	return c
}

// slopes reads those of a PReLU, one a channel or one for all.
func (l *loader) slopes(s *weights.Store, channels int) []float32 {
	if l.err != nil {
		return nil
	}
	t, err := s.Tensor("weight", channels)
	if err != nil {
		one, oneErr := s.Tensor("weight", 1)
		if oneErr != nil {
			l.err = err
			return nil
		}
		return constant(one.Float32s()[0], channels)
	}
	l.bytes += 4 * int64(channels)
	return t.Float32s()
}

// fine returns the store for layers next to the pixels: they are kept as they are stored
// where others are cut to 8 bits.
func fine(s *weights.Store) *weights.Store {
	p := s.Packing()
	if p.On && p.Compute == tensor.I8 {
		return s.Packed(p.Arena, 0)
	}
	return s
}

func constant(v float32, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = v
	}
	return x
}

// shuffle puts the channels of x [h, w, 3·side²] side by side as pixels of y [h·side,
// w·side, 3], and adds base [h, w, 3] to all of a square (Shi et al. 2016).
func shuffle(y, x []float32, base tile, side int) {
	square := side * side
	line := base.width * side * 3
	for i := range base.height * base.width {
		from := x[i*3*square:][:3*square]
		at := i/base.width*side*line + i%base.width*side*3
		for c, v := range base.data[i*3:][:3] {
			for q := range square {
				y[at+q/side*line+q%side*3+c] = from[c*square+q] + v
			}
		}
	}
}

// unshuffle makes the pixels of each square of x channels of one pixel of y [h/side,
// w/side, 3·side²].
func unshuffle(y []float32, x tile, side int) {
	square := side * side
	for i := range x.height * x.width {
		row, column := i/x.width, i%x.width
		at := (row/side*(x.width/side)+column/side)*3*square + row%side*side + column%side
		for c := range 3 {
			y[at+c*square] = x.data[i*3+c]
		}
	}
}
