package unet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// small is a network with all that Stable Diffusion has, in little.
const small = `{"_class_name": "UNet2DConditionModel", "block_out_channels": [16, 32], "layers_per_block": 1,
	"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
	"norm_num_groups": 8, "attention_head_dim": 2, "cross_attention_dim": 24, "sample_size": null%s}`

// with returns the configuration of small with further fields, which replace those before.
func with(fields string) string { return fmt.Sprintf(small, fields) }

func parse(t testing.TB, config string) Config {
	t.Helper()
	c, err := ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sheet lists the tensors of a network, by the names of diffusers.
type sheet map[string][]int

func (s sheet) layer(name string, shape ...int) {
	s[name+".weight"], s[name+".bias"] = shape, shape[:1]
}

func (s sheet) resnet(c Config, name string, in, out int) {
	times := out
	if c.TimeScaleShift == "scale_shift" {
		times *= 2
	}
	s.layer(name+".norm1", in)
	s.layer(name+".conv1", out, in, 3, 3)
	s.layer(name+".time_emb_proj", times, c.timeDim())
	s.layer(name+".norm2", out)
	s.layer(name+".conv2", out, out, 3, 3)
	if in != out {
		s.layer(name+".conv_shortcut", out, in, 1, 1)
	}
}

func (s sheet) transformer(c Config, name string, channels, depth int, onlyCross bool) {
	s.layer(name+".norm", channels)
	s.layer(name+".proj_in", channels, channels, 1, 1)
	s.layer(name+".proj_out", channels, channels, 1, 1)
	for i := range depth {
		block := fmt.Sprintf("%s.transformer_blocks.%d", name, i)
		for j, from := range []int{channels, c.CrossAttention[0]} {
			if onlyCross {
				from = c.CrossAttention[0]
			}
			attention := fmt.Sprintf("%s.attn%d", block, j+1)
			s.layer(attention+".to_out.0", channels, channels)
			s[attention+".to_q.weight"] = []int{channels, channels}
			s[attention+".to_k.weight"], s[attention+".to_v.weight"] = []int{channels, from}, []int{channels, from}
		}
		for _, norm := range []string{".norm1", ".norm2", ".norm3"} {
			s.layer(block+norm, channels)
		}
		s.layer(block+".ff.net.0.proj", 8*channels, channels)
		s.layer(block+".ff.net.2", channels, 4*channels)
	}
}

// sheetOf lists the tensors of a Conditional network of two levels, of which the first
// attends.
func sheetOf(c Config) sheet {
	s := sheet{}
	d, first, last := c.timeDim(), c.BlockOut[0], c.BlockOut[1]
	mlp := func(name string, in int) {
		s.layer(name+".linear_1", d, in)
		s.layer(name+".linear_2", d, d)
	}
	mlp("time_embedding", first)
	if c.TimeCondDim > 0 {
		s["time_embedding.cond_proj.weight"] = []int{first, c.TimeCondDim}
	}
	if c.PoolsText() {
		from := c.ContextDim()
		s.layer("add_embedding.norm1", from)
		s["add_embedding.pool.positional_embedding"] = []int{1, from}
		for _, name := range []string{"q_proj", "k_proj", "v_proj"} {
			s.layer("add_embedding.pool."+name, from, from)
		}
		s.layer("add_embedding.proj", d, from)
		s.layer("add_embedding.norm2", d)
	}
	switch {
	case c.ClassType == "timestep":
		mlp("class_embedding", first)
	case c.ClassType == "projection":
		mlp("class_embedding", c.ProjectionInput)
	case c.NumClasses > 0:
		s["class_embedding.weight"] = []int{c.NumClasses, d}
	}
	s.layer("conv_in", first, c.InChannels, 3, 3)
	s.layer("conv_norm_out", first)
	s.layer("conv_out", c.OutChannels, first, 3, 3)

	depth, onlyCross := at(c.TransformerLayers, 0), at(c.OnlyCross, 0)
	for j := range at(c.LayersPerBlock, 0) {
		s.resnet(c, fmt.Sprintf("down_blocks.0.resnets.%d", j), first, first)
		s.transformer(c, fmt.Sprintf("down_blocks.0.attentions.%d", j), first, depth, onlyCross)
	}
	s.layer("down_blocks.0.downsamplers.0.conv", first, first, 3, 3)
	for j := range at(c.LayersPerBlock, 1) {
		s.resnet(c, fmt.Sprintf("down_blocks.1.resnets.%d", j), []int{first, last}[min(j, 1)], last)
	}
	if c.MidBlock != nil {
		s.resnet(c, "mid_block.resnets.0", last, last)
		s.resnet(c, "mid_block.resnets.1", last, last)
		s.transformer(c, "mid_block.attentions.0", last, at(c.TransformerLayers, len(c.TransformerLayers)-1), false)
	}
	for j := range at(c.LayersPerBlock, 1) + 1 {
		skip := last
		if j == at(c.LayersPerBlock, 1) {
			skip = first
		}
		s.resnet(c, fmt.Sprintf("up_blocks.0.resnets.%d", j), last+skip, last)
	}
	s.layer("up_blocks.0.upsamplers.0.conv", last, last, 3, 3)
	for j := range at(c.LayersPerBlock, 0) + 1 {
		s.resnet(c, fmt.Sprintf("up_blocks.1.resnets.%d", j), []int{last, first}[min(j, 1)]+first, first)
		s.transformer(c, fmt.Sprintf("up_blocks.1.attentions.%d", j), first, depth, onlyCross)
	}
	return s
}

// storeOf returns a store of small random numbers, the same for the same names.
func storeOf(t testing.TB, shapes sheet) *weights.Store {
	t.Helper()
	header, data := map[string]any{}, []byte{}
	names := make([]string, 0, len(shapes))
	for name := range shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		n, fan := 1, 1
		for axis, d := range shapes[name] {
			n *= d
			if axis > 0 {
				fan *= d
			}
		}
		r := rand.New(rand.NewPCG(uint64(i), 7))
		begin := len(data)
		data = append(data, make([]byte, 4*n)...)
		x := make([]float32, n)
		for j := range x {
			x[j] = float32(r.NormFloat64() / math.Sqrt(float64(fan)))
			if fan == 1 {
				x[j] = 0.5 + 0.1*x[j]
			}
		}
		tensor.Encode(data[begin:], tensor.F32, x)
		header[name] = map[string]any{"dtype": "F32", "shape": shapes[name], "data_offsets": []int{begin, len(data)}}
	}
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append([]byte{byte(len(head)), byte(len(head) >> 8), byte(len(head) >> 16), 0, 0, 0, 0, 0}, head...)
	s, err := weights.OpenFile(fstest.MapFS{"m.safetensors": {Data: append(file, data...)}}, "m.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// network is a small network, conditioned for one picture.
type network struct {
	model *Model
	exec  *tensor.Exec
	state *State
	x, y  []float32
	times []float32
}

// newNetwork loads a configuration with random weights.
func newNetwork(t testing.TB, config string, threads int, shape Shape) *network {
	t.Helper()
	c := parse(t, config)
	n := &network{}
	var err error
	if n.model, err = Load(storeOf(t, sheetOf(c)), c); err != nil {
		t.Fatal(err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: threads, Exact: true})
	t.Cleanup(pool.Close)
	n.exec = tensor.NewExec(pool)
	if n.state, err = n.model.NewState(shape); err != nil {
		t.Fatal(err)
	}
	cond := Conditioning{}
	if c.Conditioned() {
		cond.Context = ramp(shape.Batch * shape.Tokens * c.ContextDim())
	}
	if c.TimeCondDim > 0 {
		cond.Guidance = slices.Repeat(GuidanceEmbedding(6.5, c.TimeCondDim), shape.Batch)
	}
	if want := n.model.classFloats(shape.Batch); want > 0 {
		cond.Classes = slices.Repeat([]float32{3}, want)
	}
	if err := n.model.Condition(n.exec, n.state, cond); err != nil {
		t.Fatal(err)
	}
	pixels := shape.Batch * shape.Height * shape.Width
	n.x, n.y = ramp(pixels*c.InChannels), make([]float32, pixels*c.OutChannels)
	n.times = slices.Repeat([]float32{400}, shape.Batch)
	return n
}

func (n *network) step(ctx context.Context) error {
	return n.model.Forward(ctx, n.exec, n.state, n.y, n.x, n.times)
}

// ramp returns numbers between -1 and 1 in no order.
func ramp(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Sin(float64(i*i + 1)))
	}
	return x
}

var pair = Shape{Height: 8, Width: 6, Batch: 2, Tokens: 5}

// TestForms runs every form of network that configurations have, of which no golden
// exists: each is finite, and not what it is without.
func TestForms(t *testing.T) {
	t.Parallel()
	plain := newNetwork(t, with(""), 1, pair)
	if err := plain.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, fields := range map[string]string{
		"inpainting":       `, "in_channels": 9`,
		"lcm":              `, "time_cond_proj_dim": 12`,
		"pooled text":      `, "addition_embed_type": "text", "addition_embed_type_num_heads": 4`,
		"classes":          `, "num_class_embeds": 10`,
		"noise level":      `, "class_embed_type": "timestep"`,
		"projection":       `, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 20`,
		"scale and shift":  `, "resnet_time_scale_shift": "scale_shift"`,
		"only cross":       `, "only_cross_attention": [true, false]`,
		"no middle":        `, "mid_block_type": null`,
		"plain middle":     `, "mid_block_type": "UNetMidBlock2D"`,
		"padded behind":    `, "downsample_padding": 0`,
		"heads as such":    `, "num_attention_heads": [4, 8]`,
		"deep transformer": `, "transformer_layers_per_block": [2, 3]`,
		"layers of levels": `, "layers_per_block": [2, 1]`,
		"time dimension":   `, "time_embedding_dim": 40`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, with(fields), 1, pair)
			if err := n.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, v := range n.y {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("y[%d] = %v", i, v)
				}
			}
			if slices.Equal(n.y, plain.y) {
				t.Fatal("the same as without")
			}
		})
	}
}

// TestSameBits checks that a result depends on the image alone: neither on the number of
// threads, nor on its neighbours in a batch, nor on what the state was used for before.
func TestSameBits(t *testing.T) {
	t.Parallel()
	one, three := newNetwork(t, with(""), 1, pair), newNetwork(t, with(""), 3, pair)
	for _, n := range []*network{one, three, three} {
		if err := n.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(one.y, three.y) {
		t.Fatal("threads change the result")
	}
	alone := newNetwork(t, with(""), 1, Shape{Height: 8, Width: 6, Batch: 1, Tokens: 5})
	if err := alone.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(alone.y, one.y[:len(alone.y)]) {
		t.Fatal("a neighbour changes the result")
	}
}

// TestStepAllocatesNothing is about the steps of a picture, after its first.
func TestStepAllocatesNothing(t *testing.T) {
	n := newNetwork(t, with(`, "time_cond_proj_dim": 12`), 1, Shape{Height: 7, Width: 9, Batch: 2, Tokens: 5})
	ctx := t.Context()
	run := func() {
		if err := n.step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if got := testing.AllocsPerRun(5, run); got != 0 {
		t.Errorf("%v allocations a step", got)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, with(""), 1, pair)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	n.state.observe = func(name string, i int, x []float32) {
		if name == "mid_block" {
			cancel(reason)
		}
		if name == "up_block" {
			t.Error("went on after the end")
		}
	}
	if err := n.step(ctx); !errors.Is(err, reason) {
		t.Errorf("%v, want %v", err, reason)
	}
}

func TestUnsuitableInput(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, with(`, "num_class_embeds": 4`), 1, pair)
	for name, shape := range map[string]Shape{
		"no height":       {Height: 0, Width: 8, Batch: 1, Tokens: 5},
		"negative width":  {Height: 8, Width: -8, Batch: 1, Tokens: 5},
		"huge":            {Height: 1 << 40, Width: 8, Batch: 1, Tokens: 5},
		"no batch":        {Height: 8, Width: 8, Tokens: 5},
		"no tokens":       {Height: 8, Width: 8, Batch: 1},
		"too many tokens": {Height: 8, Width: 8, Batch: 1, Tokens: 1 << 30},
	} {
		if _, err := n.model.NewState(shape); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := Workspace(n.model.Config(), shape); err == nil {
			t.Errorf("%s: no error of Workspace", name)
		}
	}
	context := ramp(2 * 5 * 24)
	for name, c := range map[string]Conditioning{
		"no classes":       {Context: context},
		"short context":    {Context: context[1:], Classes: []float32{1, 1}},
		"unknown class":    {Context: context, Classes: []float32{1, 4}},
		"class of a half":  {Context: context, Classes: []float32{1, 0.5}},
		"class is no one":  {Context: context, Classes: []float32{1, float32(math.NaN())}},
		"pooled text":      {Context: context, Classes: []float32{1, 1}, Pooled: context},
		"unknown guidance": {Context: context, Classes: []float32{1, 1}, Guidance: context},
	} {
		if err := n.model.Condition(n.exec, n.state, c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUnsuitableConfig(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]string{
		"class":            `, "_class_name": "UNet3DConditionModel"`,
		"no channels":      `, "block_out_channels": []`,
		"zero channels":    `, "block_out_channels": [0, 32]`,
		"huge channels":    `, "block_out_channels": [16, 1000000000]`,
		"groups":           `, "norm_num_groups": 7`,
		"no groups":        `, "norm_num_groups": 0`,
		"heads":            `, "attention_head_dim": [3, 8]`,
		"blocks":           `, "down_block_types": ["DownBlock2D"]`,
		"kind of block":    `, "down_block_types": ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]`,
		"middle":           `, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn"`,
		"activation":       `, "act_fn": "sine"`,
		"time":             `, "time_embedding_type": "fourier"`,
		"scale":            `, "mid_block_scale_factor": 1.4`,
		"added":            `, "addition_embed_type": "image"`,
		"added sizes":      `, "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 48`,
		"pooling heads":    `, "addition_embed_type": "text"`,
		"two contexts":     `, "cross_attention_dim": [24, 32], "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]`,
		"layers":           `, "layers_per_block": 100000`,
		"frequency shift":  `, "freq_shift": 8`,
		"centred":          `, "center_input_sample": true`,
		"epsilon":          `, "norm_eps": 0`,
		"encoder of image": `, "encoder_hid_dim": 1024`,
	} {
		c, err := ParseConfig([]byte(with(fields)))
		if err == nil {
			_, err = c.plan()
		}
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseConfig([]byte(`{"_class_name": "UNet2DConditionModel", "in_channels": "4"}`)); err == nil {
		t.Error("text for a number: no error")
	}
}

// TestMissingTensor checks that the error of a store without a tensor names it.
func TestMissingTensor(t *testing.T) {
	t.Parallel()
	c := parse(t, with(""))
	s := storeOf(t, sheetOf(c))
	for _, name := range s.Names() {
		views := map[string]weights.View{}
		for _, other := range s.Names() {
			if other != name {
				views[other] = weights.View{Name: other}
			}
		}
		part, err := s.View(views)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Load(part, c); !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), name) {
			t.Fatalf("without %s: %v", name, err)
		}
	}
}

func TestPoolImages(t *testing.T) {
	t.Parallel()
	x := []float32{1, 10, 3, 30 /* second image */, 5, 50, 6, 60}
	poolImages(x, 2, 2)
	if want := []float32{2, 20, 2, 20, 5.5, 55, 5.5, 55}; !slices.Equal(x, want) {
		t.Errorf("%v, want %v", x, want)
	}
}

// TestWorkspace gives the memory of Stable Diffusion 1.5 at 512×512 with guidance.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	c := parse(t, `{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}`)
	n, err := Workspace(c, Shape{Height: 64, Width: 64, Batch: 2, Tokens: 77})
	if err != nil {
		t.Fatal(err)
	}
	if mib := n >> 20; mib > 250 {
		t.Errorf("%d MiB", mib)
	}
}

// FuzzConfig checks that no configuration makes a panic, nor a plan that cannot be counted.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(with("")))
	files, _ := filepath.Glob(filepath.Join("..", "..", "..", "shared", "goldens", "image", "*", "*", "config.json"))
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil {
			f.Add(raw)
		}
	}
	f.Add([]byte(`{"_class_name": "UNet2DModel", "attention_head_dim": null}`))
	f.Add([]byte(`{"_class_name": "ControlNetModel", "conditioning_embedding_out_channels": [1, 2]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		n, err := Workspace(c, Shape{Height: 33, Width: 64, Batch: 2, Tokens: 77})
		if err == nil && n <= 0 {
			t.Errorf("workspace of %d bytes", n)
		}
	})
}

// TestForeignControl adds the residuals of a ControlNet that is none for the network.
func TestForeignControl(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, with(""), 1, pair)
	for name, residuals := range map[string][][]float32{
		"fewer": {make([]float32, 4), make([]float32, 4)}, "of other sizes": make([][]float32, len(n.state.skips)+1),
	} {
		n.state.Controls = []*State{{residuals: residuals}}
		if err := n.step(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestComputeModes compares a network that rounds as it computes with the one that does
// not. What is left is the rounding of weights and activations to 8 bits of mantissa, or to
// 255 levels a channel and a pixel.
func TestComputeModes(t *testing.T) {
	t.Parallel()
	c := parse(t, strings.Replace(with(""), "[16, 32]", "[64, 128]", 1))
	files := storeOf(t, sheetOf(c))
	pool := tensor.NewPool(tensor.Config{Threads: 2})
	t.Cleanup(pool.Close)
	arena := &tensor.Arena{}
	t.Cleanup(func() { arena.Close() })
	shape := Shape{Height: 16, Width: 16, Batch: 1, Tokens: 9}
	results := map[tensor.DType][]float32{}
	for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
		m, err := Load(files.Packed(arena, d), c)
		if err != nil {
			t.Fatal(err)
		}
		e := tensor.NewExec(pool)
		s, err := m.NewState(shape)
		if err == nil {
			err = m.Condition(e, s, Conditioning{Context: ramp(9 * c.ContextDim())})
		}
		if err != nil {
			t.Fatal(err)
		}
		y := make([]float32, 16*16*4)
		if err := m.Forward(t.Context(), e, s, y, ramp(len(y)), []float32{300}); err != nil {
			t.Fatal(err)
		}
		results[d] = y
	}
	for d, most := range map[tensor.DType]float64{tensor.BF16: 0.01, tensor.I8: 0.04} {
		off, all := 0.0, 0.0
		for i, want := range results[tensor.F32] {
			off += math.Pow(float64(results[d][i]-want), 2)
			all += float64(want) * float64(want)
		}
		got := math.Sqrt(off / all)
		t.Logf("%v: off by %.2g of the root mean square", d, got)
		if !(got < most) {
			t.Errorf("%v: off by %.2g of the root mean square, want below %g", d, got, most)
		}
	}
}
