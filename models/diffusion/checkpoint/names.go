package checkpoint

import (
	"fmt"
	"strings"
)

// names translates the names of modules: an old path to a new one. What follows the path
// of a module in a tensor's name stays as it is.
type names map[string]string

// translate returns the new name of a tensor, by the longest path of it that is known.
func (n names) translate(name string) (string, bool) {
	for end := len(name); end > 0; end = strings.LastIndexByte(name[:end], '.') {
		if module, ok := n[name[:end]]; ok {
			return module + name[end:], true
		}
	}
	return "", false
}

// reversed returns the translation back.
func (n names) reversed() names {
	back := make(names, len(n))
	for old, name := range n {
		back[name] = old
	}
	return back
}

// resnet adds the modules of a resnet of a UNet.
func (n names) resnet(old, name string) {
	n[old+".in_layers.0"] = name + ".norm1"
	n[old+".in_layers.2"] = name + ".conv1"
	n[old+".emb_layers.1"] = name + ".time_emb_proj"
	n[old+".out_layers.0"] = name + ".norm2"
	n[old+".out_layers.3"] = name + ".conv2"
	n[old+".skip_connection"] = name + ".conv_shortcut"
}

// unetShape is what the numbers in the names of a UNet's modules follow from.
type unetShape struct {
	layers  int    // resnets of a level on the way down
	attends []bool // by level, from the full size on
}

// unetNames translates names of CompVis' openaimodel.UNetModel to those of diffusers'
// UNet2DConditionModel: blocks that are numbered through, to blocks of levels.
func unetNames(u unetShape) names {
	n := names{
		"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
		"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
		"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
		"middle_block.1": "mid_block.attentions.0",
	}
	n.resnet("middle_block.0", "mid_block.resnets.0")
	n.resnet("middle_block.2", "mid_block.resnets.1")
	levels := len(u.attends)
	for level, attends := range u.attends {
		for j := range u.layers {
			old := fmt.Sprintf("input_blocks.%d", 1+level*(u.layers+1)+j)
			n.resnet(old+".0", fmt.Sprintf("down_blocks.%d.resnets.%d", level, j))
			if attends {
				n[old+".1"] = fmt.Sprintf("down_blocks.%d.attentions.%d", level, j)
			}
		}
		if level < levels-1 {
			n[fmt.Sprintf("input_blocks.%d.0.op", (level+1)*(u.layers+1))] = fmt.Sprintf("down_blocks.%d.downsamplers.0.conv", level)
		}
		up := levels - 1 - level
		for j := range u.layers + 1 {
			old, next := fmt.Sprintf("output_blocks.%d", up*(u.layers+1)+j), 1
			n.resnet(old+".0", fmt.Sprintf("up_blocks.%d.resnets.%d", up, j))
			if attends {
				n[old+".1"] = fmt.Sprintf("up_blocks.%d.attentions.%d", up, j)
				next = 2
			}
			if j == u.layers && level > 0 {
				n[fmt.Sprintf("%s.%d.conv", old, next)] = fmt.Sprintf("up_blocks.%d.upsamplers.0.conv", up)
			}
		}
	}
	return n
}

// controlNames adds to the names of a UNet those that a ControlNet has besides, with so
// many residuals on the way down and sizes of its hint.
func controlNames(n names, residuals, sizes int) names {
	for i := range residuals {
		n[fmt.Sprintf("zero_convs.%d.0", i)] = fmt.Sprintf("controlnet_down_blocks.%d", i)
	}
	n["middle_block_out.0"] = "controlnet_mid_block"
	n["input_hint_block.0"] = "controlnet_cond_embedding.conv_in"
	last := 2*sizes - 1 // two convolutions a size
	for i := 1; i < last; i++ {
		n[fmt.Sprintf("input_hint_block.%d", 2*i)] = fmt.Sprintf("controlnet_cond_embedding.blocks.%d", i-1)
	}
	n[fmt.Sprintf("input_hint_block.%d", 2*last)] = "controlnet_cond_embedding.conv_out"
	return n
}

// vaeNames translates names of CompVis' AutoencoderKL, of so many levels and resnets of a
// level in its encoder, to those of diffusers. Its attention is of convolutions of one
// pixel there and of matrices here.
func vaeNames(levels, layers int) names {
	n := names{"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
	resnet := func(old, name string) {
		n[old] = name
		n[old+".nin_shortcut"] = name + ".conv_shortcut"
	}
	for _, half := range []string{"encoder", "decoder"} {
		n[half+".conv_in"], n[half+".conv_out"], n[half+".norm_out"] = half+".conv_in", half+".conv_out", half+".conv_norm_out"
		resnet(half+".mid.block_1", half+".mid_block.resnets.0")
		resnet(half+".mid.block_2", half+".mid_block.resnets.1")
		old, name := half+".mid.attn_1", half+".mid_block.attentions.0"
		n[old+".norm"], n[old+".q"], n[old+".k"], n[old+".v"] = name+".group_norm", name+".to_q", name+".to_k", name+".to_v"
		n[old+".proj_out"] = name + ".to_out.0"
	}
	for level := range levels {
		up := levels - 1 - level
		for j := range layers {
			resnet(fmt.Sprintf("encoder.down.%d.block.%d", level, j), fmt.Sprintf("encoder.down_blocks.%d.resnets.%d", level, j))
		}
		for j := range layers + 1 {
			resnet(fmt.Sprintf("decoder.up.%d.block.%d", level, j), fmt.Sprintf("decoder.up_blocks.%d.resnets.%d", up, j))
		}
		n[fmt.Sprintf("encoder.down.%d.downsample.conv", level)] = fmt.Sprintf("encoder.down_blocks.%d.downsamplers.0.conv", level)
		n[fmt.Sprintf("decoder.up.%d.upsample.conv", level)] = fmt.Sprintf("decoder.up_blocks.%d.upsamplers.0.conv", up)
	}
	return n
}

// openCLIPNames translates names of OpenCLIP's text tower, of so many layers, to those of
// transformers' CLIPTextModel. The projections of queries, keys and values, which are one
// there, are not among them.
func openCLIPNames(layers int) names {
	n := names{
		"token_embedding":      "text_model.embeddings.token_embedding",
		"positional_embedding": "text_model.embeddings.position_embedding.weight",
		"ln_final":             "text_model.final_layer_norm",
	}
	for i := range layers {
		old, name := fmt.Sprintf("transformer.resblocks.%d", i), fmt.Sprintf("text_model.encoder.layers.%d", i)
		n[old+".ln_1"], n[old+".ln_2"] = name+".layer_norm1", name+".layer_norm2"
		n[old+".mlp.c_fc"], n[old+".mlp.c_proj"] = name+".mlp.fc1", name+".mlp.fc2"
		n[old+".attn.out_proj"] = name + ".self_attn.out_proj"
	}
	return n
}

// llamaT5Names translates names of llama.cpp's T5, of so many layers in its encoder, to those
// of transformers.
func llamaT5Names(layers int) names {
	n := names{"token_embd": "shared", "enc.output_norm": "encoder.final_layer_norm"}
	for i := range layers {
		old, name := fmt.Sprintf("enc.blk.%d.", i), fmt.Sprintf("encoder.block.%d.layer.", i)
		n[old+"attn_norm"], n[old+"attn_rel_b"] = name+"0.layer_norm", name+"0.SelfAttention.relative_attention_bias"
		for _, which := range []string{"q", "k", "v", "o"} {
			n[old+"attn_"+which] = name + "0.SelfAttention." + which
		}
		n[old+"ffn_norm"], n[old+"ffn_down"] = name+"1.layer_norm", name+"1.DenseReluDense.wo"
		n[old+"ffn_gate"], n[old+"ffn_up"] = name+"1.DenseReluDense.wi_0", name+"1.DenseReluDense.wi_1"
	}
	return n
}

// mmditNames translates names of Stability's MMDiT, of so many blocks, to those of
// diffusers' SD3Transformer2DModel, but for what has to be cut or turned round.
func mmditNames(blocks int) names {
	n := names{
		"pos_embed": "pos_embed.pos_embed", "x_embedder.proj": "pos_embed.proj", "context_embedder": "context_embedder",
		"t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
		"y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1", "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
		"final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear",
	}
	for i := range blocks {
		name := fmt.Sprintf("transformer_blocks.%d.", i)
		old := fmt.Sprintf("joint_blocks.%d.x_block.", i)
		n[old+"attn.ln_q"], n[old+"attn.ln_k"], n[old+"attn.proj"] = name+"attn.norm_q", name+"attn.norm_k", name+"attn.to_out.0"
		n[old+"attn2.ln_q"], n[old+"attn2.ln_k"], n[old+"attn2.proj"] = name+"attn2.norm_q", name+"attn2.norm_k", name+"attn2.to_out.0"
		n[old+"adaLN_modulation.1"] = name + "norm1.linear"
		n[old+"mlp.fc1"], n[old+"mlp.fc2"] = name+"ff.net.0.proj", name+"ff.net.2"

		old = fmt.Sprintf("joint_blocks.%d.context_block.", i)
		n[old+"attn.ln_q"], n[old+"attn.ln_k"], n[old+"attn.proj"] = name+"attn.norm_added_q", name+"attn.norm_added_k", name+"attn.to_add_out"
		n[old+"adaLN_modulation.1"] = name + "norm1_context.linear"
		n[old+"mlp.fc1"], n[old+"mlp.fc2"] = name+"ff_context.net.0.proj", name+"ff_context.net.2"
	}
	return n
}

// fluxNames translates names of Black Forest Labs' Flux, of so many double and single
// blocks, to those of diffusers' FluxTransformer2DModel, but for what has to be cut or
// turned round.
func fluxNames(double, single int) names {
	n := names{
		"txt_in": "context_embedder", "img_in": "x_embedder",
		"final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear",
	}
	for old, name := range map[string]string{"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"} {
		n[old+".in_layer"], n[old+".out_layer"] = "time_text_embed."+name+".linear_1", "time_text_embed."+name+".linear_2"
	}
	for i := range double {
		old, name := fmt.Sprintf("double_blocks.%d.", i), fmt.Sprintf("transformer_blocks.%d.", i)
		n[old+"img_mod.lin"], n[old+"txt_mod.lin"] = name+"norm1.linear", name+"norm1_context.linear"
		n[old+"img_attn.norm.query_norm.scale"], n[old+"img_attn.norm.key_norm.scale"] = name+"attn.norm_q.weight", name+"attn.norm_k.weight"
		n[old+"txt_attn.norm.query_norm.scale"], n[old+"txt_attn.norm.key_norm.scale"] = name+"attn.norm_added_q.weight", name+"attn.norm_added_k.weight"
		n[old+"img_attn.proj"], n[old+"txt_attn.proj"] = name+"attn.to_out.0", name+"attn.to_add_out"
		n[old+"img_mlp.0"], n[old+"img_mlp.2"] = name+"ff.net.0.proj", name+"ff.net.2"
		n[old+"txt_mlp.0"], n[old+"txt_mlp.2"] = name+"ff_context.net.0.proj", name+"ff_context.net.2"
	}
	for i := range single {
		old, name := fmt.Sprintf("single_blocks.%d.", i), fmt.Sprintf("single_transformer_blocks.%d.", i)
		n[old+"modulation.lin"], n[old+"linear2"] = name+"norm.linear", name+"proj_out"
		n[old+"norm.query_norm.scale"], n[old+"norm.key_norm.scale"] = name+"attn.norm_q.weight", name+"attn.norm_k.weight"
	}
	return n
}
