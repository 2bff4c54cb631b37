// Package vae has the autoencoders between pictures and the latents that diffusion models
// draw in: AutoencoderKL (Kingma and Welling 2014; Rombach et al. 2022) with 4 channels as
// in Stable Diffusion or 16 as in SD3 and Flux, and the tiny ones that stand in for it
// (TAESD, Bohan 2023).
//
// The reference is diffusers' AutoencoderKL and AutoencoderTiny. Pictures are float32
// [H, W, 3] in about -1 to 1, latents [h, w, C]; both lie channels last. One call does one
// picture.
//
// Memory stays bounded at any size: what is larger than a tile is computed in tiles. Of a
// tiny autoencoder the result is the same as without them, bit for bit, because tiles are
// computed with all that can reach them. AutoencoderKL has norms over the whole picture;
// its tiles overlap by a quarter and are blended, as the reference's are.
package vae

import (
	"context"
	"errors"
	"fmt"

	"helicon/models/tensor"
)

// Errors that callers tell apart.
var (
	// ErrConfig is wrapped by every error about a configuration that has no meaning.
	ErrConfig = errors.New("malformed configuration")
	// ErrUnsupported is wrapped by every error about a configuration that asks for
	// something that the package does not compute, or for a half that was not loaded.
	ErrUnsupported = errors.New("not supported")
	// ErrInput is wrapped by every error about pictures or latents of unsuitable sizes.
	ErrInput = errors.New("unsuitable input")
)

// Autoencoder is either kind. It is read-only and may be shared by any number of
// goroutines; a State belongs to one caller at a time.
type Autoencoder interface {
	// Latents describes the latents.
	Latents() Latents
	// Encodes reports whether the encoder was loaded.
	Encodes() bool
	// Bytes returns the memory of the weights.
	Bytes() int64
	// DecodeBytes and EncodeBytes return what a state of that tile grows to for latents of
	// a height and width. What an Exec keeps for itself comes on top.
	DecodeBytes(height, width, tile int) int64
	EncodeBytes(height, width, tile int) int64
	// Decode writes into dst [h·Down, w·Down, 3] the picture that latents z show. They are
	// those of the network itself: see Latents.FromModel. The error wraps ErrInput if a
	// size does not fit, and is the context's when that ends.
	Decode(ctx context.Context, e *tensor.Exec, st *State, dst []float32, z Map) error
	// Encode writes into dst [H/Down, W/Down, C] the latents of a picture whose sides are
	// multiples of Down: their mean, and if noise [H/Down, W/Down, C] is not nil the mean
	// and noise times the standard deviation, where the network has one. The error wraps
	// ErrUnsupported without an encoder.
	Encode(ctx context.Context, e *tensor.Exec, st *State, dst []float32, picture Map, noise []float32) error
}

// Map is a picture or latents.
type Map struct {
	Data          []float32 // [Height, Width, C]
	Height, Width int
}

// check returns an error unless the map has so many channels, and sides that are
// multiples of step and at most maxSide of them.
func (m Map) check(what string, channels, step int) error {
	if min(m.Height, m.Width) <= 0 || max(m.Height, m.Width) > maxSide*step || m.Height%step != 0 || m.Width%step != 0 {
		return fmt.Errorf("vae: %s of %d×%d, want sides of %d to %d in steps of %d: %w", what, m.Height, m.Width, step, maxSide*step, step, ErrInput)
	}
	if len(m.Data) != m.Height*m.Width*channels {
		return fmt.Errorf("vae: %s of %d×%d with %d floats, want %d: %w", what, m.Height, m.Width, len(m.Data), m.Height*m.Width*channels, ErrInput)
	}
	return nil
}

// maxSide bounds the height and width of latents.
const maxSide = 1 << 13

// Latents describes the latents of an autoencoder.
type Latents struct {
	Channels int
	Down     int       // pixels of a picture on the side of one of the latents
	Scale    float32   // scaling_factor
	Shift    float32   // shift_factor
	Mean     []float32 // [Channels], latents_mean, or nil; with Std it takes Shift's place
	Std      []float32 // [Channels], latents_std, or nil
}

// FromModel turns latents z [h, w, C] as a diffusion model has them into those of the
// autoencoder: z / Scale + Shift.
func (l *Latents) FromModel(z []float32) {
	for i := range z {
		mean, factor := l.affine(i % l.Channels)
		z[i] = z[i]*factor + mean
	}
}

// ToModel is the reverse: (z - Shift) · Scale.
func (l *Latents) ToModel(z []float32) {
	for i := range z {
		mean, factor := l.affine(i % l.Channels)
		z[i] = (z[i] - mean) / factor
	}
}

func (l *Latents) affine(channel int) (mean, factor float32) {
	if l.Std == nil {
		return l.Shift, 1 / l.Scale
	}
	return l.Mean[channel], l.Std[channel] / l.Scale
}

// DefaultTile is the side of the largest latents that are computed whole unless a State
// says otherwise: a picture of 1024 pixels where Down is 8.
const DefaultTile = 128

// State is the memory of calls. It grows with the first call of a size and is used again
// by all that follow.
type State struct {
	tile    int          // side of the largest latents computed whole
	image   [3][]float32 // of a run
	in, out []float32    // of a tile
	moments []float32    // [h, w, 2C], of the encoder
	current run
}

// NewState returns memory for one caller. Latents with a side longer than tile are
// computed in tiles; 0 is DefaultTile. Tiles smaller than 16 are 16.
func NewState(tile int) *State { return &State{tile: tileOf(tile)} }

const minTile = 16

func tileOf(tile int) int {
	if tile == 0 {
		return DefaultTile
	}
	return max(tile, minTile)
}

// Bytes returns the memory that the state has grown to.
func (st *State) Bytes() int64 {
	n := len(st.in) + len(st.out) + len(st.moments)
	for _, b := range st.image {
		n += len(b)
	}
	return 4 * int64(n)
}

// run returns a run with the buffers that its plan counts.
func (st *State) run(e *tensor.Exec, p plan) *run {
	st.current = run{e: e}
	for i, n := range p.sizes {
		st.current.image[i] = grow(&st.image[i], n)
	}
	return &st.current
}

// grow returns n floats of *b, which is made anew if it has less.
func grow(b *[]float32, n int) []float32 {
	if len(*b) < n {
		*b = nil // the collector may take it before there is more
		*b = make([]float32, n)
	}
	return (*b)[:n]
}
