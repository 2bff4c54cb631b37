package tensor

import "fmt"

// Level is a set of processor instructions that kernels exist for. Each includes
// those below it.
type Level uint8

// The levels. The zero Level stands for the best that the machine has.
const (
	Generic Level = iota + 1 // pure Go
	AVX2                     // with FMA and F16C
	AVX512                   // F, VL, DQ, BW and VNNI
	AMX                      // with the tiles for BF16
)

var levels = [...]string{Generic: "generic", AVX2: "avx2", AVX512: "avx512", AMX: "amx"}

// ParseLevel returns the level of that name: generic, avx2, avx512 or amx. The empty name
// is the zero Level.
func ParseLevel(name string) (Level, error) {
	for l, n := range levels {
		if n == name {
			return Level(l), nil
		}
	}
	return 0, fmt.Errorf("tensor: no level %q of processor instructions; there are generic, avx2, avx512 and amx", name)
}

// String returns the name of the level.
func (l Level) String() string {
	if int(l) >= len(levels) {
		return fmt.Sprintf("Level(%d)", uint8(l))
	}
	return levels[l]
}

// UnmarshalText parses a level as ParseLevel does.
func (l *Level) UnmarshalText(text []byte) error {
	parsed, err := ParseLevel(string(text))
	if err == nil {
		*l = parsed
	}
	return err
}

// Supported reports whether the machine has the instructions of the level.
func (l Level) Supported() bool { return l <= BestLevel() }

// BestLevel returns the highest level that the machine has.
func BestLevel() Level { return detect().best() }

// features are the instructions that kernels may use.
type features struct {
	level Level // AVX512 at most
	bf16  bool  // AVX512-BF16, with level AVX512
	tiles bool  // AMX-BF16, with bf16
}

// best returns the highest level that the features make up.
func (f features) best() Level {
	if f.tiles {
		return AMX
	}
	return f.level
}

// limit returns the features that are in level l, or all if l is 0.
func (f features) limit(l Level) features {
	switch {
	case l == 0 || l >= f.best():
		return f
	case l == f.level:
		f.tiles = false
		return f
	}
	return features{level: l}
}
