package bench

import (
	"context"
	"fmt"

	"helicon/models/tensor"
)

// GEMM is a matrix product Y [M, N] = X [M, K] · Wᵀ with weights W [N, K] of a type, as a
// network computes it for M tokens.
type GEMM struct {
	M, N, K int
	Type    tensor.DType

	// Cold takes other weights in every repetition, of more memory in all than caches
	// hold, as a network with many layers does. Otherwise the weights stay the same.
	Cold bool
}

// coldBytes is how much memory the weights of a cold product take in all.
const coldBytes = 512 << 20

// Limits of a product's size.
const (
	maxSide  = 1 << 20
	maxBytes = 1 << 33 // of the weights
)

// String returns MxNxK, and whether the weights are cold.
func (g GEMM) String() string {
	text := fmt.Sprintf("%dx%dx%d", g.M, g.N, g.K)
	if g.Cold {
		text += " cold"
	}
	return text
}

// Validate refuses sizes that cannot be, or that no model has.
func (g GEMM) Validate() error {
	for _, side := range []int{g.M, g.N, g.K} {
		if side < 1 || side > maxSide {
			return fmt.Errorf("%v: sides are 1 to %d", g, maxSide)
		}
	}
	if n, _ := g.Type.Block(); g.K%n != 0 {
		return fmt.Errorf("%v: %v comes in blocks of %d, which do not divide %d", g, g.Type, n, g.K)
	}
	if g.Type.Bytes(g.K)*int64(g.N) > maxBytes {
		return fmt.Errorf("%v: weights of more than %d bytes", g, int64(maxBytes))
	}
	return nil
}

// GEMM measures a matrix product. One with a single row is compared with the memory's
// rate, which binds it, and others with the rate of multiplication. An error says which
// size cannot be measured, or is the cause of ctx's end.
func (b *Bench) GEMM(ctx context.Context, g GEMM) (Result, error) {
	if err := g.Validate(); err != nil {
		return Result{}, fmt.Errorf("bench: %w", err)
	}
	var arena tensor.Arena
	defer arena.Close()
	weights := g.weights(&arena)
	x, y := randomFloats(g.M*g.K), make([]float32, g.M*g.N)
	w := work{
		name: g.String(), dtype: g.Type, bytes: float64(weights[0].Bytes()),
		operations: 2 * float64(g.M) * float64(g.N) * float64(g.K), peak: b.multiplying(g.Type),
	}
	if g.M == 1 {
		w.peak = Read
	}
	exec, turn := tensor.NewExec(b.pool), 0
	return b.measure(ctx, w, func(context.Context) error {
		exec.MatMul(y, x, weights[turn%len(weights)], nil)
		turn++
		return nil
	})
}

// weights returns the matrices that repetitions take in turn, laid out for the kernels.
func (g GEMM) weights(a *tensor.Arena) []tensor.Matrix {
	n := int64(1)
	if g.Cold {
		n += coldBytes / (g.Type.Bytes(g.K) * int64(g.N))
	}
	data := make([]byte, g.Type.Bytes(g.N*g.K))
	fill(data, pattern(g.Type))
	matrices := make([]tensor.Matrix, n)
	for i := range matrices {
		matrices[i] = tensor.NewMatrix(g.Type, g.N, g.K, data).Pack(a)
	}
	return matrices
}

// GEMMs returns the products that are measured unless others are asked for: squares, two
// narrow ones as text encoders and short prompts have, and a single token's.
func GEMMs(types ...tensor.DType) []GEMM {
	var list []GEMM
	for _, g := range []GEMM{
		{M: 1024, N: 1024, K: 1024}, {M: 2048, N: 2048, K: 2048},
		{M: 77, N: 3072, K: 768}, {M: 16, N: 4096, K: 1024},
		{M: 1, N: 4096, K: 4096}, {M: 1, N: 4096, K: 4096, Cold: true},
	} {
		for _, d := range types {
			g.Type = d
			list = append(list, g)
		}
	}
	return list
}
