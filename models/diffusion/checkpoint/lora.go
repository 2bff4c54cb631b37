package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// Adapter is a LoRA file (Hu et al. 2021): for some weights of a model, two narrow matrices
// whose product is to be added. Convolutions have it too (LoCon), some with a third one
// between them.
type Adapter struct {
	Name   string         // for errors
	Store  *weights.Store // must stay open until the model is loaded
	Weight float32        // factor of what is added
}

// Merge returns the components of a model with adapters added to their weights, as they are
// looked up: in F32, whatever type they are stored in. Components are named as in
// Layout.Parts; tensors of adapters as kohya's scripts, diffusers (of all its versions) or
// peft do it, and modules as in diffusers or as in the layouts of this package.
//
// The error names the tensor if it belongs to a module that the model does not have or if
// its shape does not fit (then it wraps weights.ErrShape, and names both shapes), and
// wraps ErrUnsupported if an adapter is of another kind than LoRA, or has nothing at all
// for the model.
func Merge(parts map[string]*weights.Store, adapters ...Adapter) (map[string]*weights.Store, error) {
	edits := map[string]map[string][]delta{} // by component and tensor
	modules := map[string]map[string][]target{}
	for name, s := range parts {
		modules[name], edits[name] = targets(name, s), map[string][]delta{}
	}
	for _, a := range adapters {
		pairs, err := a.pairs()
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			part := p.part
			if _, ok := parts[part]; !ok && part == "unet" {
				part = "transformer"
			}
			list, ok := modules[part][p.module]
			if !ok {
				return nil, fmt.Errorf("checkpoint: LoRA %s: tensor %q: the model has no such module: %w", a.Name, p.down, ErrUnsupported)
			}
			for _, t := range list {
				if err := p.fits(a, parts[part], t); err != nil {
					return nil, err
				}
				edits[part][t.weight] = append(edits[part][t.weight], delta{a, p, t})
			}
		}
	}
	merged := map[string]*weights.Store{}
	for name, s := range parts {
		merged[name] = s
		if len(edits[name]) == 0 {
			continue
		}
		functions := map[string]func(weights.Tensor) (weights.Tensor, error){}
		for weight, deltas := range edits[name] {
			functions[weight] = func(t weights.Tensor) (weights.Tensor, error) { return addAll(t, deltas) }
		}
		var err error
		if merged[name], err = s.Edited(functions); err != nil {
			return nil, err
		}
	}
	return merged, nil
}

// pair is the tensors of an adapter for a module.
type pair struct {
	part, module  string // module with "_" for "."
	down, up, mid string // names of tensors; mid may be ""
	scale         float64
}

// pairs sorts the adapter's tensors by modules.
func (a Adapter) pairs() ([]*pair, error) {
	found := map[string]*pair{}
	var alphas []string
	for _, name := range a.Store.Names() {
		module, role := splitRole(name)
		if role == "" {
			return nil, fmt.Errorf("checkpoint: LoRA %s: tensor %q is of no kind that is known: %w", a.Name, name, ErrUnsupported)
		}
		if role == "alpha" {
			alphas = append(alphas, name)
			continue
		}
		p := found[module]
		if p == nil {
			p = &pair{scale: 1}
			p.part, p.module = splitOwner(module)
			found[module] = p
		}
		*map[string]*string{"down": &p.down, "up": &p.up, "mid": &p.mid}[role] = name
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("checkpoint: LoRA %s: no tensors of a LoRA among its %d: %w", a.Name, len(a.Store.Names()), ErrUnsupported)
	}
	var list []*pair
	for module, p := range found {
		if p.down == "" || p.up == "" {
			return nil, fmt.Errorf("checkpoint: LoRA %s: only one matrix (%q) for %q: %w", a.Name, p.down+p.up+p.mid, module, weights.ErrMissing)
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(p, q *pair) int { return strings.Compare(p.down, q.down) })
	if err := a.scaleByMetadata(list); err != nil {
		return nil, err
	}
	for _, name := range alphas {
		p := found[strings.TrimSuffix(name, ".alpha")]
		if p == nil {
			continue // of a module that was left out
		}
		if err := a.scaleByAlpha(p, name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// splitRole takes a tensor's name apart: the module, and by the end of the name what the
// tensor is for it. The role is "" if it is none of a LoRA.
func splitRole(name string) (module, role string) {
	for _, r := range [][2]string{
		{".lora_down.weight", "down"}, {".lora_up.weight", "up"}, {".lora_mid.weight", "mid"},
		{".lora_A.weight", "down"}, {".lora_B.weight", "up"},
		{".lora_A.default.weight", "down"}, {".lora_B.default.weight", "up"},
		{".lora.down.weight", "down"}, {".lora.up.weight", "up"},
		{".lora_linear_layer.down.weight", "down"}, {".lora_linear_layer.up.weight", "up"},
		{"_lora.down.weight", "down"}, {"_lora.up.weight", "up"},
		{".alpha", "alpha"},
	} {
		if m, ok := strings.CutSuffix(name, r[0]); ok {
			return m, r[1]
		}
	}
	return "", ""
}

// splitOwner takes a module's name apart: the component, by the beginning of the name, of
// which the network that denoises is called unet here, and the rest in the form of
// dictionaries, with "_" for "." and without what old versions of diffusers had in it.
func splitOwner(module string) (part, name string) {
	for _, o := range [][2]string{
		{"lora_unet_", "unet"}, {"lora_transformer_", "unet"},
		{"lora_te1_", "text_encoder"}, {"lora_te2_", "text_encoder_2"}, {"lora_te3_", "text_encoder_3"}, {"lora_te_", "text_encoder"},
		{"base_model.model.", "unet"}, {"unet.", "unet"}, {"transformer.", "unet"}, {"diffusion_model.", "unet"},
		{"text_encoder.", "text_encoder"}, {"text_encoder_2.", "text_encoder_2"}, {"text_encoder_3.", "text_encoder_3"},
		{"", "unet"},
	} {
		if m, ok := strings.CutPrefix(module, o[0]); ok {
			part, name = o[1], m
			break
		}
	}
	if m, ok := strings.CutPrefix(name, "model.diffusion_model."); ok {
		name = m
	}
	if before, projection, ok := strings.Cut(name, ".processor."); ok {
		name = before + "." + projection
		if projection == "to_out" {
			name += ".0"
		}
	}
	if part != "unet" {
		for old, now := range map[string]string{".to_q": ".q_proj", ".to_k": ".k_proj", ".to_v": ".v_proj", ".to_out": ".out_proj"} {
			if m, ok := strings.CutSuffix(name, old); ok {
				name = m + now
			}
		}
	}
	return part, strings.ReplaceAll(name, ".", "_")
}

// scaleByAlpha sets the scale to alpha / rank.
func (a Adapter) scaleByAlpha(p *pair, name string) error {
	t, err := a.Store.Lookup(name)
	if err != nil {
		return fmt.Errorf("checkpoint: LoRA %s: %w", a.Name, err)
	}
	down, err := a.Store.Describe(p.down)
	if err != nil {
		return fmt.Errorf("checkpoint: LoRA %s: %w", a.Name, err)
	}
	alpha, ok := scalar(t)
	if !ok || len(down.Shape) < 2 || down.Shape[0] == 0 {
		return fmt.Errorf("checkpoint: LoRA %s: tensor %q: %v %v, want a number: %w", a.Name, name, t.DType, t.Shape, weights.ErrShape)
	}
	p.scale = alpha / float64(down.Shape[0])
	return nil
}

// scalar returns the only element of a tensor, if it has one that is finite.
func scalar(t weights.Tensor) (float64, bool) {
	if t.Len() != 1 {
		return 0, false
	}
	v := math.NaN()
	switch {
	case t.DType.Float():
		v = float64(t.Float32s()[0])
	case t.DType == tensor.F64:
		v = math.Float64frombits(binary.LittleEndian.Uint64(t.Data))
	case t.DType == tensor.I64 || t.DType == tensor.I32:
		v = float64(t.Ints()[0])
	}
	return v, !math.IsNaN(v) && !math.IsInf(v, 0)
}

// scaleByMetadata sets the scales that recent versions of diffusers write beside the
// tensors, as the settings of peft for each component.
func (a Adapter) scaleByMetadata(list []*pair) error {
	const key = "lora_adapter_metadata"
	if !a.Store.Metadata().Has(key) {
		return nil
	}
	text, err := a.Store.Metadata().String(key)
	if err != nil {
		return err
	}
	var settings map[string]any
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return fmt.Errorf("checkpoint: LoRA %s: %s: %v: %w", a.Name, key, err, weights.ErrFormat)
	}
	for _, p := range list {
		for _, part := range []string{p.part, "transformer"} {
			alpha, ok := settings[part+".lora_alpha"].(float64)
			rank, ranked := settings[part+".r"].(float64)
			if !ok || !ranked || !(rank > 0) || part != p.part && p.part != "unet" {
				continue
			}
			if patterns, _ := settings[part+".alpha_pattern"].(map[string]any); len(patterns) > 0 {
				return fmt.Errorf("checkpoint: LoRA %s: %s has an alpha_pattern: %w", a.Name, key, ErrUnsupported)
			}
			p.scale = alpha / rank
			if settings[part+".use_rslora"] == true {
				p.scale = alpha / math.Sqrt(rank)
			}
		}
	}
	return nil
}

// fits checks the shapes of the pair against each other and the weight.
func (p *pair) fits(a Adapter, s *weights.Store, t target) error {
	weight, err := s.Describe(t.weight)
	if err != nil {
		return err
	}
	shapes := map[string][]int{}
	for _, name := range []string{p.down, p.up, p.mid} {
		if name == "" {
			continue
		}
		info, err := a.Store.Describe(name)
		if err != nil {
			return err
		}
		if len(info.Shape) < 2 || !info.DType.Float() && !info.DType.Quantised() {
			return fmt.Errorf("checkpoint: LoRA %s: tensor %q: %s %v, want a matrix: %w", a.Name, name, info.Kind, info.Shape, weights.ErrShape)
		}
		shapes[name] = info.Shape
	}
	unfit := func(name string) error {
		return fmt.Errorf("checkpoint: LoRA %s: tensor %q: shape %v does not fit %q of shape %v: %w", a.Name, name, shapes[name], t.weight, weight.Shape, weights.ErrShape)
	}
	down, up, mid := shapes[p.down], shapes[p.up], shapes[p.mid]
	rank, inner, taps := down[0], down[0], 1
	if p.mid != "" {
		rank, inner, taps = mid[0], mid[1], product(mid[2:])
	}
	if len(weight.Shape) < 2 || product(weight.Shape) == 0 || inner != down[0] || product(down[1:])*taps != product(weight.Shape[1:]) {
		return unfit(p.down)
	}
	if rank == 0 || product(up[1:]) != rank {
		return unfit(p.up)
	}
	if t.rows == 0 && up[0] != weight.Shape[0] || t.rows > 0 && (t.rows != weight.Shape[0] || t.lo+t.rows > up[0]) {
		return unfit(p.up)
	}
	return nil
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// delta is what an adapter adds to a weight.
type delta struct {
	adapter Adapter
	pair    *pair
	target  target
}

// addAll returns the weight with all that is to be added to it.
func addAll(t weights.Tensor, deltas []delta) (weights.Tensor, error) {
	if !t.DType.Float() && !t.DType.Quantised() {
		return t, fmt.Errorf("checkpoint: tensor %q: type %v takes no LoRA: %w", t.Name, t.DType, weights.ErrShape)
	}
	sum := slices.Clone(t.Float32s())
	for _, d := range deltas {
		if err := d.add(sum, t.Shape[0]); err != nil {
			return t, err
		}
	}
	return t.WithFloats(sum), nil
}

// add adds weight·scale·up·down to a weight of so many rows.
func (d delta) add(sum []float32, rows int) error {
	matrices := map[string]weights.Tensor{}
	for _, name := range []string{d.pair.down, d.pair.up, d.pair.mid} {
		if name == "" {
			continue
		}
		var err error
		if matrices[name], err = d.adapter.Store.Lookup(name); err != nil {
			return err
		}
	}
	cols := len(sum) / rows
	down, up := matrices[d.pair.down].Float32s(), matrices[d.pair.up].Float32s()
	rank := matrices[d.pair.up].Len() / matrices[d.pair.up].Shape[0]
	if d.pair.mid != "" {
		down = throughMiddle(down, matrices[d.pair.mid])
	}
	turned := make([]float32, len(down)) // [cols, rank]
	for r := range rank {
		for c := range cols {
			turned[c*rank+r] = down[r*cols+c]
		}
	}
	scaled := slices.Clone(up[d.target.lo*rank:][:rows*rank])
	for i := range scaled {
		scaled[i] *= d.adapter.Weight * float32(d.pair.scale)
	}
	part := make([]float32, len(sum))
	e := tensor.NewExec(nil)
	e.MatMul(part, scaled, tensor.FromFloat32s(cols, rank, turned), nil)
	e.Add(sum, part)
	return nil
}

// throughMiddle returns the matrix [rank, in·taps] of down [rank, in] and a middle
// [rank, rank, taps]: Σ_q mid[p, q, y]·down[q, i].
func throughMiddle(down []float32, mid weights.Tensor) []float32 {
	m, rank, inner := mid.Float32s(), mid.Shape[0], mid.Shape[1]
	taps, in := product(mid.Shape[2:]), len(down)/inner
	out := make([]float32, rank*in*taps)
	for p := range rank {
		for q := range inner {
			for i := range in {
				for y := range taps {
					out[(p*in+i)*taps+y] += m[(p*inner+q)*taps+y] * down[q*in+i]
				}
			}
		}
	}
	return out
}
