package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/weights"
)

// query is a module of a small UNet, and convolution another.
const (
	query       = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
	convolution = "down_blocks.0.resnets.0.conv1"
)

// smallUNet has what the names of modules are told from.
func smallUNet(t testing.TB) *weights.Store {
	return tensors{
		query + ".weight": filled(6, 4), convolution + ".weight": filled(5, 4, 3, 3), convolution + ".bias": filled(5),
		"down_blocks.0.attentions.0.norm.weight": filled(4), "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight": filled(6, 4),
		"down_blocks.1.resnets.0.conv1.weight": filled(5, 4, 3, 3),
	}.store(t)
}

// low returns a LoRA of rank 2 for a module, by the names of its two matrices.
func low(down, up string, out, in int, more ...any) tensors {
	ts := tensors{down: filled(2, in), up: filled(out, 2)}
	for i := 0; i < len(more); i += 2 {
		ts[more[i].(string)] = more[i+1].(weights.Tensor)
	}
	return ts
}

// element returns the element [o, i] of up·down.
func element(up, down []float32, o, i int) float64 {
	sum, rank := 0.0, 2
	for r := range rank {
		sum += float64(up[o*rank+r]) * float64(down[r*len(down)/rank+i])
	}
	return sum
}

// added checks that a weight of the merged store is the one before and delta(o, i).
func added(t *testing.T, before, merged *weights.Store, weight string, delta func(o, i int) float64) {
	t.Helper()
	a, err := before.Lookup(weight)
	if err != nil {
		t.Fatal(err)
	}
	b, err := merged.Lookup(weight)
	if err != nil {
		t.Fatal(err)
	}
	cols := a.Len() / a.Shape[0]
	for n, v := range a.Float32s() {
		want := float64(v) + delta(n/cols, n%cols)
		if d := math.Abs(float64(b.Float32s()[n]) - want); !(d < 1e-5) {
			t.Fatalf("%s[%d] = %v, want %v", weight, n, b.Float32s()[n], want)
		}
	}
}

// TestLoRANames merges the same LoRA by all the names that programs have for it.
func TestLoRANames(t *testing.T) {
	t.Parallel()
	underscored := strings.ReplaceAll(query, ".", "_")
	block := strings.TrimSuffix(query, ".to_q")
	for name, c := range map[string]struct {
		file  tensors
		scale float64
	}{
		"kohya":           {low("lora_unet_"+underscored+".lora_down.weight", "lora_unet_"+underscored+".lora_up.weight", 6, 4, "lora_unet_"+underscored+".alpha", of([]float32{1})), 0.5},
		"kohya original":  {low("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight", 6, 4), 1},
		"peft":            {low("unet."+query+".lora_A.weight", "unet."+query+".lora_B.weight", 6, 4), 1},
		"peft model":      {low("base_model.model."+query+".lora_A.default.weight", "base_model.model."+query+".lora_B.default.weight", 6, 4), 1},
		"diffusers":       {low("unet."+query+".lora.down.weight", "unet."+query+".lora.up.weight", 6, 4), 1},
		"linear layer":    {low("unet."+query+".lora_linear_layer.down.weight", "unet."+query+".lora_linear_layer.up.weight", 6, 4), 1},
		"processor":       {low(block+".processor.to_q_lora.down.weight", block+".processor.to_q_lora.up.weight", 6, 4), 1},
		"diffusion_model": {low("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_A.weight", "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_B.weight", 6, 4), 1},
	} {
		t.Run(name, func(t *testing.T) {
			unet := smallUNet(t)
			merged, err := Merge(map[string]*weights.Store{"unet": unet}, Adapter{Name: "l", Store: c.file.store(t), Weight: 0.7})
			if err != nil {
				t.Fatal(err)
			}
			down, up := filled(2, 4).Float32s(), filled(6, 2).Float32s()
			added(t, unet, merged["unet"], query+".weight", func(o, i int) float64 { return 0.7 * c.scale * element(up, down, o, i) })
			added(t, unet, merged["unet"], convolution+".weight", func(o, i int) float64 { return 0 })
		})
	}
}

// TestLoRAMetadata has the settings that diffusers writes beside the tensors.
func TestLoRAMetadata(t *testing.T) {
	t.Parallel()
	file := low("unet."+query+".lora_A.weight", "unet."+query+".lora_B.weight", 6, 4).bytes(t)
	for name, c := range map[string]struct {
		settings string
		scale    float64 // 0: refused
	}{
		"alpha":               {`{"unet.r": 4, "unet.lora_alpha": 2}`, 0.5},
		"rank stabilised":     {`{"unet.r": 4, "unet.lora_alpha": 2, "unet.use_rslora": true}`, 1},
		"another component's": {`{"text_encoder.r": 4, "text_encoder.lora_alpha": 2}`, 1},
		"patterns":            {`{"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": {"to_q": 3}}`, 0},
		"no settings":         {`{`, 0},
	} {
		text, err := json.Marshal(c.settings)
		if err != nil {
			t.Fatal(err)
		}
		n := binary.LittleEndian.Uint64(file)
		head := slices.Concat([]byte(`{"__metadata__":{"lora_adapter_metadata":`), text, []byte("},"), file[9:8+n])
		data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head, file[8+n:])
		s, err := weights.OpenFile(fstest.MapFS{"l.safetensors": {Data: data}}, "l.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		unet := smallUNet(t)
		merged, err := Merge(map[string]*weights.Store{"unet": unet}, Adapter{Name: "l", Store: s, Weight: 1})
		if c.scale == 0 {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		down, up := filled(2, 4).Float32s(), filled(6, 2).Float32s()
		added(t, unet, merged["unet"], query+".weight", func(o, i int) float64 { return c.scale * element(up, down, o, i) })
	}
}

// TestLoRAConvolution has the two forms of a LoRA for a convolution.
func TestLoRAConvolution(t *testing.T) {
	t.Parallel()
	const name = "lora_unet_down_blocks_0_resnets_0_conv1."
	unet := smallUNet(t)
	plain := tensors{name + "lora_down.weight": filled(2, 4, 3, 3), name + "lora_up.weight": filled(5, 2, 1, 1)}
	merged, err := Merge(map[string]*weights.Store{"unet": unet}, Adapter{Store: plain.store(t), Weight: -2})
	if err != nil {
		t.Fatal(err)
	}
	down, up := filled(2, 4, 3, 3).Float32s(), filled(5, 2).Float32s()
	added(t, unet, merged["unet"], convolution+".weight", func(o, i int) float64 { return -2 * element(up, down, o, i) })

	three := tensors{
		name + "lora_down.weight": filled(3, 4, 1, 1), name + "lora_mid.weight": filled(2, 3, 3, 3), name + "lora_up.weight": filled(5, 2, 1, 1),
	}
	if merged, err = Merge(map[string]*weights.Store{"unet": unet}, Adapter{Store: three.store(t), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	down, mid := filled(3, 4).Float32s(), filled(2, 3, 3, 3).Float32s()
	added(t, unet, merged["unet"], convolution+".weight", func(o, i int) float64 {
		sum := 0.0
		for p := range 2 {
			for q := range 3 {
				sum += float64(up[o*2+p]) * float64(mid[(p*3+q)*9+i%9]) * float64(down[q*4+i/9])
			}
		}
		return sum
	})
}

// TestLoRAOfSeveral merges a LoRA for a module that is several in diffusers.
func TestLoRAOfSeveral(t *testing.T) {
	t.Parallel()
	const block = "single_transformer_blocks.0."
	model := tensors{block + "proj_mlp.weight": filled(8, 4), "transformer_blocks.0.norm1.linear.weight": filled(4, 4)}
	for _, name := range []string{"q", "k", "v"} {
		model[block+"attn.to_"+name+".weight"] = filled(4, 4)
	}
	s := model.store(t)
	const name = "lora_unet_single_blocks_0_linear1."
	merged, err := Merge(map[string]*weights.Store{"transformer": s},
		Adapter{Store: low(name+"lora_down.weight", name+"lora_up.weight", 20, 4).store(t), Weight: 1})
	if err != nil {
		t.Fatal(err)
	}
	down, up := filled(2, 4).Float32s(), filled(20, 2).Float32s()
	for i, part := range []string{"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"} {
		added(t, s, merged["transformer"], block+part+".weight", func(o, c int) float64 { return element(up, down, 4*i+o, c) })
	}
}

// TestLoRAText merges into the two text encoders of SDXL, and by a name of old files.
func TestLoRAText(t *testing.T) {
	t.Parallel()
	const module = "text_model.encoder.layers.0.self_attn.q_proj"
	first, second := tensors{module + ".weight": filled(4, 4)}.store(t), tensors{module + ".weight": filled(4, 4)}.store(t)
	parts := map[string]*weights.Store{"text_encoder": first, "text_encoder_2": second}
	const one, two = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.", "text_encoder_2.text_model.encoder.layers.0.self_attn.to_q_lora."
	file := low(one+"lora_down.weight", one+"lora_up.weight", 4, 4, two+"down.weight", filled(2, 4), two+"up.weight", of(make([]float32, 8), 4, 2))
	merged, err := Merge(parts, Adapter{Store: file.store(t), Weight: 1})
	if err != nil {
		t.Fatal(err)
	}
	down, up := filled(2, 4).Float32s(), filled(4, 2).Float32s()
	added(t, first, merged["text_encoder"], module+".weight", func(o, i int) float64 { return element(up, down, o, i) })
	added(t, second, merged["text_encoder_2"], module+".weight", func(o, i int) float64 { return 0 })
}

func TestLoRARefused(t *testing.T) {
	t.Parallel()
	unet := map[string]*weights.Store{"unet": smallUNet(t)}
	const a, b = "unet." + query + ".lora_A.weight", "unet." + query + ".lora_B.weight"
	for name, c := range map[string]struct {
		file  tensors
		want  error
		words []string
	}{
		"nothing":          {tensors{"x.lora_A.weight": filled(2, 4), "x.lora_B.weight": filled(6, 2)}, ErrUnsupported, []string{"x.lora_A.weight"}},
		"no LoRA":          {tensors{"weight": filled(6, 4)}, ErrUnsupported, []string{`"weight"`}},
		"LoHa":             {tensors{"lora_unet_mid.hada_w1_a": filled(6, 4)}, ErrUnsupported, []string{"hada_w1_a"}},
		"DoRA":             {low(a, b, 6, 4, "unet."+query+".dora_scale", filled(6, 1)), ErrUnsupported, []string{"dora_scale"}},
		"alone":            {tensors{a: filled(2, 4)}, weights.ErrMissing, []string{query}},
		"alpha alone":      {tensors{"lora_unet_x.alpha": of([]float32{1})}, ErrUnsupported, nil},
		"input":            {low(a, b, 6, 5), weights.ErrShape, []string{a, "[2 5]", "[6 4]"}},
		"output":           {low(a, b, 7, 4), weights.ErrShape, []string{b, "[7 2]", "[6 4]"}},
		"rank":             {tensors{a: filled(3, 4), b: filled(6, 2)}, weights.ErrShape, []string{b}},
		"no rank":          {tensors{a: filled(0, 4), b: filled(6, 0)}, weights.ErrShape, nil},
		"vector":           {tensors{a: filled(4), b: filled(6, 2)}, weights.ErrShape, []string{a}},
		"alpha of two":     {low(a, b, 6, 4, "unet."+query+".alpha", filled(2)), weights.ErrShape, []string{"alpha"}},
		"alpha, no number": {low(a, b, 6, 4, "unet."+query+".alpha", of([]float32{float32(math.NaN())})), weights.ErrShape, []string{"alpha"}},
		"text":             {low("lora_te_x.lora_down.weight", "lora_te_x.lora_up.weight", 6, 4), ErrUnsupported, []string{"lora_te_x"}},
		"a norm":           {low("down_blocks.0.attentions.0.norm.lora_A.weight", "down_blocks.0.attentions.0.norm.lora_B.weight", 4, 1), weights.ErrShape, nil},
	} {
		_, err := Merge(unet, Adapter{Name: "file", Store: c.file.store(t), Weight: 1})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
			continue
		}
		for _, word := range append(c.words, "file") {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v: no %q", name, err, word)
			}
		}
	}
}

// FuzzMerge checks that no file makes a panic.
func FuzzMerge(f *testing.F) {
	const name = "lora_unet_down_blocks_0_resnets_0_conv1."
	f.Add(low("unet."+query+".lora_A.weight", "unet."+query+".lora_B.weight", 6, 4, "unet."+query+".alpha", of([]float32{1})).bytes(f))
	f.Add(tensors{name + "lora_down.weight": filled(3, 4, 1, 1), name + "lora_mid.weight": filled(2, 3, 3, 3), name + "lora_up.weight": filled(5, 2, 1, 1)}.bytes(f))
	unet := smallUNet(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := weights.OpenFile(fstest.MapFS{"l.safetensors": {Data: data}}, "l.safetensors")
		if err != nil {
			return
		}
		defer s.Close()
		merged, err := Merge(map[string]*weights.Store{"unet": unet}, Adapter{Store: s, Weight: 1})
		if err != nil {
			return
		}
		for _, name := range merged["unet"].Names() {
			if _, err := merged["unet"].Lookup(name); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestEmbedding(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file  tensors
		token string
		want  map[string]int // vectors
	}{
		"diffusers":       {tensors{"<cat>": filled(8)}, "<cat>", map[string]int{"text_encoder": 1}},
		"several vectors": {tensors{"<cat>": filled(3, 8)}, "<cat>", map[string]int{"text_encoder": 3}},
		"automatic1111":   {tensors{"string_to_param.*": filled(2, 8), "string_to_token.*": of([]float32{265})}, "toy", map[string]int{"text_encoder": 2}},
		"its safetensors": {tensors{"emb_params": filled(2, 8)}, "toy", map[string]int{"text_encoder": 2}},
		"of SDXL":         {tensors{"clip_l": filled(2, 8), "clip_g": filled(2, 12)}, "toy", map[string]int{"text_encoder": 2, "text_encoder_2": 2}},
	} {
		e, err := ReadEmbedding(fstest.MapFS{"a/toy.safetensors": {Data: c.file.bytes(t)}}, "a/toy.safetensors")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.Token != c.token || len(e.Vectors) != len(c.want) {
			t.Errorf("%s: %q with %d encoders", name, e.Token, len(e.Vectors))
		}
		for encoder, n := range c.want {
			if len(e.Vectors[encoder]) != n {
				t.Errorf("%s: %d vectors of %s, want %d", name, len(e.Vectors[encoder]), encoder, n)
			}
		}
	}
	for name, c := range map[string]struct {
		file tensors
		want error
	}{
		"nothing":    {tensors{"string_to_token.*": of([]float32{265})}, ErrUnsupported},
		"two words":  {tensors{"<cat>": filled(8), "<dog>": filled(8)}, ErrUnsupported},
		"an image":   {tensors{"<cat>": filled(2, 2, 2)}, weights.ErrShape},
		"a number":   {tensors{"<cat>": filled()}, weights.ErrShape},
		"no vectors": {tensors{"<cat>": filled(0, 8)}, weights.ErrShape},
		"not finite": {tensors{"<cat>": of([]float32{1, float32(math.Inf(1))}, 2)}, weights.ErrShape},
	} {
		if _, err := ReadEmbedding(fstest.MapFS{"toy.safetensors": {Data: c.file.bytes(t)}}, "toy.safetensors"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzReadEmbedding checks that no file makes a panic.
func FuzzReadEmbedding(f *testing.F) {
	f.Add(tensors{"<cat>": filled(2, 8)}.bytes(f))
	f.Add(tensors{"clip_l": filled(2, 8), "clip_g": filled(2, 12)}.bytes(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ReadEmbedding(fstest.MapFS{"toy.safetensors": {Data: data}}, "toy.safetensors")
		if err == nil && (e.Token == "" || len(e.Vectors) == 0) {
			t.Errorf("%q with %d encoders", e.Token, len(e.Vectors))
		}
	})
}

// BenchmarkMerge is of a LoRA of rank 64 into a weight of SDXL's.
func BenchmarkMerge(b *testing.B) {
	x := make([]float32, 1280*1280)
	base := tensors{query + ".weight": of(x, 1280, 1280)}.store(b)
	const name = "unet." + query
	file := tensors{name + ".lora_A.weight": of(x[:64*1280], 64, 1280), name + ".lora_B.weight": of(x[:64*1280], 1280, 64)}
	merged, err := Merge(map[string]*weights.Store{"unet": base}, Adapter{Store: file.store(b), Weight: 1})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := merged["unet"].Lookup(query + ".weight"); err != nil {
			b.Fatal(err)
		}
	}
}
