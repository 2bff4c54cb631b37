package image

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"testing"

	"helicon/generators/media"
)

// upscalers returns a models folder with small networks of both architectures.
func upscalers(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, file := range map[string]string{"compact": "compact_x2.safetensors", "esrgan": "rrdb_x4.pth", "old": "old_x1.safetensors"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "models", "upscale", "testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+filepath.Ext(file)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUpscale(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	dir := upscalers(t)
	g := open(t, q, dir, 2)
	from := gradient(20, 12)
	from.SetNRGBA(3, 3, color.NRGBA{0, 0, 0, 0})
	digest := upload(t, q, from, media.EncodeOptions{})
	for _, c := range []struct {
		model string
		scale any
		w, h  int
	}{{"compact", nil, 40, 24}, {"compact", 3.5, 70, 42}, {"esrgan", nil, 80, 48}, {"old", nil, 20, 12}, {"lanczos", nil, 40, 24}} {
		input := object{"image": digest}
		if c.scale != nil {
			input["scale"] = c.scale
		}
		result, m, _ := generate(t, q, g, jobOf(t, taskUpscale, c.model, input))
		p, about, file := fetch(t, q, result.Artifacts[0])
		if p.Rect.Dx() != c.w || p.Rect.Dy() != c.h || p.Opaque() || m.Model != c.model || about.Meta.Origin != media.Enhanced {
			t.Errorf("%s × %v: %v, meta %+v", c.model, c.scale, p.Rect, m)
		}
		again, _, _ := generate(t, q, open(t, q, dir, 1), jobOf(t, taskUpscale, c.model, input))
		if _, _, second := fetch(t, q, again.Artifacts[0]); !bytes.Equal(file, second) {
			t.Errorf("%s: one thread makes another file", c.model)
		}
	}
	refused(t, g, q, jobOf(t, taskUpscale, "compact", object{"image": upload(t, q, gradient(4000, 4000), media.EncodeOptions{})}), "image_too_large", "/input/image")
	refused(t, g, q, jobOf(t, taskGenerate, "compact", object{"prompt": "x"}), "model_unusable", "enlarges")
}
