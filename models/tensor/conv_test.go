package tensor

import (
	"fmt"
	"math"
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
	u := z.Upsample
	large, small := [2]int{c.Height * u, c.Width * u}, [2]int{oh, ow}
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
						} else {
							from = (b*c.Height+ly/u)*c.Width + lx/u
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
		"3x3 with batch":       {size{3, 5, 7}, ConvConfig{In: 24, Out: 40, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}},
		"3x3 tall":             {size{1, 40, 9}, ConvConfig{In: 65, Out: 33, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}},
		"3x3 of every second":  {size{2, 16, 15}, ConvConfig{In: 32, Out: 20, Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Padding: [4]int{1, 1, 1, 1}}},
		"two runs":             {size{1, 4, 5}, ConvConfig{In: 700, Out: 32, Kernel: [2]int{1, 2}}},
		"upsampled":            {size{2, 5, 6}, ConvConfig{In: 20, Out: 36, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}, Upsample: 2}},
		"upsampled, gathered":  {size{1, 5, 6}, ConvConfig{In: 6, Out: 8, Kernel: [2]int{4, 3}, Padding: [4]int{2, 1, 0, 1}, Groups: 2, Upsample: 3}},
		"groups":               {size{1, 9, 8}, ConvConfig{In: 12, Out: 51, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}, Groups: 3}},
		"depthwise":            {size{2, 9, 8}, ConvConfig{In: 37, Out: 37, Kernel: [2]int{3, 3}, Stride: [2]int{1, 2}, Padding: [4]int{1, 1, 1, 1}, Groups: 37}},
		"depth multiplied":     {size{1, 9, 8}, ConvConfig{In: 5, Out: 10, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}, Groups: 5}},
		"sequence":             {size{2, 1, 300}, ConvConfig{In: 24, Out: 33, Kernel: [2]int{1, 7}, Dilation: [2]int{1, 3}, Padding: [4]int{0, 18, 0, 0}}},
		"transposed":           {size{1, 6, 7}, ConvConfig{In: 9, Out: 20, Kernel: [2]int{4, 4}, Stride: [2]int{2, 2}, Padding: [4]int{1, 1, 1, 1}, Transposed: true}},
		"transposed sequence":  {size{2, 1, 50}, ConvConfig{In: 18, Out: 9, Kernel: [2]int{1, 16}, Stride: [2]int{1, 8}, Padding: [4]int{0, 4, 0, 4}, Transposed: true}},
		"transposed uneven":    {size{1, 6, 5}, ConvConfig{In: 4, Out: 6, Kernel: [2]int{3, 2}, Stride: [2]int{2, 3}, Dilation: [2]int{2, 1}, Padding: [4]int{1, 0, 2, 0}, OutputPadding: [2]int{1, 2}, Groups: 2, Transposed: true}},
		"transposed depthwise": {size{1, 6, 5}, ConvConfig{In: 6, Out: 6, Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Padding: [4]int{1, 1, 1, 1}, OutputPadding: [2]int{1, 1}, Groups: 6, Transposed: true}},
	} {
		for _, d := range []DType{F32, F16, BF16, I8} {
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
	stored := z.dtype
	if stored == I8 {
		stored = F32
	}
	w, values := randomMatrix(1, stored, rows, cols)
	bias := normal(2, config.Out)
	c := Convolution{
		Conv: PackConv(nil, z.dtype, config, w, bias), X: normal(3, z.batch*z.height*z.width*config.In),
		Batch: z.batch, Height: z.height, Width: z.width,
	}
	if got, want := c.Conv.Bytes(), z.PackedBytes(z.dtype); got != want {
		t.Fatalf("%s: %d bytes, said to be %d", name, got, want)
	}
	oh, ow := config.OutSize(z.height, z.width)
	want := naiveConv(c, values, bias)
	var bytes []float32
	for l := Generic; l <= BestLevel(); l++ {
		e := all[l]
		c.Y = normal(4, z.batch*oh*ow*config.Out)
		e[0].Conv(c)
		y := c.Y
		switch {
		case c.Conv.dtype == I8 && bytes == nil:
			// Each of the two factors is off by up to 1/254 of the largest of its run, about 4.
			bytes = y
			near(t, fmt.Sprintf("%v %s", l, name), y, want, 0.08*math.Sqrt(float64(c.Conv.k)))
		case c.Conv.dtype == I8:
			same(t, fmt.Sprintf("%v %s and generic", l, name), y, bytes)
		case c.Conv.paired() && l == AMX:
			rounded := c
			rounded.X = make([]float32, len(c.X))
			for i, v := range c.X {
				rounded.X[i] = math.Float32frombits(uint32(floatToBFloat(v)) << 16)
			}
			// Upsampling adds weights up, which BF16 rounds.
			near(t, fmt.Sprintf("%v %s", l, name), y, naiveConv(rounded, values, bias), z.tolerance())
		default:
			near(t, fmt.Sprintf("%v %s", l, name), y, want, z.tolerance())
		}
		c.Y = normal(5, len(y))
		e[1].Conv(c)
		same(t, fmt.Sprintf("%v %s on two threads", l, name), c.Y, y)
		z.fused(t, fmt.Sprintf("%v %s", l, name), c, e[0])
	}
}

// tolerance is that of the type of the weights, which upsampling adds up and rounds: the
// errors of the k products add up like random steps.
func (z convCase) tolerance() float64 {
	if z.Upsample <= 1 {
		return 1e-4
	}
	k := float64(z.In / max(z.Groups, 1) * z.Kernel[0] * z.Kernel[1])
	return map[DType]float64{F32: 1e-4, I8: 1e-4, F16: 0.004 * math.Sqrt(k), BF16: 0.03 * math.Sqrt(k)}[z.dtype]
}

// fused compares what a call does beside the convolution with the same in steps. c.Y is
// the convolution alone.
func (z convCase) fused(t *testing.T, name string, c Convolution, e *Exec) {
	t.Helper()
	plain, out := c.Y, c.Conv.config.Out
	want := make([]float64, len(plain))
	c.Shift, c.Residual, c.Activation = normal(6, c.Batch*out), normal(7, len(plain)), SiLU
	for i, v := range plain {
		u := float64(v) + float64(c.Shift[i*c.Batch/len(plain)*out+i%out]) + float64(c.Residual[i])
		want[i] = u / (1 + math.Exp(-u))
	}
	c.Y = c.Residual
	e.Conv(c)
	near(t, name+" and all", c.Y, want, 1e-5)
	c.Residual, c.Activation = normal(7, len(plain)), ReLU
	for i, v := range plain {
		u := float64(v) + float64(c.Shift[i*c.Batch/len(plain)*out+i%out]) + float64(c.Residual[i])
		want[i] = max(u, 0)
	}
	c.Y = make([]float32, len(plain))
	e.Conv(c)
	near(t, name+" and ReLU", c.Y, want, 1e-5)
	c.Activation = 0
	c.Y = make([]float32, len(plain))
	e.Conv(c)
	for i, v := range plain {
		want[i] = float64(v) + float64(c.Shift[i*c.Batch/len(plain)*out+i%out]) + float64(c.Residual[i])
	}
	near(t, name+" and shift and residual", c.Y, want, 1e-5)
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
		z := ConvConfig{In: groups * one(40), Out: groups * one(40), Groups: groups, Transposed: random.IntN(2) == 0}
		if !z.Transposed && random.IntN(3) == 0 {
			z.Upsample = one(3)
		}
		for axis := range 2 {
			z.Kernel[axis], z.Stride[axis], z.Dilation[axis] = one(4), one(3), one(3)
			z.Padding[axis], z.Padding[axis+2] = random.IntN(3), random.IntN(3)
			if z.Transposed {
				z.OutputPadding[axis] = random.IntN(z.Stride[axis])
			}
			if z.Upsample > 1 {
				z.Stride[axis] = 1
			}
		}
		height, width := one(12)+10, one(12)+10
		c := convCase{z, []DType{F32, F16, BF16, I8}[random.IntN(4)], one(2), height, width}
		c.test(t, fmt.Sprintf("%+v", c), newExecs(t))
	})
}

// TestConvBands compares a batch of images that are computed in several bands with a part
// of one of them, computed alone.
func TestConvBands(t *testing.T) {
	t.Parallel()
	const height, width, in, out, lo, part = 500, 120, 64, 16, 190, 60
	config := ConvConfig{In: in, Out: out, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}
	w := FromFloat32s(out, 9*in, normal(1, out*9*in))
	x := normal(2, 2*height*width*in)
	for _, d := range []DType{F32, BF16, I8} {
		e := NewExec(pool(t, 2))
		c := Convolution{Conv: PackConv(nil, d, config, w, nil), X: x, Y: make([]float32, len(x)/in*out), Batch: 2, Height: height, Width: width}
		e.Conv(c)
		whole := c.Y[((height+lo+1)*width)*out:][:(part-2)*width*out]
		c.X, c.Y = x[(height+lo)*width*in:][:part*width*in], make([]float32, part*width*out)
		c.Batch, c.Height = 1, part
		e.Conv(c)
		same(t, d.String(), whole, c.Y[width*out:][:len(whole)])
	}
}

func TestConvAllocatesNothing(t *testing.T) {
	config := ConvConfig{In: 40, Out: 48, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}
	w := FromFloat32s(48, 360, normal(1, 48*360))
	for l, e := range newExecs(t) {
		for _, d := range []DType{F32, F16, BF16, I8} {
			c := Convolution{
				Conv: PackConv(new(Arena), d, config, w, nil), X: normal(2, 400*40), Y: make([]float32, 400*48),
				Height: 20, Width: 20, Shift: normal(3, 48), Residual: normal(4, 400*48), Activation: SiLU,
			}
			if n := testing.AllocsPerRun(10, func() { e[1].Conv(c) }); n != 0 {
				t.Errorf("%v at %v: %v allocations", d, l, n)
			}
			linear := FromFloat32s(48, 360, w.f32).PackAs(nil, d)
			if n := testing.AllocsPerRun(10, func() { e[1].MatMul(c.Y[:44*48], c.X[:44*360], linear, nil) }); n != 0 {
				t.Errorf("%v product at %v: %v allocations", d, l, n)
			}
		}
	}
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
		"upsampling":     change(func(c *ConvConfig) { c.Upsample, c.Stride[0] = 2, 2 }),
		"shift":          func() { e.Conv(Convolution{Y: x[:4], X: x[:36], Conv: c, Height: 3, Width: 3, Shift: x[:3]}) },
		"residual":       func() { e.Conv(Convolution{Y: x[:4], X: x[:36], Conv: c, Height: 3, Width: 3, Residual: x[:3]}) },
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

// BenchmarkConv2D measures convolutions of Stable Diffusion: image and channels/type.
func BenchmarkConv2D(b *testing.B) {
	for _, z := range []struct{ size, in, out, kernel, stride, up int }{
		{64, 320, 320, 3, 1, 1}, {64, 960, 320, 3, 1, 1}, {32, 640, 640, 3, 1, 1}, {16, 1280, 1280, 3, 1, 1},
		{8, 1280, 1280, 3, 1, 1}, {8, 2560, 1280, 3, 1, 1}, {64, 320, 320, 3, 2, 1}, {64, 320, 320, 1, 1, 1},
		{32, 640, 640, 3, 1, 2}, {256, 128, 128, 3, 1, 1}, {256, 256, 128, 3, 1, 1}, {64, 4, 320, 3, 1, 1},
		{64, 320, 4, 3, 1, 1}, {256, 128, 3, 3, 1, 1}, {256, 3, 128, 3, 1, 1},
	} {
		for _, d := range []DType{F32, F16, BF16, I8} {
			b.Run(fmt.Sprintf("%d²x%d to %d, %dx%d by %d up %d/%v", z.size, z.in, z.out, z.kernel, z.kernel, z.stride, z.up, d), func(b *testing.B) {
				e := execAt(b, Config{Threads: 2, Level: benchLevel(b)})
				p := z.kernel / 2
				config := ConvConfig{
					In: z.in, Out: z.out, Kernel: [2]int{z.kernel, z.kernel}, Padding: [4]int{p, p, p, p},
					Stride: [2]int{z.stride, z.stride}, Upsample: z.up,
				}
				w := FromFloat32s(z.out, z.in*z.kernel*z.kernel, make([]float32, z.out*z.in*z.kernel*z.kernel))
				height, width := config.OutSize(z.size, z.size)
				c := Convolution{
					Conv: PackConv(nil, d, config, w, make([]float32, z.out)), Height: z.size, Width: z.size,
					X: normal(2, z.size*z.size*z.in), Y: make([]float32, height*width*z.out),
				}
				seconds := best(b, func() { e.Conv(c) })
				b.ReportMetric(2*float64(height*width*z.kernel*z.kernel)*float64(z.in*z.out)/seconds/1e9, "GFLOP/s")
			})
		}
	}
}
