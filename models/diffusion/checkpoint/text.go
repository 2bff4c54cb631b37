package checkpoint

import (
	"fmt"

	"helicon/models/weights"
)

// findTexts finds text encoders: those of transformers as they are, and OpenCLIP's.
func (l *Layout) findTexts(s *source) error {
	const embedding, bare = "text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"
	for _, at := range []struct {
		part     string
		prefixes []string
	}{
		{"text_encoder", []string{"cond_stage_model.transformer.", "cond_stage_model.", "conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer.", "text_encoders.clip_l.", ""}},
		{"text_encoder_2", []string{"conditioner.embedders.1.transformer.", "text_encoders.clip_g.transformer.", "text_encoders.clip_g."}},
	} {
		if prefix, ok := s.prefixOf(embedding, at.prefixes...); ok {
			if err := l.clip(s, at.part, prefix, s.same(prefix)); err != nil {
				return err
			}
		} else if prefix, ok := s.prefixOf(bare, at.prefixes[:1]...); ok {
			views := map[string]weights.View{}
			for name, v := range s.same(prefix) {
				views["text_model."+name] = v
			}
			if err := l.clip(s, at.part, prefix, views); err != nil {
				return err
			}
		}
	}
	for part, prefix := range map[string]string{"text_encoder": "cond_stage_model.model.", "text_encoder_2": "conditioner.embedders.1.model."} {
		if s.has(prefix + "positional_embedding") {
			if err := l.openCLIP(s, part, prefix); err != nil {
				return err
			}
		}
	}
	return l.findT5(s)
}

// clip adds a text encoder of transformers' names.
func (l *Layout) clip(s *source, name, prefix string, views map[string]weights.View) error {
	layers := 0
	for views[fmt.Sprintf("text_model.encoder.layers.%d.mlp.fc1.weight", layers)].Name != "" {
		layers++
	}
	config, err := s.clipConfig(views, layers)
	if err != nil {
		return err
	}
	class := clipClass(l.Family, name)
	// The tower of SD 1 and of SDXL's first encoder is OpenAI's, all others are OpenCLIP's.
	if config["hidden_size"] == 768 {
		config["hidden_act"] = "quick_gelu"
	}
	config["architectures"] = []string{class}
	l.parts[name] = part{"transformers", class, config, views}
	return nil
}

// clipClass returns the class of CLIP's text encoder in a family's pipelines.
func clipClass(f Family, name string) string {
	if f == SD3 || name == "text_encoder_2" && f == SDXL {
		return "CLIPTextModelWithProjection"
	}
	return "CLIPTextModel"
}

// openCLIPBig is the width of the second text encoder of SDXL and Stable Diffusion 3.
const openCLIPBig = 1280

// Beside gives the text encoders of a file without a network the names that they have in
// the pipeline of the network they lie beside: nothing in such a file tells them.
func (l *Layout) Beside(f Family) {
	if l.Family != "" {
		return
	}
	if t5, ok := l.parts["text_encoder_3"]; ok && f == Flux {
		delete(l.parts, "text_encoder_3")
		l.parts["text_encoder_2"] = t5
	}
	text, ok := l.parts["text_encoder"]
	if !ok {
		return
	}
	name := "text_encoder"
	if text.config["hidden_size"] == openCLIPBig && (f == SDXL || f == SD3) {
		name = "text_encoder_2"
	}
	delete(l.parts, "text_encoder")
	text.class = clipClass(f, name)
	text.config["architectures"] = []string{text.class}
	l.parts[name] = text
}

// clipConfig returns what shows in shapes.
func (s *source) clipConfig(views map[string]weights.View, layers int) (map[string]any, error) {
	shapes := map[string][]int{}
	for name, at := range map[string]string{
		"tokens":    "text_model.embeddings.token_embedding.weight",
		"positions": "text_model.embeddings.position_embedding.weight",
		"middle":    "text_model.encoder.layers.0.mlp.fc1.weight",
	} {
		v, ok := views[at]
		if !ok {
			return nil, fmt.Errorf("checkpoint: %s: tensor for %q: %w", s.header.Files[0].Name, at, weights.ErrMissing)
		}
		var err error
		if shapes[name], err = s.shape(v.Name, 2); err != nil {
			return nil, err
		}
	}
	hidden := shapes["tokens"][1]
	config := map[string]any{
		"model_type": "clip_text_model", "vocab_size": shapes["tokens"][0], "hidden_size": hidden,
		"intermediate_size": shapes["middle"][0], "max_position_embeddings": shapes["positions"][0],
		"num_hidden_layers": layers, "num_attention_heads": max(1, hidden/64), "hidden_act": "gelu",
		"layer_norm_eps": 1e-5, "projection_dim": hidden, "bos_token_id": 49406, "eos_token_id": 49407,
	}
	if v, ok := views["text_projection.weight"]; ok {
		shape, err := s.shape(v.Name, 2)
		if err != nil {
			return nil, err
		}
		config["projection_dim"] = shape[0]
		if v.Transposed {
			config["projection_dim"] = shape[1]
		}
	}
	return config, nil
}

// openCLIP adds a text encoder of OpenCLIP's names. Stable Diffusion 2 does without the
// last of its layers.
func (l *Layout) openCLIP(s *source, name, prefix string) error {
	layers := s.count(prefix + "transformer.resblocks.")
	if l.Family == SD2 && layers > 1 {
		layers--
	}
	views := s.renamed(prefix, openCLIPNames(layers))
	for i := range layers {
		old := fmt.Sprintf("%stransformer.resblocks.%d.attn.in_proj_", prefix, i)
		for _, kind := range []string{"weight", "bias"} {
			axes := map[string]int{"weight": 2, "bias": 1}[kind]
			shape, err := s.shape(old+kind, axes)
			if err != nil {
				return err
			}
			if shape[0]%3 != 0 {
				return fmt.Errorf("checkpoint: %s: tensor %q: shape %v, want three of one size: %w", s.header.Files[0].Name, old+kind, shape, weights.ErrShape)
			}
			layer := fmt.Sprintf("text_model.encoder.layers.%d.self_attn.", i)
			s.cut(views, old+kind, shape[0]/3, layer+"q_proj."+kind, layer+"k_proj."+kind, layer+"v_proj."+kind)
		}
	}
	if s.has(prefix + "text_projection") {
		views["text_projection.weight"] = weights.View{Name: prefix + "text_projection", Transposed: true}
	} else if s.has(prefix + "text_projection.weight") {
		views["text_projection.weight"] = weights.View{Name: prefix + "text_projection.weight"}
	}
	return l.clip(s, name, prefix, views)
}

// findT5 finds the encoder of T5, of Stable Diffusion 3 and Flux, by transformers' names or,
// in a GGUF file, by those of llama.cpp.
func (l *Layout) findT5(s *source) error {
	const attention, ff = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
	var views map[string]weights.View
	if prefix, ok := s.prefixOf(attention+"q.weight", "text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.", ""); ok {
		views = s.same(prefix)
	} else if s.has("enc.blk.0.attn_q.weight") {
		views = s.renamed("", llamaT5Names(s.count("enc.blk.")))
	} else {
		return nil
	}
	shapes := map[string][]int{}
	gated := views[ff+"wi_0.weight"].Name != ""
	for key, name := range map[string]string{
		"tokens": "shared.weight", "q": attention + "q.weight", "bias": attention + "relative_attention_bias.weight", "middle": ff + "wo.weight",
	} {
		if key == "tokens" && views[name].Name == "" {
			name = "encoder.embed_tokens.weight"
		}
		v, ok := views[name]
		if !ok {
			return fmt.Errorf("checkpoint: %s: tensor for %q: %w", s.header.Files[0].Name, name, weights.ErrMissing)
		}
		var err error
		if shapes[key], err = s.shape(v.Name, 2); err != nil {
			return err
		}
	}
	layers := 0
	for views[fmt.Sprintf("encoder.block.%d.layer.0.SelfAttention.q.weight", layers)].Name != "" {
		layers++
	}
	config := map[string]any{
		"architectures": []string{"T5EncoderModel"}, "model_type": "t5", "vocab_size": shapes["tokens"][0], "d_model": shapes["tokens"][1],
		"num_heads": shapes["bias"][1], "d_kv": shapes["q"][0] / shapes["bias"][1], "d_ff": shapes["middle"][1], "num_layers": layers,
		"relative_attention_num_buckets": shapes["bias"][0], "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
		"feed_forward_proj": "relu",
	}
	if gated {
		config["feed_forward_proj"] = "gated-gelu"
	}
	name := "text_encoder_3"
	if l.Family == Flux {
		name = "text_encoder_2"
	}
	l.parts[name] = part{"transformers", "T5EncoderModel", config, views}
	return nil
}
