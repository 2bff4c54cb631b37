package tensor

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// naiveConv is the sum written out in double precision, of weights as PyTorch has them.
func naiveConv(c Convolution, weight, bias []float32) []float64 {
	z := c.Conv.Config()
	batch, in, out := max(c.Batch, 1), z.In/z.Groups, z.Out/z.Groups
	oh, ow := z.OutSize(c.Height, c.Width)
	y := make([]float64, batch*oh*ow*z.Out)
	for i := range y {
		y[i] = float64(bias[i%z.Out])
	}
	// For every weight, every pair of pixels that it joins.
	large, small := [2]int{c.Height, c.Width}, [2]int{oh, ow}
	if z.Transposed {
		large, small = small, large
	}
	for b := range batch {
		for sy := range small[0] {
			for sx := range small[1] {
				for ky := range z.Kernel[0] {
					for kx := range z.Kernel[1] {
						ly, lx := sy*z.Stride[0]+ky*z.Dilation[0]-z.Padding[0], sx*z.Stride[1]+kx*z.Dilation[1]-z.Padding[1]
						if ly < 0 || ly >= large[0] || lx < 0 || lx >= large[1] {
							continue
						}
						from, to := (b*large[0]+ly)*large[1]+lx, (b*small[0]+sy)*small[1]+sx
						if z.Transposed {
							from, to = to, from
						}
						for o := range z.Out {
							for i := range in {
								channel := o/out*in + i
								w := weight[((o*in+i)*z.Kernel[0]+ky)*z.Kernel[1]+kx]
								if z.Transposed {
									w = weight[((channel*out+o%out)*z.Kernel[0]+ky)*z.Kernel[1]+kx]
								}
								y[to*z.Out+o] += float64(w) * float64(c.X[from*z.In+channel])
							}
						}
					}
				}
			}
		}
	}
	return y
}

// TestConv compares with the sum written out, on every level, and bit for bit between
// numbers of threads.
func TestConv(t *testing.T) {
	t.Parallel()
	type size struct{ batch, height, width int }
	execs := newExecs(t)
	for name, z := range map[string]struct {
		size
		ConvConfig
	}{
		"one pixel":            {size{1, 1, 1}, ConvConfig{In: 1, Out: 1, Kernel: [2]int{1, 1}}},
		"1x1":                  {size{2, 9, 11}, ConvConfig{In: 20, Out: 37, Kernel: [2]int{1, 1}}},
		"1x1 of every second":  {size{1, 9, 11}, ConvConfig{In: 20, Out: 16, Kernel: [2]int{1, 1}, Stride: [2]int{2, 2}}},
		"3x3":                  {size{1, 17, 13}, ConvConfig{In: 33, Out: 70, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}},
		"3x3 deep":             {size{1, 5, 6}, ConvConfig{In: 130, Out: 40, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}},
		"3x3 without padding":  {size{2, 7, 8}, ConvConfig{In: 3, Out: 8, Kernel: [2]int{3, 3}}},
		"wide":                 {size{1, 4, 5}, ConvConfig{In: 5, Out: 600, Kernel: [2]int{2, 3}, Padding: [4]int{1, 0, 0, 1}}},
		"stride":               {size{1, 16, 15}, ConvConfig{In: 6, Out: 20, Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Padding: [4]int{0, 0, 1, 1}}},
		"stride and dilation":  {size{1, 16, 19}, ConvConfig{In: 4, Out: 5, Kernel: [2]int{3, 2}, Stride: [2]int{3, 2}, Dilation: [2]int{2, 3}, Padding: [4]int{3, 2, 1, 4}}},
		"padding beyond":       {size{1, 2, 2}, ConvConfig{In: 4, Out: 5, Kernel: [2]int{3, 3}, Padding: [4]int{4, 4, 4, 4}}},
		"patches":              {size{1, 28, 28}, ConvConfig{In: 3, Out: 48, Kernel: [2]int{14, 14}, Stride: [2]int{14, 14}}},
		"groups":               {size{1, 9, 8}, ConvConfig{In: 12, Out: 51, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}, Groups: 3}},
		"depthwise":            {size{2, 9, 8}, ConvConfig{In: 37, Out: 37, Kernel: [2]int{3, 3}, Stride: [2]int{1, 2}, Padding: [4]int{1, 1, 1, 1}, Groups: 37}},
		"depth multiplied":     {size{1, 9, 8}, ConvConfig{In: 5, Out: 10, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}, Groups: 5}},
		"sequence":             {size{2, 1, 300}, ConvConfig{In: 24, Out: 33, Kernel: [2]int{1, 7}, Dilation: [2]int{1, 3}, Padding: [4]int{0, 18, 0, 0}}},
		"transposed":           {size{1, 6, 7}, ConvConfig{In: 9, Out: 20, Kernel: [2]int{4, 4}, Stride: [2]int{2, 2}, Padding: [4]int{1, 1, 1, 1}, Transposed: true}},
		"transposed sequence":  {size{2, 1, 50}, ConvConfig{In: 18, Out: 9, Kernel: [2]int{1, 16}, Stride: [2]int{1, 8}, Padding: [4]int{0, 4, 0, 4}, Transposed: true}},
		"transposed uneven":    {size{1, 6, 5}, ConvConfig{In: 4, Out: 6, Kernel: [2]int{3, 2}, Stride: [2]int{2, 3}, Dilation: [2]int{2, 1}, Padding: [4]int{1, 0, 2, 0}, OutputPadding: [2]int{1, 2}, Groups: 2, Transposed: true}},
		"transposed depthwise": {size{1, 6, 5}, ConvConfig{In: 6, Out: 6, Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Padding: [4]int{1, 1, 1, 1}, OutputPadding: [2]int{1, 1}, Groups: 6, Transposed: true}},
	} {
		for _, d := range []DType{F32, F16, BF16} {
			c := convCase{z.ConvConfig, d, z.batch, z.height, z.width}
			c.test(t, fmt.Sprintf("%s %v", name, d), execs)
		}
	}
}

// execs are two for every level, on one thread and on two.
type execs map[Level][2]*Exec

func newExecs(t *testing.T) execs {
	all := execs{}
	eachMachineLevel(func(l Level) {
		all[l] = [2]*Exec{NewExec(leveled(t, 1, l)), NewExec(leveled(t, 2, l))}
	})
	return all
}

// convCase is a convolution of random numbers.
type convCase struct {
	ConvConfig
	dtype                DType
	batch, height, width int
}

func (z convCase) test(t *testing.T, name string, all execs) {
	t.Helper()
	config := z.ConvConfig.normal()
	rows, cols := config.Out, config.In/config.Groups*config.Kernel[0]*config.Kernel[1]
	if config.Transposed {
		rows, cols = config.In, config.Out/config.Groups*config.Kernel[0]*config.Kernel[1]
	}
	w, values := randomMatrix(1, z.dtype, rows, cols)
	bias := normal(2, config.Out)
	c := Convolution{
		Conv: NewConv(config, w, bias), X: normal(3, z.batch*z.height*z.width*config.In),
		Batch: z.batch, Height: z.height, Width: z.width,
	}
	oh, ow := config.OutSize(z.height, z.width)
	want := naiveConv(c, values, bias)
	for l, e := range all {
		c.Y = normal(4, z.batch*oh*ow*config.Out)
		e[0].Conv(c)
		near(t, fmt.Sprintf("%v %s", l, name), c.Y, want, 1e-4)
		y := c.Y
		c.Y = normal(5, len(y))
		e[1].Conv(c)
		same(t, fmt.Sprintf("%v %s on two threads", l, name), c.Y, y)

		f := c
		f.Activation = SiLU
		e[0].Conv(f)
		e[0].Activate(SiLU, y)
		same(t, fmt.Sprintf("%v %s and activation", l, name), f.Y, y)
	}
}

// leveled returns a pool of a level that is closed with the test.
func leveled(t testing.TB, threads int, l Level) *Pool {
	p := NewPool(Config{Threads: threads, Level: l})
	t.Cleanup(p.Close)
	return p
}

// FuzzConv draws shapes.
func FuzzConv(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 2))
		one := func(n int) int { return 1 + random.IntN(n) }
		groups := one(3)
		z := ConvConfig{In: groups * one(20), Out: groups * one(40), Groups: groups, Transposed: random.IntN(2) == 0}
		for axis := range 2 {
			z.Kernel[axis], z.Stride[axis], z.Dilation[axis] = one(4), one(3), one(3)
			z.Padding[axis], z.Padding[axis+2] = random.IntN(3), random.IntN(3)
			if z.Transposed {
				z.OutputPadding[axis] = random.IntN(z.Stride[axis])
			}
		}
		height, width := one(12)+10, one(12)+10
		c := convCase{z, []DType{F32, F16, BF16}[random.IntN(3)], one(2), height, width}
		c.test(t, fmt.Sprintf("%+v", c), newExecs(t))
	})
}

func TestConvShapesPanic(t *testing.T) {
	t.Parallel()
	good := ConvConfig{In: 4, Out: 4, Kernel: [2]int{3, 3}}
	w := FromFloat32s(4, 36, make([]float32, 144))
	change := func(f func(*ConvConfig)) func() {
		return func() { c := good; f(&c); NewConv(c, w, nil) }
	}
	c := NewConv(good, w, nil)
	e := NewExec(nil)
	x := make([]float32, 64)
	for name, f := range map[string]func(){
		"channels":       change(func(c *ConvConfig) { c.In = 0 }),
		"kernel":         change(func(c *ConvConfig) { c.Kernel[0] = 0 }),
		"stride":         change(func(c *ConvConfig) { c.Stride[1] = -1 }),
		"padding":        change(func(c *ConvConfig) { c.Padding[2] = -1 }),
		"groups":         change(func(c *ConvConfig) { c.Groups = 3 }),
		"output padding": change(func(c *ConvConfig) { c.OutputPadding[0] = 1 }),
		"weights":        change(func(c *ConvConfig) { c.Out = 8 }),
		"bias":           func() { NewConv(good, w, make([]float32, 3)) },
		"small image":    func() { e.Conv(Convolution{Y: x[:4], X: x[:16], Conv: c, Height: 2, Width: 2}) },
		"result":         func() { e.Conv(Convolution{Y: x[:3], X: x[:36], Conv: c, Height: 3, Width: 3}) },
		"image":          func() { e.Conv(Convolution{Y: x[:4], X: x[:32], Conv: c, Height: 3, Width: 3}) },
		"activation":     func() { e.Conv(Convolution{Y: x[:4], X: x[:36], Conv: c, Height: 3, Width: 3, Activation: 99}) },
		"resize":         func() { e.Resize(Resize{Y: x, X: x[:16], Height: 4, Width: 4, OutHeight: 8, OutWidth: 7, Channels: 1}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkConv2D(b *testing.B) {
	for _, z := range []struct{ height, width, in, out, kernel int }{
		{64, 64, 320, 320, 3}, {512, 512, 128, 128, 3}, {64, 64, 320, 320, 1}, {8, 8, 1280, 1280, 3}, {64, 64, 4, 320, 3},
	} {
		for _, d := range []DType{F32, F16} {
			b.Run(fmt.Sprintf("%dx%d %dx%dx%d to %d/%v", z.kernel, z.kernel, z.height, z.width, z.in, z.out, d), func(b *testing.B) {
				e := NewExec(pool(b, 2))
				p := z.kernel / 2
				config := ConvConfig{In: z.in, Out: z.out, Kernel: [2]int{z.kernel, z.kernel}, Padding: [4]int{p, p, p, p}}
				w, _ := randomMatrix(1, d, z.out, z.in*z.kernel*z.kernel)
				c := Convolution{
					Conv: NewConv(config, w, make([]float32, z.out)), Height: z.height, Width: z.width,
					X: normal(2, z.height*z.width*z.in), Y: make([]float32, z.height*z.width*z.out),
				}
				for b.Loop() {
					e.Conv(c)
				}
				flops(b, 2*float64(z.height*z.width*z.kernel*z.kernel)*float64(z.in*z.out))
			})
		}
	}
}
