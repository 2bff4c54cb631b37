package dit

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// shapes is the tensors of a network that is made up for a test.
type shapes map[string][]int

// linear adds the tensors of a linear layer.
func (s shapes) linear(name string, out, in int) {
	s[name+".weight"], s[name+".bias"] = []int{out, in}, []int{out}
}

func (s shapes) embedder(name string, out, in int) {
	s.linear(name+".linear_1", out, in)
	s.linear(name+".linear_2", out, out)
}

// store fills the tensors with random numbers, those of one name always the same.
func (s shapes) store(t testing.TB) *weights.Store {
	t.Helper()
	header, body := map[string]any{}, []byte(nil)
	for name, shape := range s {
		begin, n, seed := len(body), 1, uint64(0)
		for _, d := range shape {
			n *= d
		}
		for _, b := range []byte(name) {
			seed = seed*31 + uint64(b)
		}
		random := rand.New(rand.NewPCG(seed, 1))
		for range n {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(float32(random.NormFloat64())/4))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
	store, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// testWidth is the width of the networks made up here: 3 heads of testDim.
const testDim, testWidth = 32, 96

// attention adds the projections of an attention and, in the shape of a text of which
// nothing is read, leaves out the last.
func (s shapes) attention(at string, n projectionNames, ends bool) {
	names := []string{n.q, n.k, n.v, n.out}
	if ends {
		names = names[:3]
	}
	for _, name := range names {
		s.linear(at+name, testWidth, testWidth)
	}
	s[at+n.qNorm+".weight"], s[at+n.kNorm+".weight"] = []int{testDim}, []int{testDim}
}

func (s shapes) feedForward(at string) {
	s.linear(at+"net.0.proj", 4*testWidth, testWidth)
	s.linear(at+"net.2", testWidth, 4*testWidth)
}

// joint adds a block of two streams.
func (s shapes) joint(at string, second, ends bool) {
	mods, textMods := 6, 6
	if second {
		mods = 9
		s.attention(at+"attn2.", ownNames(), false)
	}
	if ends {
		textMods = 2
	}
	s.linear(at+"norm1.linear", mods*testWidth, testWidth)
	s.linear(at+"norm1_context.linear", textMods*testWidth, testWidth)
	s.attention(at+"attn.", ownNames(), false)
	s.attention(at+"attn.", addedNames(), ends)
	s.feedForward(at + "ff.")
	if !ends {
		s.feedForward(at + "ff_context.")
	}
}

// made is a network that is made up, and how to load it.
type made struct {
	name    string
	config  string
	tensors shapes
	load    loadFunc
	in, out int // channels of the latents
}

// networks returns one of each architecture, with the parts that the goldens do not have:
// the second attention of SD3.5 medium, the size conditions of PixArt α, no guidance.
func networks() []made {
	class, cross, sd3, flux := shapes{}, shapes{}, shapes{}, shapes{}
	for i := range 2 {
		block := fmt.Sprintf("transformer_blocks.%d.", i)
		class.embedder(block+"norm1.emb.timestep_embedder", testWidth, timeChannels)
		class[block+"norm1.emb.class_embedder.embedding_table.weight"] = []int{6, testWidth}
		class.linear(block+"norm1.linear", 6*testWidth, testWidth)
		class.attention(block+"attn1.", ownNames(), false)
		class.feedForward(block + "ff.")
		cross[block+"scale_shift_table"] = []int{6, testWidth}
		cross.attention(block+"attn1.", ownNames(), false)
		cross.attention(block+"attn2.", ownNames(), false)
		cross.feedForward(block + "ff.")
		sd3.joint(block, i == 0, i == 1)
		flux.joint(block, false, false)
		single := fmt.Sprintf("single_transformer_blocks.%d.", i)
		flux.attention(single+"attn.", ownNames(), true)
		flux.linear(single+"norm.linear", 3*testWidth, testWidth)
		flux.linear(single+"proj_mlp", 4*testWidth, testWidth)
		flux.linear(single+"proj_out", testWidth, 5*testWidth)
	}
	class.linear("proj_out_1", 2*testWidth, testWidth)
	class.linear("proj_out_2", 32, testWidth)
	cross.embedder("adaln_single.emb.timestep_embedder", testWidth, timeChannels)
	cross.embedder("adaln_single.emb.resolution_embedder", testWidth/3, timeChannels)
	cross.embedder("adaln_single.emb.aspect_ratio_embedder", testWidth/3, timeChannels)
	cross.linear("adaln_single.linear", 6*testWidth, testWidth)
	cross.embedder("caption_projection", testWidth, 24)
	cross["scale_shift_table"] = []int{2, testWidth}
	cross.linear("proj_out", 32, testWidth)
	for _, s := range []shapes{class, cross, sd3} {
		s["pos_embed.proj.weight"], s["pos_embed.proj.bias"] = []int{testWidth, 4, 2, 2}, []int{testWidth}
	}
	for _, s := range []shapes{sd3, flux} {
		s.embedder("time_text_embed.timestep_embedder", testWidth, timeChannels)
		s.embedder("time_text_embed.text_embedder", testWidth, 20)
		s.linear("context_embedder", testWidth, 24)
		s.linear("norm_out.linear", 2*testWidth, testWidth)
		s.linear("proj_out", 16, testWidth)
	}
	flux.linear("x_embedder", testWidth, 16)
	const heads, text = `{"num_attention_heads":3,"attention_head_dim":32,"num_layers":2,`, `"joint_attention_dim":24,"pooled_projection_dim":20,`
	return []made{
		{"dit", heads + `"num_embeds_ada_norm":5,"out_channels":8,"sample_size":8}`,
			class, loaders()["DiTTransformer2DModel"], 4, 8},
		{"pixart alpha", heads + `"cross_attention_dim":96,"caption_channels":24,"sample_size":128}`,
			cross, loaders()["PixArtTransformer2DModel"], 4, 8},
		{"sd3.5 medium", heads + text + `"in_channels":4,"out_channels":4,"caption_projection_dim":96,"pos_embed_max_size":40,
			"sample_size":8,"qk_norm":"rms_norm","dual_attention_layers":[0]}`, sd3, loaders()["SD3Transformer2DModel"], 4, 4},
		{"flux schnell", heads + text + `"in_channels":16,"num_single_layers":2,"axes_dims_rope":[8,12,12]}`,
			flux, loaders()["FluxTransformer2DModel"], 4, 4},
	}
}

// draw returns random numbers.
func draw(n int, seed uint64) []float32 {
	random := rand.New(rand.NewPCG(seed, 2))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(random.NormFloat64())
	}
	return x
}

// scene is what a made-up network is asked: more tokens than pass an mlp at once.
func (n *made) scene(batch int) (Shape, Condition, []float32, []float32) {
	return n.sceneOf(batch, 44, 50)
}

// sceneOf is a scene of a size.
func (n *made) sceneOf(batch, height, width int) (Shape, Condition, []float32, []float32) {
	s := Shape{Batch: batch, Height: height, Width: width, Tokens: 7}
	if n.name == "dit" {
		s.Tokens = 0
	}
	c := Condition{States: draw(batch*7*24, 3), Pooled: draw(batch*20, 4), Guidance: 3}
	var times []float32
	for b := range batch {
		c.Labels = append(c.Labels, 2+b)
		times = append(times, float32(700-100*b))
		for i := range 7 {
			c.Mask = append(c.Mask, i < 3+2*b)
		}
	}
	return s, c, draw(batch*s.Height*s.Width*n.in, 5), times
}

// member returns part b of a scene's batch.
func (c Condition) member(b, batch int) Condition {
	states, pooled := len(c.States)/batch, len(c.Pooled)/batch
	c.States, c.Pooled = c.States[b*states:][:states], c.Pooled[b*pooled:][:pooled]
	c.Mask, c.Labels = c.Mask[b*7:][:7], c.Labels[b:b+1]
	return c
}

func predict(t *testing.T, m network, e *tensor.Exec, n *made, scene func() (Shape, Condition, []float32, []float32)) []float32 {
	t.Helper()
	s, c, x, times := scene()
	st, err := m.NewState(s)
	if err == nil {
		err = m.Condition(e, st, c)
	}
	y := make([]float32, len(x)/n.in*n.out)
	if err == nil {
		err = m.Forward(t.Context(), e, st, y, x, times)
	}
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// TestSame checks that a prediction has the same bits for a batch and for its members, for
// any number of threads, and with weights laid out for the kernels or not.
func TestSame(t *testing.T) {
	t.Parallel()
	for _, n := range networks() {
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			store := n.tensors.store(t)
			m, err := n.load(store, []byte(n.config))
			if err != nil {
				t.Fatal(err)
			}
			two := func() (Shape, Condition, []float32, []float32) { return n.scene(2) }
			want := predict(t, m, tensor.NewExec(nil), &n, two)
			for _, v := range want {
				if math.IsNaN(float64(v)) {
					t.Fatal("prediction is no number")
				}
			}
			pool := tensor.NewPool(tensor.Config{Threads: 3})
			t.Cleanup(pool.Close)
			var arena tensor.Arena
			t.Cleanup(func() { arena.Close() })
			packed, err := n.load(store.Packed(&arena, 0), []byte(n.config))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "packed, by threads", predict(t, packed, tensor.NewExec(pool), &n, two), want)
			for b := range 2 {
				got := predict(t, m, tensor.NewExec(pool), &n, func() (Shape, Condition, []float32, []float32) {
					s, c, x, times := n.scene(2)
					s.Batch = 1
					return s, c.member(b, 2), x[b*len(x)/2:][:len(x)/2], times[b : b+1]
				})
				same(t, "alone", got, want[b*len(want)/2:][:len(want)/2])
			}
			for d, limit := range map[tensor.DType]float64{tensor.F32: 1e-5, tensor.BF16: 0.06, tensor.I8: 0.1} {
				m, err := n.load(store.Packed(&arena, d), []byte(n.config))
				if err != nil {
					t.Fatal(err)
				}
				if e := meanError(predict(t, m, tensor.NewExec(pool), &n, two), want); e > limit {
					t.Errorf("in %v: error %.3g, limit %g", d, e, limit)
				}
			}
		})
	}
}

// meanError is the root mean square of the differences over that of what is wanted.
func meanError(got, want []float32) float64 {
	var diff, size float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff, size = diff+d*d, size+float64(w)*float64(w)
	}
	return math.Sqrt(diff / size)
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d floats, want %d", what, len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: [%d] = %v, want %v", what, i, got[i], want[i])
		}
	}
}

// TestStep checks that a step allocates nothing, that it ends with its context, and that
// it fits its state.
func TestStep(t *testing.T) {
	for _, n := range networks() {
		t.Run(n.name, func(t *testing.T) {
			m, err := n.load(n.tensors.store(t), []byte(n.config))
			if err != nil {
				t.Fatal(err)
			}
			e := tensor.NewExec(nil)
			s, c, x, times := n.scene(1)
			st, err := m.NewState(s)
			if err == nil {
				err = m.Condition(e, st, c)
			}
			if err != nil {
				t.Fatal(err)
			}
			y := make([]float32, len(x)/n.in*n.out)
			ctx := t.Context()
			step := func() {
				if err := m.Forward(ctx, e, st, y, x, times); err != nil {
					t.Fatal(err)
				}
			}
			step()
			if allocs := testing.AllocsPerRun(2, step); allocs != 0 {
				t.Errorf("%v allocations in a step", allocs)
			}
			if m.Bytes() <= 0 || st.Bytes() < st.held() || st.Bytes() > 3*st.held() {
				t.Errorf("weights of %d bytes, state of %d that holds %d", m.Bytes(), st.Bytes(), st.held())
			}
			why := errors.New("enough")
			over, cancel := context.WithCancelCause(ctx)
			cancel(why)
			if err := m.Forward(over, e, st, y, x, times); !errors.Is(err, why) {
				t.Errorf("canceled: %v", err)
			}
			if err := m.Forward(ctx, e, st, y, x[1:], times); err == nil || !strings.Contains(err.Error(), "want latents [1, 44, 50, 4]") {
				t.Errorf("wrong latents: %v", err)
			}
			other, err := n.load(n.tensors.store(t), []byte(n.config))
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Forward(ctx, e, st, y, x, times); err == nil || !strings.Contains(err.Error(), "another network") {
				t.Errorf("wrong network: %v", err)
			}
			if err := m.Condition(e, st, Condition{}); err == nil {
				t.Error("an empty condition was taken")
			}
		})
	}
}

// held returns the memory that a state has allocated, in bytes.
func (st *State) held() int64 {
	n := len(st.labels) + len(st.lengths)
	for _, x := range append([][]float32{st.x, st.h, st.q, st.k, st.v, st.second, st.mlp, st.joined, st.patches, st.frequencies, st.time,
		st.embed, st.active, st.mod, st.scale, st.positions, st.cos, st.sin, st.context, st.pooled}, st.cross...) {
		n += len(x)
	}
	return 4 * int64(n)
}

func mustParse[C any](t *testing.T, parse func([]byte) (C, error), config string) C {
	t.Helper()
	c, err := parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestShapes checks that shapes which a network cannot compute are errors.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, n := range networks() {
		m, err := n.load(n.tensors.store(t), []byte(n.config))
		if err != nil {
			t.Fatal(err)
		}
		good, _, _, _ := n.scene(1)
		for name, change := range map[string]func(*Shape){
			"batch":  func(s *Shape) { s.Batch = 0 },
			"height": func(s *Shape) { s.Height = 43 },
			"width":  func(s *Shape) { s.Width = -2 },
			"large":  func(s *Shape) { s.Height = 1 << 40 },
			"area":   func(s *Shape) { s.Height, s.Width = 1<<18, 1<<18 },
			"text":   func(s *Shape) { s.Tokens = 7 - s.Tokens - 1<<30 },
		} {
			s := good
			change(&s)
			if _, err := m.NewState(s); err == nil {
				t.Errorf("%s: %s: %+v was taken", n.name, name, s)
			}
		}
	}
	n := networks()[2]
	m, err := n.load(n.tensors.store(t), []byte(n.config))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.NewState(Shape{Batch: 1, Height: 82, Width: 8, Tokens: 1}); err == nil || !strings.Contains(err.Error(), "at most 80 on a side") {
		t.Errorf("beyond the positions: %v", err)
	}
}

// TestMissing checks that a tensor which is missing is named.
func TestMissing(t *testing.T) {
	t.Parallel()
	for _, n := range networks() {
		store := n.tensors.store(t)
		for i, name := range slices.Sorted(maps.Keys(n.tensors)) {
			if i%7 != 0 || strings.Contains(name, "norm_") && (n.name == "dit" || n.name == "pixart alpha") {
				continue // some are enough; those two have no norms of queries and keys
			}
			views := map[string]weights.View{}
			for other := range n.tensors {
				views[other] = weights.View{Name: other}
			}
			delete(views, name)
			without, err := store.View(views)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.load(without, []byte(n.config)); !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), name) {
				t.Fatalf("%s without %s: %v", n.name, name, err)
			}
		}
	}
}

// TestStored checks networks whose matrices are stored in other types, as GGUF files have
// them, laid out for the kernels or not.
func TestStored(t *testing.T) {
	t.Parallel()
	for _, n := range networks() {
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			store, e := n.tensors.store(t), tensor.NewExec(nil)
			var arena tensor.Arena
			t.Cleanup(func() { arena.Close() })
			one := func() (Shape, Condition, []float32, []float32) { return n.sceneOf(1, 16, 12) }
			full, err := n.load(store, []byte(n.config))
			if err != nil {
				t.Fatal(err)
			}
			want := predict(t, full, e, &n, one)
			for d, limit := range map[tensor.DType]float64{tensor.F16: 0.01, tensor.BF16: 0.1, tensor.Q8_0: 0.2, tensor.Q4_0: 0.7} {
				stored := encoded(t, store, d)
				m, err := n.load(stored, []byte(n.config))
				if err != nil {
					t.Fatal(err)
				}
				got := predict(t, m, e, &n, one)
				if err := meanError(got, want); !(err <= limit) {
					t.Errorf("stored in %v: error %.3g, limit %g", d, err, limit)
				}
				if m, err = n.load(stored.Packed(&arena, 0), []byte(n.config)); err != nil {
					t.Fatal(err)
				}
				same(t, d.String()+" packed", predict(t, m, e, &n, one), got)
			}
		})
	}
}

// TestKeepsType checks that layers in 8 bits are those that are said to be.
func TestKeepsType(t *testing.T) {
	t.Parallel()
	for _, n := range networks() {
		store := n.tensors.store(t)
		m, err := n.load(store.Packed(nil, tensor.I8), []byte(n.config))
		if err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for name, shape := range n.tensors {
			x, err := store.Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes := 4 * x.Len(); len(shape) > 1 && !KeepsType(name) {
				want += float64(bytes) / 4
			} else if n.name == "sd3.5 medium" || n.name == "flux schnell" || !strings.Contains(name, "norm_") {
				want += float64(bytes)
			}
		}
		if share := float64(m.Bytes()) / want; share < 0.98 || share > 1.2 { // rows are filled up
			t.Errorf("%s: %d bytes, want about %.0f", n.name, m.Bytes(), want)
		}
	}
}

// encoded returns a store whose matrices are of another type, where their rows have whole
// blocks of it.
func encoded(t *testing.T, s *weights.Store, d tensor.DType) *weights.Store {
	t.Helper()
	block, _ := d.Block()
	edits := map[string]func(weights.Tensor) (weights.Tensor, error){}
	for _, name := range s.Names() {
		x, err := s.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Shape) == 2 && x.Shape[1]%block == 0 {
			edits[name] = func(x weights.Tensor) (weights.Tensor, error) {
				values := x.Float32s()
				x.DType, x.Data = d, make([]byte, d.Bytes(len(values)))
				tensor.Encode(x.Data, d, values)
				return x, nil
			}
		}
	}
	edited, err := s.Edited(edits)
	if err != nil {
		t.Fatal(err)
	}
	return edited
}

// TestConfigs checks that configurations which would be computed wrongly are refused.
func TestConfigs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ class, config string }{
		{"DiTTransformer2DModel", `{"_class_name":"UNet2DModel"}`},
		{"DiTTransformer2DModel", `{"norm_type":"layer_norm"}`},
		{"DiTTransformer2DModel", `{"activation_fn":"geglu"}`},
		{"DiTTransformer2DModel", `{"patch_size":0}`},
		{"DiTTransformer2DModel", `{"num_attention_heads":1000000,"attention_head_dim":1000000}`},
		{"PixArtTransformer2DModel", `{"cross_attention_dim":8}`},
		{"PixArtTransformer2DModel", `{"interpolation_scale":-1}`},
		{"PixArtTransformer2DModel", `{"norm_elementwise_affine":true}`},
		{"SD3Transformer2DModel", `{"qk_norm":"layer_norm"}`},
		{"SD3Transformer2DModel", `{"dual_attention_layers":[18]}`},
		{"SD3Transformer2DModel", `{"caption_projection_dim":4}`},
		{"FluxTransformer2DModel", `{"axes_dims_rope":[16,56]}`},
		{"FluxTransformer2DModel", `{"axes_dims_rope":[15,57,56]}`},
		{"FluxTransformer2DModel", `{"patch_size":2}`},
		{"FluxTransformer2DModel", `{"in_channels":63}`},
	} {
		if _, err := loaders()[tt.class](shapes{"a": {1}}.store(t), []byte(tt.config)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s %s: %v", tt.class, tt.config, err)
		}
	}
}

// FuzzConfig checks that no configuration makes a network without its tensors, nor panics.
func FuzzConfig(f *testing.F) {
	for _, n := range networks() {
		f.Add([]byte(n.config))
	}
	f.Add([]byte(`{"num_layers":-1,"sample_size":1e9}`))
	store := shapes{"a": {1}}.store(f)
	f.Fuzz(func(t *testing.T, config []byte) {
		for class, load := range loaders() {
			if _, err := load(store, config); err == nil {
				t.Errorf("%s: %s was loaded from nothing", class, config)
			}
		}
	})
}

// TestPositions checks that the fixed positions are those which the goldens' SD3 carries.
func TestPositions(t *testing.T) {
	t.Parallel()
	for _, c := range goldenCases(t) {
		if c.class != "SD3Transformer2DModel" {
			continue
		}
		store := openStore(t, c.dir, "diffusion_pytorch_model.safetensors")
		m, err := LoadSD3(store, mustParse(t, ParseSD3Config, string(c.config)))
		if err != nil {
			t.Fatal(err)
		}
		g := grid{height: 4, width: 6, top: 3, left: 2}
		got, want := make([]float32, 24*m.size.width()), make([]float32, 24*m.size.width())
		m.place(want, g)
		m.positions = tensor.Matrix{}
		m.place(got, g)
		if e := relativeError(got, want); e > 1e-5 {
			t.Errorf("%s: error %.3g", c.dir, e)
		}
	}
}
