package vae

import (
	"image"
	_ "image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestTAEF2 sends photographs through a really trained tiny autoencoder, in the layout
// that it was published in, and back.
func TestTAEF2(t *testing.T) {
	t.Parallel()
	if tensor.BestLevel() == tensor.Generic {
		t.Skip("takes minutes without vector instructions")
	}
	data := sharedDir(t, "data")
	dir := os.DirFS(filepath.Join(data, "weights", "taef2"))
	m := map[tensor.DType]*Tiny{}
	for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
		encoder, err := weights.OpenFile(dir, "taef2_encoder.pth")
		if err != nil {
			t.Skipf("no weights: %v", err)
		}
		defer encoder.Close()
		decoder, err := weights.OpenFile(dir, "taef2_decoder.pth")
		if err != nil {
			t.Fatal(err)
		}
		defer decoder.Close()
		if m[d], err = LoadTAESD(encoder.Packed(nil, d), decoder.Packed(nil, d)); err != nil {
			t.Fatal(err)
		}
	}
	if l := m[tensor.F32].Latents(); l.Channels != 32 || l.Down != 8 {
		t.Fatalf("latents %+v", l)
	}
	e := tensor.NewExec(nil)
	for _, name := range []string{"Landscape_1.jpg", "Portrait_6.jpg"} {
		picture := photograph(t, filepath.Join(data, "media", "exif-orientation", name))
		for _, tt := range []struct {
			d    tensor.DType
			tile int
			want float64 // dB
		}{{tensor.F32, 0, 25}, {tensor.F32, 16, 25}, {tensor.BF16, 0, 25}, {tensor.I8, 0, 25}} {
			st, l := NewState(tt.tile), m[tt.d].Latents()
			z := Map{Height: picture.Height / l.Down, Width: picture.Width / l.Down}
			z.Data = make([]float32, z.Height*z.Width*l.Channels)
			if err := m[tt.d].Encode(t.Context(), e, st, z.Data, picture, nil); err != nil {
				t.Fatal(err)
			}
			back := make([]float32, len(picture.Data))
			if err := m[tt.d].Decode(t.Context(), e, st, back, z); err != nil {
				t.Fatal(err)
			}
			psnr := signalToNoise(back, picture.Data)
			t.Logf("%s, %d×%d, %v, tiles of %d: PSNR %.2f dB", name, picture.Width, picture.Height, tt.d, tt.tile, psnr)
			if !(psnr > tt.want) {
				t.Errorf("%s, %v: PSNR %.2f dB, want %v", name, tt.d, psnr, tt.want)
			}
			if out := os.Getenv("HELICON_TEST_OUTPUT"); out != "" && tt.tile == 0 {
				save(t, filepath.Join(out, name+"."+tt.d.String()+".png"), Map{Data: back, Height: picture.Height, Width: picture.Width})
			}
		}
	}
}

// photograph reads the middle of a picture.
func photograph(t *testing.T, name string) Map {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Skipf("no photograph: %v", err)
	}
	defer f.Close()
	m, _, err := image.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	p := Map{Height: 192, Width: 256}
	top, left := (m.Bounds().Dy()-p.Height)/2, (m.Bounds().Dx()-p.Width)/2
	for y := range p.Height {
		for x := range p.Width {
			r, g, b, _ := m.At(left+x, top+y).RGBA()
			for _, v := range []uint32{r, g, b} {
				p.Data = append(p.Data, float32(v)/32767.5-1)
			}
		}
	}
	return p
}

// save writes a picture as PNG.
func save(t *testing.T, name string, p Map) {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, p.Width, p.Height))
	for i := range p.Width * p.Height {
		for c := range 3 {
			m.Pix[4*i+c] = uint8(math.Round(127.5 * float64(min(max(p.Data[3*i+c], -1), 1)+1)))
		}
		m.Pix[4*i+3] = 255
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		t.Fatal(err)
	}
}

// signalToNoise is the PSNR in dB of pictures in -1 to 1, cut to that.
func signalToNoise(got, want []float32) float64 {
	var sum float64
	for i, v := range got {
		d := float64(min(max(v, -1), 1)-want[i]) / 2
		sum += d * d
	}
	return -10 * math.Log10(sum/float64(len(got)))
}
