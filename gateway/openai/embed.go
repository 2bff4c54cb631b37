package openai

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"helicon/gateway/strict"
	"helicon/queue"
)

// embeddingRequest is the body of POST /v1/embeddings.
type embeddingRequest struct {
	Model          string          `json:"model"`
	Input          json.RawMessage `json:"input"`
	Dimensions     *int            `json:"dimensions"`
	EncodingFormat string          `json:"encoding_format"`
	User           string          `json:"user"` // taken as OpenAI takes it; it changes nothing
}

// The encodings of embeddings.
const (
	asNumbers = "float"
	asBase64  = "base64"
)

// embeddings is the answer of POST /v1/embeddings.
type embeddings struct {
	Object string         `json:"object"`
	Data   []embedding    `json:"data"`
	Model  string         `json:"model"`
	Usage  embeddingUsage `json:"usage"`
}

type embedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // []float32, or the base64 of them, little-endian
}

type embeddingUsage struct {
	PromptTokens int `json:"prompt_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// readEmbedding reads a request of POST /v1/embeddings.
func readEmbedding(_ context.Context, body []byte) (*Exchange, error) {
	request := new(embeddingRequest)
	if err := strict.Object(body, "", request); err != nil {
		return nil, err
	}
	switch {
	case request.Model == "":
		return nil, strict.Invalid("/model", "required, but missing; GET /v1/models lists the models")
	case absent(request.Input):
		return nil, strict.Invalid("/input", "required, but missing")
	case request.EncodingFormat == "":
		request.EncodingFormat = asNumbers
	case request.EncodingFormat != asNumbers && request.EncodingFormat != asBase64:
		return nil, strict.Invalid("/encoding_format", "want %s or %s", asNumbers, asBase64)
	}
	in := map[string]any{"input": request.Input}
	if request.Dimensions != nil {
		in["dimensions"] = request.Dimensions
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("openai: input: %w", err)
	}
	return &Exchange{Jobs: []*queue.Job{{Task: "text.embed", Model: request.Model, Input: text}}, whole: request.whole}, nil
}

// whole writes the answer that the ended job makes.
func (r *embeddingRequest) whole(_ context.Context, d *delivery, w io.Writer) error {
	ended := d.jobs[0]
	var meta struct {
		Embeddings [][]byte `json:"embeddings"`
	}
	if err := json.Unmarshal(ended.Result.Meta, &meta); err != nil {
		return fmt.Errorf("openai: job %s: meta: %w", ended.ID, err)
	}
	answer := &embeddings{Object: "list", Data: make([]embedding, len(meta.Embeddings)), Model: r.Model}
	for i, raw := range meta.Embeddings {
		answer.Data[i] = embedding{Object: "embedding", Index: i, Embedding: base64.StdEncoding.EncodeToString(raw)}
		if r.EncodingFormat == asNumbers {
			answer.Data[i].Embedding = numbers(raw)
		}
	}
	if u := ended.Result.Usage; u != nil {
		answer.Usage = embeddingUsage{u.InputTokens, u.InputTokens}
	}
	return writeJSON(w, answer)
}

// numbers reads float32 numbers, little-endian.
func numbers(raw []byte) []float32 {
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}
