package text

import (
	"errors"
	"fmt"
	"io/fs"

	"helicon/generators"
	"helicon/models/hub"
	"helicon/models/lm"
	"helicon/queue"
)

// together is how many texts a model should be able to write at once.
const together = 16

// Together implements generators.Together.
func (g *Generator) Together() int { return together }

// need estimates the memory of a request. The keys and values of its texts are part of
// what the model takes, whose batcher gives it to texts in their turn; what it has of its
// own are the text and a sampler for each of its choices.
func (g *Generator) need(r *request) (generators.Need, error) {
	f, err := footprint(r.bundle)
	if err != nil {
		return generators.Need{}, err
	}
	tokens := r.input.maxPromptTokens() + r.params.MaxTokens
	if r.bundle.Context > 0 {
		tokens = min(tokens, r.bundle.Context)
	}
	const tokenBytes, samplerLogits = 16, 6 // an id in two lists; a sampler takes so many times its logits
	return generators.Need{
		Memory: int64(r.params.N) * (int64(tokens)*tokenBytes + f.Logits*samplerLogits),
		Model:  generators.Footprint{Key: r.bundle.ID, Bytes: modelBytes(f, r.bundle.Context, g.memory.Total())},
	}, nil
}

// footprint estimates the memory of a bundle. What is wrong with it is a *queue.Problem.
func footprint(b *hub.Bundle) (lm.Footprint, error) {
	f, err := lm.Estimate(b.Files, 1)
	if errors.Is(err, lm.ErrConfig) || errors.Is(err, lm.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
		return f, unusable(b, err)
	}
	if err != nil {
		return f, fmt.Errorf("text: %w", err)
	}
	return f, nil
}

// modelBytes is what a loaded model may take of the worker's memory: its weights, what a
// step of the batcher needs, and pages for keys and values. Of those it may have as many
// as 16 texts of its whole context need, but no more than fit into half of the memory
// that is left, unless that is less than for one text. They are allocated as they are
// needed.
func modelBytes(f lm.Footprint, context int, total int64) int64 {
	fixed := f.Weights + f.Batcher
	one := int64(max(1, (context+lm.PageTokens-1)/lm.PageTokens))
	left := max(0, total-fixed-total/reservedShare) / f.Page
	pages := min(together*one, max(left/2, min(one, left)))
	return fixed + max(1, pages)*f.Page
}

// reservedShare of the memory is kept for what jobs have of their own.
const reservedShare = 16

// checkRoom refuses a text that the memory for keys and values would never hold.
func (e *engine) checkRoom(tokens int) error {
	if room := e.batcher.Room(); tokens > room {
		return queue.Problemf("model_too_large", "The text may have %d tokens, its prompt included; this worker has memory for %d of the model %s. Ask for fewer tokens.", tokens, room, e.bundle.ID)
	}
	return nil
}
