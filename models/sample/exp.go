package sample

import "math"

// powers has 2**(i/64).
var powers = [64]float64{
	1.0, 1.0108892860517005, 1.0218971486541166, 1.0330248790212284,
	1.0442737824274138, 1.0556451783605572, 1.0671404006768237, 1.0787607977571199,
	1.0905077326652577, 1.102382583307841, 1.1143867425958924, 1.1265216186082418,
	1.1387886347566916, 1.1511892299529827, 1.1637248587775775, 1.1763969916502812,
	1.189207115002721, 1.202156731452703, 1.215247359980469, 1.22848053610687,
	1.241857812073484, 1.255380757024691, 1.2690509571917332, 1.2828700160787783,
	1.2968395546510096, 1.3109612115247644, 1.3252366431597413, 1.339667524053303,
	1.3542555469368927, 1.3690024229745905, 1.383909881963832, 1.3989796725383112,
	1.4142135623730951, 1.42961333839197, 1.4451808069770467, 1.460917794180647,
	1.4768261459394993, 1.4929077282912648, 1.5091644275934228, 1.5255981507445384,
	1.5422108254079407, 1.559004400237837, 1.5759808451078865, 1.593142151342267,
	1.6104903319492543, 1.6280274218573478, 1.645755478153965, 1.6636765803267364,
	1.681792830507429, 1.7001063537185235, 1.718619298122478, 1.7373338352737062,
	1.7562521603732995, 1.7753764925265212, 1.7947090750031072, 1.8142521755003989,
	1.8340080864093424, 1.8539791250833855, 1.8741676341103, 1.8945759815869656,
	1.9152065613971474, 1.9360617934922943, 1.9571441241754002, 1.978456026387951,
}

// exp returns e**x for x <= 0, to about one unit in the last place, and 0 below
// 1e-307. math.Exp is written in assembly on some machines and rounds differently
// there; this is one sequence of float64 operations, with explicit conversions where a
// compiler could otherwise fuse a multiplication with an addition.
//
// The method is Tang's (1989, "Table-driven implementation of the exponential
// function"): x = k·ln 2/64 + r with |r| <= ln 2/128, the power of two from a table,
// and e**r from five terms of its series.
func exp(x float64) float64 {
	const (
		perUnit = 92.33248261689366   // 64/ln 2
		stepHi  = 0.01083042469326756 // ln 2/64, exact times k
		stepLo  = 2.9815858269852933e-12
		tiny    = -708    // below, the result would be denormal; it is 0
		round   = 3 << 51 // added and taken away, it rounds to an integer
	)
	if x < tiny {
		return 0
	}
	shifted := float64(x*perUnit) + round
	k := shifted - round
	r := (x - float64(k*stepHi)) - float64(k*stepLo)
	square := float64(r * r)
	// e**r - 1 = r + r²/2 + r³/6 + r⁴/24 + r⁵/120.
	tail := float64(r*(1./120)) + 1./24
	tail = float64(r*tail) + 1./6
	tail = float64(r*tail) + 1./2
	y := r + float64(square*tail)
	i := int64(math.Float64bits(shifted)<<13) >> 13 // k
	power := powers[i&63]
	y = power + float64(power*y)
	return math.Float64frombits(math.Float64bits(y) + uint64(i>>6)<<52) // times 2**(k/64 without its fraction)
}
