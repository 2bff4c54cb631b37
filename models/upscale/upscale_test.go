package upscale

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

func open(t testing.TB, name string) *weights.Store {
	t.Helper()
	s, err := weights.OpenFile(os.DirFS("testdata"), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func load(t testing.TB, s *weights.Store) *Model {
	t.Helper()
	m, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// upscaled returns the picture enlarged.
func upscaled(t testing.TB, m *Model, e *tensor.Exec, p Picture, o Options) []float32 {
	t.Helper()
	dst := make([]float32, len(p.Pixels)*m.Scale()*m.Scale())
	if err := m.Upscale(t.Context(), e, dst, p, o); err != nil {
		t.Fatal(err)
	}
	return dst
}

func noise(height, width int) Picture {
	random := rand.New(rand.NewPCG(1, 2))
	p := Picture{Pixels: make([]float32, height*width*3), Height: height, Width: width}
	for i := range p.Pixels {
		p.Pixels[i] = random.Float32()
	}
	return p
}

// TestGolden compares every network of testdata with the reference of testdata/make.py, at
// every level of instructions, with weights as they are and laid out for the kernels.
func TestGolden(t *testing.T) {
	t.Parallel()
	golden := open(t, "golden.safetensors")
	find := func(name string) weights.Tensor {
		x, err := golden.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	in := find("picture")
	picture := Picture{in.Float32s(), in.Shape[0], in.Shape[1]}
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
		t.Cleanup(pool.Close)
		for _, name := range golden.Names() {
			if name == "picture" {
				continue
			}
			store := open(t, name)
			for _, s := range []*weights.Store{store, store.Packed(nil, 0)} {
				m := load(t, s)
				want := find(name)
				if m.Scale() != want.Shape[0]/in.Shape[0] {
					t.Fatalf("%s: scale %d", name, m.Scale())
				}
				got := upscaled(t, m, tensor.NewExec(pool), picture, Options{})
				e := largest(got, want.Float32s())
				if !(e <= 1e-5) {
					t.Errorf("%s, %v: error %.3g", name, level, e)
				}
				t.Logf("%-26s %-8v largest error %.2g of the tolerance", name, level, e/1e-5)
			}
		}
	}
}

// largest returns the largest difference; NaN is infinite.
func largest(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	worst := 0.0
	for i, w := range want {
		d := math.Abs(float64(got[i]) - float64(w))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		worst = max(worst, d)
	}
	return worst
}

// TestTiles checks that a picture computed in tiles has the bits of the picture computed
// whole where tiles overlap by what the network sees, and hardly differs where they cannot.
func TestTiles(t *testing.T) {
	t.Parallel()
	pool := tensor.NewPool(tensor.Config{Threads: 3})
	t.Cleanup(pool.Close)
	p := noise(41, 55) // no multiple of anything
	for _, tt := range []struct {
		name    string
		overlap int // 0 is the network's own
		within  float64
	}{
		{"compact_x4.pth", 0, 0}, {"compact_x2.safetensors", 0, 0},
		{"rrdb_x4.pth", 0, 1e-4}, {"rrdb_x2.safetensors", 0, 1e-4}, {"rrdb_x1.safetensors", 0, 1e-4}, {"old_x2.safetensors", 0, 1e-4},
		{"rrdb_x4.pth", 20, 0}, {"rrdb_x2.safetensors", 40, 0}, // 15 layers of the dense blocks, and around them
	} {
		m := load(t, open(t, tt.name))
		whole := upscaled(t, m, tensor.NewExec(nil), p, Options{Tile: 100})
		sides := []int{1, 7, 32}
		if m.Info().Architecture == RRDBNet {
			sides = sides[2:] // it takes long
		}
		for _, side := range sides {
			calls := 0
			got := upscaled(t, m, tensor.NewExec(pool), p, Options{Tile: side, Overlap: tt.overlap, Progress: func(done, total int) {
				if calls++; done != calls || done > total {
					t.Errorf("%s: tile %d of %d after %d", tt.name, done, total, calls)
				}
			}})
			if e := largest(got, whole); e > tt.within {
				t.Errorf("%s in tiles of %d with an overlap of %d: error %.3g, want %.3g", tt.name, side, tt.overlap, e, tt.within)
			}
			if calls < 4 {
				t.Errorf("%s: %d tiles of %d", tt.name, calls, side)
			}
		}
	}
}

// TestCompute checks that types of less precision come close.
func TestCompute(t *testing.T) {
	t.Parallel()
	p := noise(24, 24)
	for _, name := range []string{"compact_x4.pth", "rrdb_x4.pth"} {
		s := open(t, name)
		want := upscaled(t, load(t, s), tensor.NewExec(nil), p, Options{})
		for d, within := range map[tensor.DType]float64{tensor.F32: 1e-5, tensor.BF16: 0.02, tensor.I8: 0.05} {
			if e := largest(upscaled(t, load(t, s.Packed(nil, d)), tensor.NewExec(nil), p, Options{}), want); e > within {
				t.Errorf("%s in %v: error %.3g", name, d, e)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	m := load(t, open(t, "compact_x2.safetensors"))
	e, p := tensor.NewExec(nil), noise(4, 4)
	dst := make([]float32, 4*len(p.Pixels))
	for name, call := range map[string]func() error{
		"pixels": func() error { return m.Upscale(t.Context(), e, dst, Picture{p.Pixels, 4, 5}, Options{}) },
		"result": func() error { return m.Upscale(t.Context(), e, dst[1:], p, Options{}) },
		"empty":  func() error { return m.Upscale(t.Context(), e, nil, Picture{}, Options{}) },
		"huge":   func() error { return m.Upscale(t.Context(), e, nil, Picture{nil, 1 << 40, 1 << 40}, Options{}) },
		"tile":   func() error { return m.Upscale(t.Context(), e, dst, p, Options{Tile: -1}) },
	} {
		if err := call(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := m.Upscale(ctx, e, dst, p, Options{}); !errors.Is(err, why) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := Load(open(t, "golden.safetensors")); !errors.Is(err, ErrUnsupported) {
		t.Errorf("another model: %v", err)
	}
}

// TestTensors checks what is wrong with the tensors of a network that is nearly one.
func TestTensors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file, name string
		rows       [2]int
		missing    bool
		want       string
	}{
		{file: "rrdb_x4.pth", name: "params_ema.body.0.rdb2.conv3.weight", missing: true, want: "tensors"},
		{file: "rrdb_x4.pth", name: "params_ema.conv_body.bias", rows: [2]int{0, 2}, want: "conv_body.bias"},
		{file: "rrdb_x4.pth", name: "params_ema.conv_last.weight", rows: [2]int{0, 2}, want: "conv_last.weight"},
		{file: "compact_x4.pth", name: "params.body.1.weight", rows: [2]int{0, 2}, want: "body.1.weight"},
		{file: "compact_x4.pth", name: "params.body.6.weight", rows: [2]int{0, 47}, want: "47 channels out"},
	} {
		s := open(t, tt.file)
		views := map[string]weights.View{}
		for _, name := range s.Names() {
			views[name] = weights.View{Name: name}
		}
		if views[tt.name] = (weights.View{Name: tt.name, Rows: tt.rows}); tt.missing {
			delete(views, tt.name)
		}
		s, err := s.View(views)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Load(s); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %s: %v", tt.file, tt.name, err)
		}
	}
}

// TestGrid checks that the inner parts of cells cover a picture once, and that cells are
// no larger than was said.
func TestGrid(t *testing.T) {
	t.Parallel()
	for _, unit := range []int{1, 2, 4} {
		for _, size := range [][2]int{{1, 1}, {5, 3}, {64, 64}, {61, 200}, {333, 7}} {
			for _, tile := range []int{1, 10, 64, 1000} {
				g, err := Info{shuffle: unit, Overlap: 5}.grid(size[0], size[1], Options{Tile: tile})
				if err != nil {
					t.Fatal(err)
				}
				seen := make([]int, g.height*g.width)
				for i := range g.rows * g.columns {
					c := g.cell(i)
					if c.height()*c.width() > g.pixels() || c.top%unit != 0 || c.left%unit != 0 || c.height()%unit != 0 || c.width()%unit != 0 {
						t.Fatalf("unit %d, %v in %d: cell %+v of %d pixels", unit, size, tile, c, g.pixels())
					}
					for y := c.innerTop; y < c.innerBottom; y++ {
						for x := c.innerLeft; x < c.innerRight; x++ {
							seen[y*g.width+x]++
						}
					}
				}
				if slices.Min(seen) != 1 || slices.Max(seen) != 1 {
					t.Fatalf("unit %d, %v in tiles of %d: covered %d to %d times", unit, size, tile, slices.Min(seen), slices.Max(seen))
				}
			}
		}
	}
}

// TestWorkspace checks that memory is bounded whatever the picture.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(os.DirFS("testdata"), "*_x*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		info := load(t, open(t, name)).Info()
		small, err := info.Workspace(100, 100, Options{})
		if err != nil {
			t.Fatal(err)
		}
		large, err := info.Workspace(50000, 50000, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if small <= 0 || large < small || large > tileBytes {
			t.Errorf("%s: %d bytes for a small picture, %d for a large one", name, small, large)
		}
	}
}

// FuzzLoad checks that no file of weights makes loading panic.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"compact_x2.safetensors", "rrdb_x2.safetensors", "old_x1.safetensors"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
		if err != nil {
			return
		}
		defer s.Close()
		m, err := Load(s.Packed(nil, tensor.I8))
		if err == nil && (m.Scale() < 1 || m.Bytes() < 1) {
			t.Errorf("loaded with scale %d and %d bytes", m.Scale(), m.Bytes())
		}
	})
}
