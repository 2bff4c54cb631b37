package vision

import (
	"fmt"
	"math"

	"helicon/models/clip"
	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// SafetyChecker tells pictures that are not to be shown, by how close CLIP sees them to
// some concepts (Rando et al. 2022 describe it). It is read-only and may be shared by any
// number of goroutines.
type SafetyChecker struct {
	tower      *clip.Vision
	projection nn.Linear // [Projection, C]
	special    concepts  // those near to which less is tolerated of the others
	unsafe     concepts
}

// concepts are vectors in CLIP's space, and the cosine from which on a picture is near.
type concepts struct {
	vectors    []float32 // [n, Projection]
	thresholds []float32 // [n]
}

// LoadSafetyChecker reads the tensors of a StableDiffusionSafetyChecker, whose config.json
// is that of a CLIPModel. Errors name the tensor.
func LoadSafetyChecker(s *weights.Store, c clip.Config) (*SafetyChecker, error) {
	m := &SafetyChecker{}
	var err error
	if m.tower, err = clip.LoadVision(s.Sub("vision_model"), c.Vision); err != nil {
		return nil, fmt.Errorf("vision: safety checker: %w", err)
	}
	if m.projection, err = nn.LoadLinear(s.Sub("visual_projection"), c.Vision.Projection, c.Vision.Hidden, false); err != nil {
		return nil, fmt.Errorf("vision: safety checker: %w", err)
	}
	if m.special, err = loadConcepts(s, "special_care_embeds", c.Vision.Projection); err != nil {
		return nil, fmt.Errorf("vision: safety checker: %w", err)
	}
	if m.unsafe, err = loadConcepts(s, "concept_embeds", c.Vision.Projection); err != nil {
		return nil, fmt.Errorf("vision: safety checker: %w", err)
	}
	return m, nil
}

func loadConcepts(s *weights.Store, name string, width int) (c concepts, err error) {
	t, err := s.Lookup(name + "_weights")
	if err != nil {
		return c, err
	}
	n := t.Len()
	thresholds, err := s.Tensor(name+"_weights", n)
	if err != nil {
		return c, err
	}
	vectors, err := s.Tensor(name, n, width)
	if err != nil {
		return c, err
	}
	return concepts{vectors: vectors.Float32s(), thresholds: thresholds.Float32s()}, nil
}

// Bytes returns the memory of the weights.
func (m *SafetyChecker) Bytes() int64 {
	n := len(m.special.vectors) + len(m.special.thresholds) + len(m.unsafe.vectors) + len(m.unsafe.thresholds)
	return m.tower.Bytes() + m.projection.Bytes() + 4*int64(n)
}

// Check reports which of some pictures are unsafe. pixels is [B, Image, Image, 3], made by
// the bundle's Processor. The error wraps clip.ErrInput if it has another size.
func (m *SafetyChecker) Check(e *tensor.Exec, pixels []float32) ([]bool, error) {
	embeds, err := m.embed(e, pixels)
	if err != nil {
		return nil, err
	}
	width := m.projection.Weight.Rows
	flags := make([]bool, len(embeds)/width)
	for i := range flags {
		x := embeds[i*width:][:width]
		_, stricter := m.special.near(x, 0)
		flags[i], _ = m.unsafe.near(x, stricter)
	}
	return flags, nil
}

// embed returns the pictures' vectors [B, Projection].
func (m *SafetyChecker) embed(e *tensor.Exec, pixels []float32) ([]float32, error) {
	c := m.tower.Config()
	batch := max(len(pixels)/(c.Image*c.Image*c.Channels), 1)
	st := m.tower.NewState(batch)
	if err := m.tower.Forward(e, st, pixels); err != nil {
		return nil, err
	}
	y := make([]float32, batch*m.projection.Weight.Rows)
	m.projection.Forward(e, y, st.Pooled())
	return y, nil
}

// near reports whether x is near to any of the concepts, at cosines that much less than
// the thresholds, and by how much less they are to be from there on. Scores are rounded to
// three places, as by the reference.
func (c *concepts) near(x []float32, stricter float64) (found bool, next float64) {
	for i, threshold := range c.thresholds {
		cosine := float64(clip.Cosine(x, c.vectors[i*len(x):][:len(x)]))
		score := cosine - float64(threshold) + stricter
		if math.RoundToEven(1000*score) > 0 {
			found, stricter = true, 0.01
		}
	}
	return found, stricter
}
