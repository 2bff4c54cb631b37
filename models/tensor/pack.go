package tensor

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"unsafe"
)

// A packed matrix holds its rows in groups of 16, the last one filled up with zeros,
// so that a vector register takes the same column of all rows of a group and sums
// never have to be added up across a register. A group of
//
//	F32, F16 is [depth][16]: for each column the elements of the rows;
//	BF16     is [depth/2][16][2]: for each pair of columns the pairs of the rows;
//
// in the order of the machine's bytes, where depth is the number of columns filled up
// with zeros to a multiple of depthStep. Block types are described with their kernels.
const (
	groupRows = 16
	depthStep = 8
)

// Pack returns the matrix laid out for the kernels, as a copy in memory of a; rows and
// columns are filled up to the multiples that the kernels need. Packed matrices
// multiply at full speed; others are packed for every product anew, with the same
// result. A packed matrix cannot be transposed or gathered, and be sliced only between
// groups of 16 rows. Packing a packed matrix returns it as it is.
func (m Matrix) Pack(a *Arena) Matrix {
	if m.packed != nil {
		return m
	}
	p := Matrix{DType: m.DType, Rows: m.Rows, Cols: m.Cols}
	p.packed = a.alloc(int(m.PackedBytes()))
	m.packGroups(p.packed, span{0, m.groups()})
	return p
}

// PackAs is Pack of the matrix converted to d: to F32, F16 or BF16, each element to the
// nearest, or to I8, with a scale for each row. 0 is the type that it has.
func (m Matrix) PackAs(a *Arena, d DType) Matrix {
	if d == 0 || d == m.DType {
		return m.Pack(a)
	}
	m.mustBePlain("convert")
	if !d.Float() && d != I8 {
		panic(fmt.Sprintf("tensor: cannot pack a matrix [%d, %d] of %v as %v", m.Rows, m.Cols, m.DType, d))
	}
	p := Matrix{DType: d, Rows: m.Rows, Cols: m.Cols}
	p.packed = a.alloc(int(p.PackedBytes()))
	size := p.groupBytes()
	reader := rowReader{m, detect().level}
	inParallel(p.groups(), func(groups span) {
		values := make([]float32, floatDepth(m.Cols)*groupRows)
		row := make([]float32, m.Cols)
		for g := groups.lo; g < groups.hi; g++ {
			clear(values)
			for r := range min(groupRows, m.Rows-g*groupRows) {
				reader.read(row, g*groupRows+r)
				for k, v := range row {
					values[k*groupRows+r] = v
				}
			}
			packValues(d, p.packed[g*size:][:size], values, m.Cols)
		}
	})
	return p
}

// rowReader reads rows of a matrix, which is not packed, with the instructions of a level.
type rowReader struct {
	Matrix
	level Level
}

// read writes row r, converted to float32, into dst of length Cols.
func (m *rowReader) read(dst []float32, r int) {
	if m.u16 == nil {
		m.Row(dst, r)
		return
	}
	src, whole := m.u16[r*m.Cols:(r+1)*m.Cols], m.Cols&^(panelWidth-1)
	widenPanel(m.level, dst[:whole], m.DType, src)
	widen(dst[whole:], m.DType, src[whole:])
}

// packValues writes a packed group of a matrix: values is [depth, 16].
func packValues(d DType, dst []byte, values []float32, cols int) {
	switch d {
	case F32:
		copy(cast[float32](dst), values)
	case F16:
		for i, v := range values {
			cast[uint16](dst)[i] = floatToHalf(v)
		}
	case BF16:
		pairValues(cast[uint16](dst), values)
	default:
		l := newByteLayout(cols, 1)
		l.pack(dst, values[:cols*groupRows])
	}
}

// pairValues rounds values [depth, 16] to BF16 and lays them out in pairs, [depth/2, 16, 2].
func pairValues(dst []uint16, values []float32) {
	for at := 0; at+2*groupRows <= len(values); at += 2 * groupRows {
		in, out := values[at:][:2*groupRows], dst[at:][:2*groupRows]
		for r := range groupRows {
			out[2*r], out[2*r+1] = floatToBFloat(in[r]), floatToBFloat(in[groupRows+r])
		}
	}
}

// inParallel calls f for parts of n on all processors and waits. A panic is the caller's.
func inParallel(n int, f func(span)) {
	threads := min(runtime.GOMAXPROCS(0), n)
	var group sync.WaitGroup
	panics := make(chan any, max(threads, 1))
	for i := range threads {
		group.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					panics <- v
				}
			}()
			f(span{i * n / threads, (i + 1) * n / threads})
		})
	}
	group.Wait()
	close(panics)
	for v := range panics {
		panic(v)
	}
}

// groups returns the number of groups of a packed matrix.
func (m *Matrix) groups() int { return ceilDiv(m.Rows, groupRows) }

// packGroups writes some groups to where they belong in dst, which is all zeros.
func (m Matrix) packGroups(dst []byte, groups span) {
	size := m.groupBytes()
	for g := groups.lo; g < groups.hi; g++ {
		m.Slice(g*groupRows, min((g+1)*groupRows, m.Rows)).packGroup(dst[g*size:][:size])
	}
}

// PackedBytes returns the memory that Pack takes.
func (m Matrix) PackedBytes() int64 { return int64(m.groups()) * int64(m.groupBytes()) }

// PackedBytes returns the memory of a packed matrix: of a type that kernels compute with,
// or of I8.
func PackedBytes(d DType, rows, cols int) int64 {
	m := Matrix{DType: d, Rows: rows, Cols: cols}
	return m.PackedBytes()
}

// groupBytes returns the size of a packed group.
func (m *Matrix) groupBytes() int {
	switch {
	case m.DType.Quantised():
		return newQuantLayout(m.DType, m.Cols).size
	case m.DType == I8:
		l := newByteLayout(m.Cols, 1)
		return l.size
	}
	return groupRows * floatDepth(m.Cols) * m.DType.Size()
}

// floatDepth returns the number of columns of a packed float matrix.
func floatDepth(cols int) int { return roundUp(cols, depthStep) }

// packGroup writes up to 16 rows into a group of zeros.
func (m Matrix) packGroup(dst []byte) {
	if m.DType.Quantised() {
		packBlocks(dst, m.DType, m.blocks, m.Cols)
		return
	}
	switch m.DType {
	case F32:
		interleave(cast[float32](dst), m.f32, m.Cols)
	case F16:
		interleave(cast[uint16](dst), m.u16, m.Cols)
	case BF16:
		interleavePairs(cast[uint16](dst), m.u16, m.Cols)
	default:
		panic(fmt.Sprintf("tensor: no packed layout of %v", m.DType))
	}
}

// columnsTogether is the number of columns of a group that are laid out before the next:
// what is written stays in the cache next to the processor until it is whole.
const columnsTogether = 64

// interleave writes element k of row r to dst[k][r].
func interleave[T any](dst, src []T, cols int) {
	for lo := 0; lo < cols; lo += columnsTogether {
		hi := min(lo+columnsTogether, cols)
		for r := 0; r*cols < len(src); r++ {
			out := dst[lo*groupRows+r:]
			for k, v := range src[r*cols+lo : r*cols+hi] {
				out[k*groupRows] = v
			}
		}
	}
}

// interleavePairs writes element k of row r to dst[k/2][r][k%2].
func interleavePairs(dst, src []uint16, cols int) {
	for lo := 0; lo < cols; lo += columnsTogether {
		hi := min(lo+columnsTogether, cols)
		for r := 0; r*cols < len(src); r++ {
			out := dst[lo*groupRows+2*r:]
			for k, v := range src[r*cols+lo : r*cols+hi] {
				out[(k&^1)*groupRows+k&1] = v
			}
		}
	}
}

// unpackRow writes row r of a packed matrix into dst.
func (m *Matrix) unpackRow(dst []float32, r int) {
	size := m.groupBytes()
	group := m.packed[r/groupRows*size:][:size]
	r %= groupRows
	if m.DType.Quantised() {
		unpackBlocks(dst, m.DType, group, r)
		return
	}
	switch m.DType {
	case F32:
		src := cast[float32](group)
		for k := range dst {
			dst[k] = src[k*groupRows+r]
		}
	case F16:
		src := cast[uint16](group)
		for k := range dst {
			dst[k] = halfToFloat(src[k*groupRows+r])
		}
	case BF16:
		src := cast[uint16](group)
		for k := range dst {
			dst[k] = math.Float32frombits(uint32(src[(k&^1)*groupRows+2*r+k&1]) << 16)
		}
	case I8:
		l := newByteLayout(m.Cols, 1)
		l.unpackRow(dst, group, r)
	}
}

// cast returns the memory of b, which is aligned to its line, as elements of T.
func cast[T float32 | uint16 | uint32 | int32](b []byte) []T {
	size := int(unsafe.Sizeof(*new(T)))
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/size)
}
