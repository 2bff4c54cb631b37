package diffusion

import (
	"context"
	"image"
	"math"

	"helicon/models/vae"
)

// projection is a linear map from latents to colours in 0..1: what a VAE does, roughly,
// at a pixel a latent.
type projection struct {
	weights [3][]float32 // [channels] of red, green and blue
	bias    [3]float32
}

// projection returns the pipeline's, which is made when it is first needed.
func (p *Pipeline) projection(ctx context.Context, d *drawing) (*projection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.preview == nil {
		made, err := p.project(ctx, d)
		if err != nil {
			return nil, err
		}
		p.preview = made
	}
	return p.preview, nil
}

// Of the latents that the projection is learned from: a checkerboard of random patches.
const (
	patches   = 8 // on a side
	patchSide = 2 // latents
)

// project learns the projection from the VAE's decoder, whatever its latents mean: it
// decodes random patches and fits their colours by least squares.
func (p *Pipeline) project(ctx context.Context, d *drawing) (*projection, error) {
	l := p.vae.Latents()
	c, side := l.Channels, patches*patchSide
	patch := make([]float32, patches*patches*c)
	seededNoise(0)(startStream, patch)
	z := make([]float32, side*side*c)
	for i := range side * side {
		at := i/side/patchSide*patches + i%side/patchSide
		copy(z[i*c:], patch[at*c:][:c])
	}
	l.FromModel(z)
	wide := side * l.Down
	x := make([]float32, wide*wide*3)
	if err := p.vae.Decode(ctx, d.e, d.vae, x, vae.Map{Data: z, Width: side, Height: side}); err != nil {
		return nil, err
	}
	var q projection
	colours := means(unsigned(x), wide, patchSide*l.Down)
	for k := range 3 {
		fitted := leastSquares(patch, c, func(i int) float64 { return float64(colours[3*i+k]) })
		for _, w := range fitted[:c] {
			q.weights[k] = append(q.weights[k], float32(w))
		}
		q.bias[k] = float32(fitted[c])
	}
	return &q, nil
}

// means returns the mean colours [n, 3] of the squares of a square picture [wide, wide, 3].
func means(x []float32, wide, square int) []float32 {
	n := wide / square
	out := make([]float32, n*n*3)
	for i := range wide * wide {
		at := i/wide/square*n + i%wide/square
		for k := range 3 {
			out[3*at+k] += x[3*i+k] / float32(square*square)
		}
	}
	return out
}

// leastSquares fits y(i) ≈ Σ w_k·x[i, k] + w_c over the rows of x [_, c], by the normal
// equations with a little damping.
func leastSquares(x []float32, c int, y func(i int) float64) []float64 {
	n := c + 1
	m := make([][]float64, n)
	for r := range m {
		m[r] = make([]float64, n+1)
		m[r][r] = 1e-3
	}
	row := make([]float64, n)
	for i := range len(x) / c {
		for k, v := range x[i*c:][:c] {
			row[k] = float64(v)
		}
		row[c] = 1
		for r := range n {
			for k := range n {
				m[r][k] += row[r] * row[k]
			}
			m[r][n] += row[r] * y(i)
		}
	}
	// Positive definite: Gauss's elimination needs no pivots.
	for k := range n {
		for r := range n {
			if r == k {
				continue
			}
			f := m[r][k] / m[k][k]
			for j := k; j <= n; j++ {
				m[r][j] -= f * m[k][j]
			}
		}
	}
	w := make([]float64, n)
	for i := range w {
		if w[i] = m[i][n] / m[i][i]; math.IsNaN(w[i]) {
			w[i] = 0
		}
	}
	return w
}

// apply returns a picture of latents, a pixel each.
func (q *projection) apply(z []float32, s shape) *image.NRGBA {
	x := make([]float32, s.height*s.width*3)
	for i := range s.height * s.width {
		latent := z[i*s.channels:][:s.channels]
		for k := range 3 {
			v := q.bias[k]
			for c, w := range q.weights[k] {
				v += w * latent[c]
			}
			x[3*i+k] = v
		}
	}
	return paint(x, s.width, s.height)
}
