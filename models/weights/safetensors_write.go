package weights

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// EncodeSafetensors writes a safetensors file of tensors of F32, F16 and BF16 to w. The
// error wraps ErrFormat for a name that occurs twice, ErrShape for tensors that the format
// cannot hold, context.Cause if ctx ends, and the error of a source.
func EncodeSafetensors(ctx context.Context, w io.Writer, tensors []Source) error {
	type place struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	header := make(map[string]place, len(tensors))
	sizes := make([]int64, len(tensors))
	at := int64(0)
	for i, t := range tensors {
		if _, twice := header[t.Name]; twice || t.Name == "" {
			return fmt.Errorf("weights: tensor %q: a name must be unique and not empty: %w", t.Name, ErrFormat)
		}
		if !t.DType.Float() || len(t.Shape) > maxDims {
			return fmt.Errorf("weights: tensor %q: safetensors has no %v of shape %v: %w", t.Name, t.DType, t.Shape, ErrShape)
		}
		elements := int64(1)
		for _, n := range t.Shape {
			elements *= int64(max(n, 0))
		}
		sizes[i] = elements * t.DType.Bytes(1)
		header[t.Name] = place{DType: t.DType.String(), Shape: append([]int{}, t.Shape...), Offsets: [2]int64{at, at + sizes[i]}}
		at += sizes[i]
	}
	raw, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	for len(raw)%8 != 0 { // data begin at a multiple of 8
		raw = append(raw, ' ')
	}
	e := &encoder{w: bufio.NewWriterSize(w, 1<<20)}
	e.number(uint64(len(raw)))
	e.raw(raw)
	for i, t := range tensors {
		if err := e.data(ctx, t, sizes[i]); err != nil {
			return fmt.Errorf("weights: tensor %q: %w", t.Name, err)
		}
	}
	return errors.Join(e.err, e.w.Flush())
}
