package vision

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/clip"
	"helicon/models/weights"
)

func TestFromImage(t *testing.T) {
	t.Parallel()
	want := RGB{Pix: []uint8{10, 20, 30, 255, 0, 128}, Width: 2, Height: 1}
	straight := image.NewNRGBA(image.Rect(0, 0, 4, 3))
	straight.SetNRGBA(2, 1, color.NRGBA{10, 20, 30, 255})
	straight.SetNRGBA(3, 1, color.NRGBA{255, 0, 128, 255})
	other := image.NewRGBA(straight.Bounds())
	for x := range 4 {
		other.Set(x, 1, straight.At(x, 1))
	}
	window := image.Rect(2, 1, 4, 2)
	for name, m := range map[string]image.Image{"straight": straight.SubImage(window), "premultiplied": other.SubImage(window)} {
		if got := FromImage(m); !slices.Equal(got.Pix, want.Pix) || got.Width != 2 || got.Height != 1 {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestResizeSame(t *testing.T) {
	t.Parallel()
	p := RGB{Pix: []uint8{1, 2, 3, 4, 5, 6}, Width: 1, Height: 2}
	for f := Nearest; f <= Box; f++ {
		if got := Resize(p, 1, 2, f); !slices.Equal(got.Pix, p.Pix) {
			t.Errorf("filter %d: %v", f, got.Pix)
		}
		for _, v := range Resize(RGB{Pix: slices.Repeat([]uint8{77}, 3*5*7), Width: 5, Height: 7}, 3, 11, f).Pix {
			if v != 77 {
				t.Errorf("filter %d: of one colour, %d", f, v)
				break
			}
		}
	}
}

func TestProcessor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, json    string
		width, height int // of the result for 40×20
		want          error
	}{
		{"numbers of an old file", `{"feature_extractor_type":"CLIPFeatureExtractor","size":8,"crop_size":6}`, 6, 6, nil},
		{"CLIP as it is", `{"image_processor_type":"CLIPImageProcessor"}`, 224, 224, nil},
		{"both sides", `{"size":{"height":5,"width":7},"do_normalize":false}`, 7, 5, nil},
		{"number", `{"size":5,"do_rescale":false}`, 5, 5, nil},
		{"as it is", `{"do_resize":false}`, 40, 20, nil},
		{"no size", `{}`, 0, 0, ErrConfig},
		{"two sizes", `{"size":{"shortest_edge":5,"height":5,"width":7}}`, 0, 0, ErrConfig},
		{"huge", `{"size":100000}`, 0, 0, ErrConfig},
		{"no crop", `{"size":5,"do_center_crop":true}`, 0, 0, ErrConfig},
		{"filter", `{"size":5,"resample":9}`, 0, 0, ErrUnsupported},
		{"deviation", `{"size":5,"image_std":[1,0,1]}`, 0, 0, ErrConfig},
		{"mean", `{"size":5,"image_mean":[1]}`, 0, 0, ErrConfig},
		{"not an object", `3`, 0, 0, ErrConfig},
		{"wide crop", `{"do_resize":false,"do_center_crop":true,"crop_size":30}`, 0, 0, ErrImage},
	} {
		p, err := ParseProcessor([]byte(tt.json))
		var pixels []float32
		var width, height int
		if err == nil {
			pixels, width, height, err = p.Pixels(NewRGB(40, 20))
		}
		if !errors.Is(err, tt.want) || width != tt.width || height != tt.height || len(pixels) != 3*width*height {
			t.Errorf("%s: %d×%d, %v, want %d×%d, %v", tt.name, width, height, err, tt.width, tt.height, tt.want)
		}
	}
	p, err := ParseProcessor([]byte(`{"image_processor_type":"CLIPImageProcessor"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []RGB{{}, NewRGB(1, 1000)} {
		if _, _, _, err := p.Pixels(m); !errors.Is(err, ErrImage) {
			t.Errorf("%d×%d: %v", m.Width, m.Height, err)
		}
	}
}

func FuzzProcessor(f *testing.F) {
	f.Add([]byte(`{"image_processor_type":"CLIPImageProcessor","size":{"shortest_edge":9},"crop_size":{"height":9,"width":8}}`), uint8(3), uint8(7))
	f.Add([]byte(`{"size":5,"resample":1,"image_mean":[0,0,0],"image_std":[1,1,1]}`), uint8(30), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, width, height uint8) {
		p, err := ParseProcessor(data)
		if err != nil || max(p.Size.ShortestEdge, p.Size.Height, p.Size.Width) > 64 {
			return
		}
		pixels, w, h, err := p.Pixels(NewRGB(int(width), int(height)))
		if err == nil && (w < 1 || h < 1 || len(pixels) != 3*w*h) {
			t.Errorf("%d floats of %d×%d", len(pixels), w, h)
		}
	})
}

// TestSafetyCheckerMissing checks that a missing or malformed tensor is named.
func TestSafetyCheckerMissing(t *testing.T) {
	t.Parallel()
	c, err := clip.ParseConfig([]byte(`{"projection_dim":2,"vision_config":{"hidden_size":2,"intermediate_size":2,"num_hidden_layers":1,"num_attention_heads":1,"image_size":2,"patch_size":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	all := func() map[string][]int {
		tower, s := "vision_model.vision_model.", map[string][]int{
			"visual_projection.weight": {2, 2}, "concept_embeds": {3, 2}, "concept_embeds_weights": {3},
			"special_care_embeds": {1, 2}, "special_care_embeds_weights": {1},
		}
		s[tower+"embeddings.class_embedding"] = []int{2}
		s[tower+"embeddings.patch_embedding.weight"] = []int{2, 3, 2, 2}
		s[tower+"embeddings.position_embedding.weight"] = []int{2, 2}
		for _, l := range []string{"pre_layrnorm", "post_layernorm", "encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2"} {
			s[tower+l+".weight"], s[tower+l+".bias"] = []int{2}, []int{2}
		}
		for _, l := range []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"} {
			s[tower+"encoder.layers.0."+l+".weight"], s[tower+"encoder.layers.0."+l+".bias"] = []int{2, 2}, []int{2}
		}
		return s
	}
	m, err := LoadSafetyChecker(zeroStore(t, all()), c)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bytes() <= 0 {
		t.Error("no memory")
	}
	for name := range all() {
		s := all()
		delete(s, name)
		if _, err := LoadSafetyChecker(zeroStore(t, s), c); !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		s[name] = []int{5}
		if _, err := LoadSafetyChecker(zeroStore(t, s), c); !errors.Is(err, weights.ErrShape) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// zeroStore has tensors of the given shapes in F32, all zeros.
func zeroStore(t *testing.T, all map[string][]int) *weights.Store {
	t.Helper()
	header, n := map[string]any{}, 0
	for name, shape := range all {
		size := 4
		for _, d := range shape {
			size *= d
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{n, n + size}}
		n += size
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, make([]byte, n))
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
