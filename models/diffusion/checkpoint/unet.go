package checkpoint

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// findUNet finds a UNet: CompVis' openaimodel.UNetModel.
func (l *Layout) findUNet(s *source) error {
	prefix, ok := s.prefixOf("input_blocks.0.0.weight", "model.diffusion_model.", "")
	if !ok || s.has(prefix+"input_hint_block.0.weight") {
		return nil
	}
	u, err := s.unetShape(prefix)
	if err != nil {
		return err
	}
	config, err := s.unetConfig(prefix, u)
	if err != nil {
		return err
	}
	last, err := s.shape(prefix+"out.2.weight", 4)
	if err != nil {
		return err
	}
	config["_class_name"], config["out_channels"] = "UNet2DConditionModel", last[0]
	l.Family = familyOf(config)
	switch context := config["cross_attention_dim"]; {
	case l.Family == SDXL && context == 1280:
		return fmt.Errorf("checkpoint: %s: the refiner of SDXL: %w", s.header.Files[0].Name, ErrUnsupported)
	case l.Family == SDXL && context == 1024:
		return fmt.Errorf("checkpoint: %s: an unCLIP of Stable Diffusion 2, which takes images: %w", s.header.Files[0].Name, ErrUnsupported)
	}
	config["attention_head_dim"] = heads(l.Family, config["block_out_channels"].([]int))
	config["sample_size"] = map[Family]int{SD1: 64, SD2: 64, SDXL: 128}[l.Family]
	l.parts["unet"] = part{"diffusers", "UNet2DConditionModel", config, s.renamed(prefix, unetNames(u))}
	return nil
}

// familyOf returns the family that a UNet of a configuration is of.
func familyOf(config map[string]any) Family {
	switch context := config["cross_attention_dim"]; {
	case config["addition_embed_type"] != nil:
		return SDXL
	case context == 1024, context != 768 && config["use_linear_projection"] == true:
		return SD2
	}
	return SD1
}

// findControlNet finds a ControlNet: lllyasviel's ControlNet, by itself.
func (l *Layout) findControlNet(s *source) error {
	prefix, ok := s.prefixOf("input_hint_block.0.weight", "control_model.", "")
	if !ok {
		return nil
	}
	u, err := s.unetShape(prefix)
	if err != nil {
		return err
	}
	config, err := s.unetConfig(prefix, u)
	if err != nil {
		return err
	}
	var hint []int
	for i := 0; s.has(fmt.Sprintf("%sinput_hint_block.%d.weight", prefix, 2*i+2)); i++ {
		if i%2 == 0 {
			conv, err := s.shape(fmt.Sprintf("%sinput_hint_block.%d.weight", prefix, 2*i), 4)
			if err != nil {
				return err
			}
			hint = append(hint, conv[0])
		}
	}
	delete(config, "up_block_types")
	config["_class_name"], config["conditioning_embedding_out_channels"] = "ControlNetModel", hint
	config["attention_head_dim"] = heads(familyOf(config), config["block_out_channels"].([]int))
	views := s.renamed(prefix, controlNames(unetNames(u), s.count(prefix+"zero_convs."), len(hint)))
	l.parts["controlnet"] = part{"diffusers", "ControlNetModel", config, views}
	return nil
}

// heads returns the number of heads of each level: 8 in Stable Diffusion 1, heads of 64
// channels in others.
func heads(f Family, channels []int) []int {
	n := make([]int, len(channels))
	for i, c := range channels {
		n[i] = 8
		if f != SD1 {
			n[i] = max(1, c/64)
		}
	}
	return n
}

// unetShape counts blocks: a level has as many resnets as there are blocks before the
// first that halves the image, and every level but the last ends in one of these.
func (s *source) unetShape(prefix string) (unetShape, error) {
	blocks := s.count(prefix + "input_blocks.")
	halving := func(i int) bool { return s.has(fmt.Sprintf("%sinput_blocks.%d.0.op.weight", prefix, i)) }
	u := unetShape{layers: blocks - 1}
	for i := 1; i < blocks; i++ {
		if halving(i) {
			u.layers = i - 1
			break
		}
	}
	if u.layers < 1 || blocks%(u.layers+1) != 0 {
		return u, fmt.Errorf("checkpoint: %s: %d input_blocks, %d in a level: %w", s.header.Files[0].Name, blocks, u.layers, ErrUnsupported)
	}
	for level := range blocks / (u.layers + 1) {
		attends := s.has(fmt.Sprintf("%sinput_blocks.%d.1.norm.weight", prefix, 1+level*(u.layers+1)))
		u.attends = append(u.attends, attends)
	}
	return u, nil
}

// unetConfig returns what shows in shapes.
func (s *source) unetConfig(prefix string, u unetShape) (map[string]any, error) {
	first, err := s.shape(prefix+"input_blocks.0.0.weight", 4)
	if err != nil {
		return nil, err
	}
	config := map[string]any{"in_channels": first[1], "layers_per_block": u.layers}
	var channels, depths []int
	var down, up []string
	for level, attends := range u.attends {
		block := fmt.Sprintf("%sinput_blocks.%d", prefix, 1+level*(u.layers+1))
		conv, err := s.shape(block+".0.out_layers.3.weight", 4)
		if err != nil {
			return nil, err
		}
		channels = append(channels, conv[0])
		if !attends {
			down, up, depths = append(down, "DownBlock2D"), append(up, "UpBlock2D"), append(depths, 1)
			continue
		}
		down, up = append(down, "CrossAttnDownBlock2D"), append(up, "CrossAttnUpBlock2D")
		depths = append(depths, s.count(block+".1.transformer_blocks."))
		keys, err := s.shape(block+".1.transformer_blocks.0.attn2.to_k.weight", 2)
		if err != nil {
			return nil, err
		}
		config["cross_attention_dim"] = keys[1]
		config["use_linear_projection"] = s.axes(block+".1.proj_in.weight") == 2
	}
	if config["cross_attention_dim"] == nil {
		return nil, fmt.Errorf("checkpoint: %s: a UNet without attention to text: %w", s.header.Files[0].Name, ErrUnsupported)
	}
	// The depth of the middle is that of the last level, which may have none of its own.
	if mid := s.count(prefix + "middle_block.1.transformer_blocks."); mid > 0 && !u.attends[len(u.attends)-1] {
		depths[len(depths)-1] = mid
	}
	slices.Reverse(up)
	maps.Copy(config, map[string]any{
		"block_out_channels": channels, "transformer_layers_per_block": depths, "down_block_types": down, "up_block_types": up,
	})
	if s.has(prefix + "label_emb.0.0.weight") {
		label, err := s.shape(prefix+"label_emb.0.0.weight", 2)
		if err != nil {
			return nil, err
		}
		config["addition_embed_type"], config["addition_time_embed_dim"] = "text_time", 256
		config["projection_class_embeddings_input_dim"] = label[1]
	}
	return config, nil
}

// findVAE finds an autoencoder: CompVis' AutoencoderKL, by itself or in a larger file.
func (l *Layout) findVAE(s *source) error {
	prefix, ok := s.prefixOf("decoder.up.0.block.0.conv1.weight", "first_stage_model.", "vae.", "")
	if !ok {
		return nil
	}
	in, err := s.shape(prefix+"decoder.conv_in.weight", 4)
	if err != nil {
		return err
	}
	levels := s.count(prefix + "decoder.up.")
	layers := s.count(prefix+"decoder.up.0.block.") - 1
	var channels []int
	for level := range levels {
		conv, err := s.shape(prefix+"decoder.up."+strconv.Itoa(level)+".block.0.conv1.weight", 4)
		if err != nil {
			return err
		}
		channels = append(channels, conv[0])
	}
	config := map[string]any{
		"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": in[1],
		"block_out_channels": channels, "layers_per_block": layers, "norm_num_groups": 32, "act_fn": "silu",
		"down_block_types": slices.Repeat([]string{"DownEncoderBlock2D"}, levels),
		"up_block_types":   slices.Repeat([]string{"UpDecoderBlock2D"}, levels),
		"use_quant_conv":   s.has(prefix + "quant_conv.weight"), "use_post_quant_conv": s.has(prefix + "post_quant_conv.weight"),
		"sample_size": 512, "scaling_factor": 0.18215,
	}
	switch {
	case l.Family == SDXL:
		config["scaling_factor"], config["sample_size"] = 0.13025, 1024
	case l.Family == SD3:
		config["scaling_factor"], config["shift_factor"], config["sample_size"] = 1.5305, 0.0609, 1024
	case in[1] == 16: // of Flux, also by itself
		config["scaling_factor"], config["shift_factor"], config["sample_size"] = 0.3611, 0.1159, 1024
	}
	views := s.renamed(prefix, vaeNames(levels, layers))
	for _, half := range []string{"encoder", "decoder"} {
		for _, name := range []string{"to_q", "to_k", "to_v", "to_out.0"} {
			name := half + ".mid_block.attentions.0." + name + ".weight"
			v, ok := views[name]
			if !ok {
				continue
			}
			if s.axes(v.Name) == 4 {
				shape, err := s.shape(v.Name, 4)
				if err != nil {
					return err
				}
				v.Shape = []int{shape[0], shape[1] * shape[2] * shape[3]}
				views[name] = v
			}
		}
	}
	l.parts["vae"] = part{"diffusers", "AutoencoderKL", config, views}
	return nil
}
