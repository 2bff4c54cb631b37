package weights

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"helicon/models/tensor"
)

// residentAt returns the bytes in memory of the mapping that data lie in.
func residentAt(t *testing.T, data []byte) int {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skipf("no figures of the mappings: %v", err)
	}
	defer f.Close()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		var kilobytes int
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); err == nil {
			inside = from <= at && at < to
		} else if _, err := fmt.Sscanf(lines.Text(), "Rss: %d kB", &kilobytes); err == nil && inside {
			return kilobytes << 10
		}
	}
	t.Fatal("the data lie in no mapping")
	return 0
}

func TestEvict(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	name := filepath.Join(t.TempDir(), "m.gguf")
	data := ramp(size)
	if err := WriteGGUF(t.Context(), name, nil, []Source{
		bytesOf("a", tensor.I8, []int{size}, data...), bytesOf("b", tensor.I8, []int{size}, data...), bytesOf("c", tensor.I8, []int{3}, 1, 2, 3),
	}); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFile(os.DirFS(filepath.Dir(name)), "m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	touch := func(name string) Tensor {
		x, err := s.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "c" && !bytes.Equal(x.Data, data) {
			t.Errorf("data of %s have changed", name)
		}
		return x
	}
	const slack = 256 << 10 // of pages that the system maps beside those that are touched
	a, c := touch("a"), touch("c")
	touch("b")
	if n := residentAt(t, a.Data); n < 2*size {
		t.Fatalf("%d bytes are in memory, want at least %d", n, 2*size)
	}
	c.Evict() // lies within one page
	a.Evict()
	if n := residentAt(t, a.Data); n < size-slack || n > size+slack {
		t.Errorf("%d bytes are in memory without one tensor, want about %d", n, size)
	}
	s.Evict()
	if n := residentAt(t, a.Data); n > slack {
		t.Errorf("%d bytes are in memory without any", n)
	}
	touch("a")
}
