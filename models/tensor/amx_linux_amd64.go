//go:build !purego

package tensor

import (
	"syscall"

	"golang.org/x/sys/cpu"
)

// detectTiles reports whether kernels may use the tiles of AMX for BF16 and bytes. Linux gives
// them to a process that asks (Documentation/arch/x86/xstate.rst).
func detectTiles() bool {
	const (
		archReqXCompPerm = 0x1023
		xfeatureTileData = 18
	)
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXBF16 || !cpu.X86.HasAMXInt8 {
		return false
	}
	_, _, err := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, archReqXCompPerm, xfeatureTileData, 0)
	return err == 0
}
