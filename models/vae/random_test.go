package vae

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/fstest"

	"helicon/models/weights"
)

// shapes is the tensors of a network by name.
type shapes map[string][]int

func (s shapes) conv(name string, in, out, size int) {
	s[name+".weight"], s[name+".bias"] = []int{out, in, size, size}, []int{out}
}

func (s shapes) norm(name string, channels int) {
	s[name+".weight"], s[name+".bias"] = []int{channels}, []int{channels}
}

func (s shapes) resnet(name string, in, out int) {
	s.norm(name+".norm1", in)
	s.conv(name+".conv1", in, out, 3)
	s.norm(name+".norm2", out)
	s.conv(name+".conv2", out, out, 3)
	if in != out {
		s.conv(name+".conv_shortcut", in, out, 1)
	}
}

func (s shapes) middle(name string, channels int) {
	s.resnet(name+".resnets.0", channels, channels)
	s.resnet(name+".resnets.1", channels, channels)
	s.norm(name+".attentions.0.group_norm", channels)
	for _, l := range []string{"to_q", "to_k", "to_v", "to_out.0"} {
		s[name+".attentions.0."+l+".weight"], s[name+".attentions.0."+l+".bias"] = []int{channels, channels}, []int{channels}
	}
}

// klShapes lists the tensors of an AutoencoderKL, those of the encoder only if wanted.
func klShapes(c Config, encoder bool) shapes {
	s := shapes{}
	channels := slices.Clone(c.Channels)
	slices.Reverse(channels)
	s.conv("post_quant_conv", c.LatentChannels, c.LatentChannels, 1)
	s.conv("decoder.conv_in", c.LatentChannels, channels[0], 3)
	s.middle("decoder.mid_block", channels[0])
	in := channels[0]
	for i, out := range channels {
		name := "decoder.up_blocks." + strconv.Itoa(i)
		for j := range c.Layers + 1 {
			s.resnet(name+".resnets."+strconv.Itoa(j), in, out)
			in = out
		}
		if i < len(channels)-1 {
			s.conv(name+".upsamplers.0.conv", out, out, 3)
		}
	}
	s.norm("decoder.conv_norm_out", in)
	s.conv("decoder.conv_out", in, 3, 3)
	if !encoder {
		return s
	}
	s.conv("quant_conv", 2*c.LatentChannels, 2*c.LatentChannels, 1)
	in = c.Channels[0]
	s.conv("encoder.conv_in", 3, in, 3)
	for i, out := range c.Channels {
		name := "encoder.down_blocks." + strconv.Itoa(i)
		for j := range c.Layers {
			s.resnet(name+".resnets."+strconv.Itoa(j), in, out)
			in = out
		}
		if i < len(c.Channels)-1 {
			s.conv(name+".downsamplers.0.conv", out, out, 3)
		}
	}
	s.middle("encoder.mid_block", in)
	s.norm("encoder.conv_norm_out", in)
	s.conv("encoder.conv_out", in, 2*c.LatentChannels, 3)
	return s
}

// tinyShapes lists the tensors of an AutoencoderTiny.
func tinyShapes(c TinyConfig) shapes {
	s := shapes{}
	block := func(name string, channels int) {
		for _, i := range []string{"0", "2", "4"} {
			s.conv(name+".conv."+i, channels, channels, 3)
		}
	}
	n := 0
	name := func(half string) string { n++; return half + ".layers." + strconv.Itoa(n-1) }
	channels := c.DecoderChannels[0]
	for i, blocks := range c.DecoderBlocks {
		if i == 0 {
			s.conv(name("decoder"), c.LatentChannels, channels, 3)
		} else {
			s[name("decoder")+".weight"] = []int{channels, channels, 3, 3}
		}
		if i == 0 {
			n++
		}
		for range blocks {
			block(name("decoder"), channels)
		}
		if i == len(c.DecoderBlocks)-1 {
			s.conv(name("decoder"), channels, 3, 3)
		}
		n++
	}
	n = 0
	for i, blocks := range c.EncoderBlocks {
		if i == 0 {
			s.conv(name("encoder"), 3, channels, 3)
		} else {
			s[name("encoder")+".weight"] = []int{channels, channels, 3, 3}
		}
		for range blocks {
			block(name("encoder"), channels)
		}
	}
	s.conv(name("encoder"), channels, c.LatentChannels, 3)
	return s
}

// randomStore has tensors of the given shapes in F32, such that activations keep about
// their size.
func randomStore(t testing.TB, all shapes) *weights.Store {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	header, body := map[string]any{}, []byte(nil)
	for _, name := range names {
		shape, begin := all[name], len(body)
		n, fan := 1, 1
		for i, d := range shape {
			n *= d
			if i > 0 {
				fan *= d
			}
		}
		for range n {
			v := (2*random.Float32() - 1) * float32(math.Sqrt(3/float64(fan)))
			if len(shape) == 1 {
				v = 0.1 * v
			}
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// noise returns n numbers of about unit size.
func noise(n int) []float32 {
	random := rand.New(rand.NewPCG(3, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(random.NormFloat64())
	}
	return x
}
