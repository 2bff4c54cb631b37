//go:build !amd64 || purego

package tensor

func (k *floatKernel) run(t *floatTile) { t.generic(k.dtype, k.pairs) }

func roundRow(dst []uint16, x []float32, stride int) { roundRowGeneric(dst, x, stride) }

func spreadRow(_ Level, dst, x []float32, stride int) { spreadRowGeneric(dst, x, stride) }

func spreadStrip(Level, []float32, []float32, int, int) int { return 0 }
