package checkpoint

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"

	"helicon/models/weights"
)

// Embedding is a word that a textual inversion taught (Gal et al. 2022).
type Embedding struct {
	Token string // as it is written in prompts

	// Vectors stand for the word in the text encoder of a name, one for each token that
	// it takes: text_encoder, and for SDXL also text_encoder_2.
	Vectors map[string][][]float32
}

// Bounds of an embedding.
const (
	maxVectors    = 1 << 10
	maxVectorSize = 1 << 14
)

// ReadEmbedding reads a file of diffusers, {token: vectors}, of SDXL's trainers, {clip_l:
// vectors, clip_g: vectors}, or of AUTOMATIC1111, {string_to_param: {…: vectors}} or
// {emb_params: vectors}. In all but the first, the word is the file's name. The errors
// are those of weights.OpenFile, one that wraps weights.ErrShape if a tensor is none or
// too many vectors or has numbers that are not finite, and one that wraps ErrUnsupported
// if the file has other tensors.
func ReadEmbedding(fsys fs.FS, name string) (*Embedding, error) {
	s, err := weights.OpenFile(fsys, name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	base := path.Base(name)
	e := &Embedding{Token: strings.TrimSuffix(base, path.Ext(base)), Vectors: map[string][][]float32{}}
	for _, key := range s.Names() {
		encoder := "text_encoder"
		switch {
		case strings.HasPrefix(key, "string_to_token."):
			continue
		case strings.HasPrefix(key, "string_to_param."), key == "emb_params", key == "clip_l":
		case key == "clip_g":
			encoder = "text_encoder_2"
		default:
			e.Token = key
		}
		if e.Vectors[encoder] != nil {
			return nil, fmt.Errorf("checkpoint: embedding %s: tensor %q beside another: more than one word: %w", name, key, ErrUnsupported)
		}
		if e.Vectors[encoder], err = vectors(s, key); err != nil {
			return nil, fmt.Errorf("checkpoint: embedding %s: %w", name, err)
		}
	}
	if len(e.Vectors) == 0 {
		return nil, fmt.Errorf("checkpoint: embedding %s: no vectors: %w", name, ErrUnsupported)
	}
	return e, nil
}

// vectors returns a copy of the rows of a tensor, or of one that is a single row.
func vectors(s *weights.Store, key string) ([][]float32, error) {
	t, err := s.Lookup(key)
	if err != nil {
		return nil, err
	}
	rows, n := 1, t.Len()
	if len(t.Shape) == 2 && t.Shape[0] > 0 {
		rows, n = t.Shape[0], t.Shape[1]
	}
	if len(t.Shape) < 1 || len(t.Shape) > 2 || !t.DType.Float() || n < 1 || n > maxVectorSize || rows > maxVectors || t.Len() != rows*n {
		return nil, fmt.Errorf("tensor %q: %v %v, want vectors: %w", key, t.DType, t.Shape, weights.ErrShape)
	}
	x := t.Float32s()
	for i, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("tensor %q: element %d is %v: %w", key, i, v, weights.ErrShape)
		}
	}
	list := make([][]float32, rows)
	for i := range list {
		list[i] = append([]float32(nil), x[i*n:][:n]...)
	}
	return list, nil
}
