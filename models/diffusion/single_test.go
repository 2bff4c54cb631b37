package diffusion

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestSingleFile finds a model in one file, and says what it lacks.
func TestSingleFile(t *testing.T) {
	t.Parallel()
	all := bundleFiles(t, "sd15_single_file")
	files := fstest.MapFS{"model.safetensors": all["model.safetensors"]}
	if kind, err := Detect(files); kind != StableDiffusion || err != nil {
		t.Errorf("detected %q, %v", kind, err)
	}
	files["again.safetensors"] = files["model.safetensors"]
	if _, err := Detect(files); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "two models") {
		t.Errorf("two models: %v", err)
	}
	delete(files, "model.safetensors")
	if _, err := Load(t.Context(), files, Options{}); err == nil {
		t.Error("a model without tokenizer was loaded")
	}
}

// TestGGUF draws from a single file as it was published, and as stable-diffusion.cpp stores
// the same names: in full precision the same picture, and in others one that is like it.
func TestGGUF(t *testing.T) {
	t.Parallel()
	s := widened(t)
	o := Options{Tokenizers: bundleFiles(t, "sd15_pipeline")}
	r := Request{Prompt: "a cat", Negative: "dog", Width: 32, Height: 32, Steps: 4, Guidance: 3, Scheduler: "euler"}
	want := generate(t, open(t, fstest.MapFS{"model.safetensors": {Data: asSafetensors(t, s)}}, o), r).Image
	for d, least := range map[tensor.DType]float64{tensor.F32: math.Inf(1), tensor.F16: 55, tensor.Q8_0: 35, tensor.Q4_0: 25} {
		got := generate(t, open(t, fstest.MapFS{"model.gguf": {Data: asGGUF(t, s, d)}}, o), r).Image
		if p := psnr(got, want); p < least && !(d == tensor.F32 && bytes.Equal(got.Pix, want.Pix)) {
			t.Errorf("%v: %.1f dB from the file it was made from, want %v", d, p, least)
		} else {
			t.Logf("%v: %.1f dB", d, p)
		}
	}
}

// TestSingleControlNet steers a model of one file by a ControlNet of one file.
func TestSingleControlNet(t *testing.T) {
	t.Parallel()
	model := widened(t)
	bundle := fstest.MapFS{"model.safetensors": {Data: asSafetensors(t, model)}}
	o := Options{Tokenizers: bundleFiles(t, "sd15_pipeline"), ControlNet: fstest.MapFS{
		"control.safetensors": {Data: asSafetensors(t, controlOf(model))},
	}}
	if f, err := Estimate(bundle, o); err != nil || f.Weights == 0 {
		t.Fatalf("estimate %+v, %v", f, err)
	}
	p := open(t, bundle, o)
	r := Request{Prompt: "a cat", Width: 32, Height: 32, Steps: 2}
	plain := generate(t, p, r)
	r.Control = gradient(32, 32)
	if steered := generate(t, p, r); bytes.Equal(plain.Image.Pix, steered.Image.Pix) {
		t.Error("the ControlNet changes nothing")
	}
	o.ControlNet = fstest.MapFS{"model.safetensors": bundle["model.safetensors"]}
	if _, err := Load(t.Context(), bundle, o); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no ControlNet") {
		t.Errorf("a model in its place: %v", err)
	}
}

// controlOf returns a ControlNet for a UNet, by the names that it was published with: a copy
// of the first half, convolutions out of each of its blocks, and what looks at the picture.
func controlOf(model []weights.Source) []weights.Source {
	var list []weights.Source
	random := rand.New(rand.NewPCG(3, 4))
	add := func(name string, out, in, kernel int) {
		values := make([]float32, out*in*kernel*kernel)
		for i := range values {
			values[i] = float32(random.NormFloat64() / math.Sqrt(float64(in*kernel*kernel)))
		}
		list = append(list, source(name+".weight", tensor.F32, []int{out, in, kernel, kernel}, values), source(name+".bias", tensor.F32, []int{out}, make([]float32, out)))
	}
	for _, x := range model {
		rest, ok := strings.CutPrefix(x.Name, "model.diffusion_model.")
		if ok && !strings.HasPrefix(rest, "out") {
			x.Name = "control_model." + rest
			list = append(list, x)
		}
	}
	widths := []int{32, 32, 32, 32, 64, 64} // of the input blocks
	for i, c := range widths {
		add(fmt.Sprintf("control_model.zero_convs.%d.0", i), c, c, 1)
	}
	add("control_model.middle_block_out.0", 64, 64, 1)
	for i, c := range [][2]int{{16, 3}, {16, 16}, {32, 16}, {32, 32}} {
		add(fmt.Sprintf("control_model.input_hint_block.%d", 2*i), c[0], c[1], 3)
	}
	return list
}

// asSafetensors returns tensors as a file.
func asSafetensors(t *testing.T, list []weights.Source) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := weights.EncodeSafetensors(t.Context(), &file, list); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// widened returns tensors of the names that Stable Diffusion 1 was published with: those of
// the reference's single file with four times the channels, which is what norms in 32
// groups take, and random numbers in them.
func widened(t *testing.T) []weights.Source {
	t.Helper()
	s, err := weights.OpenFile(bundleFiles(t, "sd15_single_file"), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	random := rand.New(rand.NewPCG(1, 2))
	var list []weights.Source
	for _, name := range s.Names() {
		info, err := s.Describe(name)
		if err != nil {
			t.Fatal(err)
		}
		if !info.DType.Float() || name == "alphas_cumprod" {
			continue
		}
		shape := slices.Clone(info.Shape)
		latents := strings.Contains(name, "quant_conv") || strings.Contains(name, "encoder.conv_out")
		for axis := range min(2, len(shape)) {
			words := axis == 0 && strings.Contains(name, "embeddings.")
			if shape[axis]%8 == 0 && !words && !(axis == 0 && latents) && !strings.Contains(name, ".quant_conv") {
				shape[axis] *= 4
			}
		}
		if strings.HasSuffix(name, "token_embedding.weight") {
			shape[0] = 1000 // what the tokenizer beside it knows
		}
		fan, n := 1, shape[0]
		for _, d := range shape[1:] {
			fan, n = fan*d, n*d
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(random.NormFloat64() / math.Sqrt(float64(fan)))
			if len(shape) == 1 {
				values[i] = 0.1*float32(random.NormFloat64()) + map[bool]float32{true: 1}[strings.HasSuffix(name, ".weight")]
			}
		}
		list = append(list, source(name, tensor.F32, shape, values))
	}
	return list
}

// source is a tensor to be written.
func source(name string, d tensor.DType, shape []int, values []float32) weights.Source {
	data := make([]byte, d.Bytes(len(values)))
	tensor.Encode(data, d, values)
	return weights.Source{Name: name, DType: d, Shape: shape, Write: func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}
}

// asGGUF returns tensors in F32 as GGUF: matrices in a type, if their rows are whole blocks
// of it, and images of weights in F16.
func asGGUF(t *testing.T, list []weights.Source, d tensor.DType) []byte {
	t.Helper()
	var changed []weights.Source
	for _, x := range list {
		var data bytes.Buffer
		if err := x.Write(&data); err != nil {
			t.Fatal(err)
		}
		to := tensor.F32
		switch {
		case d == tensor.F32:
		case len(x.Shape) == 2 && x.Shape[1]%32 == 0:
			to = d
		case len(x.Shape) == 4:
			to = tensor.F16
		}
		values := make([]float32, data.Len()/4)
		if err := binary.Read(&data, binary.LittleEndian, values); err != nil {
			t.Fatal(err)
		}
		changed = append(changed, source(x.Name, to, x.Shape, values))
	}
	var file bytes.Buffer
	if err := weights.EncodeGGUF(t.Context(), &file, nil, changed); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}
