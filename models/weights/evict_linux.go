package weights

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// evict gives the whole pages among mapped bytes back to the system. They are read
// from the file again if they are touched.
func evict(data []byte) {
	page := os.Getpagesize()
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(data)))) & (page - 1) // to the first whole page
	if len(data) < skip+page {
		return
	}
	data = data[skip:]
	// It is advice: where it is not followed, memory is freed later.
	_ = unix.Madvise(data[:len(data)&^(page-1)], unix.MADV_DONTNEED)
}
