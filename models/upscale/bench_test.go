package upscale

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// BenchmarkUpscale enlarges 256×256 pixels by the compact network of Real-ESRGAN (64
// features, 16 layers) and by ESRGAN's with one of its 23 blocks.
func BenchmarkUpscale(b *testing.B) {
	pool := tensor.NewPool(tensor.Config{})
	b.Cleanup(pool.Close)
	src := noise(256, 256)
	for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
		conv := func(in, out, upsample int) nn.Conv2d {
			shapes := map[string][]int{"weight": {out, in, 3, 3}, "bias": {out}}
			l := loader{}
			c := l.conv(random(b, shapes).Packed(nil, d), in, out, upsample)
			if l.err != nil {
				b.Fatal(l.err)
			}
			return c
		}
		info := Info{Architecture: SRVGGNetCompact, Scale: 4, Features: 64, Layers: 16, shuffle: 1, Overlap: 18}
		plain := &compact{info: info, convs: []nn.Conv2d{conv(3, 64, 1)}}
		for range 17 {
			plain.slopes = append(plain.slopes, constant(0.1, 64))
		}
		for range 16 {
			plain.convs = append(plain.convs, conv(64, 64, 1))
		}
		plain.convs = append(plain.convs, conv(64, 48, 1))

		deep := Info{Architecture: RRDBNet, Scale: 4, Features: 64, Growth: 32, Layers: 1, shuffle: 1, ups: 2, Overlap: 16}
		net := &rrdb{
			info: deep, first: conv(3, 64, 1), body: conv(64, 64, 1), ups: []nn.Conv2d{conv(64, 64, 2), conv(64, 64, 2)},
			hr: conv(64, 64, 1), last: conv(64, 3, 1), blocks: make([][3]dense, 1),
			residual: constant(0.2, 64), leak: constant(0.2, 64), growthLeaks: constant(0.2, 32),
		}
		for part := range 3 {
			for k := range 5 {
				out := 32
				if k == 4 {
					out = 64
				}
				net.blocks[0][part].layers[k] = conv(64+32*k, out, 1)
			}
		}
		for _, m := range []Model{{info: info, net: plain}, {info: deep, net: net}} {
			b.Run(string(m.info.Architecture)+"/"+d.String(), func(b *testing.B) {
				e, dst := tensor.NewExec(pool), make([]float32, 16*len(src.Pixels))
				for b.Loop() {
					if err := m.Upscale(b.Context(), e, dst, src, Options{}); err != nil {
						b.Fatal(err)
					}
				}
				perPixel := 64*27 + 16*64*64*9 + 64*48*9
				if m.info.Architecture == RRDBNet {
					perPixel = 64*27 + 3*9*(32*(64+96+128+160)+64*192) + 64*64*9*(1+4+16+16) + 16*64*27
				}
				b.ReportMetric(2*256*256*float64(perPixel)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

// random returns a store of random tensors.
func random(b *testing.B, shapes map[string][]int) *weights.Store {
	b.Helper()
	header, body := map[string]any{}, []byte(nil)
	draw := rand.New(rand.NewPCG(1, 1))
	for name, shape := range shapes {
		begin, n := len(body), 1
		for _, d := range shape {
			n *= d
		}
		for range n {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(draw.Float32()/50))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		b.Fatal(err)
	}
	data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		b.Fatal(err)
	}
	return s
}
