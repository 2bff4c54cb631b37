package text

import (
	"helicon/generators"
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
	p, err := g.profile(r.bundle)
	if err != nil {
		return generators.Need{}, unusable(r.bundle, err)
	}
	f := p.footprint
	tokens := min(r.input.maxPromptTokens()+r.params.MaxTokens, f.Context)
	const tokenBytes, samplerLogits = 16, 6 // an id in two lists; a sampler takes so many times its logits
	own := int64(r.params.N) * (int64(tokens)*tokenBytes + f.Logits*samplerLogits)
	if beams := r.params.Beams; beams != nil { // which have states of their own
		state, err := lm.Estimate(r.bundle.Files, max(1, tokens))
		if err != nil {
			return generators.Need{}, unusable(r.bundle, err)
		}
		own += int64(beams.NumBeams) * state.State
	}
	return generators.Need{
		Memory: own,
		Model: generators.Footprint{
			Key: r.bundle.ID, Bytes: f.Weights + f.Batcher + pageBytes(f, g.memory.Total()),
		},
	}, nil
}

// pageBytes is what the keys and values of a loaded model may take of the worker's
// memory: as much as 16 texts of its whole context need, but no more than half of what
// is left, unless that is less than for one text. It is allocated as it is needed.
func pageBytes(f lm.Footprint, total int64) int64 {
	one := int64(f.Context+lm.PageTokens-1) / lm.PageTokens
	left := max(0, total-f.Weights-f.Batcher-total/reservedShare) / f.Page
	return max(1, min(together*one, max(left/2, min(one, left)))) * f.Page
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
