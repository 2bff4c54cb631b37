package vae

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// smallKL is an AutoencoderKL of three levels, smallTiny an AutoencoderTiny of four.
func smallKL() Config {
	c := StableDiffusion()
	c.Channels, c.Layers, c.Groups = []int{16, 32, 32}, 1, 4
	return c
}

func smallTiny() TinyConfig {
	c := tinyDefaults()
	c.EncoderChannels, c.DecoderChannels = []int{16, 16, 16, 16}, []int{16, 16, 16, 16}
	return c
}

func loadKL(t testing.TB, c Config, d tensor.DType) *KL {
	t.Helper()
	m, err := Load(randomStore(t, klShapes(c, true)).Packed(nil, d), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func loadSmallTiny(t testing.TB, d tensor.DType) *Tiny {
	t.Helper()
	c := smallTiny()
	m, err := LoadTiny(randomStore(t, tinyShapes(c)).Packed(nil, d), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// decode returns the picture of random latents, and the state.
func decode(t testing.TB, m Autoencoder, threads, height, width, tile int) ([]float32, *State) {
	t.Helper()
	pool := tensor.NewPool(tensor.Config{Threads: threads})
	defer pool.Close()
	l, st := m.Latents(), NewState(tile)
	z := Map{Data: noise(height * width * l.Channels), Height: height, Width: width}
	dst := make([]float32, 3*height*width*l.Down*l.Down)
	if err := m.Decode(t.Context(), tensor.NewExec(pool), st, dst, z); err != nil {
		t.Fatal(err)
	}
	return dst, st
}

// encode returns the latents of a random picture, and the state.
func encode(t testing.TB, m Autoencoder, height, width, tile int) ([]float32, *State) {
	t.Helper()
	l, st := m.Latents(), NewState(tile)
	picture := Map{Data: noise(3 * height * width * l.Down * l.Down), Height: height * l.Down, Width: width * l.Down}
	dst := make([]float32, height*width*l.Channels)
	if err := m.Encode(t.Context(), tensor.NewExec(nil), st, dst, picture, nil); err != nil {
		t.Fatal(err)
	}
	return dst, st
}

// TestTinyTiles checks that tiles change no bit of what a tiny autoencoder makes.
func TestTinyTiles(t *testing.T) {
	t.Parallel()
	for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
		m := loadSmallTiny(t, d)
		whole, _ := decode(t, m, 1, 21, 34, 64)
		tiled, _ := decode(t, m, 1, 21, 34, 16)
		if !slices.Equal(tiled, whole) {
			t.Errorf("%v: decoded in tiles, the picture is another", d)
		}
		whole, _ = encode(t, m, 21, 34, 64)
		tiled, _ = encode(t, m, 21, 34, 16)
		if !slices.Equal(tiled, whole) {
			t.Errorf("%v: encoded in tiles, the latents are others", d)
		}
	}
}

// TestKLTiles checks that a picture in tiles is close to the picture as a whole. Norms of
// random weights differ by tile as much as any.
func TestKLTiles(t *testing.T) {
	t.Parallel()
	m := loadKL(t, smallKL(), tensor.F32)
	for name, run := range map[string]func(tile int) []float32{
		"decoded": func(tile int) []float32 { x, _ := decode(t, m, 1, 48, 40, tile); return x },
		"encoded": func(tile int) []float32 { x, _ := encode(t, m, 48, 40, tile); return x },
	} {
		whole, tiled := run(64), run(32)
		var diff, size float64
		for i, v := range whole {
			diff += float64(tiled[i]-v) * float64(tiled[i]-v)
			size += float64(v) * float64(v)
		}
		if share := math.Sqrt(diff / size); !(share < 0.2) {
			t.Errorf("%s in tiles, %.2g of it is another", name, share)
		}
	}
}

// TestCut checks that tiles cover an axis with equal sizes and that their shares of every
// pixel are 1 in all.
func TestCut(t *testing.T) {
	t.Parallel()
	for _, tile := range []int{16, 17, 64, 128} {
		for n := 1; n < 5*tile; n++ {
			const up = 2
			c, shares := cut(n, tile), make([]float64, n*up)
			if c.size > tile || c.size > n {
				t.Fatalf("%d steps in tiles of %d: %+v", n, tile, c)
			}
			for i := range c.count {
				for x := range c.size * up {
					shares[c.start(i)*up+x] += float64(c.share(i, x, up))
				}
			}
			for x, s := range shares {
				if math.Abs(s-1) > 1e-5 {
					t.Fatalf("%d steps in tiles of %d: %+v: pixel %d has shares of %v", n, tile, c, x, s)
				}
			}
		}
	}
}

// TestThreads checks that the number of threads changes no bit.
func TestThreads(t *testing.T) {
	t.Parallel()
	for _, m := range []Autoencoder{loadKL(t, smallKL(), tensor.BF16), loadSmallTiny(t, tensor.BF16)} {
		one, _ := decode(t, m, 1, 9, 14, 0)
		two, _ := decode(t, m, 3, 9, 14, 0)
		if !slices.Equal(one, two) {
			t.Errorf("%T: another picture on more threads", m)
		}
	}
}

// TestBytes checks that states grow to what was said.
func TestBytes(t *testing.T) {
	t.Parallel()
	for _, m := range []Autoencoder{loadKL(t, smallKL(), tensor.F32), loadSmallTiny(t, tensor.F32)} {
		for _, size := range [][3]int{{8, 8, 0}, {13, 9, 16}, {20, 40, 16}, {33, 5, 16}, {16, 17, 16}} {
			_, st := decode(t, m, 1, size[0], size[1], size[2])
			if want := m.DecodeBytes(size[0], size[1], size[2]); st.Bytes() != want {
				t.Errorf("%T: decoding %v took %d bytes, said %d", m, size, st.Bytes(), want)
			}
			_, st = encode(t, m, size[0], size[1], size[2])
			if want := m.EncodeBytes(size[0], size[1], size[2]); st.Bytes() != want {
				t.Errorf("%T: encoding %v took %d bytes, said %d", m, size, st.Bytes(), want)
			}
		}
	}
}

// TestBounded checks what Stable Diffusion's autoencoder takes at 512×512 pixels, and that
// it takes no more at any size.
func TestBounded(t *testing.T) {
	t.Parallel()
	c := StableDiffusion()
	small := c.DecodeBytes(64, 64, 64)
	if small > 540e6 {
		t.Errorf("%d bytes to decode 512×512 pixels", small)
	}
	for _, side := range []int{65, 100, 128, 1000, maxSide} {
		if n := c.DecodeBytes(side, side, 64); n > small+small/100 {
			t.Errorf("%d bytes to decode latents of %d×%d in tiles of 64, more than %d", n, side, side, small)
		}
	}
}

// TestSample checks that noise is scaled by the standard deviation.
func TestSample(t *testing.T) {
	t.Parallel()
	m := loadKL(t, smallKL(), tensor.F32)
	e, st := tensor.NewExec(nil), NewState(0)
	picture := Map{Data: noise(16 * 16 * 3), Height: 16, Width: 16}
	moments, mean, sample := make([]float32, 4*4*8), make([]float32, 4*4*4), make([]float32, 4*4*4)
	draw := noise(len(mean))
	for _, err := range []error{
		m.Moments(t.Context(), e, st, moments, picture),
		m.Encode(t.Context(), e, st, mean, picture, nil),
		m.Encode(t.Context(), e, st, sample, picture, draw),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range sample {
		want := moments[i/4*8+i%4] + float32(math.Exp(float64(moments[i/4*8+4+i%4])/2))*draw[i]
		if mean[i] != moments[i/4*8+i%4] || math.Abs(float64(v-want)) > 1e-6 {
			t.Fatalf("latent %d: mean %v, sample %v, want %v and %v", i, mean[i], v, moments[i/4*8+i%4], want)
		}
	}
}

func TestLatents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		latents Latents
		want    []float32 // of 1, 2
	}{
		{"scale", Latents{Channels: 2, Scale: 0.5}, []float32{2, 4}},
		{"shift", Latents{Channels: 2, Scale: 0.5, Shift: 10}, []float32{12, 14}},
		{"mean and deviation", Latents{Channels: 2, Scale: 0.5, Mean: []float32{1, 2}, Std: []float32{3, 4}}, []float32{7, 18}},
	} {
		z := []float32{1, 2}
		tt.latents.FromModel(z)
		if !slices.Equal(z, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, z, tt.want)
		}
		tt.latents.ToModel(z)
		if !slices.Equal(z, []float32{1, 2}) {
			t.Errorf("%s: back to %v", tt.name, z)
		}
	}
}

func TestAllocations(t *testing.T) {
	e, st := tensor.NewExec(nil), NewState(16)
	for _, m := range []Autoencoder{loadKL(t, smallKL(), tensor.F32), loadSmallTiny(t, tensor.F32)} {
		l := m.Latents()
		z := Map{Data: noise(18 * 5 * l.Channels), Height: 18, Width: 5}
		dst := make([]float32, 3*18*5*l.Down*l.Down)
		n := testing.AllocsPerRun(3, func() {
			if err := m.Decode(t.Context(), e, st, dst, z); err != nil {
				t.Fatal(err)
			}
		})
		if n > 2 { // the function that a tile is computed by
			t.Errorf("%T: %v allocations a picture", m, n)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	e, st := tensor.NewExec(nil), NewState(0)
	c := smallKL()
	full := loadKL(t, c, tensor.F32)
	half, err := Load(randomStore(t, klShapes(c, false)), c)
	if err != nil {
		t.Fatal(err)
	}
	if half.Encodes() || !full.Encodes() || half.Bytes() >= full.Bytes() {
		t.Error("an autoencoder without encoder has one")
	}
	ended, end := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	end(cause)
	picture := Map{Data: make([]float32, 3*8*8), Height: 8, Width: 8}
	latents := make([]float32, 2*2*4)
	for _, tt := range []struct {
		name string
		err  error
		want error
	}{
		{"no encoder", half.Encode(t.Context(), e, st, latents, picture, nil), ErrUnsupported},
		{"odd picture", full.Encode(t.Context(), e, st, latents, Map{Data: make([]float32, 3*7*8), Height: 7, Width: 8}, nil), ErrInput},
		{"few latents", full.Encode(t.Context(), e, st, latents[1:], picture, nil), ErrInput},
		{"little noise", full.Encode(t.Context(), e, st, latents, picture, latents[1:]), ErrInput},
		{"no latents", full.Decode(t.Context(), e, st, nil, Map{}), ErrInput},
		{"absurd latents", full.Decode(t.Context(), e, st, nil, Map{Height: 1 << 40, Width: 1 << 40}), ErrInput},
		{"channels", full.Decode(t.Context(), e, st, picture.Data, Map{Data: latents[4:], Height: 2, Width: 2}), ErrInput},
		{"small picture", full.Decode(t.Context(), e, st, picture.Data[1:], Map{Data: latents, Height: 2, Width: 2}), ErrInput},
		{"cancelled", full.Decode(ended, e, st, picture.Data, Map{Data: latents, Height: 2, Width: 2}), cause},
		{"cancelled encoding", full.Encode(ended, e, st, latents, picture, nil), cause},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}

// TestMissing checks that a missing tensor is named.
func TestMissing(t *testing.T) {
	t.Parallel()
	c, tiny := smallKL(), smallTiny()
	c.Channels, c.Groups = []int{2, 4}, 2
	tiny.EncoderChannels, tiny.DecoderChannels = []int{2, 2, 2, 2}, []int{2, 2, 2, 2}
	for name := range klShapes(c, true) {
		all := klShapes(c, true)
		delete(all, name)
		_, err := Load(randomStore(t, all), c)
		if name == "encoder.conv_in.weight" {
			continue // then there is no encoder
		}
		if !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Fatalf("without %s: %v", name, err)
		}
	}
	for name := range tinyShapes(tiny) {
		all := tinyShapes(tiny)
		delete(all, name)
		_, err := LoadTiny(randomStore(t, all), tiny)
		if name == "encoder.layers.0.weight" {
			continue
		}
		if !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Fatalf("without %s: %v", name, err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json string
		want error
	}{
		{`[]`, ErrConfig},
		{`{"_class_name":"AutoencoderKLTemporalDecoder"}`, ErrUnsupported},
		{`{"block_out_channels":[]}`, ErrConfig},
		{`{"block_out_channels":[32,32,32,32,32,32,32,32,32]}`, ErrConfig},
		{`{"block_out_channels":[33]}`, ErrConfig},
		{`{"block_out_channels":[-32]}`, ErrConfig},
		{`{"norm_num_groups":0}`, ErrConfig},
		{`{"layers_per_block":1000000}`, ErrConfig},
		{`{"latent_channels":0}`, ErrConfig},
		{`{"out_channels":4}`, ErrUnsupported},
		{`{"act_fn":"gelu"}`, ErrUnsupported},
		{`{"down_block_types":["AttnDownEncoderBlock2D"]}`, ErrUnsupported},
		{`{"up_block_types":["AttnUpDecoderBlock2D"]}`, ErrUnsupported},
		{`{"scaling_factor":0}`, ErrConfig},
		{`{"shift_factor":1e30}`, ErrConfig},
		{`{"latents_mean":[1]}`, ErrConfig},
		{`{"latents_mean":[1,1,1,1],"latents_std":[1,1,1,0]}`, ErrConfig},
	} {
		if _, err := ParseConfig([]byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.json, err, tt.want)
		}
	}
	for _, tt := range []struct {
		json string
		want error
	}{
		{`[]`, ErrConfig},
		{`{"_class_name":"AutoencoderKL"}`, ErrUnsupported},
		{`{"act_fn":"silu"}`, ErrUnsupported},
		{`{"upsampling_scaling_factor":3}`, ErrUnsupported},
		{`{"latent_channels":-1}`, ErrConfig},
		{`{"num_decoder_blocks":[1]}`, ErrConfig},
		{`{"num_decoder_blocks":[1,-1,1,1]}`, ErrConfig},
		{`{"encoder_block_out_channels":[64,64],"num_encoder_blocks":[1,1]}`, ErrConfig},
		{`{"decoder_block_out_channels":[64,64,64,32]}`, ErrUnsupported},
	} {
		if _, err := ParseTinyConfig([]byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.json, err, tt.want)
		}
	}
}

// FuzzConfig checks that no configuration makes loading panic, or plans overflow.
func FuzzConfig(f *testing.F) {
	for _, c := range []any{smallKL(), smallTiny()} {
		raw, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	empty := append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, "{}"...)
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: empty}}, "w.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseConfig(data); err == nil {
			if _, err := Load(s, c); err == nil {
				t.Error("loaded from nothing")
			}
			if c.DecodeBytes(maxSide, maxSide, 0) <= 0 || c.EncodeBytes(maxSide, maxSide, 0) <= 0 {
				t.Errorf("%+v needs no memory", c)
			}
		}
		if c, err := ParseTinyConfig(data); err == nil {
			if _, err := LoadTiny(s, c); err == nil {
				t.Error("loaded from nothing")
			}
			if c.DecodeBytes(maxSide, maxSide, 0) <= 0 || c.EncodeBytes(maxSide, maxSide, 0) <= 0 {
				t.Errorf("%+v needs no memory", c)
			}
		}
	})
}
