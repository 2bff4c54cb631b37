package nn

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// shapedStore has F32 tensors of random numbers of the given shapes.
func shapedStore(t *testing.T, shapes map[string][]int) *weights.Store {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	header, body := map[string]any{}, []byte(nil)
	for name, shape := range shapes {
		n, begin := 1, len(body)
		for _, d := range shape {
			n *= d
		}
		for range n {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(float32(random.NormFloat64())))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestConv2dShapes reads a layer of one pixel in every shape that it is stored in, as a
// convolution and as a Linear, which must agree.
func TestConv2dShapes(t *testing.T) {
	t.Parallel()
	s := shapedStore(t, map[string][]int{
		"a.weight": {20, 24, 1, 1}, "b.weight": {20, 24, 1}, "c.weight": {20, 24}, "bias": {20},
		"a.bias": {20}, "b.bias": {20}, "c.bias": {20}, "wide.weight": {4, 3, 1, 5}, "flat.weight": {4, 3, 5},
	})
	e := tensor.NewExec(nil)
	config := tensor.ConvConfig{In: 24, Out: 20, Kernel: [2]int{1, 1}}
	x := make([]float32, 6*24)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	for _, name := range []string{"a", "b", "c"} {
		c, err := LoadConv2d(s.Sub(name), config, true)
		if err != nil {
			t.Fatal(err)
		}
		l, err := LoadLinear(s.Sub(name), 20, 24, true)
		if err != nil {
			t.Fatal(err)
		}
		got, want := make([]float32, 6*20), make([]float32, 6*20)
		c.Forward(e, tensor.Convolution{Y: got, X: x, Height: 2, Width: 3})
		l.Forward(e, want, x)
		close32(t, name, got, want, 1e-4)
	}
	for _, name := range []string{"wide", "flat"} {
		if _, err := LoadConv2d(s.Sub(name), tensor.ConvConfig{In: 3, Out: 4, Kernel: [2]int{1, 5}}, false); err != nil {
			t.Error(err)
		}
	}
	if _, err := LoadConv2d(s.Sub("flat"), tensor.ConvConfig{In: 3, Out: 4, Kernel: [2]int{5, 1}}, false); !errors.Is(err, weights.ErrShape) {
		t.Errorf("an upright kernel stored flat: %v", err)
	}
	if _, err := LoadConv2d(s.Sub("flat"), tensor.ConvConfig{In: 3, Out: 4, Kernel: [2]int{1, 5}}, true); !errors.Is(err, weights.ErrMissing) {
		t.Errorf("no bias: %v", err)
	}
	if _, err := LoadConv2d(s, config, false); !errors.Is(err, weights.ErrMissing) {
		t.Errorf("no weight: %v", err)
	}
}

// close32 stops at the first element that is further off than tolerance.
func close32(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(float64(got[i] - w)); !(d <= tolerance) {
			t.Fatalf("%s: element %d is %v, want %v within %g", what, i, got[i], w, tolerance)
		}
	}
}

// TestPacked loads layers from stores of every packing and compares with the plain one.
func TestPacked(t *testing.T) {
	t.Parallel()
	s := shapedStore(t, map[string][]int{
		"conv.weight": {32, 24, 3, 3}, "conv.bias": {32}, "small.weight": {4, 24, 3, 3}, "linear.weight": {48, 40}, "tiny.weight": {48, 4},
	})
	e := tensor.NewExec(nil)
	config := tensor.ConvConfig{In: 24, Out: 32, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}
	x := make([]float32, 25*24)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	forward := func(s *weights.Store) (conv, small, linear, tiny []float32) {
		c, err := LoadConv2d(s.Sub("conv"), config, true)
		if err != nil {
			t.Fatal(err)
		}
		few := config
		few.Out = 4
		d, err := LoadConv2d(s.Sub("small"), few, false)
		if err != nil {
			t.Fatal(err)
		}
		l, err := LoadLinear(s.Sub("linear"), 48, 40, false)
		if err != nil {
			t.Fatal(err)
		}
		m, err := LoadLinear(s.Sub("tiny"), 48, 4, false)
		if err != nil {
			t.Fatal(err)
		}
		if c.Bytes() <= 0 || l.Bytes() <= 0 || l.Weight.Packed() != s.Packing().On {
			t.Errorf("%+v: %d and %d bytes, packed %v", s.Packing(), c.Bytes(), l.Bytes(), l.Weight.Packed())
		}
		conv, small, linear, tiny = make([]float32, 25*32), make([]float32, 25*4), make([]float32, 15*48), make([]float32, 150*48)
		c.Forward(e, tensor.Convolution{Y: conv, X: x, Height: 5, Width: 5})
		d.Forward(e, tensor.Convolution{Y: small, X: x, Height: 5, Width: 5})
		l.Forward(e, linear, x)
		m.Forward(e, tiny, x)
		return
	}
	conv, small, linear, tiny := forward(s)
	for d, tolerance := range map[tensor.DType]float64{0: 1e-4, tensor.F32: 1e-4, tensor.F16: 0.02, tensor.BF16: 0.3, tensor.I8: 0.6} {
		a := new(tensor.Arena)
		gotConv, gotSmall, gotLinear, gotTiny := forward(s.Packed(a, d))
		if a.Bytes() == 0 {
			t.Errorf("%v: nothing in the arena", d)
		}
		close32(t, d.String()+" convolution", gotConv, conv, tolerance)
		close32(t, d.String()+" linear", gotLinear, linear, tolerance)
		close32(t, d.String()+" convolution of few channels", gotSmall, small, 1e-4)
		close32(t, d.String()+" linear of few channels", gotTiny, tiny, 1e-4)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestGroupNorm(t *testing.T) {
	t.Parallel()
	s := shapedStore(t, map[string][]int{"n.weight": {8}, "n.bias": {8}, "m.weight": {8}})
	n, err := LoadGroupNorm(s.Sub("n"), 2, 8, 1e-5)
	if err != nil {
		t.Fatal(err)
	}
	if n.Bytes() != 64 {
		t.Errorf("%d bytes, want 64", n.Bytes())
	}
	e := tensor.NewExec(nil)
	x := make([]float32, 2*3*8)
	for i := range x {
		x[i] = float32(i * i % 11)
	}
	plain, active := make([]float32, len(x)), slices.Clone(x)
	n.Forward(e, plain, x, 2, 0)
	n.Forward(e, active, active, 2, tensor.SiLU)
	e.Activate(tensor.SiLU, plain)
	close32(t, "with SiLU", active, plain, 1e-6)
	if _, err := LoadGroupNorm(s.Sub("m"), 2, 8, 1e-5); !errors.Is(err, weights.ErrMissing) {
		t.Errorf("no bias: %v", err)
	}
	if _, err := LoadGroupNorm(s.Sub("n"), 3, 8, 1e-5); !errors.Is(err, weights.ErrShape) {
		t.Errorf("8 channels in 3 groups: %v", err)
	}
}
