package vits

import "math"

// spline is a monotonic function made of quotients of parabolas (Durkan et al. 2019), within
// a square around 0, and the identity outside.
type spline struct {
	bound  float64
	x, y   []float64 // of the knots
	slopes []float64 // at the knots
}

const (
	leastBin   = 1e-3 // of the square's side
	leastSlope = 1e-3
)

// newSpline returns the spline that a network describes: widths and heights of the bins before
// softmax, to be divided by root, and the slopes at the inner knots before softplus. At the
// outer ones the slope is 1.
func newSpline(widths, heights, slopes []float32, root, bound float64) spline {
	s := spline{bound: bound, x: knots(widths, root, bound), y: knots(heights, root, bound)}
	s.slopes = append(s.slopes, 1)
	for _, v := range slopes {
		s.slopes = append(s.slopes, leastSlope+softplus(float64(v)))
	}
	s.slopes = append(s.slopes, 1)
	return s
}

func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// knots returns where bins begin and end, from -bound to bound.
func knots(sizes []float32, root, bound float64) []float64 {
	most := math.Inf(-1)
	for _, v := range sizes {
		most = max(most, float64(v)/root)
	}
	sum := 0.0
	exps := make([]float64, len(sizes))
	for i, v := range sizes {
		exps[i] = math.Exp(float64(v)/root - most)
		sum += exps[i]
	}
	at := make([]float64, len(sizes)+1)
	share := 0.0
	for i, v := range exps {
		share += leastBin + (1-leastBin*float64(len(sizes)))*v/sum
		at[i+1] = 2*bound*share - bound
	}
	at[0], at[len(sizes)] = -bound, bound
	return at
}

// inverse returns the x whose value is y.
func (s spline) inverse(y float64) float64 {
	if !(y >= -s.bound && y <= s.bound) {
		return y
	}
	k := 0
	for k+2 < len(s.y) && y >= s.y[k+1] {
		k++
	}
	width, height := s.x[k+1]-s.x[k], s.y[k+1]-s.y[k]
	delta := height / width
	from := y - s.y[k]
	bend := from * (s.slopes[k] + s.slopes[k+1] - 2*delta)
	a := height*(delta-s.slopes[k]) + bend
	b := height*s.slopes[k] - bend
	c := -delta * from
	root := 2 * c / (-b - math.Sqrt(max(b*b-4*a*c, 0)))
	return root*width + s.x[k]
}
