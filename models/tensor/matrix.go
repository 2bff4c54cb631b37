package tensor

import "fmt"

// Matrix is a weight of [Rows, Cols] in its file type. It is read-only and may be
// shared by any number of goroutines.
type Matrix struct {
	DType      DType
	Rows, Cols int

	f32 []float32 // F32
	u16 []uint16  // F16, BF16
}

// NewMatrix views little-endian data as a matrix, without copying it if it is
// aligned to its elements. It panics if d is not F32, F16 or BF16 or the size differs.
func NewMatrix(d DType, rows, cols int, data []byte) Matrix {
	if !d.Float() || rows < 0 || cols < 0 || len(data) != rows*cols*d.Size() {
		panic(fmt.Sprintf("tensor: matrix %v [%d, %d] over %d bytes", d, rows, cols, len(data)))
	}
	m := Matrix{DType: d, Rows: rows, Cols: cols}
	if d == F32 {
		m.f32 = view[float32](data)
	} else {
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

// Slice returns rows lo to hi-1, sharing memory.
func (m Matrix) Slice(lo, hi int) Matrix {
	if lo < 0 || hi < lo || hi > m.Rows {
		panic(fmt.Sprintf("tensor: rows %d to %d of a matrix [%d, %d]", lo, hi, m.Rows, m.Cols))
	}
	if m.DType == F32 {
		m.f32 = m.f32[lo*m.Cols : hi*m.Cols]
	} else {
		m.u16 = m.u16[lo*m.Cols : hi*m.Cols]
	}
	m.Rows = hi - lo
	return m
}

// Transposed returns a copy of [Cols, Rows] in the same type.
func (m Matrix) Transposed() Matrix {
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

// Gather returns a copy, in the same type, of the rows that are listed.
func (m Matrix) Gather(rows []int) Matrix {
	for _, r := range rows {
		if r < 0 || r >= m.Rows {
			panic(fmt.Sprintf("tensor: row %d of a matrix [%d, %d]", r, m.Rows, m.Cols))
		}
	}
	g := Matrix{DType: m.DType, Rows: len(rows), Cols: m.Cols}
	if m.DType == F32 {
		g.f32 = gather(m.f32, m.Cols, rows)
	} else {
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
	if m.DType == F32 {
		copy(dst, m.f32[r*m.Cols:])
		return
	}
	widen(dst, m.DType, m.u16[r*m.Cols:(r+1)*m.Cols])
}

// Bytes returns the size of the elements.
func (m Matrix) Bytes() int64 { return int64(m.Rows) * int64(m.Cols) * int64(m.DType.Size()) }
