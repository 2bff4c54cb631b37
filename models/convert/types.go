package convert

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"helicon/models/tensor"
)

// recipe says which type the matrices of a file get.
type recipe struct {
	fileType uint32       // general.file_type, llama.cpp's llama_ftype
	usual    tensor.DType // of most matrices
	better   tensor.DType // of those that matter more, as llama.cpp's mixes choose them; 0 is none
}

// recipes are the types by the names that users give. As in llama.cpp, the output matrix
// has Q6_K in all that is smaller.
var recipes = map[string]recipe{
	"f32":    {0, tensor.F32, 0},
	"f16":    {1, tensor.F16, 0},
	"bf16":   {32, tensor.BF16, 0},
	"q8_0":   {7, tensor.Q8_0, 0},
	"q4_0":   {2, tensor.Q4_0, 0},
	"q4_k":   {14, tensor.Q4_K, 0},
	"q4_k_m": {15, tensor.Q4_K, tensor.Q6_K},
	"q5_k":   {16, tensor.Q5_K, 0},
	"q5_k_m": {17, tensor.Q5_K, tensor.Q6_K},
	"q6_k":   {18, tensor.Q6_K, 0},
}

// Types returns the names of the types, sorted.
func Types() []string { return slices.Sorted(maps.Keys(recipes)) }

func recipeOf(name string) (recipe, error) {
	r, ok := recipes[strings.ToLower(name)]
	if !ok {
		return r, fmt.Errorf("convert: type %q is not one of %s", name, strings.Join(Types(), ", "))
	}
	return r, nil
}

// plan chooses the types of a model's tensors.
type plan struct {
	recipe
	layers int
	tied   bool // the embedding is the output matrix
}

// typeOf returns the type of a tensor in the file. Vectors, norms, routers and learned
// positions stay F32. A row that is no whole number of blocks has the next larger type
// with smaller blocks, or F16: the tensor fell back.
func (p *plan) typeOf(name string, shape []int) (d tensor.DType, fell bool) {
	if len(shape) < 2 || !strings.HasSuffix(name, ".weight") || strings.HasSuffix(name, "_norm.weight") ||
		strings.HasSuffix(name, "ffn_gate_inp.weight") || name == "position_embd.weight" {
		return tensor.F32, false
	}
	d = p.usual
	switch {
	case !d.Quantised():
		return d, false
	case name == "output.weight" || p.tied && name == "token_embd.weight":
		if d != tensor.Q8_0 {
			d = tensor.Q6_K
		}
	case p.better != 0 && p.matters(name):
		d = p.better
	}
	fits := fitting(d, shape[len(shape)-1])
	return fits, fits != d
}

// fitting returns d or, for rows that are no whole number of its blocks, what is nearest.
func fitting(d tensor.DType, columns int) tensor.DType {
	for {
		if block, _ := d.Block(); columns%block == 0 {
			return d
		}
		switch d {
		case tensor.Q4_K:
			d = tensor.Q5_0
		case tensor.Q5_K:
			d = tensor.Q5_1
		case tensor.Q6_K:
			d = tensor.Q8_0
		default:
			return tensor.F16
		}
	}
}

// matters reports whether the mixes give a matrix the better type: values and what leaves
// the MLP, in the first and the last eighth of the layers and in every third between.
func (p *plan) matters(name string) bool {
	var layer int
	if _, err := fmt.Sscanf(name, "blk.%d.", &layer); err != nil {
		return false
	}
	value := strings.HasSuffix(name, ".attn_v.weight") || strings.HasSuffix(name, ".attn_qkv.weight")
	if !value && !strings.Contains(name, ".ffn_down") {
		return false
	}
	eighth := p.layers / 8
	return layer < eighth || layer >= 7*p.layers/8 || (layer-eighth)%3 == 2
}
