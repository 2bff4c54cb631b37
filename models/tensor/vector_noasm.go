//go:build !amd64 || purego

package tensor

func activate(_ Level, f Activation, y, x, up []float32) { activateGeneric(f, y, x, up) }

func softCap(_ Level, x []float32, limit float32) { softCapGeneric(x, limit) }

func axpy(_ Level, y, x []float32, w float32) { axpyGeneric(y, x, w) }

func scale(_ Level, y, x []float32, w float32) { scaleGeneric(y, x, w) }

func rotate(_ Level, x, y, cos, sin []float32) { rotateGeneric(x, y, cos, sin) }

func maximum(_ Level, x []float32) float32 { return maximumGeneric(x) }

func expSum(_ Level, x []float32, c float32) float32 { return expSumGeneric(x, c) }

func tileTops(_ Level, top, p []float32, cols int) { tileTopsGeneric(top, p, cols) }

func tileWeights(_ Level, sum, p, top []float32, cols int) { tileWeightsGeneric(sum, p, top, cols) }

func moments(_ Level, x []float32, c float32) (sum, squares float64) { return momentsGeneric(x, c) }

func (f *affine) apply(_ Level, y, x []float32) { f.applyGeneric(y, x) }

func (s *columns) add(_ Level, x []float32) { s.addGeneric(x) }

func addHadamard(_ Level, y, x, w []float32) { addHadamardGeneric(y, x, w) }

func widenPanel(_ Level, y []float32, d DType, x []uint16) { widen(y, d, x[:len(y)]) }
