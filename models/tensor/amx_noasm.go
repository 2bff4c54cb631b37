//go:build !amd64 || purego

package tensor

// newTileKernel is not called: no machine has the feature.
func newTileKernel() kernel { return nil }
