package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// tensors is a file to be: what it has by name.
type tensors map[string]weights.Tensor

// of returns a tensor in F32.
func of(values []float32, shape ...int) weights.Tensor {
	return weights.Tensor{Shape: shape}.WithFloats(values)
}

// filled returns a tensor of numbers that are no others' of the same call.
func filled(shape ...int) weights.Tensor {
	x := make([]float32, product(shape))
	for i := range x {
		x[i] = float32(math.Sin(float64(1+i) * (1 + float64(len(x)))))
	}
	return of(x, shape...)
}

// bytes returns the tensors as a safetensors file.
func (ts tensors) bytes(t testing.TB) []byte {
	t.Helper()
	header, data := map[string]any{}, []byte{}
	for _, name := range slices.Sorted(maps.Keys(ts)) {
		x, begin := ts[name], len(data)
		data = append(data, x.Data...)
		shape := x.Shape
		if shape == nil {
			shape = []int{}
		}
		header[name] = map[string]any{"dtype": x.DType.String(), "shape": shape, "data_offsets": []int{begin, len(data)}}
	}
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	return slices.Concat(file, head, data)
}

// store opens the tensors as a file.
func (ts tensors) store(t testing.TB) *weights.Store {
	t.Helper()
	s, err := weights.OpenFile(fstest.MapFS{"x.safetensors": {Data: ts.bytes(t)}}, "x.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reference opens the weights of a case under goldens/image.
func reference(t testing.TB, name string) *weights.Store {
	t.Helper()
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	s, err := weights.Open(os.DirFS(filepath.Join(dir, "image", name)), "diffusion_pytorch_model")
	if err != nil {
		t.Skipf("no reference data: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// joined returns tensors one after another along the first axis.
func joined(t testing.TB, s *weights.Store, list ...string) weights.Tensor {
	t.Helper()
	var out weights.Tensor
	for _, name := range list {
		x, err := s.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if out.Shape == nil {
			out = weights.Tensor{DType: x.DType, Shape: slices.Clone(x.Shape)}
			out.Shape[0] = 0
		}
		out.Data = append(out.Data, x.Data...)
		out.Shape[0] += x.Shape[0]
	}
	return out
}

// original returns the tensors of a component under the names that it was published with.
// join lists, by original name, what modules were one; swap what had its halves turned.
func original(t testing.TB, s *weights.Store, prefix string, back names, join map[string][]string, swap ...string) tensors {
	t.Helper()
	ts, done := tensors{}, map[string]bool{}
	for old, modules := range join {
		for _, kind := range []string{".weight", ".bias"} {
			var parts []string
			for _, m := range modules {
				parts = append(parts, m+kind)
				done[m+kind] = true
			}
			ts[prefix+old+kind] = joined(t, s, parts...)
		}
	}
	for _, name := range s.Names() {
		if done[name] {
			continue
		}
		old, ok := back.translate(name)
		if !ok {
			t.Fatalf("%s has no original name", name)
		}
		x := joined(t, s, name)
		for _, module := range swap {
			if strings.HasPrefix(name, module+".") {
				half := len(x.Data) / 2
				x.Data = slices.Concat(x.Data[half:], x.Data[:half])
			}
		}
		ts[prefix+old] = x
	}
	return ts
}

// same checks that a store has the tensors of another, bit for bit.
func same(t *testing.T, got, want *weights.Store) {
	t.Helper()
	for _, name := range want.Names() {
		a, err := got.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		b := joined(t, want, name)
		if a.DType != b.DType || !slices.Equal(a.Shape, b.Shape) || !bytes.Equal(a.Data, b.Data) {
			t.Fatalf("%s: %v %v, want %v %v with the same bytes", name, a.DType, a.Shape, b.DType, b.Shape)
		}
	}
}

// published returns each of the goldens' networks in its original layout.
func published(t testing.TB) map[string]struct {
	part   string
	family Family
	file   tensors
	want   *weights.Store
} {
	t.Helper()
	type entry = struct {
		part   string
		family Family
		file   tensors
		want   *weights.Store
	}
	all := map[string]entry{}
	for name, family := range map[string]Family{"unet_sd15": SD1, "unet_sd15_odd": SD1, "unet_sd21": SD2, "unet_sdxl": SDXL} {
		s := reference(t, name)
		back := unetNames(diffusersShape(s)).reversed()
		all[name] = entry{"unet", family, original(t, s, "model.diffusion_model.", back, nil), s}
	}
	control := reference(t, "controlnet/controlnet")
	u := diffusersShape(control)
	back := controlNames(unetNames(u), countUnder(control, "controlnet_down_blocks."), countUnder(control, "controlnet_cond_embedding.blocks.")/2+1).reversed()
	all["controlnet"] = entry{"controlnet", "", original(t, control, "control_model.", back, nil), control}
	for _, name := range []string{"sd3_mmdit", "sd35_mmdit_qknorm"} {
		s := reference(t, name)
		blocks := countUnder(s, "transformer_blocks.")
		join := map[string][]string{}
		for i := range blocks {
			p, q := fmt.Sprintf("joint_blocks.%d.", i), fmt.Sprintf("transformer_blocks.%d.attn.", i)
			join[p+"x_block.attn.qkv"] = []string{q + "to_q", q + "to_k", q + "to_v"}
			join[p+"context_block.attn.qkv"] = []string{q + "add_q_proj", q + "add_k_proj", q + "add_v_proj"}
		}
		file := original(t, s, "", mmditNames(blocks).reversed(), join, "norm_out.linear", fmt.Sprintf("transformer_blocks.%d.norm1_context.linear", blocks-1))
		all[name] = entry{"transformer", SD3, file, s}
	}
	s := reference(t, "flux")
	double, single := countUnder(s, "transformer_blocks."), countUnder(s, "single_transformer_blocks.")
	join := map[string][]string{}
	for i := range double {
		p, q := fmt.Sprintf("double_blocks.%d.", i), fmt.Sprintf("transformer_blocks.%d.attn.", i)
		join[p+"img_attn.qkv"] = []string{q + "to_q", q + "to_k", q + "to_v"}
		join[p+"txt_attn.qkv"] = []string{q + "add_q_proj", q + "add_k_proj", q + "add_v_proj"}
	}
	for i := range single {
		p, q := fmt.Sprintf("single_blocks.%d.linear1", i), fmt.Sprintf("single_transformer_blocks.%d.", i)
		join[p] = []string{q + "attn.to_q", q + "attn.to_k", q + "attn.to_v", q + "proj_mlp"}
	}
	all["flux"] = entry{"transformer", Flux, original(t, s, "model.diffusion_model.", fluxNames(double, single).reversed(), join, "norm_out.linear"), s}
	return all
}

// TestGoldenLayouts brings networks to the layouts that they were published in, and back.
func TestGoldenLayouts(t *testing.T) {
	t.Parallel()
	for name, p := range published(t) {
		t.Run(name, func(t *testing.T) {
			c, err := Open(fstest.MapFS{"m.safetensors": {Data: p.file.bytes(t)}}, "m.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.Family != p.family {
				t.Errorf("family %s, want %s", c.Family, p.family)
			}
			s, err := c.Part(p.part)
			if err != nil {
				t.Fatal(err)
			}
			same(t, s, p.want)
			for _, config := range []string{p.part, "scheduler", "model_index"} {
				if c.Family == "" && config != p.part {
					continue
				}
				if !json.Valid(c.Config(config)) {
					t.Errorf("config of %s: %s", config, c.Config(config))
				}
			}
		})
	}
}

// TestNames has names as they are in well-known files.
func TestNames(t *testing.T) {
	t.Parallel()
	sd := unetNames(unetShape{layers: 2, attends: []bool{true, true, true, false}})
	xl := unetNames(unetShape{layers: 2, attends: []bool{false, true, true}})
	vae := vaeNames(4, 2)
	for _, c := range []struct {
		table    names
		old, new string
	}{
		{sd, "input_blocks.0.0.weight", "conv_in.weight"},
		{sd, "input_blocks.3.0.op.bias", "down_blocks.0.downsamplers.0.conv.bias"},
		{sd, "input_blocks.4.0.skip_connection.weight", "down_blocks.1.resnets.0.conv_shortcut.weight"},
		{sd, "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"},
		{sd, "input_blocks.11.0.emb_layers.1.weight", "down_blocks.3.resnets.1.time_emb_proj.weight"},
		{sd, "middle_block.2.out_layers.3.weight", "mid_block.resnets.1.conv2.weight"},
		{sd, "output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
		{sd, "output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"},
		{sd, "output_blocks.11.1.proj_out.weight", "up_blocks.3.attentions.2.proj_out.weight"},
		{sd, "out.2.weight", "conv_out.weight"},
		{xl, "label_emb.0.2.bias", "add_embedding.linear_2.bias"},
		{xl, "input_blocks.8.1.transformer_blocks.9.norm3.weight", "down_blocks.2.attentions.1.transformer_blocks.9.norm3.weight"},
		{xl, "output_blocks.2.2.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
		{xl, "output_blocks.8.0.in_layers.0.weight", "up_blocks.2.resnets.2.norm1.weight"},
		{vae, "decoder.up.3.upsample.conv.weight", "decoder.up_blocks.0.upsamplers.0.conv.weight"},
		{vae, "decoder.up.0.block.0.nin_shortcut.weight", "decoder.up_blocks.3.resnets.0.conv_shortcut.weight"},
		{vae, "encoder.down.1.downsample.conv.bias", "encoder.down_blocks.1.downsamplers.0.conv.bias"},
		{vae, "encoder.mid.attn_1.proj_out.weight", "encoder.mid_block.attentions.0.to_out.0.weight"},
		{openCLIPNames(2), "transformer.resblocks.1.mlp.c_proj.bias", "text_model.encoder.layers.1.mlp.fc2.bias"},
		{openCLIPNames(2), "positional_embedding", "text_model.embeddings.position_embedding.weight"},
	} {
		if got, ok := c.table.translate(c.old); !ok || got != c.new {
			t.Errorf("%s: %s, want %s", c.old, got, c.new)
		}
	}
	if name, ok := sd.translate("model_ema.decay"); ok {
		t.Errorf("model_ema.decay: %s", name)
	}
}

// openCLIP returns a text tower as OpenCLIP has it.
func openCLIP(prefix string, hidden, layers int) tensors {
	ts := tensors{
		prefix + "token_embedding.weight": filled(20, hidden), prefix + "positional_embedding": filled(7, hidden),
		prefix + "ln_final.weight": filled(hidden), prefix + "ln_final.bias": filled(hidden), prefix + "text_projection": filled(hidden, 12),
		prefix + "logit_scale": filled(),
	}
	for i := range layers {
		p := fmt.Sprintf("%stransformer.resblocks.%d.", prefix, i)
		for name, shape := range map[string][]int{
			"ln_1": {hidden}, "ln_2": {hidden}, "attn.out_proj": {hidden, hidden}, "mlp.c_fc": {4 * hidden, hidden}, "mlp.c_proj": {hidden, 4 * hidden},
		} {
			ts[p+name+".weight"], ts[p+name+".bias"] = filled(shape...), filled(shape[0])
		}
		ts[p+"attn.in_proj_weight"], ts[p+"attn.in_proj_bias"] = filled(3*hidden, hidden), filled(3*hidden)
	}
	return ts
}

func TestOpenCLIP(t *testing.T) {
	t.Parallel()
	const prefix = "conditioner.embedders.1.model."
	s := openCLIP(prefix, 8, 2).store(t)
	l, err := Inspect(s.Header())
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.Store(s, "text_encoder_2")
	if err != nil {
		t.Fatal(err)
	}
	fused, err := s.Tensor(prefix+"transformer.resblocks.1.attn.in_proj_weight", 24, 8)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"q", "k", "v"} {
		x, err := text.Tensor("text_model.encoder.layers.1.self_attn."+name+"_proj.weight", 8, 8)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(x.Float32s(), fused.Float32s()[64*i:][:64]) {
			t.Errorf("%s is not its part of the fused weight", name)
		}
	}
	turned, err := text.Tensor("text_projection.weight", 12, 8)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := s.Tensor(prefix+"text_projection", 8, 12)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := turned.Float32s()[3*8+5], stored.Float32s()[5*12+3]; got != want {
		t.Errorf("projection [3, 5] = %v, want %v", got, want)
	}
	var config map[string]any
	if err := json.Unmarshal(l.Config("text_encoder_2"), &config); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"projection_dim": 12.0, "num_hidden_layers": 2.0, "intermediate_size": 32.0, "hidden_act": "gelu"} {
		if config[key] != want {
			t.Errorf("%s = %v, want %v", key, config[key], want)
		}
	}
}

// TestT5 has the encoder by the names of transformers and of llama.cpp.
func TestT5(t *testing.T) {
	t.Parallel()
	shapes := map[string][]int{
		"shared": {20, 8}, "encoder.final_layer_norm": {8},
		"encoder.block.0.layer.0.SelfAttention.q": {12, 8}, "encoder.block.0.layer.0.SelfAttention.k": {12, 8},
		"encoder.block.0.layer.0.SelfAttention.v": {12, 8}, "encoder.block.0.layer.0.SelfAttention.o": {8, 12},
		"encoder.block.0.layer.0.SelfAttention.relative_attention_bias": {32, 3}, "encoder.block.0.layer.0.layer_norm": {8},
		"encoder.block.0.layer.1.DenseReluDense.wi_0": {16, 8}, "encoder.block.0.layer.1.DenseReluDense.wi_1": {16, 8},
		"encoder.block.0.layer.1.DenseReluDense.wo": {8, 16}, "encoder.block.0.layer.1.layer_norm": {8},
	}
	theirs, llama := tensors{}, tensors{}
	back := llamaT5Names(1).reversed()
	for name, shape := range shapes {
		theirs["text_encoders.t5xxl.transformer."+name+".weight"] = filled(shape...)
		old, ok := back.translate(name + ".weight")
		if !ok {
			t.Fatalf("%s has no name in llama.cpp", name)
		}
		llama[old] = filled(shape...)
	}
	for _, file := range []tensors{theirs, llama} {
		s := file.store(t)
		l, err := Inspect(s.Header())
		if err != nil {
			t.Fatal(err)
		}
		text, err := l.Store(s, "text_encoder_3")
		if err != nil {
			t.Fatal(err)
		}
		for name, shape := range shapes {
			if _, err := text.Tensor(name+".weight", shape...); err != nil {
				t.Error(err)
			}
		}
		var config map[string]any
		if err := json.Unmarshal(l.Config("text_encoder_3"), &config); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]any{"d_model": 8.0, "d_kv": 4.0, "num_heads": 3.0, "d_ff": 16.0, "num_layers": 1.0, "feed_forward_proj": "gated-gelu"} {
			if config[key] != want {
				t.Errorf("%s = %v, want %v", key, config[key], want)
			}
		}
	}
}

// TestBeside names text encoders in files of their own after the network beside them.
func TestBeside(t *testing.T) {
	t.Parallel()
	tower := func(width int) tensors {
		return tensors{
			"text_model.embeddings.token_embedding.weight":    filled(5, width),
			"text_model.embeddings.position_embedding.weight": filled(7, width),
			"text_model.encoder.layers.0.mlp.fc1.weight":      filled(2, width),
		}
	}
	t5 := tensors{
		"shared.weight": filled(20, 8), "encoder.block.0.layer.0.SelfAttention.q.weight": filled(12, 8),
		"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": filled(32, 3),
		"encoder.block.0.layer.1.DenseReluDense.wo.weight":                     filled(8, 16),
	}
	for _, c := range []struct {
		file   tensors
		family Family
		part   string
		class  string
	}{
		{tower(768), SD3, "text_encoder", "CLIPTextModelWithProjection"},
		{tower(1280), SD3, "text_encoder_2", "CLIPTextModelWithProjection"},
		{tower(768), SDXL, "text_encoder", "CLIPTextModel"},
		{tower(1280), SDXL, "text_encoder_2", "CLIPTextModelWithProjection"},
		{tower(768), Flux, "text_encoder", "CLIPTextModel"},
		{t5, Flux, "text_encoder_2", "T5EncoderModel"},
		{t5, SD3, "text_encoder_3", "T5EncoderModel"},
	} {
		s := c.file.store(t)
		l, err := Inspect(s.Header())
		if err != nil {
			t.Fatal(err)
		}
		l.Beside(c.family)
		if got := l.Parts(); len(got) != 1 || got[0] != c.part {
			t.Errorf("beside %s: %v, want %s", c.family, got, c.part)
			continue
		}
		if !strings.Contains(string(l.Config(c.part)), `"architectures":["`+c.class+`"]`) {
			t.Errorf("%s beside %s: %s, want %s", c.part, c.family, l.Config(c.part), c.class)
		}
		if _, err := l.Store(s, c.part); err != nil {
			t.Error(err)
		}
	}
}

// TestVelocity opens a network of Stable Diffusion 2 with what tells that it predicts
// velocity, and without.
func TestVelocity(t *testing.T) {
	t.Parallel()
	file := published(t)["unet_sd21"].file
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"nothing":        {nil, "epsilon"},
		"yaml":           {fstest.MapFS{"m.yaml": {Data: []byte("model:\n  params:\n    parameterization: \"v\"  # of Salimans and Ho\n")}}, "v_prediction"},
		"another's yaml": {fstest.MapFS{"m.yaml": {Data: []byte("model:\n  params:\n    parameterization: \"eps\"\n")}}, "epsilon"},
	} {
		fsys := fstest.MapFS{"m.safetensors": {Data: file.bytes(t)}}
		maps.Copy(fsys, c.files)
		m, err := Open(fsys, "m.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		var scheduler struct {
			Type string `json:"prediction_type"`
		}
		if err := json.Unmarshal(m.Config("scheduler"), &scheduler); err != nil || scheduler.Type != c.want {
			t.Errorf("%s: %s, %v, want %s", name, scheduler.Type, err, c.want)
		}
		m.Close()
	}
}

// TestGGUF writes a network as ComfyUI-GGUF does, with rows changed so that they can be
// quantised, and reads it back.
func TestGGUF(t *testing.T) {
	t.Parallel()
	p := published(t)["unet_sd15"]
	const conv = "input_blocks.0.0.weight" // [24, 4, 3, 3]
	pairs := []weights.Pair{
		{Key: "general.architecture", Value: "sd1"}, {Key: "comfy.gguf.orig_shape." + conv, Value: []int32{24, 4, 3, 3}},
	}
	var sources []weights.Source
	for _, name := range slices.Sorted(maps.Keys(p.file)) {
		x := p.file[name]
		name := strings.TrimPrefix(name, "model.diffusion_model.")
		if name == conv {
			data := make([]byte, tensor.Q8_0.Bytes(x.Len()))
			tensor.Encode(data, tensor.Q8_0, x.Float32s())
			x.DType, x.Shape, x.Data = tensor.Q8_0, []int{27, 32}, data
		}
		sources = append(sources, weights.Source{Name: name, DType: x.DType, Shape: x.Shape, Write: func(w io.Writer) error {
			_, err := w.Write(x.Data)
			return err
		}})
	}
	var file bytes.Buffer
	if err := weights.EncodeGGUF(t.Context(), &file, pairs, sources); err != nil {
		t.Fatal(err)
	}
	c, err := Open(fstest.MapFS{"m.gguf": {Data: file.Bytes()}}, "m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unet, err := c.Part("unet")
	if err != nil {
		t.Fatal(err)
	}
	got, err := unet.Tensor("conv_in.weight", 24, 4, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.want.Tensor("conv_in.weight", 24, 4, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range want.Float32s() {
		if d := math.Abs(float64(got.Float32s()[i] - v)); d > 0.01 {
			t.Fatalf("conv_in.weight[%d] = %v, want %v", i, got.Float32s()[i], v)
		}
	}
}

// TestRefused opens files that are no models, or broken ones.
func TestRefused(t *testing.T) {
	t.Parallel()
	whole := published(t)["unet_sd15"].file
	without := func(name string) tensors {
		ts := maps.Clone(whole)
		delete(ts, "model.diffusion_model."+name)
		return ts
	}
	with := func(name string, x weights.Tensor) tensors {
		ts := maps.Clone(whole)
		ts["model.diffusion_model."+name] = x
		return ts
	}
	for name, c := range map[string]struct {
		file tensors
		want error
	}{
		"nothing":        {tensors{"a": filled(3)}, ErrUnsupported},
		"no end":         {without("out.2.weight"), weights.ErrMissing},
		"no convolution": {without("input_blocks.1.0.out_layers.3.weight"), weights.ErrMissing},
		"a flat one":     {with("out.2.weight", filled(4, 9)), weights.ErrShape},
		"no text":        {without("input_blocks.1.1.norm.weight"), ErrUnsupported},
		"no pixels":      {with("input_blocks.0.0.weight", filled(0, 4, 3, 3)), weights.ErrShape},
		"half a tower":   {tensors{"cond_stage_model.model.positional_embedding": filled(7, 8)}, weights.ErrMissing},
		"odd in_proj": {tensors{
			"cond_stage_model.model.positional_embedding":                            filled(7, 8),
			"cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight":     filled(25, 8),
			"cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias":       filled(25),
			"cond_stage_model.model.transformer.resblocks.0.attn.out_proj.weight":    filled(8, 8),
			"cond_stage_model.model.transformer.resblocks.0.attn.out_proj.bias":      filled(8),
			"cond_stage_model.model.transformer.resblocks.0.attn.unknown.bias.other": filled(8),
		}, weights.ErrShape},
	} {
		if _, err := Inspect(c.file.store(t).Header()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := Open(fstest.MapFS{"m.safetensors": {Data: []byte("no")}}, "m.safetensors"); !errors.Is(err, weights.ErrFormat) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(fstest.MapFS{}, "m.safetensors"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	l, err := Inspect(whole.store(t).Header())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Store(whole.store(t), "vae"); !errors.Is(err, ErrUnsupported) || l.Config("vae") != nil {
		t.Errorf("a part that is not there: %v, config %s", err, l.Config("vae"))
	}
}

// listing returns the names and shapes of tensors, a line each, no axis longer than 4.
func (ts tensors) listing() string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(ts)) {
		text.WriteString(name)
		for _, d := range ts[name].Shape {
			fmt.Fprint(&text, " ", min(d, 4))
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// listed returns the tensors of a listing, all zeros, and not ok if they are many or large.
func listed(text string) (ts tensors, ok bool) {
	ts = tensors{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || len(fields) > 8 {
			return nil, false
		}
		x := weights.Tensor{DType: tensor.U8}
		for _, field := range fields[1:] {
			d, err := strconv.Atoi(field)
			if err != nil || d < 0 || d > 64 {
				return nil, false
			}
			x.Shape = append(x.Shape, d)
		}
		if product(x.Shape) > 1<<12 || len(ts) > 1<<10 {
			return nil, false
		}
		x.Data = make([]byte, product(x.Shape))
		ts[fields[0]] = x
	}
	return ts, true
}

// FuzzInspect checks that no names and shapes make a panic.
func FuzzInspect(f *testing.F) {
	for _, p := range published(f) {
		f.Add(p.file.listing())
	}
	f.Add(openCLIP("cond_stage_model.model.", 4, 1).listing())
	f.Add("decoder.up.0.block.0.conv1.weight 4 4 3 3\ndecoder.conv_in.weight 4 4 3 3\nencoder.mid.attn_1.q.weight 4 4 1 1\n")
	f.Add("encoder.block.0.layer.0.SelfAttention.q.weight 4 4\nshared.weight 4 4\n")
	f.Fuzz(func(t *testing.T, text string) {
		ts, ok := listed(text)
		if !ok || !utf8.ValidString(text) {
			return
		}
		s, err := weights.OpenFile(fstest.MapFS{"m.safetensors": {Data: ts.bytes(t)}}, "m.safetensors")
		if err != nil {
			return
		}
		defer s.Close()
		l, err := Inspect(s.Header())
		if err != nil {
			return
		}
		for _, part := range l.Parts() {
			view, err := l.Store(s, part)
			if err != nil {
				continue
			}
			for _, name := range view.Names() {
				view.Lookup(name)
			}
		}
	})
}
