package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOutputIsCurrent compares the files of the package with what would be written now.
func TestOutputIsCurrent(t *testing.T) {
	t.Parallel()
	for _, f := range families() {
		got, err := os.ReadFile(filepath.Join("..", f.file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, f.source()) {
			t.Errorf("%s is not what the generator writes: run go generate in its directory", f.file)
		}
	}
}

// TestEncode compares with what GNU as makes of the same instructions.
func TestEncode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code string
		emit func(a *asm)
	}{
		{"62 f2 76 48 52 c2", func(a *asm) { a.encode(vdpbf16ps, z(2), false, z(1), z(0), 'Z') }},
		{"62 42 76 40 52 f9", func(a *asm) { a.encode(vdpbf16ps, z(9), false, z(17), z(31), 'Z') }},
		{"62 f2 0e 50 52 6e 0b", func(a *asm) { a.encode(vdpbf16ps, at(SI, 44), true, z(30), z(5), 'Z') }},
		{"62 42 66 58 52 4d 00", func(a *asm) { a.encode(vdpbf16ps, at(R13, 0), true, z(3), z(25), 'Z') }},
		{"62 12 66 48 52 44 8c 02", func(a *asm) {
			a.encode(vdpbf16ps, mem{base: R12, disp: 128, index: R9, scale: 4}, false, z(3), z(8), 'Z')
		}},
		{"62 72 66 58 52 80 00 10 00 00", func(a *asm) { a.encode(vdpbf16ps, at(AX, 4096), true, z(3), z(8), 'Z') }},
		{"62 72 66 28 52 c4", func(a *asm) { a.encode(vdpbf16ps, y(4), false, y(3), y(8), 'Y') }},
		{"62 e2 7e 48 72 e3", func(a *asm) { a.encode(vcvtneps2bf16, z(3), false, vec{}, y(20), 'Z') }},
		{"62 f2 7e 48 72 4a 01", func(a *asm) { a.encode(vcvtneps2bf16, at(DX, 64), false, vec{}, y(1), 'Z') }},
	} {
		a := new(asm)
		tt.emit(a)
		code, _, _ := strings.Cut(a.text.String(), " //")
		var got []string
		for _, b := range strings.Split(strings.TrimSpace(code), "; ") {
			got = append(got, strings.TrimPrefix(b, "BYTE $0x"))
		}
		if s := strings.Join(got, " "); s != tt.code {
			t.Errorf("got %s, want %s", s, tt.code)
		}
	}
}
