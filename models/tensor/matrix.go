package tensor

import "fmt"

// Matrix is a weight of [Rows, Cols] in its file type, row after row as in files or
// packed for the kernels. It is read-only and may be shared by any number of goroutines.
type Matrix struct {
	DType      DType
	Rows, Cols int

	f32    []float32 // F32
	u16    []uint16  // F16, BF16
	blocks []byte    // block types
	packed []byte    // groups of rows, if the matrix is packed
}

// NewMatrix views little-endian data as a matrix, without copying it if it is
// aligned to its elements. It panics if kernels do not compute with d, the size
// differs, or a row of a block type is no whole number of blocks.
func NewMatrix(d DType, rows, cols int, data []byte) Matrix {
	n, size := d.Block()
	if !d.Float() && !d.Quantised() || rows < 0 || cols < 0 || cols%n != 0 || len(data) != rows*(cols/n*size) {
		panic(fmt.Sprintf("tensor: matrix %v [%d, %d] over %d bytes", d, rows, cols, len(data)))
	}
	m := Matrix{DType: d, Rows: rows, Cols: cols}
	switch {
	case d == F32:
		m.f32 = view[float32](data)
	case d.Quantised():
		m.blocks = data
	default:
		m.u16 = view[uint16](data)
	}
	return m
}

// FromFloat32s returns an F32 matrix over data, which it keeps.
func FromFloat32s(rows, cols int, data []float32) Matrix {
	if len(data) != rows*cols {
		panic(fmt.Sprintf("tensor: matrix [%d, %d] over %d floats", rows, cols, len(data)))
	}
	return Matrix{DType: F32, Rows: rows, Cols: cols, f32: data}
}

// Packed reports whether the matrix is laid out for the kernels.
func (m Matrix) Packed() bool { return m.packed != nil }

// Slice returns rows lo to hi-1, sharing memory. A packed matrix is cut between groups
// of 16 rows only, or at its end; elsewhere Slice panics.
func (m Matrix) Slice(lo, hi int) Matrix {
	if lo < 0 || hi < lo || hi > m.Rows {
		panic(fmt.Sprintf("tensor: rows %d to %d of a matrix [%d, %d]", lo, hi, m.Rows, m.Cols))
	}
	switch {
	case m.packed != nil:
		if lo%groupRows != 0 || hi%groupRows != 0 && hi != m.Rows {
			panic(fmt.Sprintf("tensor: rows %d to %d of a packed matrix [%d, %d], whose groups have %d", lo, hi, m.Rows, m.Cols, groupRows))
		}
		size := m.groupBytes()
		m.packed = m.packed[lo/groupRows*size : ceilDiv(hi, groupRows)*size]
	case m.DType == F32:
		m.f32 = m.f32[lo*m.Cols : hi*m.Cols]
	case m.DType.Quantised():
		m.blocks = m.blocks[lo*m.rowBytes() : hi*m.rowBytes()]
	default:
		m.u16 = m.u16[lo*m.Cols : hi*m.Cols]
	}
	m.Rows = hi - lo
	return m
}

// rowBytes returns the size of a row as it is in files.
func (m *Matrix) rowBytes() int { return int(m.DType.Bytes(m.Cols)) }

// mustBePlain panics if the matrix is packed.
func (m *Matrix) mustBePlain(verb string) {
	if m.packed != nil {
		panic(fmt.Sprintf("tensor: cannot %s a packed matrix [%d, %d]", verb, m.Rows, m.Cols))
	}
}

// Transposed returns a copy of [Cols, Rows] in the same type. The matrix may not be packed,
// nor of a block type.
func (m Matrix) Transposed() Matrix {
	m.mustBePlain("transpose")
	if m.DType.Quantised() {
		panic(fmt.Sprintf("tensor: cannot transpose a matrix [%d, %d] of %v", m.Rows, m.Cols, m.DType))
	}
	t := Matrix{DType: m.DType, Rows: m.Cols, Cols: m.Rows}
	if m.DType == F32 {
		t.f32 = transpose(m.f32, m.Rows, m.Cols)
	} else {
		t.u16 = transpose(m.u16, m.Rows, m.Cols)
	}
	return t
}

func transpose[T any](src []T, rows, cols int) []T {
	dst := make([]T, len(src))
	for r := range rows {
		for c := range cols {
			dst[c*rows+r] = src[r*cols+c]
		}
	}
	return dst
}

// Gather returns a copy, in the same type, of the rows that are listed. The matrix may
// not be packed.
func (m Matrix) Gather(rows []int) Matrix {
	m.mustBePlain("gather rows of")
	for _, r := range rows {
		if r < 0 || r >= m.Rows {
			panic(fmt.Sprintf("tensor: row %d of a matrix [%d, %d]", r, m.Rows, m.Cols))
		}
	}
	g := Matrix{DType: m.DType, Rows: len(rows), Cols: m.Cols}
	switch {
	case m.DType == F32:
		g.f32 = gather(m.f32, m.Cols, rows)
	case m.DType.Quantised():
		g.blocks = gather(m.blocks, m.rowBytes(), rows)
	default:
		g.u16 = gather(m.u16, m.Cols, rows)
	}
	return g
}

func gather[T any](src []T, cols int, rows []int) []T {
	dst := make([]T, 0, len(rows)*cols)
	for _, r := range rows {
		dst = append(dst, src[r*cols:(r+1)*cols]...)
	}
	return dst
}

// Row writes row r, converted to float32, into dst of length Cols.
func (m Matrix) Row(dst []float32, r int) {
	if len(dst) != m.Cols || r < 0 || r >= m.Rows {
		panic(fmt.Sprintf("tensor: row %d of a matrix [%d, %d] into %d floats", r, m.Rows, m.Cols, len(dst)))
	}
	switch {
	case m.packed != nil:
		m.unpackRow(dst, r)
	case m.DType == F32:
		copy(dst, m.f32[r*m.Cols:])
	case m.DType.Quantised():
		size := m.rowBytes()
		Dequantize(dst, m.DType, m.blocks[r*size:(r+1)*size])
	default:
		widen(dst, m.DType, m.u16[r*m.Cols:(r+1)*m.Cols])
	}
}

// Bytes returns the memory of the elements, with what a packed matrix is filled up by.
func (m Matrix) Bytes() int64 {
	if m.packed != nil {
		return int64(len(m.packed))
	}
	return int64(m.Rows) * m.DType.Bytes(m.Cols)
}
