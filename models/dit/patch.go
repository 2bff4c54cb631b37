package dit

import (
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// patchEmbed makes a token of each patch of the latents: a convolution whose stride is its
// kernel (Dosovitskiy et al. 2020).
type patchEmbed struct{ proj nn.Conv2d }

// patchEmbed reads "proj".
func (l *loader) patchEmbed(s *weights.Store, n backbone) patchEmbed {
	if l.err != nil {
		return patchEmbed{}
	}
	side := [2]int{n.patch, n.patch}
	var m patchEmbed
	m.proj, l.err = nn.LoadConv2d(fine(s.Sub("proj")), tensor.ConvConfig{In: n.in, Out: n.width(), Kernel: side, Stride: side}, true)
	if l.err == nil {
		l.bytes += m.proj.Bytes()
	}
	return m
}

// forward writes the tokens [T, C] of latents x and adds their positions.
func (m *patchEmbed) forward(e *tensor.Exec, st *State, tokens, x []float32) {
	m.proj.Forward(e, tensor.Convolution{Y: tokens, X: x, Height: st.shape.Height, Width: st.shape.Width})
	e.Add(tokens, st.positions)
	st.show("pos_embed", tokens)
}

// unpatch puts patches [T, patch, patch, out] together to latents y [H, W, out].
func (n backbone) unpatch(y, patches []float32, width int) {
	run := n.patch * n.out // floats of a row of a patch
	across := width / n.patch
	for i := 0; len(patches) > 0; i++ {
		at := (i/across*n.patch*width + i%across*n.patch) * n.out
		for range n.patch {
			copy(y[at:at+run], patches)
			patches, at = patches[run:], at+width*n.out
		}
	}
}

// grid is where tokens lie.
type grid struct {
	height, width        int     // tokens
	top, left            int     // place of the first
	stepDown, stepAcross float64 // from one to the next
}

// sincos writes the fixed positions [height, width, C] of a grid: a quarter of the channels
// each has sines and cosines of the column, and sines and cosines of the row.
func (g grid) sincos(y []float32, channels int) {
	quarter := channels / 4
	for i := range g.height * g.width {
		row := y[i*channels:][:channels]
		places := [2]float64{float64(g.left+i%g.width) * g.stepAcross, float64(g.top+i/g.width) * g.stepDown}
		for axis, place := range places {
			half := row[axis*2*quarter:][:2*quarter]
			for j := range quarter {
				sin, cos := math.Sincos(place * math.Pow(10000, -float64(j)/float64(quarter)))
				half[j], half[quarter+j] = float32(sin), float32(cos)
			}
		}
	}
}

// stretched is the grid of latents of a shape whose sides are as long as those of the
// square that the network was trained with: base tokens, interpolation positions apart.
func (n backbone) stretched(s Shape, base int, interpolation float64) grid {
	h, w := s.Height/n.patch, s.Width/n.patch
	return grid{
		height: h, width: w,
		stepDown: float64(base) / float64(h) / interpolation, stepAcross: float64(base) / float64(w) / interpolation,
	}
}

func rootInverse(n int) float32 { return float32(1 / math.Sqrt(float64(n))) }
