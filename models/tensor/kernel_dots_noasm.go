//go:build !amd64 || purego

package tensor

func magnitude(_ Level, x []float32) uint32 { return magnitudeGeneric(x) }

func (f byteRows) round(dst []byte, x []float32, inverse float32) { f.roundGeneric(dst, x, inverse) }

func (k *byteKernel) run(c *dotCall) { c.genericBytes() }

func widenPairs(_ Level, dst []float32, src []uint16) { widenPairsGeneric(dst, src) }

// multiply is not called: no machine has the feature.
func (k pairKernel) multiply(*dotCall) {}

func pairsFast() bool { return false }

func (c *finishing) run(Level) { c.generic(0) }
