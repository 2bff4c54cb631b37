package tensor

import (
	"fmt"
	"math"
)

// RMSNorm computes y = x / √(mean(x²) + eps) · weight for each row of len(weight)
// (Zhang and Sennrich 2019). y may be x.
func (e *Exec) RMSNorm(y, x, weight []float32, eps float32) {
	rows := rowsOf(len(x), len(weight), "norm")
	e.runRows(rowTask{op: rmsNorm, y: y[:len(x)], x: x, a: weight, eps: eps, rows: rows, cols: len(weight)})
}

func rmsNorm(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		x, y := t.x[r*t.cols:][:t.cols], t.y[r*t.cols:][:t.cols]
		_, squares := moments(t.level, x, 0)
		f := affine{w: t.a, scale: float32(1 / math.Sqrt(squares/float64(t.cols)+float64(t.eps)))}
		f.apply(t.level, y, x)
	}
}

// LayerNorm computes y = (x - mean) / √(variance + eps) · weight + bias for each
// row of len(weight) (Ba et al. 2016). bias may be nil; y may be x.
func (e *Exec) LayerNorm(y, x, weight, bias []float32, eps float32) {
	rows := rowsOf(len(x), len(weight), "norm")
	if bias != nil && len(bias) != len(weight) {
		panic(fmt.Sprintf("tensor: layer norm with %d weights and %d biases", len(weight), len(bias)))
	}
	e.runRows(rowTask{op: layerNorm, y: y[:len(x)], x: x, a: weight, b: bias, eps: eps, rows: rows, cols: len(weight), heads: 1})
}

// HeadLayerNorm is LayerNorm without bias over each head of x [T, heads, D] for
// itself, with the head's own weights of weight [heads, D]. y may be x.
func (e *Exec) HeadLayerNorm(y, x, weight []float32, heads int, eps float32) {
	dim := rowsOf(len(weight), heads, "norm")
	rowsOf(len(x), len(weight), "norm")
	e.runRows(rowTask{op: layerNorm, y: y[:len(x)], x: x, a: weight, eps: eps, rows: len(x) / dim, cols: dim, heads: heads})
}

func layerNorm(t *rowTask, lo, hi int) {
	n := float64(t.cols)
	for r := lo; r < hi; r++ {
		x, y := t.x[r*t.cols:][:t.cols], t.y[r*t.cols:][:t.cols]
		sum, _ := moments(t.level, x, 0)
		mean := float32(sum / n)
		_, squares := moments(t.level, x, mean)
		f := affine{w: t.a[r%t.heads*t.cols:][:t.cols], b: t.b, mean: mean}
		f.scale = float32(1 / math.Sqrt(squares/n+float64(t.eps)))
		f.apply(t.level, y, x)
	}
}

// GroupNorm normalises images or sequences over groups of channels (Wu and He 2018)
// and applies an activation in the same pass.
type GroupNorm struct {
	Y            []float32 // [B, P, C], P positions or pixels; may be X
	X            []float32 // [B, P, C]
	Weight, Bias []float32 // [C]
	Batch        int       // B; 0 is 1
	Groups       int       // runs of C/Groups channels
	Eps          float32
	Activation   Activation // 0 is none
}

// GroupNorm computes y = f((x - mean) / √(variance + eps) · weight + bias), mean and
// variance those of the group of channels over all positions of an image. C is a
// multiple of Groups.
func (e *Exec) GroupNorm(g GroupNorm) {
	batch, c := max(g.Batch, 1), len(g.Weight)
	if g.Activation == 0 {
		g.Activation = Identity
	}
	g.Activation.check()
	if c == 0 || len(g.Bias) != c || g.Groups <= 0 || c%g.Groups != 0 || len(g.X)%(batch*c) != 0 || len(g.Y) != len(g.X) {
		panic(fmt.Sprintf("tensor: norm of %d groups over %d floats into %d, with %d weights and %d biases, batch %d",
			g.Groups, len(g.X), len(g.Y), c, len(g.Bias), batch))
	}
	if len(g.X) == 0 {
		return
	}
	t := &e.groups
	t.GroupNorm, t.level, t.c = g, e.features.level, c
	t.pixels = len(g.X) / (batch * c)
	t.perImage = (t.pixels + groupPixels - 1) / groupPixels
	t.sums = grown(t.sums, 2*batch*t.perImage*c)
	t.factors = grown(t.factors, 2*batch*c)
	if len(t.totals) < 2*c {
		t.totals = make([]float64, 2*c)
	}
	t.apply = false
	e.run(t, batch*t.perImage)
	for b := range batch {
		t.combine(b)
	}
	t.apply = true
	e.run(t, batch*t.perImage)
}

// groupTask is a call of GroupNorm. A part is a run of positions, of which the moments
// of each channel are taken first, and which is normalised later.
type groupTask struct {
	GroupNorm
	level    Level
	c        int
	pixels   int
	perImage int       // parts of an image
	sums     []float32 // [parts, 2, C], moments about the image's first position
	totals   []float64 // [2, C], of an image
	factors  []float32 // [B, 2, C], y = f(x·factors[0] + factors[1])
	apply    bool
}

// groupPixels is the number of positions in a part. It does not depend on the number of
// threads: sums have the same order for all.
const groupPixels = 128

func (t *groupTask) part(i int) {
	b, first := i/t.perImage, i%t.perImage*groupPixels
	n := min(groupPixels, t.pixels-first)
	image := b * t.pixels * t.c
	x := t.X[image+first*t.c:][:n*t.c]
	if !t.apply {
		s := t.sums[2*i*t.c:][:2*t.c]
		clear(s)
		sums := columns{sum: s[:t.c], squares: s[t.c:], c: t.X[image:][:t.c]}
		for ; len(x) > 0; x = x[t.c:] {
			sums.add(t.level, x[:t.c])
		}
		return
	}
	y := t.Y[image+first*t.c:][:n*t.c]
	factors := t.factors[2*b*t.c:][:2*t.c]
	f := affine{w: factors[:t.c], b: factors[t.c:], scale: 1}
	for ; len(x) > 0; x, y = x[t.c:], y[t.c:] {
		f.apply(t.level, y[:t.c], x[:t.c])
		if t.Activation != Identity {
			activate(t.level, t.Activation, y[:t.c], y[:t.c], nil)
		}
	}
}

// combine makes the factors of an image from the sums of its parts.
func (t *groupTask) combine(b int) {
	size, n := t.c/t.Groups, float64(t.pixels)
	total := t.totals[:2*t.c]
	clear(total)
	for i := b * t.perImage; i < (b+1)*t.perImage; i++ {
		for c, s := range t.sums[2*i*t.c:][:len(total)] {
			total[c] += float64(s)
		}
	}
	pivot := t.X[b*t.pixels*t.c:]
	factors := t.factors[2*b*t.c:][:2*t.c]
	for g := range t.Groups {
		var mean, square float64 // of the group
		for c := g * size; c < (g+1)*size; c++ {
			p, s := float64(pivot[c]), total[c]/n
			mean += (p + s) / float64(size)
			square += (total[t.c+c]/n + 2*p*s + p*p) / float64(size)
		}
		variance := max(square-mean*mean, 0)
		scale := 1 / math.Sqrt(variance+float64(t.Eps))
		for c := g * size; c < (g+1)*size; c++ {
			w := scale * float64(t.Weight[c])
			factors[c] = float32(w)
			factors[t.c+c] = float32(float64(t.Bias[c]) - mean*w)
		}
	}
}
