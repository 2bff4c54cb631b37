package tensor

import "golang.org/x/sys/unix"

// adviseHugePages asks for large pages; without them only speed is lost.
func adviseHugePages(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
