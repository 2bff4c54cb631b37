package weights

import "encoding/binary"

// valueKind numbers the types of metadata in GGUF.
type valueKind uint32

const (
	kindUint8 valueKind = iota
	kindInt8
	kindUint16
	kindInt16
	kindUint32
	kindInt32
	kindFloat32
	kindBool
	kindString
	kindArray
	kindUint64
	kindInt64
	kindFloat64
)

// plainKind reads numbers of one type.
type plainKind struct {
	read     func(c *cursor) any
	readList func(c *cursor, n uint64) any
}

var plainKinds = map[valueKind]plainKind{
	kindUint8:   plain[uint8](),
	kindInt8:    plain[int8](),
	kindUint16:  plain[uint16](),
	kindInt16:   plain[int16](),
	kindUint32:  plain[uint32](),
	kindInt32:   plain[int32](),
	kindFloat32: plain[float32](),
	kindUint64:  plain[uint64](),
	kindInt64:   plain[int64](),
	kindFloat64: plain[float64](),
}

func plain[T number]() plainKind {
	return plainKind{
		read:     func(c *cursor) any { return read[T](c) },
		readList: func(c *cursor, n uint64) any { return readList[T](c, n) },
	}
}

// read reads a number.
func read[T number](c *cursor) (n T) {
	if raw := c.take(uint64(binary.Size(n))); c.err == nil {
		_, c.err = binary.Decode(raw, binary.LittleEndian, &n)
	}
	return n
}

// readList reads n numbers.
func readList[T number](c *cursor, n uint64) []T {
	var element T
	size := uint64(binary.Size(element))
	if !c.holds(n, size) {
		return nil
	}
	list := make([]T, n)
	if raw := c.take(n * size); c.err == nil {
		_, c.err = binary.Decode(raw, binary.LittleEndian, list)
	}
	return list
}

// Results of kindOf in the place of a length.
const (
	isScalar = -1
	isNone   = -2
)

// kindOf returns the kind of a number or a bool, or that of a slice of them and its
// length. It is isNone for anything else.
func kindOf(value any) (kind valueKind, n int) {
	switch v := value.(type) {
	case uint8:
		return kindUint8, isScalar
	case int8:
		return kindInt8, isScalar
	case uint16:
		return kindUint16, isScalar
	case int16:
		return kindInt16, isScalar
	case uint32:
		return kindUint32, isScalar
	case int32:
		return kindInt32, isScalar
	case float32:
		return kindFloat32, isScalar
	case bool:
		return kindBool, isScalar
	case uint64:
		return kindUint64, isScalar
	case int64:
		return kindInt64, isScalar
	case float64:
		return kindFloat64, isScalar
	case []uint8:
		return kindUint8, len(v)
	case []int8:
		return kindInt8, len(v)
	case []uint16:
		return kindUint16, len(v)
	case []int16:
		return kindInt16, len(v)
	case []uint32:
		return kindUint32, len(v)
	case []int32:
		return kindInt32, len(v)
	case []float32:
		return kindFloat32, len(v)
	case []bool:
		return kindBool, len(v)
	case []uint64:
		return kindUint64, len(v)
	case []int64:
		return kindInt64, len(v)
	case []float64:
		return kindFloat64, len(v)
	}
	return 0, isNone
}
