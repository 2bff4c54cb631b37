package openai

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"

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

// embed answers POST /v1/embeddings.
func (a *API) embed(w http.ResponseWriter, r *http.Request) error {
	var request embeddingRequest
	body, err := strict.Read(r, &request)
	if err != nil {
		return err
	}
	switch {
	case request.Model == "":
		return strict.Invalid("/model", "required, but missing; GET /v1/models lists the models")
	case absent(request.Input):
		return strict.Invalid("/input", "required, but missing")
	case request.EncodingFormat == "":
		request.EncodingFormat = asNumbers
	case request.EncodingFormat != asNumbers && request.EncodingFormat != asBase64:
		return strict.Invalid("/encoding_format", "want %s or %s", asNumbers, asBase64)
	}
	in := map[string]any{"input": request.Input}
	if request.Dimensions != nil {
		in["dimensions"] = request.Dimensions
	}
	text, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("openai: input: %w", err)
	}
	ctx, end, err := a.backend.Hold(w, r)
	if err != nil {
		return err
	}
	defer end()
	job, err := a.backend.Accept(r, body, 0, &queue.Job{Task: "text.embed", Model: request.Model, Input: text})
	if err != nil {
		return err
	}
	w.Header().Set("X-Helicon-Job", job.ID)
	answer, err := a.embedded(ctx, job.ID, &request)
	if err != nil {
		return a.conclude(ctx, r, []*queue.Job{job}, err)
	}
	w.Header().Set("Content-Type", "application/json")
	text, err = encode(answer)
	if err != nil {
		return err
	}
	// A client that does not take its answer cannot be told.
	_ = a.backend.Sender(w)(text)
	return nil
}

// embedded returns the answer when the job has succeeded, else its problem.
func (a *API) embedded(ctx context.Context, id string, request *embeddingRequest) (*embeddings, error) {
	ended, err := a.await(ctx, id)
	if err != nil {
		return nil, err
	}
	var meta struct {
		Embeddings [][]byte `json:"embeddings"`
	}
	if ended.Result == nil {
		return nil, fmt.Errorf("openai: job %s: succeeded without a result", id)
	}
	if err := json.Unmarshal(ended.Result.Meta, &meta); err != nil {
		return nil, fmt.Errorf("openai: job %s: meta: %w", id, err)
	}
	answer := &embeddings{Object: "list", Data: make([]embedding, len(meta.Embeddings)), Model: request.Model}
	for i, raw := range meta.Embeddings {
		answer.Data[i] = embedding{Object: "embedding", Index: i, Embedding: base64.StdEncoding.EncodeToString(raw)}
		if request.EncodingFormat == asNumbers {
			answer.Data[i].Embedding = numbers(raw)
		}
	}
	if u := ended.Result.Usage; u != nil {
		answer.Usage = embeddingUsage{u.InputTokens, u.InputTokens}
	}
	return answer, nil
}

// numbers reads float32 numbers, little-endian.
func numbers(raw []byte) []float32 {
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}
