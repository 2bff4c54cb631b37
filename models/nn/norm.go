package nn

import (
	"fmt"
	"strconv"

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

// LoadRMSNormLessOne is LoadRMSNorm of a weight that is stored less one, as Gemma does.
func LoadRMSNormLessOne(s *weights.Store, channels int, eps float32) (RMSNorm, error) {
	stored, err := loadVector(s, "weight", channels)
	if err != nil {
		return RMSNorm{}, err
	}
	w := make([]float32, channels)
	for i, v := range stored {
		w[i] = 1 + v
	}
	return RMSNorm{Weight: w, Eps: eps}, nil
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

// HeadLayerNorm is a layer norm without bias over each head for itself, as StableLM 2
// has it on queries and keys.
type HeadLayerNorm struct {
	Weight []float32 // [H, D]
	Heads  int
	Eps    float32
}

// LoadHeadLayerNorm reads "norms.i.weight" [dim] for each head i.
func LoadHeadLayerNorm(s *weights.Store, heads, dim int, eps float32) (HeadLayerNorm, error) {
	n := HeadLayerNorm{Heads: heads, Eps: eps}
	for i := range heads {
		w, err := loadVector(s.Sub("norms").Sub(strconv.Itoa(i)), "weight", dim)
		if err != nil {
			return n, err
		}
		n.Weight = append(n.Weight, w...)
	}
	return n, nil
}

// Forward computes y [T, H, D] from x [T, H, D].
func (n HeadLayerNorm) Forward(e *tensor.Exec, y, x []float32) {
	e.HeadLayerNorm(y, x, n.Weight, n.Heads, n.Eps)
}

// GroupNorm is Wu and He's norm over groups of channels and all pixels (2018).
type GroupNorm struct {
	Weight, Bias []float32
	Groups       int
	Eps          float32
}

// LoadGroupNorm reads "weight" and "bias" [channels]. The error wraps weights.ErrShape if
// channels are no multiple of groups.
func LoadGroupNorm(s *weights.Store, groups, channels int, eps float32) (GroupNorm, error) {
	if groups <= 0 || channels%groups != 0 {
		return GroupNorm{}, fmt.Errorf("nn: norm of %d channels in %d groups: %w", channels, groups, weights.ErrShape)
	}
	n, err := LoadLayerNorm(s, channels, eps)
	return GroupNorm{Weight: n.Weight, Bias: n.Bias, Groups: groups, Eps: eps}, err
}

// Forward computes y = f(norm(x)), [B, H, W, C] both, for images or sequences of any size.
// y may be x; f is 0 for none.
func (n GroupNorm) Forward(e *tensor.Exec, y, x []float32, batch int, f tensor.Activation) {
	e.GroupNorm(tensor.GroupNorm{
		Y: y, X: x, Weight: n.Weight, Bias: n.Bias, Batch: batch, Groups: n.Groups, Eps: n.Eps, Activation: f,
	})
}

// Bytes returns the memory of the weights.
func (n GroupNorm) Bytes() int64 { return 4 * int64(len(n.Weight)+len(n.Bias)) }

// Bytes returns the memory of the weights.
func (n LayerNorm) Bytes() int64 { return 4 * int64(len(n.Weight)+len(n.Bias)) }
