package sample

import "math"

// exp returns e**x for x <= 0, to about one unit in the last place, and 0 below
// 1e-307. math.Exp
// is written in assembly on some machines and rounds differently there; this
// is one sequence of float64 operations, with explicit conversions where a
// compiler could otherwise fuse a multiplication with an addition.
//
// The method is that of FreeBSD's e_exp.c: x = k·ln 2 + r with |r| <= ln 2/2,
// and a rational approximation of e**r.
func exp(x float64) float64 {
	const (
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
		tiny  = -708 // below, the result would be denormal; it is 0

		p1 = 1.66666666666666657415e-01
		p2 = -2.77777777770155933842e-03
		p3 = 6.61375632143793436117e-05
		p4 = -1.65339022054652515390e-06
		p5 = 4.13813679705723846039e-08
	)
	if x < tiny {
		return 0
	}
	k := math.Floor(float64(x*math.Log2E) + 0.5)
	hi := x - float64(k*ln2Hi)
	lo := float64(k * ln2Lo)
	r := hi - lo
	t := float64(r * r)
	// Horner's scheme: p1 + t·(p2 + t·(p3 + t·(p4 + t·p5))).
	c := p4 + float64(t*p5)
	c = p3 + float64(t*c)
	c = p2 + float64(t*c)
	c = p1 + float64(t*c)
	c = r - float64(t*c)
	y := 1 - ((lo - float64(r*c)/(2-c)) - hi)
	return math.Float64frombits(math.Float64bits(y) + uint64(int64(k))<<52) // y·2**k
}
