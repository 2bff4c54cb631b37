//go:build unix && !linux

package tensor

// adviseHugePages has nothing to ask for: the system decides.
func adviseHugePages([]byte) {}
