package tensor

import (
	"fmt"
	"sync/atomic"
)

// Convolution is a call of Exec.Conv.
type Convolution struct {
	Y             []float32 // [B, OutSize, Out]; may not overlap X
	X             []float32 // [B, Height, Width, In]
	Conv          *Conv
	Batch         int // B; 0 is 1
	Height, Width int
	Shift         []float32  // [B, Out], or nil
	Residual      []float32  // [B, OutSize, Out], or nil; may be Y
	Activation    Activation // 0 is none
}

// Conv computes y = f(conv(x) + bias + shift + residual). It is a product of matrices, the
// rows of one of them read where the image has them, or gathered a block at a time: the
// matrix is never there as a whole. The sum of an output is taken in the order of the
// kernel's taps, and of channels in each, whatever the number of threads and the rest of
// the image.
//
// Weights of BF16 multiply pixels that are rounded to BF16, where the machine does that
// fast and the pool's Config does not rule it out. Those of I8 multiply pixels whose
// channels are rounded to bytes, with one scale for up to 320 of them: see the kernels of
// I8, whose results are the same, bit for bit, at every level.
func (e *Exec) Conv(c Convolution) {
	t := &e.conv
	z := c.Conv.config
	t.Convolution, t.level = c, e.features.level
	t.Batch = defaultOne(c.Batch)
	if c.Activation == 0 {
		t.Activation = Identity
	}
	t.Activation.check()
	t.outHeight, t.outWidth = z.OutSize(c.Height, c.Width)
	if len(c.X) != t.Batch*c.Height*c.Width*z.In || len(c.Y) != t.Batch*t.outHeight*t.outWidth*z.Out ||
		c.Shift != nil && len(c.Shift) != t.Batch*z.Out || c.Residual != nil && len(c.Residual) != len(c.Y) {
		panic(fmt.Sprintf("tensor: convolution %+v of %d floats [%d, %d, %d, %d] into %d floats [%d, %d]",
			z, len(c.X), t.Batch, c.Height, c.Width, z.In, len(c.Y), t.outHeight, t.outWidth))
	}
	if c.Conv.direct() {
		e.direct()
	} else {
		t.run(e)
	}
	t.Convolution = Convolution{} // an idle Exec keeps no weights alive
}

const (
	convRows  = 96  // output pixels of a block
	convCols  = 512 // output channels of a block, at most
	convDepth = 288 // terms of a sum gathered at a time, about
)

// convTask computes a convolution. A part takes blocks from a queue: it stands for a
// thread, and has its own scratch.
type convTask struct {
	Convolution
	level               Level
	outHeight, outWidth int

	cols    int // output channels of a block
	perCols int // blocks of channels in a group
	blocks  int64
	next    atomic.Int64
	scratch []convScratch // a part
}

// convScratch is the state of a block.
type convScratch struct {
	a     []float32 // [convRows, depth], gathered
	sums  []float32 // [convRows, cols]
	wide  []float32 // [2, depth, 16], weights as float32
	pixel [convRows]convPixel
}

// convPixel is where an output pixel reads and is written.
type convPixel struct {
	in  [2]int // pixel that offsets of taps count from
	img int    // of X
	out int    // index in Y
}

func (t *convTask) run(e *Exec) {
	z := &t.Conv.config
	threads := e.pool.Threads()
	rows := 0 // blocks of them
	for i := range t.Conv.phases {
		rows += ceilDiv(t.pixels(&t.Conv.phases[i]), convRows)
	}
	t.cols, t.perCols = t.Conv.padded, 1
	if t.Conv.depthwise() {
		t.cols = z.Out
		t.blocks = int64(rows)
	} else {
		// Threads want several blocks each, to end together.
		for t.cols > 2*panelWidth && (t.cols > convCols || threads > 1 && rows*z.Groups*t.perCols < 4*threads) {
			t.perCols++
			t.cols = roundUp(ceilDiv(t.Conv.padded, t.perCols), 2*panelWidth)
		}
		t.perCols = ceilDiv(t.Conv.padded, t.cols)
		t.blocks = int64(rows * z.Groups * t.perCols)
	}
	threads = int(min(int64(threads), t.blocks))
	for len(t.scratch) < threads {
		t.scratch = append(t.scratch, convScratch{})
	}
	const depth = convDepth
	for i := range t.scratch[:threads] {
		s := &t.scratch[i]
		s.a, s.sums, s.wide = grown(s.a, convRows*depth), grown(s.sums, convRows*t.cols), grown(s.wide, 2*depth*panelWidth)
	}
	t.next.Store(0)
	if threads == 1 {
		t.part(0)
	} else {
		e.run(t, threads)
	}
}

// size returns the height and width of what a phase computes.
func (t *convTask) size(p *convPhase) (int, int) {
	step := t.Conv.config.outStep()
	return max(0, ceilDiv(t.outHeight-p.start[0], step[0])), max(0, ceilDiv(t.outWidth-p.start[1], step[1]))
}

func (t *convTask) pixels(p *convPhase) int {
	h, w := t.size(p)
	return t.Batch * h * w
}

func (t *convTask) part(i int) {
	for {
		n := t.next.Add(1) - 1
		if n >= t.blocks {
			return
		}
		t.block(&t.scratch[i], int(n))
	}
}

// block computes block i: some output pixels, and some channels of a group.
func (t *convTask) block(s *convScratch, i int) {
	c := t.Conv
	perRows := c.config.Groups * t.perCols
	if c.depthwise() {
		perRows = 1
	}
	group, column, rows := i%perRows/t.perCols, i%perRows%t.perCols*t.cols, i/perRows
	for n := range c.phases {
		p := &c.phases[n]
		blocks := ceilDiv(t.pixels(p), convRows)
		if rows >= blocks {
			rows -= blocks
			continue
		}
		first := rows * convRows
		count := min(convRows, t.pixels(p)-first)
		t.locate(s, p, first, count)
		if c.depthwise() {
			t.channels(s, p, count)
			return
		}
		cols := min(t.cols, c.padded-column)
		t.product(s, p, convBlock{group, column, count, cols})
		t.store(s, convBlock{group, column, count, cols})
		return
	}
}

// convBlock is so many rows and channels, from a channel of a group on.
type convBlock struct{ group, column, rows, cols int }

// locate finds the pixels of a phase from number first on.
func (t *convTask) locate(s *convScratch, p *convPhase, first, count int) {
	h, w := t.size(p)
	in, out := t.Conv.config.inStep(), t.Conv.config.outStep()
	y, x, img := first/w%h, first%w, first/w/h
	for r := range count {
		s.pixel[r] = convPixel{
			in: [2]int{y * in[0], x * in[1]}, img: img,
			out: (img*t.outHeight+p.start[0]+y*out[0])*t.outWidth + p.start[1] + x*out[1],
		}
		if x++; x == w {
			x, y = 0, y+1
		}
		if y == h {
			y, img = 0, img+1
		}
	}
}

// product sums for a block what the phase's taps lead to.
func (t *convTask) product(s *convScratch, p *convPhase, b convBlock) {
	c := t.Conv
	for r := range b.rows {
		copy(s.sums[r*t.cols:][:b.cols], c.bias[b.group*c.padded+b.column:])
	}
	in := c.config.In / c.config.Groups
	k := len(p.taps) * in
	if k == 0 {
		return
	}
	depth := ceilDiv(k, ceilDiv(k, convDepth))
	for lo := 0; lo < k; lo += depth {
		n := min(depth, k-lo)
		q := panels{
			c: s.sums, cStride: t.cols, rows: b.rows, cols: b.cols, n: n, add: true,
			a: s.a, aStride: n, bStride: c.k * panelWidth,
		}
		if t.plain() {
			q.a, q.aStride = t.X[s.pixel[0].out*c.config.In+lo:], c.config.In
		} else {
			t.gather(s, p, b, lo, n)
		}
		at := (b.group*c.padded+b.column)*c.k + (p.first*in+lo)*panelWidth
		if c.dtype == F32 {
			q.b = c.f32[at:]
			q.multiply(t.level)
			continue
		}
		for j := 0; j < b.cols; j += 2 * panelWidth {
			q.c, q.cols = s.sums[j:], min(2*panelWidth, b.cols-j)
			q.b, q.bStride = s.wide, n*panelWidth
			for i := 0; i < q.cols; i += panelWidth {
				widenPanel(t.level, s.wide[i*n:][:n*panelWidth], c.dtype, c.u16[at+(j+i)*c.k:])
			}
			q.multiply(t.level)
		}
	}
}

// plain reports whether the rows of the image are those of the product.
func (t *convTask) plain() bool {
	z := &t.Conv.config
	return z.Kernel == [2]int{1, 1} && z.Stride == [2]int{1, 1} && z.Padding == [4]int{} && z.Groups == 1 && z.Upsample == 1
}

// gather copies terms lo to lo+n-1 of a block's sums from the image, zeros for padding.
func (t *convTask) gather(s *convScratch, p *convPhase, b convBlock, lo, n int) {
	in := t.Conv.config.In / t.Conv.config.Groups
	for at := 0; at < n; {
		first, channel := (lo+at)/in, (lo+at)%in
		taps := p.taps[first : first+1]
		if t.Conv.config.Groups == 1 {
			taps = beside(p.taps[first:])
		}
		run := min(len(taps)*in-channel, n-at)
		for r := range b.rows {
			t.read(s.a[r*n+at:][:run], &s.pixel[r], taps, b.group*in+channel)
		}
		at += run
	}
}

// beside returns the taps at the beginning of taps that read pixels side by side.
func beside(taps []convTap) []convTap {
	n := 1
	for n < len(taps) && taps[n].offset == [2]int{taps[0].offset[0], taps[0].offset[1] + n} {
		n++
	}
	return taps[:n]
}

// read copies what taps that are side by side read for a pixel, from a channel of the
// first on.
func (t *convTask) read(to []float32, p *convPixel, taps []convTap, channel int) {
	channels := t.Conv.config.In
	y, x := p.in[0]+taps[0].offset[0], p.in[1]+taps[0].offset[1]
	if uint(y) >= uint(t.Height) {
		clear(to)
		return
	}
	from := ((p.img*t.Height+y)*t.Width+x)*channels + channel
	if x >= 0 && x+len(taps) <= t.Width {
		copy(to, t.X[from:])
		return
	}
	for ; len(to) > 0; x++ { // the image ends among them
		n := min(channels-channel, len(to))
		if uint(x) < uint(t.Width) {
			copy(to[:n], t.X[from:])
		} else {
			clear(to[:n])
		}
		to, from, channel = to[n:], from+n, 0
	}
}

// store writes a block's sums through the activation.
func (t *convTask) store(s *convScratch, b convBlock) {
	z := &t.Conv.config
	n := z.Out / z.Groups
	for r := range b.rows {
		sums := s.sums[r*t.cols:][:min(b.cols, n-b.column)]
		t.finish(&s.pixel[r], b.group*n+b.column, sums)
	}
}

// finish writes what follows from the sums of a pixel, whose first is for the channel.
func (t *convTask) finish(p *convPixel, channel int, sums []float32) {
	z := &t.Conv.config
	if t.Shift != nil {
		axpy(t.level, sums, t.Shift[p.img*z.Out+channel:][:len(sums)], 1)
	}
	at := p.out*z.Out + channel
	if t.Residual != nil {
		axpy(t.level, sums, t.Residual[at:][:len(sums)], 1)
	}
	activate(t.level, t.Activation, t.Y[at:][:len(sums)], sums, nil)
}

// channels computes a block of a convolution in which every channel is a group.
func (t *convTask) channels(s *convScratch, p *convPhase, count int) {
	c := t.Conv
	n := c.config.Out
	for r := range count {
		sums := s.sums[:n]
		copy(sums, c.bias)
		for i := range p.taps {
			q, offset := &s.pixel[r], p.taps[i].offset
			y, x := q.in[0]+offset[0], q.in[1]+offset[1]
			if uint(y) < uint(t.Height) && uint(x) < uint(t.Width) {
				from := ((q.img*t.Height+y)*t.Width + x) * n
				addHadamard(t.level, sums, t.X[from:][:n], c.f32[(p.first+i)*n:][:n])
			}
		}
		t.finish(&s.pixel[r], 0, sums)
	}
}
