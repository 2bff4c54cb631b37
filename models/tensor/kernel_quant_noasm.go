//go:build !amd64 || purego

package tensor

func (f quantForm) quantizeRow(dst []byte, x []float32, stride int) {
	f.quantizeRowGeneric(dst, x, stride)
}

func (k *quantKernel) run(t *quantTile) { t.generic(k.dtype) }

func (k *quantKernel) multiplyOne(piece) bool { return false }
