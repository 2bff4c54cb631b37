//go:build !amd64 || purego

package tensor

// loops returns the loops for what kernels may use.
func (features) loops() peakLoops { return genericLoops }
