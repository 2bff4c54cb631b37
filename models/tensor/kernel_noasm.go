//go:build !amd64 || purego

package tensor

func multiply(_ Level, y, x []float32, w Matrix, s shape) { multiplyGeneric(y, x, w, s) }

func addWeighted(_ Level, y, p, x []float32) { addWeightedGeneric(y, p, x) }
