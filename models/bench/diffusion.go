package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
)

// ImageShape is the size of a diffusion model's networks, those of a UNet with a CLIP text
// encoder and an autoencoder.
type ImageShape struct {
	Name     string
	Size     int   // pixels a side that it was made for
	Channels []int // of the UNet's stages
	Depths   []int // transformer blocks of each attention of a stage; 0 is no attention
	Heads    []int // of attention, of a stage
	Context  int   // width of the text encoder's states
	Added    int   // width of what SDXL adds to the time; 0 for others
	Linear   bool  // a transformer's ends are linear layers, not convolutions
	Encoder  CLIPShape
}

// CLIPShape is the size of a text encoder.
type CLIPShape struct {
	Hidden, Layers, Heads int
	Activation            string
}

// ImageShapes returns the sizes of models that are often compared.
func ImageShapes() []ImageShape {
	large := CLIPShape{768, 12, 12, "quick_gelu"}
	return []ImageShape{
		{Name: "sd15", Size: 512, Channels: []int{320, 640, 1280, 1280}, Depths: []int{1, 1, 1, 0}, Heads: []int{8, 8, 8, 8}, Context: 768, Encoder: large},
		{Name: "sd21", Size: 768, Channels: []int{320, 640, 1280, 1280}, Depths: []int{1, 1, 1, 0}, Heads: []int{5, 10, 20, 20}, Context: 1024, Linear: true, Encoder: CLIPShape{1024, 23, 16, "gelu"}},
		{Name: "sdxl", Size: 1024, Channels: []int{320, 640, 1280}, Depths: []int{0, 2, 10}, Heads: []int{5, 10, 20}, Context: 2048, Added: 2816, Linear: true, Encoder: CLIPShape{1280, 32, 20, "gelu"}},
	}
}

// Sizes that all of the shapes share, and latent pixels for a pixel.
const (
	promptTokens   = 77
	clipVocabulary = 49408
	latentChannels = 4
	latentDown     = 8
	stageResnets   = 2
)

// unetConfig is config.json of the UNet.
func (m ImageShape) unetConfig() ([]byte, error) {
	down, up := make([]string, len(m.Channels)), make([]string, len(m.Channels))
	for i, depth := range m.Depths {
		down[i], up[len(up)-1-i] = "DownBlock2D", "UpBlock2D"
		if depth > 0 {
			down[i], up[len(up)-1-i] = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
		}
	}
	c := map[string]any{
		"_class_name": "UNet2DConditionModel", "in_channels": latentChannels, "out_channels": latentChannels,
		"sample_size": m.Size / latentDown, "block_out_channels": m.Channels, "down_block_types": down, "up_block_types": up,
		"layers_per_block": stageResnets, "attention_head_dim": m.Heads, "cross_attention_dim": m.Context,
		"use_linear_projection": m.Linear, "transformer_layers_per_block": m.depths(),
	}
	if m.Added > 0 {
		c["addition_embed_type"], c["addition_time_embed_dim"] = "text_time", 256
		c["projection_class_embeddings_input_dim"] = m.Added
	}
	return json.Marshal(c)
}

// depths is Depths as the configuration has it, in which stages without attention count too.
func (m ImageShape) depths() []int {
	list := make([]int, len(m.Depths))
	for i, d := range m.Depths {
		list[i] = max(d, 1)
	}
	return list
}

// unet lists the UNet for pictures of so many pixels a side.
func (m ImageShape) unet(s *sheet, height, width int) {
	u := unetSheet{sheet: s, shape: m, time: 4 * m.Channels[0]}
	first, last := m.Channels[0], len(m.Channels)-1
	size := func(stage int) int { return (height / latentDown >> stage) * (width / latentDown >> stage) }
	s.linear("time_embedding.linear_1", u.time, first, 1, true)
	s.linear("time_embedding.linear_2", u.time, u.time, 1, true)
	if m.Added > 0 {
		s.linear("add_embedding.linear_1", u.time, m.Added, 1, true)
		s.linear("add_embedding.linear_2", u.time, u.time, 1, true)
	}
	s.conv("conv_in", first, latentChannels, 3, size(0), true)
	skips := []int{first}
	for i, c := range m.Channels {
		name := fmt.Sprintf("down_blocks.%d", i)
		for j := range stageResnets {
			u.resnet(fmt.Sprintf("%s.resnets.%d", name, j), c, skips[len(skips)-1], size(i))
			u.transformer(fmt.Sprintf("%s.attentions.%d", name, j), i, m.Depths[i], size(i))
			skips = append(skips, c)
		}
		if i < last {
			s.conv(name+".downsamplers.0.conv", c, c, 3, size(i+1), true)
			skips = append(skips, c)
		}
	}
	in := m.Channels[last]
	u.resnet("mid_block.resnets.0", in, in, size(last))
	u.transformer("mid_block.attentions.0", last, max(m.Depths[last], 1), size(last))
	u.resnet("mid_block.resnets.1", in, in, size(last))
	for i := last; i >= 0; i-- {
		name, c := fmt.Sprintf("up_blocks.%d", last-i), m.Channels[i]
		for j := range stageResnets + 1 {
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			u.resnet(fmt.Sprintf("%s.resnets.%d", name, j), c, in+skip, size(i))
			u.transformer(fmt.Sprintf("%s.attentions.%d", name, j), i, m.Depths[i], size(i))
			in = c
		}
		if i > 0 {
			s.conv(name+".upsamplers.0.conv", c, c, 3, size(i-1), true)
		}
	}
	s.norm("conv_norm_out", first)
	s.conv("conv_out", latentChannels, first, 3, size(0), true)
}

// unetSheet lists the parts of a UNet.
type unetSheet struct {
	*sheet
	shape ImageShape
	time  int // width of the time embedding
}

func (u *unetSheet) resnet(name string, out, in, pixels int) {
	u.norm(name+".norm1", in)
	u.conv(name+".conv1", out, in, 3, pixels, true)
	u.linear(name+".time_emb_proj", out, u.time, 1, true)
	u.norm(name+".norm2", out)
	u.conv(name+".conv2", out, out, 3, pixels, true)
	if in != out {
		u.conv(name+".conv_shortcut", out, in, 1, pixels, true)
	}
}

// transformer lists the attention of a stage, of so many blocks; of none it lists nothing.
func (u *unetSheet) transformer(name string, stage, depth, pixels int) {
	if depth == 0 {
		return
	}
	c := u.shape.Channels[stage]
	end := func(name string) {
		if u.shape.Linear {
			u.linear(name, c, c, pixels, true)
		} else {
			u.conv(name, c, c, 1, pixels, true)
		}
	}
	u.norm(name+".norm", c)
	end(name + ".proj_in")
	for i := range depth {
		block := fmt.Sprintf("%s.transformer_blocks.%d", name, i)
		for n, context := range []int{0, u.shape.Context} {
			attention := fmt.Sprintf("%s.attn%d", block, n+1)
			keys, width := cmp.Or(min(context, promptTokens), pixels), cmp.Or(context, c)
			u.linear(attention+".to_q", c, c, pixels, false)
			u.linear(attention+".to_k", c, width, keys, false)
			u.linear(attention+".to_v", c, width, keys, false)
			u.linear(attention+".to_out.0", c, c, pixels, true)
			u.attend(pixels, keys, c)
		}
		for n := range 3 {
			u.norm(fmt.Sprintf("%s.norm%d", block, n+1), c)
		}
		u.linear(block+".ff.net.0.proj", 8*c, c, pixels, true)
		u.linear(block+".ff.net.2", c, 4*c, pixels, true)
	}
	end(name + ".proj_out")
}

// clipConfig is config.json of the text encoder.
func (c CLIPShape) config() ([]byte, error) {
	return json.Marshal(map[string]any{
		"architectures": []string{"CLIPTextModel"}, "vocab_size": clipVocabulary, "hidden_size": c.Hidden,
		"intermediate_size": 4 * c.Hidden, "num_hidden_layers": c.Layers, "num_attention_heads": c.Heads,
		"max_position_embeddings": promptTokens, "hidden_act": c.Activation, "layer_norm_eps": 1e-5,
		"bos_token_id": clipVocabulary - 2, "eos_token_id": clipVocabulary - 1, "pad_token_id": clipVocabulary - 1,
	})
}

// clip lists a text encoder.
func (c CLIPShape) tensors(s *sheet) {
	s.matrix("text_model.embeddings.token_embedding.weight", clipVocabulary, c.Hidden)
	s.matrix("text_model.embeddings.position_embedding.weight", promptTokens, c.Hidden)
	for i := range c.Layers {
		layer := fmt.Sprintf("text_model.encoder.layers.%d", i)
		s.norm(layer+".layer_norm1", c.Hidden)
		for _, name := range []string{"q", "k", "v", "out"} {
			s.linear(layer+".self_attn."+name+"_proj", c.Hidden, c.Hidden, promptTokens, true)
		}
		s.attend(promptTokens, promptTokens, c.Hidden)
		s.norm(layer+".layer_norm2", c.Hidden)
		s.linear(layer+".mlp.fc1", 4*c.Hidden, c.Hidden, promptTokens, true)
		s.linear(layer+".mlp.fc2", c.Hidden, 4*c.Hidden, promptTokens, true)
	}
	s.norm("text_model.final_layer_norm", c.Hidden)
}

// decoder lists the autoencoder's decoder.
func decoder(s *sheet, height, width int) {
	channels := []int{512, 512, 256, 128}
	size := func(stage int) int { return (height / latentDown << stage) * (width / latentDown << stage) }
	resnet := func(name string, out, in, pixels int) {
		s.norm(name+".norm1", in)
		s.conv(name+".conv1", out, in, 3, pixels, true)
		s.norm(name+".norm2", out)
		s.conv(name+".conv2", out, out, 3, pixels, true)
		if in != out {
			s.conv(name+".conv_shortcut", out, in, 1, pixels, true)
		}
	}
	in := channels[0]
	s.conv("post_quant_conv", latentChannels, latentChannels, 1, size(0), true)
	s.conv("decoder.conv_in", in, latentChannels, 3, size(0), true)
	resnet("decoder.mid_block.resnets.0", in, in, size(0))
	s.norm("decoder.mid_block.attentions.0.group_norm", in)
	for _, name := range []string{"to_q", "to_k", "to_v", "to_out.0"} {
		s.linear("decoder.mid_block.attentions.0."+name, in, in, size(0), true)
	}
	s.attend(size(0), size(0), in)
	resnet("decoder.mid_block.resnets.1", in, in, size(0))
	for i, c := range channels {
		name := fmt.Sprintf("decoder.up_blocks.%d", i)
		for j := range stageResnets + 1 {
			resnet(fmt.Sprintf("%s.resnets.%d", name, j), c, in, size(i))
			in = c
		}
		if i < len(channels)-1 {
			s.conv(name+".upsamplers.0.conv", c, c, 3, size(i+1), true)
		}
	}
	s.norm("decoder.conv_norm_out", in)
	s.conv("decoder.conv_out", 3, in, 3, size(len(channels)-1), true)
}

// tinyConfig is config.json of TAESD.
const tinyConfig = `{"_class_name": "AutoencoderTiny", "in_channels": 3, "out_channels": 3, "latent_channels": 4, "act_fn": "relu",
"encoder_block_out_channels": [64, 64, 64, 64], "decoder_block_out_channels": [64, 64, 64, 64],
"num_encoder_blocks": [1, 3, 3, 3], "num_decoder_blocks": [3, 3, 3, 1], "upsampling_scaling_factor": 2, "scaling_factor": 1.0}`

// tinyDecoder lists TAESD's decoder.
func tinyDecoder(s *sheet, height, width int) {
	const channels = 64
	pixels := height / latentDown * (width / latentDown)
	layer := 0
	next := func(skip int) string {
		layer += skip
		return fmt.Sprintf("decoder.layers.%d", layer)
	}
	s.conv(next(0), channels, latentChannels, 3, pixels, true)
	next(1) // an activation
	for i, blocks := range []int{3, 3, 3, 1} {
		for range blocks {
			name := next(1)
			for _, conv := range []int{0, 2, 4} {
				s.conv(fmt.Sprintf("%s.conv.%d", name, conv), channels, channels, 3, pixels, true)
			}
		}
		if i == 3 {
			s.conv(next(1), 3, channels, 3, pixels, true)
			return
		}
		pixels *= 4
		s.conv(next(2), channels, channels, 3, pixels, false) // after the upsampling
	}
}
