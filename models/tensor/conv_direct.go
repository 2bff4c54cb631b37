package tensor

import (
	"math"
	"sync/atomic"
	"unsafe"
)

// directTask computes a convolution over all channels without gathering. The image is
// prepared once, as the kernel takes it, with zeros at the end of each row and image, so
// that outputs side by side read pixels side by side through every tap: a tap is a product
// of matrices whose rows are the pixels as they lie there. Outputs between the rows, for
// which taps read beyond an end, are computed and dropped.
//
// A stride divides the image into planes, of every second row and column for one of 2,
// each of which is read as if there were no stride. Large images are prepared and computed
// in bands of rows.
type directTask struct {
	*convTask
	kernel pixelKernel

	pitch     int // pixels of a prepared row
	imageRows int // rows of an image with zeros
	low, high [2]int
	planes    []plane
	pixel     int // bytes
	band      span
	memory    []byte

	preparing bool
	phases    []directPhase
	pairs     int // of groups of output channels in a block
	chunk     int // pixels of a block
	blocks    int64
	next      atomic.Int64
	threads   []*directThread
}

// plane is the pixels of the image from start on, stride apart.
type plane struct {
	start [2]int
	at    int // of the band's first row in memory, in bytes
}

// directPhase is a phase of the convolution.
type directPhase struct {
	*convPhase
	height, width int
}

// directThread is the scratch of a thread.
type directThread struct {
	memory dotMemory
	sums   dotSums // in memory
	wide   []float32
}

// pixelKernel computes with pixels of one form.
type pixelKernel interface {
	// pixelBytes returns the memory of a prepared pixel.
	pixelBytes(channels int) int
	// prepare writes pixels of so many channels, of which the first is at x and the next
	// are stride floats apart, one after another.
	prepare(dst []byte, x []float32, channels, stride int)
	// tall returns how many pixels are best taken together, dotRows at most.
	tall() int
	// together returns how many taps that read pixels side by side are taken as one, of
	// which all the channels lie together.
	together(channels int) int
	// contribute adds to sums what one or several taps contribute.
	contribute(c *Conv, s *directThread, t dotTap)
}

const (
	bandBytes  = 8 << 20 // prepared at a time, about
	chunkBytes = 2 << 20 // of the pixels of a block, for all of which weights are read once
)

// direct computes the call in e.conv.
func (e *Exec) direct() {
	t := &e.pixels
	t.convTask, t.kernel = &e.conv, e.pixelKernel(e.conv.Conv)
	c := t.Conv
	t.layOut()
	threads := e.pool.Threads()
	for len(t.threads) < threads {
		t.threads = append(t.threads, new(directThread))
	}
	for _, s := range t.threads[:threads] {
		if c.f32 == nil {
			s.wide = grown(s.wide, dotColumns*(max(c.config.In, floatColumns)+1))
		}
	}
	rows := (t.Batch-1)*t.imageRows + t.phases[0].height
	perBand := ceilDiv(rows, ceilDiv(rows*t.pitch*t.pixel*len(t.planes), bandBytes))
	for lo := 0; lo < rows; lo += perBand {
		t.band = span{lo, min(lo+perBand, rows)}
		t.place()
		t.preparing = true
		if !t.inPlace() {
			e.run(t, len(t.planes)*t.preparedRows())
		}
		t.preparing = false
		t.divide(threads)
		t.next.Store(0)
		e.run(t, int(min(int64(threads), t.blocks)))
	}
	clear(t.phases)
}

// layOut finds the planes, and how far taps reach.
func (t *directTask) layOut() {
	c := t.Conv
	step := c.config.inStep()
	t.planes, t.phases = t.planes[:0], t.phases[:0]
	for i := range step[0] * step[1] {
		t.planes = append(t.planes, plane{start: [2]int{i / step[1], i % step[1]}})
	}
	t.low, t.high = [2]int{math.MaxInt, math.MaxInt}, [2]int{math.MinInt, math.MinInt}
	var out [2]int
	for i := range c.phases {
		p := &c.phases[i]
		h, w := t.size(p)
		t.phases = append(t.phases, directPhase{convPhase: p, height: h, width: w})
		out[0], out[1] = max(out[0], h), max(out[1], w)
		for _, tap := range p.taps {
			for axis := range 2 {
				q := floorDiv(tap.offset[axis], step[axis])
				t.low[axis], t.high[axis] = min(t.low[axis], q), max(t.high[axis], q)
			}
		}
	}
	if t.low[0] > t.high[0] { // no taps at all
		t.low, t.high = [2]int{}, [2]int{}
	}
	size := [2]int{ceilDiv(t.Height, step[0]), ceilDiv(t.Width, step[1])}
	for axis := range 2 {
		size[axis] = max(size[axis]+max(0, -t.low[axis]), out[axis]+max(0, t.high[axis]))
	}
	t.imageRows, t.pitch = size[0], size[1]
	t.pixel = t.kernel.pixelBytes(c.config.In)
}

// inPlace reports whether the kernel reads X as it is.
func (t *directTask) inPlace() bool {
	_, ok := t.kernel.(floatPixels)
	return ok && t.plain()
}

// preparedRows returns the rows of a plane that the band reads.
func (t *directTask) preparedRows() int { return t.band.hi - t.band.lo + t.high[0] - t.low[0] }

// lead is the pixels of zeros before a plane.
func (t *directTask) lead() int { return max(0, -t.low[1]) }

// place gives the planes memory. Kernels read a few pixels beyond the last.
func (t *directTask) place() {
	if t.inPlace() {
		return
	}
	size := t.lead() + t.preparedRows()*t.pitch + max(0, t.high[1]) + dotTileRows
	size *= t.pixel
	if need := size * len(t.planes); need > len(t.memory) {
		t.memory = alignedBytes(need)
	}
	for i := range t.planes {
		t.planes[i].at = i*size + t.lead()*t.pixel
	}
}

func (t *directTask) part(i int) {
	if t.preparing {
		rows := t.preparedRows()
		t.prepare(&t.planes[i/rows], i%rows)
		return
	}
	for {
		n := t.next.Add(1) - 1
		if n >= t.blocks {
			return
		}
		t.block(t.threads[i], int(n))
	}
}

// prepare writes row i of a plane.
func (t *directTask) prepare(p *plane, i int) {
	c, step := t.Conv.config.In, t.Conv.config.inStep()
	dst := t.memory[p.at+i*t.pitch*t.pixel:][:t.pitch*t.pixel]
	if i == 0 {
		clear(t.memory[p.at-t.lead()*t.pixel : p.at])
	}
	v := t.band.lo + t.low[0] + i
	y := v%t.imageRows*step[0] + p.start[0]
	if v < 0 || v/t.imageRows >= t.Batch || y >= t.Height {
		clear(dst)
		return
	}
	row := t.X[(v/t.imageRows*t.Height+y)*t.Width*c:][:t.Width*c]
	size := ceilDiv(max(t.Width-p.start[1], 0), step[1]) * t.pixel
	if size > 0 {
		t.kernel.prepare(dst[:size], row[p.start[1]*c:], c, step[1]*c)
	}
	clear(dst[size:])
}

// divide cuts the band into blocks: many pixels by as many output channels as leave all
// threads several blocks.
func (t *directTask) divide(threads int) {
	all := ceilDiv(t.Conv.padded, dotColumns)
	pixels := (t.band.hi - t.band.lo) * t.pitch
	t.chunk = max(chunkBytes/t.pixel/dotRows, 1) * dotRows
	t.chunk = roundUp(ceilDiv(pixels, ceilDiv(pixels, t.chunk)), dotTileRows)
	chunks := ceilDiv(pixels, t.chunk) * len(t.phases)
	t.pairs = all
	if threads > 1 {
		t.pairs = max(1, min(all, all*chunks/(8*threads)))
	}
	t.blocks = int64(chunks * ceilDiv(all, t.pairs))
}

// block computes block i.
func (t *directTask) block(s *directThread, i int) {
	all := ceilDiv(t.Conv.padded, dotColumns)
	perChunk := ceilDiv(all, t.pairs)
	pairs := span{i % perChunk * t.pairs, min((i%perChunk+1)*t.pairs, all)}
	i /= perChunk
	pixels := (t.band.hi - t.band.lo) * t.pitch
	chunks := ceilDiv(pixels, t.chunk)
	p, first := &t.phases[i/chunks], i%chunks*t.chunk
	last := min(first+t.chunk, pixels)
	m := &s.sums
	if m.sums == nil {
		*m = s.memory.sums()
	}
	for pair := pairs.lo; pair < pairs.hi; pair++ {
		t.scales(m, pair)
		for lo := first; lo < last; lo += t.kernel.tall() {
			rows := min(t.kernel.tall(), last-lo)
			t.sum(s, p, lo, rows, pair)
			t.finish(m, p, lo, rows, pair)
		}
	}
}

// scales takes the scales of a pair of groups.
func (t *directTask) scales(m *dotSums, pair int) {
	if t.Conv.dtype != I8 {
		for i := range m.scale {
			m.scale[i] = 1
		}
		return
	}
	l := newByteLayout(t.Conv.config.In, t.Conv.taps)
	groups := min(dotGroups, t.Conv.padded/groupRows-pair*dotGroups)
	m.scales(&l, t.Conv.dots[pair*dotGroups*l.size:], groups)
}

// sum adds up the taps for some pixels of the band, from number lo on.
func (t *directTask) sum(s *directThread, p *directPhase, lo, rows, pair int) {
	c, step := t.Conv, t.Conv.config.inStep()
	size := c.groupBytes()
	groups := min(dotGroups, c.padded/groupRows-pair*dotGroups)
	if len(p.taps) == 0 {
		clear(s.sums.sums)
	}
	most := 1
	if step[1] == 1 {
		most = t.kernel.together(c.config.In)
	}
	for i, n := 0, 0; i < len(p.taps); i += n {
		tap := p.taps[i]
		n = min(len(beside(p.taps[i:])), most)
		q := [2]int{floorDiv(tap.offset[0], step[0]), floorDiv(tap.offset[1], step[1])}
		d := dotTap{xRow: t.pixel, groups: groups, pair: pair, rows: rows, tap: p.first + i, taps: n, add: i > 0}
		if t.inPlace() {
			from := t.X[(t.band.lo*t.Width+lo)*c.config.In:]
			d.x = unsafe.Slice((*byte)(unsafe.Pointer(&from[0])), 4*len(from))
		} else {
			at := &t.planes[(tap.offset[0]-q[0]*step[0])*step[1]+tap.offset[1]-q[1]*step[1]]
			d.x = t.memory[at.at+((q[0]-t.low[0])*t.pitch+lo+q[1])*t.pixel:]
		}
		if c.dots != nil {
			d.w = c.dots[pair*dotGroups*size:][:groups*size]
		}
		t.kernel.contribute(c, s, d)
	}
}

// finish writes the outputs of some pixels, run by run of a row.
func (t *directTask) finish(m *dotSums, p *directPhase, lo, rows, pair int) {
	z := &t.Conv.config
	step := z.outStep()
	f := dotFinish{
		level: t.level, yRow: z.Out * step[1], act: t.Activation,
		outputs: span{pair * dotColumns, min((pair+1)*dotColumns, z.Out)},
	}
	image := -1
	for i := 0; i < rows; {
		v, x := t.band.lo+(lo+i)/t.pitch, (lo+i)%t.pitch
		n := min(t.pitch-x, rows-i)
		img, y := v/t.imageRows, v%t.imageRows
		if count := min(n, p.width-x); count > 0 && y < p.height && img < t.Batch {
			if img != image && (image < 0 || t.Shift != nil) {
				var shift []float32
				if t.Shift != nil {
					shift = t.Shift[img*z.Out:][:z.Out]
				}
				m.biases(t.Conv.bias, shift, f.outputs)
			}
			image = img
			at := ((img*t.outHeight+p.start[0]+y*step[0])*t.outWidth + p.start[1] + x*step[1]) * z.Out
			f.y, f.residual = t.Y[at:], nil
			if t.Residual != nil {
				f.residual = t.Residual[at:]
			}
			f.rows(m, i, 0, count)
		}
		i += n
	}
}

// pixelKernel returns what computes the convolution.
func (e *Exec) pixelKernel(c *Conv) pixelKernel {
	f := e.features
	switch {
	case c.dtype == I8:
		return e.kernels.bytes
	case c.paired() && (f.tiles || f.bf16 && pairsFast()):
		return pairKernel{tiles: f.tiles}
	}
	return floatPixels{level: f.level}
}

// floatPixels computes in float32; weights of 16 bits are converted for each block.
type floatPixels struct{ level Level }

func (floatPixels) tall() int { return dotRows }

// floatColumns is the number of channels of several taps that are taken together: their
// weights stay in the second cache.
const floatColumns = 1024

func (floatPixels) together(channels int) int { return max(1, floatColumns/channels) }

func (floatPixels) pixelBytes(channels int) int { return 4 * channels }

func (floatPixels) prepare(dst []byte, x []float32, channels, stride int) {
	out := cast[float32](dst)
	if stride == channels {
		copy(out, x)
		return
	}
	for i := 0; i < len(out); i, x = i+channels, x[min(stride, len(x)):] {
		copy(out[i:i+channels], x)
	}
}

func (k floatPixels) contribute(c *Conv, s *directThread, t dotTap) {
	in := c.config.In
	n := in * t.taps
	q := panels{
		c: s.sums.sums, cStride: dotColumns, rows: t.rows, cols: t.groups * panelWidth, n: n, add: t.add,
		a: cast[float32](t.x), aStride: in,
	}
	first := t.pair * dotGroups
	switch {
	case c.dtype == F32:
		q.b, q.bStride = c.f32[(first*c.k+t.tap*in)*panelWidth:], c.k*panelWidth
	case c.dots != nil:
		depth := c.pairDepth()
		q.b, q.bStride = s.wide, n*panelWidth
		for g := range t.groups {
			for i := range t.taps {
				pairs := cast[uint16](t.w[g*c.groupBytes():])[(t.tap+i)*depth*groupRows:][:(in+in&1)*groupRows]
				widenPairs(k.level, s.wide[g*q.bStride+i*in*panelWidth:], pairs)
			}
		}
	default:
		q.b, q.bStride = s.wide, n*panelWidth
		for g := range t.groups {
			widenPanel(k.level, s.wide[g*q.bStride:][:n*panelWidth], c.dtype, c.u16[((first+g)*c.k+t.tap*in)*panelWidth:])
		}
	}
	q.multiply(k.level)
}

// pairKernel computes with pixels rounded to BF16.
type pairKernel struct {
	tiles bool // AMX: else AVX512-BF16
}

// pixelBytes has a line of the cache between pixels, lest those of a tile have the same
// place in the cache, unless taps are taken together.
func (k pairKernel) pixelBytes(channels int) int {
	size := 2 * roundUp(channels, pairStep)
	if k.together(channels) == 1 {
		size += alignment
	}
	return size
}

func (pairKernel) tall() int { return dotRows }

// together takes so many that their weights stay in the first cache.
func (pairKernel) together(channels int) int {
	if channels%pairStep != 0 {
		return 1
	}
	return max(1, 384/channels)
}

func (k pairKernel) prepare(dst []byte, x []float32, channels, stride int) {
	out, size := cast[uint16](dst), k.pixelBytes(channels)/2
	for ; len(out) > 0; out, x = out[size:], x[min(stride, len(x)):] {
		roundRow(out, x[:channels], 8)
		clear(out[channels:size])
	}
}

func (k pairKernel) contribute(c *Conv, s *directThread, t dotTap) {
	depth := c.pairDepth()
	d := dotCall{
		sums: &s.sums.sums[0], sumsRow: 4 * dotColumns, x: &t.x[0], xRow: t.xRow,
		w: &t.w[2*t.tap*depth*groupRows], steps: t.taps * depth / 2, rows: t.rows,
	}
	if t.groups == dotGroups {
		d.wNext = c.groupBytes()
	}
	if t.add {
		d.add = 1
	}
	k.multiply(&d)
}

func (k *byteKernel) pixelBytes(channels int) int { return k.takes.bytes(channels) }

func (k *byteKernel) tall() int { return byteTall }

func (k *byteKernel) together(int) int { return 1 } // scales lie between the pixels

func (k *byteKernel) prepare(dst []byte, x []float32, channels, stride int) {
	k.takes.rows(dst, x, channels, stride)
}

func (k *byteKernel) contribute(c *Conv, s *directThread, t dotTap) {
	l := newByteLayout(c.config.In, c.taps)
	k.tap(&s.sums, &l, t)
}

// widenPairsGeneric converts pairs of BF16, [n/2, 16, 2], to float32 [n, 16].
func widenPairsGeneric(dst []float32, src []uint16) {
	for i, v := range src {
		dst[(i/(2*groupRows)*2+i&1)*groupRows+i/2%groupRows] = math.Float32frombits(uint32(v) << 16)
	}
}
