package checkpoint

import (
	"fmt"
	"strings"

	"helicon/models/weights"
)

// target is a weight that an adapter's module changes: all of its rows, or if the module
// is several in one in the original layout, its part.
type target struct {
	weight   string
	lo, rows int // of what the adapter makes; rows 0: all
}

// targets lists the weights of a component by the names of modules, "_" for ".": their
// own, and those of the original layout.
func targets(part string, s *weights.Store) map[string][]target {
	list := map[string][]target{}
	add := func(module string, t target) {
		key := strings.ReplaceAll(module, ".", "_")
		list[key] = append(list[key], t)
	}
	var original names
	switch part {
	case "unet":
		original = unetNames(diffusersShape(s)).reversed()
	case "transformer":
		double := countUnder(s, "transformer_blocks.")
		if single := countUnder(s, "single_transformer_blocks."); single > 0 {
			original = fluxNames(double, single).reversed()
			addFluxCuts(s, add, double, single)
		} else {
			original = mmditNames(double).reversed()
			delete(original, fmt.Sprintf("transformer_blocks.%d.norm1_context.linear", double-1)) // has its halves swapped
			addMMDiTCuts(s, add, double)
		}
		delete(original, "norm_out.linear") // has its halves swapped
	}
	for _, name := range s.Names() {
		module, ok := strings.CutSuffix(name, ".weight")
		if !ok {
			continue
		}
		add(module, target{weight: name})
		if old, ok := original.translate(module); ok && old != module {
			add(old, target{weight: name})
		}
	}
	return list
}

// diffusersShape counts the blocks of a UNet of diffusers' names.
func diffusersShape(s *weights.Store) unetShape {
	u := unetShape{layers: countUnder(s, "down_blocks.0.resnets.")}
	for level := range countUnder(s, "down_blocks.") {
		u.attends = append(u.attends, s.Has(fmt.Sprintf("down_blocks.%d.attentions.0.norm.weight", level)))
	}
	return u
}

// countUnder returns how many of prefix0, prefix1, … there are in a row.
func countUnder(s *weights.Store, prefix string) int {
	seen := map[string]bool{}
	for _, name := range s.Names() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			number, _, _ := strings.Cut(rest, ".")
			seen[number] = true
		}
	}
	n := 0
	for seen[fmt.Sprint(n)] {
		n++
	}
	return n
}

// cutter adds the parts of a module that is several in one in the original layout.
type cutter func(module string, t target)

// cut adds the weights of modules, one after another among the rows of the original.
func (add cutter) cut(s *weights.Store, old string, modules ...string) {
	lo := 0
	for _, m := range modules {
		info, err := s.Describe(m + ".weight")
		if err != nil || len(info.Shape) == 0 {
			return // not of this network
		}
		add(old, target{weight: m + ".weight", lo: lo, rows: info.Shape[0]})
		lo += info.Shape[0]
	}
}

func addFluxCuts(s *weights.Store, add cutter, double, single int) {
	for i := range double {
		old, name := fmt.Sprintf("double_blocks.%d.", i), fmt.Sprintf("transformer_blocks.%d.attn.", i)
		add.cut(s, old+"img_attn.qkv", name+"to_q", name+"to_k", name+"to_v")
		add.cut(s, old+"txt_attn.qkv", name+"add_q_proj", name+"add_k_proj", name+"add_v_proj")
	}
	for i := range single {
		name := fmt.Sprintf("single_transformer_blocks.%d.", i)
		add.cut(s, fmt.Sprintf("single_blocks.%d.linear1", i), name+"attn.to_q", name+"attn.to_k", name+"attn.to_v", name+"proj_mlp")
	}
}

func addMMDiTCuts(s *weights.Store, add cutter, blocks int) {
	for i := range blocks {
		old, name := fmt.Sprintf("joint_blocks.%d.", i), fmt.Sprintf("transformer_blocks.%d.", i)
		add.cut(s, old+"x_block.attn.qkv", name+"attn.to_q", name+"attn.to_k", name+"attn.to_v")
		add.cut(s, old+"x_block.attn2.qkv", name+"attn2.to_q", name+"attn2.to_k", name+"attn2.to_v")
		add.cut(s, old+"context_block.attn.qkv", name+"attn.add_q_proj", name+"attn.add_k_proj", name+"attn.add_v_proj")
	}
}
