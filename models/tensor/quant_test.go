package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

var blockDTypes = []DType{Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K}

// element computes element k of a block from the format's definition, one element at
// a time, as the specification of Dequantize.
func element(d DType, src []byte, k int) float64 {
	f16 := func(at int) float64 { return float64(halfToFloat(binary.LittleEndian.Uint16(src[at:]))) }
	nibble := func(at, k int) int { // 32 elements in 16 bytes
		return int(src[at+k%16]) >> (4 * (k / 16)) & 15
	}
	bit := func(at, k int) int { return int(src[at+k/8]) >> (k % 8) & 1 }
	switch d {
	case Q8_0:
		return f16(0) * float64(int8(src[2+k]))
	case Q4_0:
		return f16(0) * float64(nibble(2, k)-8)
	case Q4_1:
		return f16(0)*float64(nibble(4, k)) + f16(2)
	case Q5_0:
		return f16(0) * float64(nibble(6, k)+16*bit(2, k)-16)
	case Q5_1:
		return f16(0)*float64(nibble(8, k)+16*bit(4, k)) + f16(2)
	case Q4_K, Q5_K:
		g, s := k/32, src[4:16]
		scale, offset := int(s[g%4]&63), int(s[4+g%4]&63)
		if g >= 4 {
			scale = int(s[g+4]&15) | int(s[g-4]>>6)<<4
			offset = int(s[g+4]>>4) | int(s[g]>>6)<<4
		}
		at, high := 16, 0
		if d == Q5_K {
			at, high = 48, 16*(int(src[16+k%32])>>g&1)
		}
		level := int(src[at+k/64*32+k%32])>>(4*(g%2))&15 + high
		return f16(0)*float64(scale*level) - f16(2)*float64(offset)
	case Q6_K:
		half, j, i := k/128, k%128/32, k%32
		low := int(src[64*half+j%2*32+i]) >> (4 * (j / 2)) & 15
		high := int(src[128+32*half+i]) >> (2 * j) & 3
		return f16(208) * float64(int(int8(src[192+k/16]))*(low+16*high-32))
	}
	panic("no block type")
}

// randomBlocks returns blocks of random bytes whose halves are finite and moderate.
func randomBlocks(random *rand.Rand, d DType, blocks int) []byte {
	_, size := d.Block()
	data := make([]byte, blocks*size)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	for at := 0; at < len(data); at += size {
		for _, h := range halves(d) {
			v := float32(0.5 + random.Float64())
			if random.IntN(2) == 0 {
				v = -v
			}
			binary.LittleEndian.PutUint16(data[at+h:], floatToHalf(v))
		}
	}
	return data
}

// halves returns where the halves of a block lie.
func halves(d DType) []int {
	switch d {
	case Q6_K:
		return []int{208}
	case Q4_1, Q5_1, Q4_K, Q5_K:
		return []int{0, 2}
	}
	return []int{0}
}

func TestDequantize(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, d := range blockDTypes {
		n, size := d.Block()
		src := randomBlocks(random, d, 9)
		got := make([]float32, 9*n)
		Dequantize(got, d, src)
		for i, g := range got {
			if want := float32(element(d, src[i/n*size:], i%n)); g != want {
				t.Fatalf("%v: element %d of block %d is %v, want %v", d, i%n, i/n, g, want)
			}
		}
	}
}

// TestKnownBlocks has the values of blocks written down byte by byte.
func TestKnownBlocks(t *testing.T) {
	t.Parallel()
	const one, two = 0x3c00, 0x4000 // halves
	block := func(size int, bytes map[int]byte) []byte {
		b := make([]byte, size)
		for at, v := range bytes {
			b[at] = v
		}
		return b
	}
	for _, c := range []struct {
		d      DType
		halves []uint16
		bytes  map[int]byte
		want   map[int]float32
	}{
		{Q8_0, []uint16{two}, map[int]byte{2: 0x80, 3: 0x7f, 33: 0xff}, map[int]float32{0: -256, 1: 254, 2: 0, 31: -2}},
		{Q4_0, []uint16{two}, map[int]byte{2: 0xf0, 17: 0x8f}, map[int]float32{0: -16, 16: 14, 15: 14, 31: 0}},
		{Q4_1, []uint16{one, two}, map[int]byte{4: 0xf3, 19: 0x1f}, map[int]float32{0: 5, 16: 17, 15: 17, 31: 3}},
		{Q5_0, []uint16{one}, map[int]byte{2: 0x01, 5: 0x80, 6: 0x0f, 21: 0x20}, map[int]float32{0: 15, 16: -16, 31: 2, 1: -16}},
		{Q5_1, []uint16{one, two}, map[int]byte{4: 0x02, 6: 0x01, 9: 0x03}, map[int]float32{1: 21, 16: 18, 0: 2}},
		// Group 1 has scale 3, offset 1; group 5 scale 2+16 and offset 1+32.
		{Q4_K, []uint16{one, two}, map[int]byte{5: 0x43, 9: 0x81, 13: 0x12, 16: 0xf0, 80: 0x20},
			map[int]float32{32: 3*15 - 2, 33: -2, 160: 18*2 - 2*33, 161: -66, 0: 0}},
		{Q5_K, []uint16{one, two}, map[int]byte{5: 0x03, 9: 0x01, 17: 0x02, 49: 0x40}, map[int]float32{33: 3*20 - 2, 34: -2}},
		// Scale 1 of group 0, -1 of group 9.
		{Q6_K, []uint16{two}, map[int]byte{0: 0x05, 128: 0x03, 192: 1, 64 + 16: 0x04, 160 + 16: 0x01, 201: 0xff},
			map[int]float32{0: 2 * (5 + 48 - 32), 1: -64, 144: -2 * (4 + 16 - 32)}},
	} {
		n, size := c.d.Block()
		src := block(size, c.bytes)
		for i, at := range halves(c.d) {
			binary.LittleEndian.PutUint16(src[at:], c.halves[i])
		}
		got := make([]float32, n)
		Dequantize(got, c.d, src)
		for k, want := range c.want {
			if got[k] != want {
				t.Errorf("%v: element %d is %v, want %v", c.d, k, got[k], want)
			}
		}
	}
}

// TestEncodeBlocks decodes arbitrary blocks and encodes them to the same bytes.
func TestEncodeBlocks(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for _, d := range blockDTypes {
		_, size := d.Block()
		src, dst := randomBlocks(random, d, 50), make([]byte, size)
		for at := 0; at < len(src); at += size {
			var b block
			b.decode(d, src[at:at+size])
			b.encode(d, dst)
			if !bytes.Equal(dst, src[at:at+size]) {
				t.Fatalf("%v: block % x became % x", d, src[at:at+size], dst)
			}
		}
	}
}

// sources are distributions that weights come in, and such as break quantisers.
var sources = map[string]func(r *rand.Rand, i int) float32{
	"normal":    func(r *rand.Rand, i int) float32 { return float32(r.NormFloat64()) },
	"uniform":   func(r *rand.Rand, i int) float32 { return float32(2*r.Float64() - 1) },
	"positive":  func(r *rand.Rand, i int) float32 { return float32(3 + r.Float64()) },
	"negative":  func(r *rand.Rand, i int) float32 { return float32(-3 - r.Float64()) },
	"outliers":  func(r *rand.Rand, i int) float32 { return float32(math.Pow(r.NormFloat64(), 5)) },
	"constant":  func(r *rand.Rand, i int) float32 { return -0.7 },
	"zero":      func(r *rand.Rand, i int) float32 { return 0 },
	"one of a":  func(r *rand.Rand, i int) float32 { return float32(1 - min(i%97, 1)) },
	"symmetric": func(r *rand.Rand, i int) float32 { return float32(1 - 2*(i%2)) },
}

// TestQuantizeBounds checks the bounds that Quantize states.
func TestQuantizeBounds(t *testing.T) {
	t.Parallel()
	for name, source := range sources {
		random := rand.New(rand.NewPCG(5, 6))
		x := make([]float32, 40*superElements)
		for i := range x {
			x[i] = source(random, i)
		}
		for _, d := range blockDTypes {
			t.Run(fmt.Sprintf("%v/%s", d, name), func(t *testing.T) {
				n, _ := d.Block()
				data := make([]byte, d.Bytes(len(x)))
				Quantize(data, d, x)
				got := make([]float32, len(x))
				Dequantize(got, d, data)
				for at := 0; at < len(x); at += n {
					if n == superElements {
						_, size := d.Block()
						checkGroups(t, d, x[at:at+n], got[at:at+n], data[at/n*size:])
					} else {
						checkElements(t, d, x[at:at+n], got[at:at+n])
					}
				}
			})
		}
	}
}

func checkElements(t *testing.T, d DType, x, got []float32) {
	t.Helper()
	lo, hi := bounds(x)
	a, r := math.Abs(float64(extreme(x))), float64(hi)-float64(lo)
	bound := map[DType]float64{Q8_0: a / 254, Q5_0: a / 16, Q4_0: a / 8, Q5_1: r / 62, Q4_1: r / 30}[d]
	bound += 0x1p-11*(a+r) + 1e-6*a
	for i, v := range x {
		if e := math.Abs(float64(got[i]) - float64(v)); !(e <= bound) {
			t.Fatalf("element %d of %v is off by %g, bound %g", i, v, e, bound)
		}
	}
}

func checkGroups(t *testing.T, d DType, x, got []float32, data []byte) {
	t.Helper()
	var b block
	b.decode(d, data[:d.Bytes(len(x))])
	kind := blockTypes[d]
	step, offset := math.Abs(float64(halfToFloat(b.step))), math.Abs(float64(halfToFloat(b.offset)))
	for at := 0; at < len(x); at += kind.group {
		in, out := x[at:at+kind.group], got[at:at+kind.group]
		var squares float64
		for _, v := range in {
			squares += float64(v) * float64(v)
		}
		rms := math.Sqrt(squares / float64(len(in)))
		var e, w float64
		for i, v := range in {
			weight := math.Abs(float64(v)) + rms
			if d == Q6_K {
				weight = float64(v) * float64(v)
			}
			diff := float64(out[i]) - float64(v)
			e, w = e+weight*diff*diff, w+weight
		}
		if w == 0 {
			continue
		}
		lo, hi := bounds(in)
		a, r := math.Abs(float64(extreme(in))), float64(max(hi, 0)-min(lo, 0))
		bound := r/float64(2*kind.top) + float64(kind.top)*step/2 + offset/2
		if d == Q6_K {
			bound = a/32 + 16*step
		}
		bound += 0x1p-11*(a+r) + 1e-6*a
		if e := math.Sqrt(e / w); !(e <= bound) {
			t.Fatalf("group at %d is off by %g, bound %g", at, e, bound)
		}
	}
}

// TestQuantizeNormal pins the quality on normal weights: the root mean square error
// relative to the weights'.
func TestQuantizeNormal(t *testing.T) {
	t.Parallel()
	x := normal(8, 400*superElements)
	for d, limit := range map[DType]float64{
		Q8_0: 0.0055, Q4_0: 0.090, Q5_0: 0.045, Q4_1: 0.080, Q5_1: 0.039, Q4_K: 0.074, Q5_K: 0.037, Q6_K: 0.0185,
	} {
		data, got := make([]byte, d.Bytes(len(x))), make([]float32, len(x))
		Quantize(data, d, x)
		Dequantize(got, d, data)
		var e, s float64
		for i, v := range x {
			diff := float64(got[i]) - float64(v)
			e, s = e+diff*diff, s+float64(v)*float64(v)
		}
		if rms := math.Sqrt(e / s); !(rms <= limit) {
			t.Errorf("%v: error %.4f of the weights, want at most %.4f", d, rms, limit)
		} else {
			t.Logf("%v: %.4f", d, rms)
		}
	}
}

// TestQuantizeAgain quantises what was dequantised and gets the same values for the
// types whose extreme levels are always in use.
func TestQuantizeAgain(t *testing.T) {
	t.Parallel()
	x := normal(9, 50*superElements)
	for _, d := range []DType{Q8_0, Q4_0, Q5_0} {
		data, once, twice := make([]byte, d.Bytes(len(x))), make([]float32, len(x)), make([]float32, len(x))
		Quantize(data, d, x)
		Dequantize(once, d, data)
		Quantize(data, d, once)
		Dequantize(twice, d, data)
		same(t, d.String(), twice, once)
	}
}

func TestQuantizeOddValues(t *testing.T) {
	t.Parallel()
	for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, math.SmallestNonzeroFloat32} {
		for _, d := range blockDTypes {
			n, size := d.Block()
			x := normal(1, n)
			x[n/2] = v
			Quantize(make([]byte, size), d, x) // must not panic
		}
	}
	nan := make([]byte, 34)
	binary.LittleEndian.PutUint16(nan, 0x7e00)
	out := make([]float32, 32)
	Dequantize(out, Q8_0, nan)
	if !math.IsNaN(float64(out[31])) {
		t.Errorf("a scale that is NaN gives %v", out[31])
	}
}

func TestFloatToHalf(t *testing.T) {
	t.Parallel()
	for h := range 0x7c00 {
		f := halfToFloat(uint16(h))
		if got := floatToHalf(f); got != uint16(h) {
			t.Fatalf("half %#04x goes to %v and back to %#04x", h, f, got)
		}
		// Between two halves lies a tie, which goes to the even one.
		next := float32(65536)
		if h < 0x7bff {
			next = halfToFloat(uint16(h + 1))
		}
		tie := f + (next-f)/2
		even := uint16(h + h&1)
		for v, want := range map[float32]uint16{
			tie: even, math.Nextafter32(tie, 0): uint16(h), math.Nextafter32(tie, 70000): uint16(h + 1), -tie: even | 0x8000,
		} {
			if got := floatToHalf(v); got != want {
				t.Fatalf("%v becomes half %#04x, want %#04x", v, got, want)
			}
		}
	}
	if got := floatToHalf(float32(math.NaN())); got&0x7fff <= 0x7c00 {
		t.Errorf("NaN becomes %#04x", got)
	}
	if got := floatToHalf(float32(math.Inf(-1))); got != 0xfc00 {
		t.Errorf("-Inf becomes %#04x", got)
	}
}

func FuzzDequantize(f *testing.F) {
	for i := range blockDTypes {
		f.Add(uint8(i), bytes.Repeat([]byte{0x7c}, 220))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		d := blockDTypes[int(kind)%len(blockDTypes)]
		n, size := d.Block()
		data = data[:len(data)/size*size]
		got := make([]float32, len(data)/size*n)
		Dequantize(got, d, data)
		for i, g := range got {
			want := float32(element(d, data[i/n*size:], i%n))
			if g != want && g == g {
				t.Fatalf("%v: element %d is %v, want %v", d, i, g, want)
			}
		}
	})
}

func BenchmarkQuantize(b *testing.B) {
	x := normal(1, 64*superElements)
	for _, d := range blockDTypes {
		b.Run(d.String(), func(b *testing.B) {
			data := make([]byte, d.Bytes(len(x)))
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				Quantize(data, d, x)
			}
		})
	}
}
