//go:build !purego

package tensor

import "golang.org/x/sys/cpu"

// detect asks the processor for its features.
func detect() features {
	x := &cpu.X86
	switch {
	case x.HasAVX512F && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512BW && x.HasAVX512VNNI:
		return features{level: AVX512, bf16: x.HasAVX512BF16, tiles: x.HasAVX512BF16 && detectTiles()}
	case x.HasAVX2 && x.HasFMA && x.HasF16C:
		return features{level: AVX2}
	}
	return features{level: Generic}
}
