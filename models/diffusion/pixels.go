package diffusion

import (
	"context"
	"fmt"

	"helicon/models/tensor"
	"helicon/models/vae"
)

// pixels is the autoencoder of models that work on pictures themselves: latents are
// pixels in -1 to 1.
type pixels struct{}

// Latents describes the latents: one of three channels a pixel.
func (pixels) Latents() vae.Latents { return vae.Latents{Channels: 3, Down: 1, Scale: 1} }

// Encodes is true: there is nothing to load.
func (pixels) Encodes() bool { return true }

// Bytes is 0.
func (pixels) Bytes() int64 { return 0 }

// Decode copies z.
func (pixels) Decode(_ context.Context, _ *tensor.Exec, _ *vae.State, dst []float32, z vae.Map) error {
	return same(dst, z)
}

// DecodeBytes is 0.
func (pixels) DecodeBytes(int, int, int) int64 { return 0 }

// EncodeBytes is 0.
func (pixels) EncodeBytes(int, int, int) int64 { return 0 }

// Encode copies the picture.
func (pixels) Encode(_ context.Context, _ *tensor.Exec, _ *vae.State, dst []float32, picture vae.Map, _ []float32) error {
	return same(dst, picture)
}

func same(dst []float32, m vae.Map) error {
	if len(dst) != len(m.Data) || len(dst) != m.Height*m.Width*3 {
		return fmt.Errorf("diffusion: %d floats for a picture of %d×%d: %w", len(dst), m.Width, m.Height, vae.ErrInput)
	}
	copy(dst, m.Data)
	return nil
}
