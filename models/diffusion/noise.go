package diffusion

import "math"

// The streams of noise of a picture. Each is independent of how much of the others is
// used. The second pass of a Hires has streams of its own, hiresStreams further.
const (
	startStream   = iota // the latents that denoising begins with
	pictureStream        // the sample of the VAE's posterior of the picture to begin from
	maskedStream         // the same of the picture without its masked part
	samplerStream        // the first draw of the sampler; the others follow
	hiresStreams  = 1 << 30
)

// noiseSource writes standard normal noise of a stream into dst.
type noiseSource func(stream uint32, dst []float32)

// seededNoise returns the noise of a seed. Element i of a stream is a function of seed,
// stream and i alone: Philox 4×32-10 (Salmon et al. 2011), keyed by the seed and counting
// pairs and streams, and the transform of Box and Muller. So a picture's noise does not
// depend on threads, nor on what other pictures are made.
func seededNoise(seed uint64) noiseSource {
	return func(stream uint32, dst []float32) {
		for i := 0; i < len(dst); i += 2 {
			pair := uint64(i / 2)
			w := philox([4]uint32{uint32(pair), uint32(pair >> 32), stream, 0}, seed)
			// Two uniforms of 53 bits, the first above 0.
			u := (float64(uint64(w[0])<<21|uint64(w[1])>>11) + 1) / (1 << 53)
			v := float64(uint64(w[2])<<21|uint64(w[3])>>11) / (1 << 53)
			radius := math.Sqrt(-2 * math.Log(u))
			sin, cos := math.Sincos(2 * math.Pi * v)
			dst[i] = float32(radius * cos)
			if i+1 < len(dst) {
				dst[i+1] = float32(radius * sin)
			}
		}
	}
}

// philox is the bijection Philox 4×32 of ten rounds.
func philox(c [4]uint32, key uint64) [4]uint32 {
	k0, k1 := uint32(key), uint32(key>>32)
	for range 10 {
		a, b := uint64(c[0])*0xD2511F53, uint64(c[2])*0xCD9E8D57
		c = [4]uint32{uint32(b>>32) ^ c[1] ^ k0, uint32(b), uint32(a>>32) ^ c[3] ^ k1, uint32(a)}
		k0, k1 = k0+0x9E3779B9, k1+0xBB67AE85
	}
	return c
}
