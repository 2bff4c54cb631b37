package text

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"helicon/generators"
	"helicon/models/hub"
	"helicon/models/lm"
	"helicon/models/lm/family"
	"helicon/models/tokenizer"
	"helicon/queue"
)

// Limits on what text.embed takes, the first two as its schema states them.
const (
	maxEmbedTexts  = 2048
	maxDimensions  = 65536
	maxEmbedTokens = 300_000 // in all texts
	maxEmbedBytes  = 3 << 20 // of a result
)

// The ways to make one vector of the vectors of a text's tokens.
const (
	poolMean  = "mean"
	poolLast  = "last"
	poolFirst = "cls"
)

// embedInput is the input of text.embed.
type embedInput struct {
	Input      embedTexts `json:"input"`
	Dimensions *whole     `json:"dimensions"`
	Pooling    string     `json:"pooling"`
}

// embedTexts are texts, or the tokens of texts.
type embedTexts struct {
	texts  []string
	tokens [][]int
}

// UnmarshalJSON reads a text, several, the tokens of one, or those of several.
func (t *embedTexts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		t.texts = []string{one}
		return nil
	}
	if json.Unmarshal(data, &t.texts) == nil {
		return nil
	}
	t.texts = nil
	var ids []int
	if json.Unmarshal(data, &ids) == nil {
		t.tokens = [][]int{ids}
		return nil
	}
	return json.Unmarshal(data, &t.tokens)
}

func (t *embedTexts) len() int { return len(t.texts) + len(t.tokens) }

// longest is at least the number of tokens of the longest text.
func (t *embedTexts) longest() int {
	n := 0
	for _, s := range t.texts {
		n = max(n, len(s)+templateTokens)
	}
	for _, ids := range t.tokens {
		n = max(n, len(ids))
	}
	return n
}

// embedRequest is a job of text.embed.
type embedRequest struct {
	bundle *hub.Bundle
	input  embedInput
}

// embedRequest reads a job. The error is a *queue.Problem where the job is at fault.
func (g *Generator) embedRequest(job *queue.Job) (*embedRequest, error) {
	b, err := g.bundle(job)
	if err != nil {
		return nil, err
	}
	if _, err := g.profile(b); err != nil {
		return nil, unusable(b, err)
	}
	r := &embedRequest{bundle: b}
	decoder := json.NewDecoder(bytes.NewReader(job.Input))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r.input); err != nil {
		return nil, unreadable(err)
	}
	var f findings
	in := &r.input
	f.check(in.Input.len() >= 1 && in.Input.len() <= maxEmbedTexts, "/input", "want 1 to %d texts", maxEmbedTexts)
	for i, s := range in.Input.texts {
		f.check(s != "" && length(s) <= maxTextLength, in.Input.pointer(i), "want 1 to %d characters", maxTextLength)
	}
	for i, ids := range in.Input.tokens {
		f.check(len(ids) > 0, in.Input.pointer(i), "want at least one token")
	}
	if in.Dimensions != nil {
		f.within(float64(*in.Dimensions), 1, maxDimensions, "dimensions")
	}
	f.check(slices.Contains([]string{"", poolMean, poolLast, poolFirst}, in.Pooling), "/pooling", "want %s, %s or %s", poolMean, poolLast, poolFirst)
	if f != nil {
		return nil, &queue.Problem{Code: "invalid_request", Detail: "The input is not valid.", Errors: f}
	}
	return r, nil
}

// pointer leads to a text of the input.
func (t *embedTexts) pointer(i int) string {
	if t.len() == 1 {
		return "/input"
	}
	return fmt.Sprintf("/input/%d", i)
}

// embedNeed estimates the memory of a request: a state for its longest text.
func (g *Generator) embedNeed(r *embedRequest) (generators.Need, error) {
	tokens := max(1, r.input.Input.longest())
	if r.bundle.Context > 0 {
		tokens = min(tokens, r.bundle.Context)
	}
	f, err := lm.Estimate(r.bundle.Files, tokens)
	if err != nil {
		return generators.Need{}, unusable(r.bundle, err)
	}
	need, err := g.need(&request{bundle: r.bundle})
	need.Memory = f.State
	return need, err
}

// embedMeta is what the result of text.embed states.
type embedMeta struct {
	Model      string   `json:"model"`
	Digest     string   `json:"digest"`
	Pooling    string   `json:"pooling"`
	Dimensions int      `json:"dimensions"`
	Embeddings []string `json:"embeddings"` // base64 of float32, little-endian, each of length 1
}

// embed does the work of Generate for text.embed.
func (g *Generator) embed(ctx context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
	r, err := g.embedRequest(job)
	if err != nil {
		return nil, err
	}
	need, err := g.embedNeed(r)
	if err != nil {
		return nil, err
	}
	e, done, err := generators.Use(ctx, g.memory, need.Model, func(ctx context.Context) (*engine, error) {
		return g.load(ctx, r.bundle)
	})
	if err != nil {
		return nil, err
	}
	defer done()
	return e.embed(ctx, &r.input, out)
}

// embed embeds the texts of an input on a loaded model.
func (e *engine) embed(ctx context.Context, in *embedInput, out generators.Output) (*queue.Result, error) {
	begun := time.Now()
	texts, total, err := e.embedTokens(&in.Input)
	if err != nil {
		return nil, err
	}
	m := embedMeta{Model: e.bundle.ID, Digest: e.digest, Pooling: in.Pooling, Dimensions: e.model.Config().Hidden}
	if m.Pooling == "" {
		m.Pooling = defaultPooling(e.bundle.Files)
	}
	if in.Dimensions != nil {
		if int(*in.Dimensions) > m.Dimensions {
			return nil, fieldProblem("/dimensions", "the model %s has %d dimensions", e.bundle.ID, m.Dimensions)
		}
		m.Dimensions = int(*in.Dimensions)
	}
	if size := len(texts) * base64.StdEncoding.EncodedLen(4*m.Dimensions); size > maxEmbedBytes {
		return nil, fieldProblem("/input", "%d vectors of %d dimensions are more than a result holds; embed at most %d texts at once, or with fewer dimensions",
			len(texts), m.Dimensions, maxEmbedBytes/base64.StdEncoding.EncodedLen(4*m.Dimensions))
	}
	longest := 0
	for _, tokens := range texts {
		longest = max(longest, len(tokens))
	}
	state, err := e.model.NewState(longest)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	for i, tokens := range texts {
		state.Truncate(0)
		p := pooler{kind: m.Pooling, tokens: len(tokens)}
		err := e.model.Observe(ctx, state, tokens, p.observer(e.model.Config()))
		if errors.Is(err, lm.ErrToken) {
			return nil, fieldProblem(in.Input.pointer(i), "a token is outside the vocabulary of the model %s: %v", e.bundle.ID, err)
		}
		if err != nil {
			return nil, fmt.Errorf("text: text %d: %w", i, err)
		}
		vector, ok := p.vector(m.Dimensions)
		if !ok {
			return nil, unusable(e.bundle, errors.New("its weights produce no numbers to make a vector of"))
		}
		m.Embeddings = append(m.Embeddings, base64.StdEncoding.EncodeToString(vector))
		out.Progress(i+1, len(texts))
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	return &queue.Result{Usage: &queue.Usage{InputTokens: total, ComputeSeconds: rounded(time.Since(begun).Seconds())}, Meta: body}, nil
}

// fieldProblem is the problem of one member of an input.
func fieldProblem(pointer, format string, args ...any) *queue.Problem {
	detail := fmt.Sprintf(format, args...)
	return &queue.Problem{
		Code: "invalid_request", Detail: fmt.Sprintf("The input is not valid: %s: %s.", pointer, detail),
		Errors: []queue.FieldError{{Pointer: pointer, Detail: detail}},
	}
}

// embedTokens returns the tokens of the texts, and their number in all.
func (e *engine) embedTokens(in *embedTexts) (texts [][]int, total int, err error) {
	texts = in.tokens
	for i, s := range in.texts {
		tokens, err := e.tokenizer.Encode(s, tokenizer.EncodeOptions{AddSpecial: true})
		if err != nil {
			return nil, 0, fieldProblem(in.pointer(i), "the model %s cannot read the text: %v", e.bundle.ID, err)
		}
		texts = append(texts, tokens)
	}
	window := e.model.Config().Context
	for i, tokens := range texts {
		if len(tokens) == 0 || len(tokens) > window {
			problem := fieldProblem(in.pointer(i), "the text has %d tokens; the model %s takes 1 to %d", len(tokens), e.bundle.ID, window)
			problem.Code = "prompt_too_long"
			return nil, 0, problem
		}
		total += len(tokens)
	}
	if total > maxEmbedTokens {
		return nil, 0, fieldProblem("/input", "the texts have %d tokens in all; at most %d at once", total, maxEmbedTokens)
	}
	return texts, total, nil
}

// defaultPooling returns the pooling that a bundle states in the layout of
// sentence-transformers, else the mean.
func defaultPooling(files fs.FS) string {
	raw, err := fs.ReadFile(files, "1_Pooling/config.json")
	if err != nil {
		return poolMean
	}
	var c struct {
		First bool `json:"pooling_mode_cls_token"`
		Last  bool `json:"pooling_mode_lasttoken"`
	}
	switch err := json.Unmarshal(raw, &c); {
	case err == nil && c.Last:
		return poolLast
	case err == nil && c.First:
		return poolFirst
	}
	return poolMean
}

// pooler makes one vector of those of a text's tokens.
type pooler struct {
	kind   string
	tokens int
	sum    []float64
}

// observer takes in the last states of a model.
func (p *pooler) observer(c family.Config) lm.Observer {
	return lm.Observer{Hidden: func(layer, position int, states []float32) {
		if layer == c.Layers {
			p.add(position, states, c.Hidden)
		}
	}}
}

// add takes the states [T, width] from a position on.
func (p *pooler) add(position int, states []float32, width int) {
	if p.sum == nil {
		p.sum = make([]float64, width)
	}
	for ; len(states) >= width; states = states[width:] {
		if p.kind == poolMean || p.kind == poolFirst && position == 0 || p.kind == poolLast && position == p.tokens-1 {
			for i, x := range states[:width] {
				p.sum[i] += float64(x)
			}
		}
		position++
	}
}

// vector returns the first dimensions of the vector as float32, little-endian, scaled to
// the length 1. It reports false if they are no numbers.
func (p *pooler) vector(dimensions int) ([]byte, bool) {
	square := 0.0
	for _, x := range p.sum[:dimensions] {
		square += float64(x * x)
	}
	if math.IsNaN(square) || math.IsInf(square, 0) {
		return nil, false
	}
	norm := max(math.Sqrt(square), math.SmallestNonzeroFloat32)
	var out []byte
	for _, x := range p.sum[:dimensions] {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(x/norm)))
	}
	return out, true
}
