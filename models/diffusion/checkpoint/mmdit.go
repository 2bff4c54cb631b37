package checkpoint

import (
	"fmt"
	"math"
	"strconv"

	"helicon/models/weights"
)

// findMMDiT finds the transformer of Stable Diffusion 3 and 3.5.
func (l *Layout) findMMDiT(s *source) error {
	prefix, ok := s.prefixOf("joint_blocks.0.x_block.attn.qkv.weight", "model.diffusion_model.", "")
	if !ok {
		return nil
	}
	patch, err := s.shape(prefix+"x_embedder.proj.weight", 4)
	if err != nil {
		return err
	}
	context, err := s.shape(prefix+"context_embedder.weight", 2)
	if err != nil {
		return err
	}
	pooled, err := s.shape(prefix+"y_embedder.mlp.0.weight", 2)
	if err != nil {
		return err
	}
	final, err := s.shape(prefix+"final_layer.linear.weight", 2)
	if err != nil {
		return err
	}
	info, err := s.header.Lookup(prefix + "pos_embed")
	if err != nil {
		return err
	}
	blocks, hidden := s.count(prefix+"joint_blocks."), patch[0]
	positions := int(info.Len()) / hidden
	config := map[string]any{
		"_class_name": "SD3Transformer2DModel", "num_layers": blocks, "in_channels": patch[1], "patch_size": patch[2],
		"out_channels": final[0] / (patch[2] * patch[2]), "attention_head_dim": 64, "num_attention_heads": hidden / 64,
		"joint_attention_dim": context[1], "caption_projection_dim": context[0], "pooled_projection_dim": pooled[1],
		"pos_embed_max_size": int(math.Sqrt(float64(positions))), "sample_size": 128,
	}
	views := s.renamed(prefix, mmditNames(blocks))
	if s.has(prefix + "joint_blocks.0.x_block.attn.ln_q.weight") {
		config["qk_norm"] = "rms_norm"
	}
	dual := []int{}
	for i := range blocks {
		block, name := fmt.Sprintf("%sjoint_blocks.%d.", prefix, i), fmt.Sprintf("transformer_blocks.%d.", i)
		for _, attention := range [][4]string{
			{"x_block.attn.qkv.", "attn.to_q.", "attn.to_k.", "attn.to_v."},
			{"context_block.attn.qkv.", "attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."},
			{"x_block.attn2.qkv.", "attn2.to_q.", "attn2.to_k.", "attn2.to_v."},
		} {
			for _, kind := range []string{"weight", "bias"} {
				if old := block + attention[0] + kind; s.has(old) {
					s.cut(views, old, hidden, name+attention[1]+kind, name+attention[2]+kind, name+attention[3]+kind)
				}
			}
		}
		if s.has(block + "x_block.attn2.qkv.weight") {
			dual = append(dual, i)
		}
	}
	config["dual_attention_layers"] = dual
	// Where two factors modulate a norm, diffusers has the scale before the shift.
	swapModulation(views, "transformer_blocks."+strconv.Itoa(blocks-1)+".norm1_context.linear")
	swapModulation(views, "norm_out.linear")
	views["pos_embed.pos_embed"] = weights.View{Name: prefix + "pos_embed", Shape: []int{1, positions, hidden}}
	l.Family = SD3
	l.parts["transformer"] = part{"diffusers", "SD3Transformer2DModel", config, views}
	return nil
}

// swapModulation turns the halves of a layer round.
func swapModulation(views map[string]weights.View, layer string) {
	for _, kind := range []string{".weight", ".bias"} {
		if v, ok := views[layer+kind]; ok {
			v.Edit = swapped
			views[layer+kind] = v
		}
	}
}

// findFlux finds the transformer of Flux.
func (l *Layout) findFlux(s *source) error {
	prefix, ok := s.prefixOf("double_blocks.0.img_attn.qkv.weight", "model.diffusion_model.", "")
	if !ok {
		return nil
	}
	in, err := s.shape(prefix+"img_in.weight", 2)
	if err != nil {
		return err
	}
	context, err := s.shape(prefix+"txt_in.weight", 2)
	if err != nil {
		return err
	}
	pooled, err := s.shape(prefix+"vector_in.in_layer.weight", 2)
	if err != nil {
		return err
	}
	final, err := s.shape(prefix+"final_layer.linear.weight", 2)
	if err != nil {
		return err
	}
	const headDim = 128
	hidden, double, single := in[0], s.count(prefix+"double_blocks."), s.count(prefix+"single_blocks.")
	config := map[string]any{
		"_class_name": "FluxTransformer2DModel", "in_channels": in[1], "out_channels": final[0], "patch_size": 1, "num_layers": double,
		"num_single_layers": single, "attention_head_dim": headDim, "num_attention_heads": hidden / headDim,
		"joint_attention_dim": context[1], "pooled_projection_dim": pooled[1],
		"guidance_embeds": s.has(prefix + "guidance_in.in_layer.weight"), "axes_dims_rope": []int{16, 56, 56},
	}
	views := s.renamed(prefix, fluxNames(double, single))
	for kind, axes := range map[string]int{"weight": 2, "bias": 1} {
		for i := range double {
			block, name := fmt.Sprintf("%sdouble_blocks.%d.", prefix, i), fmt.Sprintf("transformer_blocks.%d.attn.", i)
			s.cut(views, block+"img_attn.qkv."+kind, hidden, name+"to_q."+kind, name+"to_k."+kind, name+"to_v."+kind)
			s.cut(views, block+"txt_attn.qkv."+kind, hidden, name+"add_q_proj."+kind, name+"add_k_proj."+kind, name+"add_v_proj."+kind)
		}
		for i := range single {
			old, name := fmt.Sprintf("%ssingle_blocks.%d.linear1.%s", prefix, i, kind), fmt.Sprintf("single_transformer_blocks.%d.", i)
			s.cut(views, old, hidden, name+"attn.to_q."+kind, name+"attn.to_k."+kind, name+"attn.to_v."+kind)
			shape, err := s.shape(old, axes)
			if err != nil {
				return err
			}
			views[name+"proj_mlp."+kind] = weights.View{Name: old, Rows: [2]int{3 * hidden, shape[0]}}
		}
	}
	swapModulation(views, "norm_out.linear")
	l.Family = Flux
	l.parts["transformer"] = part{"diffusers", "FluxTransformer2DModel", config, views}
	return nil
}
