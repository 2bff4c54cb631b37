package weights

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
)

// matrices has a matrix [4, 3] of 0 to 11, its rows of F32, and one [2, 32] of Q8_0.
func matrices(t *testing.T) *Store {
	t.Helper()
	data := make([]byte, 48)
	numbers := make([]float32, 12)
	for i := range numbers {
		numbers[i] = float32(i)
	}
	tensor.Encode(data, tensor.F32, numbers)
	s, err := Open(fstest.MapFS{"m.safetensors": {Data: file(`{"a.x":{"dtype":"F32","shape":[4,3],"data_offsets":[0,48]}}`, data...)}}, "m")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestView(t *testing.T) {
	t.Parallel()
	s := matrices(t)
	double := func(x Tensor) (Tensor, error) {
		y := slices.Clone(x.Float32s())
		for i := range y {
			y[i] *= 2
		}
		return x.WithFloats(y), nil
	}
	views := map[string]View{
		"same":        {Name: "x"},
		"b.rows":      {Name: "x", Rows: [2]int{1, 3}},
		"flat":        {Name: "x", Shape: []int{2, 6}},
		"turned":      {Name: "x", Transposed: true},
		"edited":      {Name: "x", Rows: [2]int{3, 4}, Edit: double},
		"rows turned": {Name: "x", Rows: [2]int{0, 2}, Transposed: true},
	}
	v, err := s.Sub("a").Packed(nil, tensor.BF16).View(views)
	if err != nil {
		t.Fatal(err)
	}
	if v.Packing().Compute != tensor.BF16 {
		t.Error("the packing is lost")
	}
	for name, want := range map[string]struct {
		shape  []int
		values []float32
	}{
		"same":        {[]int{4, 3}, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		"b.rows":      {[]int{2, 3}, []float32{3, 4, 5, 6, 7, 8}},
		"flat":        {[]int{2, 6}, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		"turned":      {[]int{3, 4}, []float32{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}},
		"edited":      {[]int{1, 3}, []float32{18, 20, 22}},
		"rows turned": {[]int{3, 2}, []float32{0, 3, 1, 4, 2, 5}},
	} {
		x, err := v.Tensor(name, want.shape...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if x.Name != name || !slices.Equal(x.Float32s(), want.values) {
			t.Errorf("%s: %q %v, want %v", name, x.Name, x.Float32s(), want.values)
		}
		info, err := v.Describe(name)
		if err != nil || !slices.Equal(info.Shape, want.shape) || info.Bytes != int64(4*len(want.values)) {
			t.Errorf("%s: described as %v %d, %v", name, info.Shape, info.Bytes, err)
		}
	}
	if got := v.Sub("b").Names(); !slices.Equal(got, []string{"rows"}) {
		t.Errorf("names %q", got)
	}
	// A view of a view.
	w, err := v.View(map[string]View{"z": {Name: "turned", Rows: [2]int{1, 2}, Transposed: true}})
	if err != nil {
		t.Fatal(err)
	}
	if x, err := w.Tensor("z", 4, 1); err != nil || !slices.Equal(x.Float32s(), []float32{1, 4, 7, 10}) {
		t.Errorf("view of a view: %v, %v", x, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Lookup("a.x"); !errors.Is(err, ErrMissing) {
		t.Errorf("lookup after close: %v", err)
	}
	if _, err := v.Lookup("same"); !errors.Is(err, ErrMissing) {
		t.Errorf("lookup in a view after close: %v", err)
	}
}

func TestViewErrors(t *testing.T) {
	t.Parallel()
	s := matrices(t)
	for name, c := range map[string]struct {
		view View
		want error
		text string
	}{
		"missing":       {View{Name: "a.y"}, ErrMissing, "a.y"},
		"rows beyond":   {View{Name: "a.x", Rows: [2]int{2, 5}}, ErrShape, "[4 3]"},
		"rows backward": {View{Name: "a.x", Rows: [2]int{3, 2}}, ErrShape, "[4 3]"},
		"elements":      {View{Name: "a.x", Shape: []int{5, 3}}, ErrShape, "[5 3]"},
		"no matrix":     {View{Name: "a.x", Shape: []int{12}, Transposed: true}, ErrShape, "[12]"},
	} {
		_, err := s.View(map[string]View{"z": c.view})
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: %v, want %v with %s", name, err, c.want, c.text)
		}
	}
	boom := errors.New("boom")
	e, err := s.Edited(map[string]func(Tensor) (Tensor, error){"a.x": func(x Tensor) (Tensor, error) { return x, boom }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Lookup("a.x"); !errors.Is(err, boom) {
		t.Errorf("error of an edit: %v", err)
	}
	if _, err := s.Edited(map[string]func(Tensor) (Tensor, error){"b": nil}); !errors.Is(err, ErrMissing) {
		t.Errorf("edit of nothing: %v", err)
	}
}

// TestViewOfBlocks cuts and reshapes tensors of a block type: whole blocks stay what they
// are, others become F32.
func TestViewOfBlocks(t *testing.T) {
	t.Parallel()
	numbers := make([]float32, 2*64)
	for i := range numbers {
		numbers[i] = float32(i%128 - 64)
	}
	data := make([]byte, tensor.Q8_0.Bytes(len(numbers)))
	tensor.Encode(data, tensor.Q8_0, numbers)
	stored := make([]float32, len(numbers))
	tensor.Dequantize(stored, tensor.Q8_0, data)
	s := &Store{bundle: &bundle{open: true, files: []contents{{data: data}}, header: &Header{
		Files: []File{{Name: "m.gguf"}}, entries: map[string]entry{"q": {Info: Info{Name: "q", DType: tensor.Q8_0, Shape: []int{2, 64}, Bytes: int64(len(data))}}},
	}}}
	v, err := s.View(map[string]View{
		"row": {Name: "q", Rows: [2]int{1, 2}}, "wide": {Name: "q", Shape: []int{1, 128}}, "narrow": {Name: "q", Shape: []int{8, 4, 2, 2}},
		"turned": {Name: "q", Transposed: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dtype tensor.DType
		first float32
	}{"row": {tensor.Q8_0, stored[64]}, "wide": {tensor.Q8_0, stored[0]}, "narrow": {tensor.F32, stored[0]}, "turned": {tensor.F32, stored[0]}} {
		x, err := v.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if x.DType != c.dtype || x.Float32s()[0] != c.first {
			t.Errorf("%s: %v beginning with %v, want %v with %v", name, x.DType, x.Float32s()[0], c.dtype, c.first)
		}
	}
	if x, _ := v.Lookup("turned"); x.Float32s()[1] != stored[64] {
		t.Errorf("turned[1] = %v, want %v", x.Float32s()[1], stored[64])
	}
}
