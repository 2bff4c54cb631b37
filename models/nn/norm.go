package nn

import (
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Norm is a normalisation over the channels of each token. y may be x.
type Norm interface {
	Forward(e *tensor.Exec, y, x []float32)
}

// RMSNorm is Zhang and Sennrich's root mean square norm (2019).
type RMSNorm struct {
	Weight []float32
	Eps    float32
}

// LoadRMSNorm reads "weight" [channels].
func LoadRMSNorm(s *weights.Store, channels int, eps float32) (RMSNorm, error) {
	w, err := loadVector(s, "weight", channels)
	return RMSNorm{Weight: w, Eps: eps}, err
}

// Forward computes y [T, C] from x [T, C].
func (n RMSNorm) Forward(e *tensor.Exec, y, x []float32) { e.RMSNorm(y, x, n.Weight, n.Eps) }

// LayerNorm is Ba, Kiros and Hinton's layer norm (2016).
type LayerNorm struct {
	Weight, Bias []float32
	Eps          float32
}

// LoadLayerNorm reads "weight" and "bias" [channels].
func LoadLayerNorm(s *weights.Store, channels int, eps float32) (LayerNorm, error) {
	w, err := loadVector(s, "weight", channels)
	if err != nil {
		return LayerNorm{}, err
	}
	b, err := loadVector(s, "bias", channels)
	return LayerNorm{Weight: w, Bias: b, Eps: eps}, err
}

// Forward computes y [T, C] from x [T, C].
func (n LayerNorm) Forward(e *tensor.Exec, y, x []float32) {
	e.LayerNorm(y, x, n.Weight, n.Bias, n.Eps)
}
