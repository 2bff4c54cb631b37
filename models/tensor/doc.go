// Package tensor holds the dense kernels that every network is made of: matrix
// products with weights in their file type, normalisation, rotary positions,
// activations and attention, over flat float32 slices that the caller owns.
//
// Weights multiply fastest when they are packed: laid out once, at load, in groups of 16
// rows for the vector instructions of the machine (Matrix.Pack, Arena). The assembly is
// written by the program in gen, one tile of registers after another; Level says which
// instructions a Pool uses, and every kernel has a twin in Go.
//
// A kernel's result depends on its arguments alone. Work is divided over outputs
// and never inside a sum, so the bits are the same for any number of threads and
// for any way of cutting a sequence into calls.
//
// Axes: T tokens (rows of activations), K the length of a sum, H heads, D the
// head dimension, S cached positions. A shape that does not fit is a programmer's
// error and panics with both shapes; whatever comes from a file is checked by
// package weights before it gets here.
//
//go:generate go run ./gen
package tensor
