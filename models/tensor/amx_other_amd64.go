//go:build !purego && !linux

package tensor

// detectTiles reports whether kernels may use the tiles of AMX for BF16: only Linux
// is known to give them to Go programs.
func detectTiles() bool { return false }
