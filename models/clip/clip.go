// Package clip has the networks of CLIP (Radford et al. 2021): the text encoder that
// conditions Stable Diffusion 1, 2, XL, 3 and Flux, the vision tower, and both of them
// together; and what turns a prompt into the tokens that a text encoder reads.
//
// The reference is transformers' CLIPTextModel, CLIPTextModelWithProjection,
// CLIPVisionModelWithProjection and CLIPModel. OpenCLIP's encoders are the same network
// with another activation. Axes: B batch, T tokens, C channels.
package clip

import (
	"errors"
	"fmt"
	"math"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// Errors that callers tell apart.
var (
	// ErrConfig is wrapped by every error about a configuration that has no meaning.
	ErrConfig = errors.New("malformed configuration")
	// ErrUnsupported is wrapped by every error about a configuration that asks for
	// something that the package does not compute.
	ErrUnsupported = errors.New("not supported")
	// ErrInput is wrapped by every error about tokens that a network cannot read.
	ErrInput = errors.New("unsuitable input")
)

// Model is text encoder and vision tower, trained to give like vectors to a picture and
// to its caption.
type Model struct {
	Text   *Text
	Vision *Vision
	Scale  float32 // of similarities, before their softmax over captions
}

// Load reads "text_model", "vision_model", their projections and "logit_scale".
func Load(s *weights.Store, c Config) (*Model, error) {
	c.Text.Projected, c.Vision.Projected = true, true
	text, err := LoadText(s, c.Text)
	if err != nil {
		return nil, err
	}
	vision, err := LoadVision(s, c.Vision)
	if err != nil {
		return nil, err
	}
	scale, err := s.Tensor("logit_scale")
	if err != nil {
		return nil, fmt.Errorf("clip: %w", err)
	}
	return &Model{Text: text, Vision: vision, Scale: float32(math.Exp(float64(scale.Float32s()[0])))}, nil
}

// Bytes returns the memory of the weights.
func (m *Model) Bytes() int64 { return m.Text.Bytes() + m.Vision.Bytes() }

// Similarity writes into y [images, texts] the cosines of the embeddings of images and
// texts, each [_, C], times Scale. Their softmax over a row is how well each text
// describes the image.
func (m *Model) Similarity(y, images, texts []float32) {
	c := m.Vision.config.Projection
	for i := range len(images) / c {
		for j := range len(texts) / c {
			y[i*(len(texts)/c)+j] = m.Scale * Cosine(images[i*c:][:c], texts[j*c:][:c])
		}
	}
}

// Cosine returns a·b / (|a|·|b|), and 0 if either is zero.
func Cosine(a, b []float32) float32 {
	var ab, aa, bb float64
	for i, v := range a {
		ab += float64(v) * float64(b[i])
		aa += float64(v) * float64(v)
		bb += float64(b[i]) * float64(b[i])
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return float32(ab / math.Sqrt(aa*bb))
}

// activation returns the activation of a configuration that was checked.
func activation(name string) tensor.Activation {
	a, _ := tensor.ParseActivation(name)
	return a
}
