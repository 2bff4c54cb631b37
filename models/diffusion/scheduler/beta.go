package scheduler

import "math"

// betaQuantile returns the x at which the cumulative beta distribution reaches q, by
// bisection.
func betaQuantile(q, a, b float64) float64 {
	low, high := 0.0, 1.0
	for range 60 {
		if mid := (low + high) / 2; betaCDF(mid, a, b) < q {
			low = mid
		} else {
			high = mid
		}
	}
	return (low + high) / 2
}

// betaCDF is the regularised incomplete beta function, by its continued fraction
// (Abramowitz and Stegun 26.5.8).
func betaCDF(x, a, b float64) float64 {
	if x <= 0 || x >= 1 {
		return min(max(x, 0), 1)
	}
	if x > (a+1)/(a+b+2) {
		return 1 - betaCDF(1-x, b, a)
	}
	lga, _ := math.Lgamma(a)
	lgb, _ := math.Lgamma(b)
	lgab, _ := math.Lgamma(a + b)
	front := math.Exp(lgab-lga-lgb+a*math.Log(x)+b*math.Log1p(-x)) / a
	// The fraction 1/(1 + d₁/(1 + d₂/(1 + …))), from its tail: 60 terms are exact to double
	// precision for x below the mean.
	f := 1.0
	for n := 60; n > 0; n-- {
		m := float64(n / 2)
		d := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		if n%2 == 1 {
			d = -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		}
		f = 1 + d/f
	}
	return front / f
}
