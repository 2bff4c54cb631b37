//go:build !purego

package tensor

import "unsafe"

//go:noescape
func multiplyQ8_0AVX512(t *quantTile)

//go:noescape
func multiplyQ4_0AVX512(t *quantTile)

//go:noescape
func multiplyQ4_1AVX512(t *quantTile)

//go:noescape
func multiplyQ5_0AVX512(t *quantTile)

//go:noescape
func multiplyQ5_1AVX512(t *quantTile)

//go:noescape
func multiplyQ4_KAVX512(t *quantTile)

//go:noescape
func multiplyQ5_KAVX512(t *quantTile)

//go:noescape
func multiplyQ6_KAVX512(t *quantTile)

//go:noescape
func multiplyQ8_0AMX(t *quantTile)

//go:noescape
func multiplyQ4_0AMX(t *quantTile)

//go:noescape
func multiplyQ4_1AMX(t *quantTile)

//go:noescape
func multiplyQ5_0AMX(t *quantTile)

//go:noescape
func multiplyQ5_1AMX(t *quantTile)

//go:noescape
func multiplyQ4_KAMX(t *quantTile)

//go:noescape
func multiplyQ5_KAMX(t *quantTile)

//go:noescape
func multiplyQ8_0AVX2(t *quantTile)

//go:noescape
func multiplyQ4_0AVX2(t *quantTile)

//go:noescape
func multiplyQ4_1AVX2(t *quantTile)

//go:noescape
func multiplyQ5_0AVX2(t *quantTile)

//go:noescape
func multiplyQ5_1AVX2(t *quantTile)

//go:noescape
func multiplyQ4_KAVX2(t *quantTile)

//go:noescape
func multiplyQ5_KAVX2(t *quantTile)

//go:noescape
func multiplyQ6_KAVX2(t *quantTile)

// quantizeRowAVX2 writes the records of a row, stride bytes apart.
//
//go:noescape
func quantizeRowAVX2(dst *byte, x *float32, records, stride, zero, second int)

func (f quantForm) quantizeRow(dst []byte, x []float32, stride int) {
	records := len(x) / quantStep
	if f.level == Generic || records == 0 {
		f.quantizeRowGeneric(dst, x, stride)
		return
	}
	_ = dst[(records-1)*stride+recordBytes-1]
	quantizeRowAVX2(unsafe.SliceData(dst), unsafe.SliceData(x), records, stride, f.zero, f.second)
}

// run multiplies with the instructions of the kernel's level.
func (k *quantKernel) run(t *quantTile) {
	switch {
	case t.shapes != nil:
		k.runAMX(t)
	case k.level >= AVX512:
		k.runAVX512(t)
	case k.level == AVX2:
		k.runAVX2(t)
		if t.next != 0 {
			second := t.second()
			k.runAVX2(&second)
		}
	default:
		t.generic(k.dtype)
	}
}

func (k *quantKernel) runAMX(t *quantTile) {
	switch k.dtype {
	case Q8_0:
		multiplyQ8_0AMX(t)
	case Q4_0:
		multiplyQ4_0AMX(t)
	case Q4_1:
		multiplyQ4_1AMX(t)
	case Q5_0:
		multiplyQ5_0AMX(t)
	case Q5_1:
		multiplyQ5_1AMX(t)
	case Q4_K:
		multiplyQ4_KAMX(t)
	case Q5_K:
		multiplyQ5_KAMX(t)
	}
}

func (k *quantKernel) runAVX512(t *quantTile) {
	switch k.dtype {
	case Q8_0:
		multiplyQ8_0AVX512(t)
	case Q4_0:
		multiplyQ4_0AVX512(t)
	case Q4_1:
		multiplyQ4_1AVX512(t)
	case Q5_0:
		multiplyQ5_0AVX512(t)
	case Q5_1:
		multiplyQ5_1AVX512(t)
	case Q4_K:
		multiplyQ4_KAVX512(t)
	case Q5_K:
		multiplyQ5_KAVX512(t)
	case Q6_K:
		multiplyQ6_KAVX512(t)
	}
}

// runAVX2 multiplies the first group.
func (k *quantKernel) runAVX2(t *quantTile) {
	switch k.dtype {
	case Q8_0:
		multiplyQ8_0AVX2(t)
	case Q4_0:
		multiplyQ4_0AVX2(t)
	case Q4_1:
		multiplyQ4_1AVX2(t)
	case Q5_0:
		multiplyQ5_0AVX2(t)
	case Q5_1:
		multiplyQ5_1AVX2(t)
	case Q4_K:
		multiplyQ4_KAVX2(t)
	case Q5_K:
		multiplyQ5_KAVX2(t)
	case Q6_K:
		multiplyQ6_KAVX2(t)
	}
}
