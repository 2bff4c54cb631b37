package diffusion

import "math"

// guide writes to y [N] the prediction that goes from the one without the prompt on to
// the one with it, and further: y = without + scale·(with - without) (Ho and Salimans
// 2022). both is [2, N], without first.
//
// rescale, 0 to 1, is how far the result gets the spread of the prediction with the
// prompt, which a large scale exceeds (Lin et al. 2023, section 3.4).
func guide(y, both []float32, scale, rescale float32) {
	without, with := both[:len(y)], both[len(y):]
	for i, u := range without {
		y[i] = u + scale*(with[i]-u)
	}
	if rescale == 0 {
		return
	}
	factor := rescale*float32(deviation(with)/deviation(y)) + 1 - rescale
	if math.IsNaN(float64(factor)) || math.IsInf(float64(factor), 0) {
		return // there is no spread to be changed
	}
	for i := range y {
		y[i] *= factor
	}
}

// deviation returns the standard deviation of x.
func deviation(x []float32) float64 {
	mean, squares := 0.0, 0.0
	for _, v := range x {
		mean += float64(v)
	}
	mean /= float64(len(x))
	for _, v := range x {
		squares += (float64(v) - mean) * (float64(v) - mean)
	}
	return math.Sqrt(squares / float64(len(x)))
}
