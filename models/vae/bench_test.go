package vae

import (
	"fmt"
	"testing"

	"helicon/models/tensor"
)

// BenchmarkDecode decodes with random weights in the shape of Stable Diffusion's
// autoencoder and of TAESD, on two threads.
func BenchmarkDecode(b *testing.B) {
	pool := tensor.NewPool(tensor.Config{Threads: 2})
	defer pool.Close()
	kl, tiny := StableDiffusion(), tinyDefaults()
	networks := []struct {
		name string
		load func(d tensor.DType) (Autoencoder, error)
	}{
		{"kl", func(d tensor.DType) (Autoencoder, error) {
			return Load(randomStore(b, klShapes(kl, false)).Packed(nil, d), kl)
		}},
		{"tiny", func(d tensor.DType) (Autoencoder, error) {
			return LoadTiny(randomStore(b, tinyShapes(tiny)).Packed(nil, d), tiny)
		}},
	}
	for _, n := range networks {
		for _, size := range []int{256, 512} {
			for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
				b.Run(fmt.Sprintf("%s/%d/%v", n.name, size, d), func(b *testing.B) {
					m, err := n.load(d)
					if err != nil {
						b.Fatal(err)
					}
					e, st, l := tensor.NewExec(pool), NewState(0), m.Latents()
					side := size / l.Down
					z := Map{Data: noise(side * side * l.Channels), Height: side, Width: side}
					dst := make([]float32, 3*size*size)
					decode := func() {
						if err := m.Decode(b.Context(), e, st, dst, z); err != nil {
							b.Fatal(err)
						}
					}
					decode()
					for b.Loop() {
						decode()
					}
					b.ReportMetric(float64(st.Bytes())/1e6, "state-MB")
				})
			}
		}
	}
}
