package whisper

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrUnsupported is wrapped by errors about configurations that mean nothing or another
// network.
var ErrUnsupported = errors.New("unsupported recogniser")

// Config is a config.json of WhisperForConditionalGeneration.
type Config struct {
	Vocab         int    `json:"vocab_size"`
	Mels          int    `json:"num_mel_bins"`
	Width         int    `json:"d_model"`
	EncoderLayers int    `json:"encoder_layers"`
	EncoderHeads  int    `json:"encoder_attention_heads"`
	EncoderFFN    int    `json:"encoder_ffn_dim"`
	DecoderLayers int    `json:"decoder_layers"`
	DecoderHeads  int    `json:"decoder_attention_heads"`
	DecoderFFN    int    `json:"decoder_ffn_dim"`
	Frames        int    `json:"max_source_positions"` // of the encoder: a window of sound is twice as many of the spectrogram
	Context       int    `json:"max_target_positions"` // tokens
	Act           string `json:"activation_function"`
	ScaleTokens   bool   `json:"scale_embedding"`
	Start         int    `json:"decoder_start_token_id"`
	End           int    `json:"eos_token_id"`
}

// ParseConfig reads a config.json.
func ParseConfig(data []byte) (Config, error) {
	c := Config{
		Vocab: 51865, Mels: 80, Width: 384, EncoderLayers: 4, EncoderHeads: 6, EncoderFFN: 1536, DecoderLayers: 4,
		DecoderHeads: 6, DecoderFFN: 1536, Frames: 1500, Context: 448, Act: "gelu", Start: 50257, End: 50256,
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("whisper: config: %w: %w", err, ErrUnsupported)
	}
	return c, c.validate()
}

func (c Config) validate() error {
	for _, v := range []struct {
		name        string
		value, most int
	}{
		{"vocab_size", c.Vocab, 1 << 18}, {"num_mel_bins", c.Mels, 512}, {"d_model", c.Width, 1 << 13},
		{"encoder_layers", c.EncoderLayers, 256}, {"encoder_attention_heads", c.EncoderHeads, c.Width}, {"encoder_ffn_dim", c.EncoderFFN, 1 << 15},
		{"decoder_layers", c.DecoderLayers, 256}, {"decoder_attention_heads", c.DecoderHeads, c.Width}, {"decoder_ffn_dim", c.DecoderFFN, 1 << 15},
		{"max_source_positions", c.Frames, 1 << 14}, {"max_target_positions", c.Context, 1 << 14},
	} {
		if v.value < 1 || v.value > v.most {
			return fmt.Errorf("whisper: config: %s is %d, want 1 to %d: %w", v.name, v.value, v.most, ErrUnsupported)
		}
	}
	switch {
	case c.Width%c.EncoderHeads != 0 || c.Width%c.DecoderHeads != 0:
		return fmt.Errorf("whisper: config: d_model %d with %d and %d heads: %w", c.Width, c.EncoderHeads, c.DecoderHeads, ErrUnsupported)
	case c.Act != "gelu":
		return fmt.Errorf("whisper: config: activation_function %q: %w", c.Act, ErrUnsupported)
	case c.Start < 0 || c.Start >= c.Vocab || c.End < 0 || c.End >= c.Vocab:
		return fmt.Errorf("whisper: config: decoder_start_token_id %d, eos_token_id %d of %d: %w", c.Start, c.End, c.Vocab, ErrUnsupported)
	}
	return nil
}

// The form in which all sizes of Whisper hear sound.
const (
	Rate  = 16000 // samples a second
	frame = 400   // samples of a frame of the spectrogram
	hop   = 160   // samples from frame to frame
)
