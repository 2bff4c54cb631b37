package weights

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
)

func TestEncodeSafetensors(t *testing.T) {
	t.Parallel()
	source := func(name string, d tensor.DType, data []byte, shape ...int) Source {
		return Source{Name: name, DType: d, Shape: shape, Write: func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		}}
	}
	long := "a.name.that.is.longer.than.the.sixty-three.bytes.which.other.formats.have.room.for"
	var file bytes.Buffer
	err := EncodeSafetensors(t.Context(), &file, []Source{
		source(long, tensor.F32, []byte{0, 0, 128, 63, 0, 0, 0, 64}, 2, 1),
		source("h", tensor.F16, []byte{0, 60}, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(fstest.MapFS{"model.safetensors": {Data: file.Bytes()}}, "model")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, want := range map[string][]float32{long: {1, 2}, "h": {1}} {
		got, err := s.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if values := got.Float32s(); len(values) != len(want) || values[0] != want[0] {
			t.Errorf("%s: %v, want %v", name, values, want)
		}
	}
	for name, c := range map[string]struct {
		tensors []Source
		want    error
	}{
		"twice the same":  {[]Source{source("a", tensor.F32, make([]byte, 4), 1), source("a", tensor.F32, make([]byte, 4), 1)}, ErrFormat},
		"a block type":    {[]Source{source("a", tensor.Q8_0, make([]byte, 34), 32)}, ErrShape},
		"too few bytes":   {[]Source{source("a", tensor.F32, make([]byte, 4), 2)}, ErrShape},
		"too many bytes":  {[]Source{source("a", tensor.F32, make([]byte, 12), 2)}, ErrShape},
		"without a name ": {[]Source{source("", tensor.F32, make([]byte, 4), 1)}, ErrFormat},
	} {
		if err := EncodeSafetensors(t.Context(), io.Discard, c.tensors); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
