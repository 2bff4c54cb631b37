package diffusion

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"helicon/models/diffusion/components"
	"helicon/models/tensor"
	"helicon/models/vae"
	"helicon/models/weights"
)

// autoencoder is a VAE whose configuration has been read.
type autoencoder struct {
	latents   vae.Latents
	load      func(b *bundle) (coder, error)
	workspace func(s shape) int64 // bytes
}

// coder is a loaded autoencoder.
type coder struct {
	vae.Autoencoder // that decodes, and stays

	// encoder returns one that encodes, to be released after use. It is nil without one.
	// The encoder is half of an autoencoder, and few pictures begin from another.
	encoder func() (m vae.Autoencoder, release func() error, err error)
}

// both returns a coder that does both at any time.
func both(m vae.Autoencoder) coder {
	c := coder{Autoencoder: m}
	if m.Encodes() {
		c.encoder = func() (vae.Autoencoder, func() error, error) { return m, func() error { return nil }, nil }
	}
	return c
}

// vaeCompute is the type that a VAE computes in: not in 8 bits, whose steps would be seen
// in the picture.
func vaeCompute(d tensor.DType) tensor.DType {
	if d == tensor.I8 {
		return tensor.BF16
	}
	return d
}

// configureVAE reads the configuration of the VAE that the options choose, or the
// bundle's own. A model without one works on pixels.
func configureVAE(b *bundle) (autoencoder, error) {
	switch {
	case b.options.TinyVAE != nil:
		return configureTiny(b.options.TinyVAE, "TinyVAE")
	case !b.Has("vae"):
		return autoencoder{
			latents:   pixels{}.Latents(),
			load:      func(*bundle) (coder, error) { return both(pixels{}), nil },
			workspace: func(shape) int64 { return 0 },
		}, nil
	case b.Parts["vae"] == "AutoencoderTiny":
		folder, err := fs.Sub(b.Files, "vae")
		if err != nil {
			return autoencoder{}, fmt.Errorf("diffusion: vae: %w", err)
		}
		return configureTiny(folder, "vae")
	}
	raw, err := b.Config("vae")
	if err != nil {
		return autoencoder{}, err
	}
	c, err := vae.ParseConfig(raw)
	if err != nil {
		return autoencoder{}, fmt.Errorf("diffusion: vae/config.json: %w: %w", err, ErrUnsupported)
	}
	return autoencoder{c.Latents(), func(b *bundle) (coder, error) { return loadKL(b, c) }, workspaceOf(&c)}, nil
}

// loadKL reads the decoder of an AutoencoderKL.
func loadKL(b *bundle, c vae.Config) (coder, error) {
	s, err := b.Weights("vae")
	if err != nil {
		return coder{}, err
	}
	compute, decoder := vaeCompute(b.options.Compute), map[string]weights.View{}
	for _, name := range s.Names() {
		if !strings.HasPrefix(name, "encoder.") && !strings.HasPrefix(name, "quant_conv.") {
			decoder[name] = weights.View{Name: name}
		}
	}
	half, err := s.View(decoder)
	if err != nil {
		return coder{}, err
	}
	m, err := vae.Load(half.Packed(b.Arena, compute), c)
	if err != nil || len(decoder) == len(s.Names()) {
		return coder{Autoencoder: m}, err
	}
	return coder{m, func() (vae.Autoencoder, func() error, error) {
		var arena tensor.Arena
		whole, err := vae.Load(s.Packed(&arena, compute), c)
		s.Evict()
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("diffusion: vae: %w", err), arena.Close())
		}
		return whole, arena.Close, nil
	}}, nil
}

// sized is a configuration that tells what its states grow to.
type sized interface {
	DecodeBytes(height, width, tile int) int64
	EncodeBytes(height, width, tile int) int64
}

// workspaceOf returns what a state grows to that both encodes and decodes.
func workspaceOf(c sized) func(shape) int64 {
	return func(s shape) int64 {
		return max(c.DecodeBytes(s.height, s.width, 0), c.EncodeBytes(s.height, s.width, 0))
	}
}

// configureTiny reads the configuration of an AutoencoderTiny in a folder: diffusers', or
// the two files of TAESD's own names, which need none. name is what errors call it.
func configureTiny(files fs.FS, name string) (autoencoder, error) {
	raw, err := components.ReadText(files, "config.json")
	if errors.Is(err, fs.ErrNotExist) {
		if a, ok := configureTAESD(files, name); ok {
			return a, nil
		}
	}
	if err != nil {
		return autoencoder{}, fmt.Errorf("diffusion: %s: %w", name, err)
	}
	c, err := vae.ParseTinyConfig(raw)
	if err != nil {
		return autoencoder{}, fmt.Errorf("diffusion: %s/config.json: %w: %w", name, err, ErrUnsupported)
	}
	load := func(b *bundle) (coder, error) {
		s, err := components.OpenFolder(files, ".")
		if err != nil {
			return coder{}, fmt.Errorf("diffusion: %s: %w", name, err)
		}
		b.Keep(s)
		m, err := vae.LoadTiny(s.Packed(b.Arena, vaeCompute(b.options.Compute)), c)
		if err != nil {
			return coder{}, fmt.Errorf("diffusion: %s: %w", name, err)
		}
		return both(m), nil
	}
	l := vae.Latents{
		Channels: c.LatentChannels, Down: 1 << (len(c.DecoderChannels) - 1),
		Scale: float32(c.ScalingFactor), Shift: float32(c.ShiftFactor),
	}
	return autoencoder{l, load, workspaceOf(&c)}, nil
}

// configureTAESD finds files such as taesd_encoder.safetensors and taesd_decoder.safetensors.
func configureTAESD(files fs.FS, name string) (autoencoder, bool) {
	for _, model := range []string{"taesd", "taesdxl", "taesd3", "taef1"} {
		decoder, err := weights.ReadHeader(files, model+"_decoder")
		if err != nil {
			continue
		}
		l := vae.Latents{Channels: 4, Down: 8, Scale: 1}
		if first, err := decoder.Lookup("1.weight"); err == nil && len(first.Shape) == 4 {
			l.Channels = first.Shape[1]
		}
		load := func(b *bundle) (coder, error) {
			var halves []*weights.Store
			for _, half := range []string{"_encoder", "_decoder"} {
				s, err := weights.Open(files, model+half)
				if err != nil {
					return coder{}, fmt.Errorf("diffusion: %s: %w", name, err)
				}
				b.Keep(s)
				halves = append(halves, s.Packed(b.Arena, vaeCompute(b.options.Compute)))
			}
			m, err := vae.LoadTAESD(halves[0], halves[1])
			if err != nil {
				return coder{}, fmt.Errorf("diffusion: %s: %w", name, err)
			}
			return both(m), nil
		}
		c, err := vae.ParseTinyConfig([]byte("{}"))
		return autoencoder{l, load, workspaceOf(&c)}, err == nil
	}
	return autoencoder{}, false
}
