//go:build !amd64 || purego

package tensor

// tileAttendTask has nothing to do: no machine has the feature.
type tileAttendTask struct{}

func (e *Exec) attendTiles(Attention, int, int) bool { return false }
