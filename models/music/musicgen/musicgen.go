// Package musicgen is MusicGen (Copet et al. 2023): a transformer that writes the codes of
// EnCodec, several for each frame, those of a codebook one place behind those of the one before
// it, conditioned on what T5 makes of a text. It has the tensor names of Hugging Face's
// MusicgenForConditionalGeneration. Axes: N tokens of text, C channels.
package musicgen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"helicon/models/music/encodec"
	"helicon/models/nn"
	"helicon/models/t5"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Model is the whole of it. Any number of goroutines may use it.
type Model struct {
	text    *t5.Encoder
	project *nn.Linear // from the text's width to the decoder's, or nil if they are one
	lm      *LM
	codec   *encodec.Model
}

// Load reads a model by its config.json. The errors are those of weights.Store, and wrap
// ErrUnsupported.
func Load(s *weights.Store, config []byte) (*Model, error) {
	var parts struct {
		Text    json.RawMessage `json:"text_encoder"`
		Codec   json.RawMessage `json:"audio_encoder"`
		Decoder json.RawMessage `json:"decoder"`
	}
	if err := json.Unmarshal(config, &parts); err != nil || parts.Text == nil || parts.Codec == nil || parts.Decoder == nil {
		return nil, errors.Join(fmt.Errorf("musicgen: config: want a text_encoder, an audio_encoder and a decoder: %w", ErrUnsupported), err)
	}
	textConfig, err := t5.ParseConfig(parts.Text)
	if err != nil {
		return nil, fmt.Errorf("musicgen: text_encoder: %w: %w", err, ErrUnsupported)
	}
	codecConfig, err := encodec.ParseConfig(parts.Codec)
	if err != nil {
		return nil, fmt.Errorf("musicgen: audio_encoder: %w: %w", err, ErrUnsupported)
	}
	c, err := ParseConfig(parts.Decoder)
	if err != nil {
		return nil, err
	}
	if codecConfig.Codes != c.Codes || codecConfig.Books() < c.Books || codecConfig.AudioChannels != 1 {
		return nil, fmt.Errorf("musicgen: config: %d codebooks of %d for a codec of %d of %d: %w", c.Books, c.Codes, codecConfig.Books(), codecConfig.Codes, ErrUnsupported)
	}
	m := new(Model)
	if m.text, err = t5.Load(s.Sub("text_encoder"), textConfig); err != nil {
		return nil, err
	}
	if textConfig.Width != c.Width {
		l, err := nn.LoadLinear(s.Sub("enc_to_dec_proj"), c.Width, textConfig.Width, true)
		if err != nil {
			return nil, err
		}
		m.project = &l
	}
	if m.codec, err = encodec.Load(s.Sub("audio_encoder"), codecConfig); err != nil {
		return nil, err
	}
	m.lm, err = LoadLM(s.Sub("decoder"), c)
	return m, err
}

// Rate returns the samples a second of the sound.
func (m *Model) Rate() int { return m.codec.Config().Rate }

// Hop returns the samples of a frame.
func (m *Model) Hop() int { return m.codec.Config().Hop() }

// MaxFrames returns how many frames can be written at once.
func (m *Model) MaxFrames() int { return m.lm.config.Positions - m.lm.config.Books }

// Request is a piece to be written.
type Request struct {
	IDs      []int   // of the text, without padding
	Frames   int     // of Hop samples
	Guidance float32 // how far logits go beyond those without a text; 1 is not at all

	// Pick chooses a code by its logits [Codes], which it may change.
	Pick func(logits []float32) int
	// Observe, if not nil, is told how many places of how many are written.
	Observe func(done, total int)
}

// Generate returns samples at Rate, and the codes [frames][Books] that they were decoded from.
// The error wraps ErrInput if the request cannot be served, and is the cause of ctx's end if
// that comes first.
func (m *Model) Generate(ctx context.Context, e *tensor.Exec, r Request) ([]float32, [][]int, error) {
	c := m.lm.config
	if len(r.IDs) == 0 || r.Frames < 1 || r.Frames > m.MaxFrames() || !(r.Guidance >= 0 && r.Guidance <= 100) || r.Pick == nil {
		return nil, nil, fmt.Errorf("musicgen: %d frames, at most %d, of a text of %d tokens with guidance %v: %w", r.Frames, m.MaxFrames(), len(r.IDs), r.Guidance, ErrInput)
	}
	defer e.Until(ctx)()
	states, err := m.condition(e, r.IDs)
	if err != nil {
		return nil, nil, err
	}
	conditions := [][]float32{states}
	if r.Guidance != 1 {
		conditions = append(conditions, nil)
	}
	codes, err := m.write(ctx, e, m.lm.NewTune(e, conditions...), r)
	if err != nil {
		return nil, nil, err
	}
	// The beginning of each codebook's codes is one place later than that of the one before it.
	frames := make([][]int, r.Frames)
	for i := range frames {
		for b := range c.Books {
			frames[i] = append(frames[i], codes[i+b][b])
		}
	}
	samples, err := m.codec.Decode(e, frames, 1)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return samples, frames, err
}

// condition returns what the decoder reads of a text, [N, C].
func (m *Model) condition(e *tensor.Exec, ids []int) ([]float32, error) {
	states, err := m.text.Forward(e, m.text.NewState(1, len(ids)), t5.Input{IDs: ids})
	if err != nil {
		return nil, fmt.Errorf("musicgen: %w: %w", err, ErrInput)
	}
	if m.project == nil {
		return states, nil
	}
	wide := make([]float32, len(ids)*m.lm.config.Width)
	m.project.Forward(e, wide, states)
	return wide, nil
}

// write returns the codes of all places, [Frames+Books-1][Books]: a codebook that has not begun
// or is done has the id that pads.
func (m *Model) write(ctx context.Context, e *tensor.Exec, t *Tune, r Request) ([][]int, error) {
	c := m.lm.config
	last := make([]int, c.Books)
	for b := range last {
		last[b] = c.Pad()
	}
	total := r.Frames + c.Books - 1
	var all [][]int
	read := make([][]int, len(t.rows))
	for place := range total {
		for i := range read {
			read[i] = last
		}
		logits, err := t.Next(e, read)
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		next := make([]int, c.Books)
		for b := range next {
			if place < b || place-b >= r.Frames {
				next[b] = c.Pad()
				continue
			}
			with := logits[b*c.Codes:][:c.Codes]
			if len(t.rows) > 1 {
				without := logits[(c.Books+b)*c.Codes:][:c.Codes]
				for i, v := range without {
					with[i] = v + r.Guidance*(with[i]-v)
				}
			}
			next[b] = r.Pick(with)
			if next[b] < 0 || next[b] >= c.Codes {
				return nil, fmt.Errorf("musicgen: code %d was picked of %d: %w", next[b], c.Codes, ErrInput)
			}
		}
		all, last = append(all, next), next
		if r.Observe != nil {
			r.Observe(place+1, total)
		}
	}
	return all, nil
}
