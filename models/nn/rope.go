package nn

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// RopeScaling is the rope_scaling object of a Hugging Face configuration, or the
// rope_parameters of newer ones, which carry the base and the rotated share too.
type RopeScaling struct {
	Theta           float64   `json:"rope_theta"`
	Rotated         float64   `json:"partial_rotary_factor"`
	Type            string    `json:"rope_type"` // "default", "linear", "dynamic", "llama3", "yarn" or "longrope"; "factors" in GGUF files
	Factor          float64   `json:"factor"`
	OriginalContext int       `json:"original_max_position_embeddings"`
	LowFreqFactor   float64   `json:"low_freq_factor"`  // llama3
	HighFreqFactor  float64   `json:"high_freq_factor"` // llama3
	AttentionFactor float64   `json:"attention_factor"` // yarn, longrope
	BetaFast        float64   `json:"beta_fast"`        // yarn
	BetaSlow        float64   `json:"beta_slow"`        // yarn
	ShortFactor     []float64 `json:"short_factor"`     // longrope, factors
	LongFactor      []float64 `json:"long_factor"`      // longrope
}

// UnmarshalJSON also takes the type under its older name, "type".
func (s *RopeScaling) UnmarshalJSON(data []byte) error {
	type plain RopeScaling
	v := struct {
		*plain
		OldType string `json:"type"`
	}{plain: (*plain)(s)}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if s.Type == "" {
		s.Type = v.OldType
	}
	return nil
}

// RopeConfig says at which speeds rotary positions turn (Su et al. 2021).
type RopeConfig struct {
	Dim     int     // rotated components of a head, even
	Theta   float64 // base of the geometric series of wavelengths
	Context int     // max_position_embeddings
	Scaling *RopeScaling
}

// Rope computes the rotations of positions. The zero value rotates nothing.
type Rope struct {
	config    RopeConfig
	frequency []float32 // [Dim/2], radians a position
	long      []float32 // those of sequences beyond the original context; nil if the same
	factor    float32   // of cosine and sine
}

// NewRope checks the configuration and computes the frequencies as transformers
// 4.47 does. The error says which value is unusable.
func NewRope(c RopeConfig) (Rope, error) {
	if err := c.validate(); err != nil {
		return Rope{}, err
	}
	r := Rope{config: c, factor: 1, frequency: make([]float32, c.Dim/2)}
	switch s := c.Scaling; c.kind() {
	case "default", "dynamic":
		r.series(c.Theta)
	case "linear":
		r.series(c.Theta)
		for i := range r.frequency {
			r.frequency[i] /= float32(s.Factor)
		}
	case "llama3":
		r.series(c.Theta)
		for i, f := range r.frequency {
			r.frequency[i] = float32(s.llama3(float64(f)))
		}
	case "yarn":
		r.yarn()
	case "longrope":
		r.longrope()
	case "factors":
		r.series(c.Theta)
		for i := range r.frequency {
			r.frequency[i] /= float32(s.ShortFactor[i])
		}
	}
	return r, nil
}

// Slowing returns by what factor each component turns more slowly than it would without
// scaling, [Half]: what GGUF files state in the place of Llama 3's scaling, and "factors"
// reads as ShortFactor.
func (r Rope) Slowing() []float32 {
	plain := Rope{config: r.config, frequency: make([]float32, len(r.frequency))}
	plain.series(r.config.Theta)
	factors := make([]float32, len(r.frequency))
	for i, f := range r.frequency {
		factors[i] = plain.frequency[i] / f
	}
	return factors
}

func (c RopeConfig) kind() string {
	if c.Scaling == nil || c.Scaling.Type == "" {
		return "default"
	}
	return c.Scaling.Type
}

func (c RopeConfig) validate() error {
	switch {
	case c.Dim < 2 || c.Dim%2 != 0:
		return fmt.Errorf("rope: %d rotated components, want an even number", c.Dim)
	case !(c.Theta > 1) || math.IsInf(c.Theta, 0):
		return fmt.Errorf("rope: rope_theta %v, want more than 1", c.Theta)
	case c.Context < 1:
		return fmt.Errorf("rope: max_position_embeddings %d", c.Context)
	}
	s := c.Scaling
	kind := c.kind()
	switch kind {
	case "default":
		return nil
	case "longrope":
		return c.validateLongrope()
	case "factors":
		return validateFactors(kind, c.Dim/2, s.ShortFactor)
	case "linear", "dynamic", "llama3", "yarn":
	default:
		return fmt.Errorf("rope: rope_type %q is not supported (default, linear, dynamic, llama3, yarn, longrope)", kind)
	}
	if !(s.Factor >= 1) || math.IsInf(s.Factor, 0) {
		return fmt.Errorf("rope: factor %v of rope_type %q, want at least 1", s.Factor, kind)
	}
	if kind == "dynamic" && c.Dim < 4 {
		return fmt.Errorf("rope: rope_type dynamic over %d components", c.Dim)
	}
	if kind == "llama3" && !(s.LowFreqFactor > 0 && s.HighFreqFactor > s.LowFreqFactor && s.OriginalContext > 0) {
		return fmt.Errorf("rope: rope_type llama3 needs 0 < low_freq_factor < high_freq_factor and original_max_position_embeddings, not %v, %v, %d",
			s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext)
	}
	if kind == "yarn" && (s.AttentionFactor < 0 || s.BetaFast < 0 || s.BetaSlow < 0) {
		return fmt.Errorf("rope: rope_type yarn with negative attention_factor, beta_fast or beta_slow")
	}
	return nil
}

func (c RopeConfig) validateLongrope() error {
	s := c.Scaling
	if len(s.ShortFactor) != c.Dim/2 || len(s.LongFactor) != c.Dim/2 {
		return fmt.Errorf("rope: rope_type longrope with %d in short_factor and %d in long_factor, want %d", len(s.ShortFactor), len(s.LongFactor), c.Dim/2)
	}
	if err := validateFactors("longrope", c.Dim, slices.Concat(s.ShortFactor, s.LongFactor)); err != nil {
		return err
	}
	if c.originalContext() < 2 || s.AttentionFactor < 0 || s.Factor < 0 {
		return fmt.Errorf("rope: rope_type longrope with original_max_position_embeddings %d, attention_factor %v, factor %v",
			s.OriginalContext, s.AttentionFactor, s.Factor)
	}
	return nil
}

// validateFactors checks the factors of n components.
func validateFactors(kind string, n int, factors []float64) error {
	if len(factors) != n {
		return fmt.Errorf("rope: rope_type %s with %d factors, want %d", kind, len(factors), n)
	}
	for _, f := range factors {
		if !(f > 0) || math.IsInf(f, 0) {
			return fmt.Errorf("rope: rope_type %s with the factor %v, want more than 0", kind, f)
		}
	}
	return nil
}

// originalContext is what longrope stretches.
func (c RopeConfig) originalContext() int {
	if c.Scaling.OriginalContext == 0 {
		return c.Context
	}
	return c.Scaling.OriginalContext
}

// series sets frequency i to base^(-2i/Dim).
func (r *Rope) series(base float64) {
	for i := range r.frequency {
		r.frequency[i] = float32(1 / math.Pow(base, float64(2*i)/float64(r.config.Dim)))
	}
}

// llama3 slows the waves that are long against the original context by the factor,
// leaves the short ones, and blends between.
func (s *RopeScaling) llama3(frequency float64) float64 {
	wavelength := 2 * math.Pi / frequency
	turns := float64(s.OriginalContext) / wavelength
	switch {
	case turns < s.LowFreqFactor:
		return frequency / s.Factor
	case turns > s.HighFreqFactor:
		return frequency
	}
	blend := (turns - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
	return (1-blend)*frequency/s.Factor + blend*frequency
}

// yarn is Peng et al. 2023: interpolate slow components, keep fast ones, and scale
// the attention. Corrections are counted over max_position_embeddings, as the
// reference does, whatever original_max_position_embeddings says.
func (r *Rope) yarn() {
	c, s := r.config, r.config.Scaling
	fast, slow := s.BetaFast, s.BetaSlow
	if fast == 0 {
		fast = 32
	}
	if slow == 0 {
		slow = 1
	}
	r.factor = float32(s.AttentionFactor)
	if s.AttentionFactor == 0 {
		r.factor = float32(0.1*math.Log(s.Factor) + 1)
	}
	// component is the index whose wave turns so many times within the context.
	component := func(turns float64) float64 {
		return float64(c.Dim) * math.Log(float64(c.Context)/(turns*2*math.Pi)) / (2 * math.Log(c.Theta))
	}
	low := max(math.Floor(component(fast)), 0)
	high := min(math.Ceil(component(slow)), float64(c.Dim-1))
	if low == high {
		high += 0.001
	}
	r.series(c.Theta)
	for i, f := range r.frequency {
		ramp := min(max((float64(i)-low)/(high-low), 0), 1)
		r.frequency[i] = float32(float64(f)/s.Factor*ramp + float64(f)*(1-ramp))
	}
}

// longrope is Ding et al. 2024: each component is slowed by a factor of its own, which
// is another one in sequences beyond the original context.
func (r *Rope) longrope() {
	c, s := r.config, r.config.Scaling
	r.series(c.Theta)
	r.long = make([]float32, len(r.frequency))
	for i, f := range r.frequency {
		r.frequency[i] = float32(float64(f) / s.ShortFactor[i])
		r.long[i] = float32(float64(f) / s.LongFactor[i])
	}
	original, stretch := float64(c.originalContext()), s.Factor
	if s.OriginalContext != 0 {
		stretch = float64(c.Context) / original
	}
	switch {
	case s.AttentionFactor != 0:
		r.factor = float32(s.AttentionFactor)
	case stretch > 1:
		r.factor = float32(math.Sqrt(1 + math.Log(stretch)/math.Log(original)))
	}
}

// Switches reports whether longer sequences than some have other angles at the same
// positions, as longrope has: keys that were made in a shorter one are of no use then.
func (r Rope) Switches() bool { return r.long != nil }

// Long reports whether a sequence of that length has the angles of the longer ones.
func (r Rope) Long(length int) bool { return r.long != nil && length > r.config.originalContext() }

// Factor returns the factor of all cosines and sines.
func (r Rope) Factor() float32 { return r.factor }

// Half returns the number of rotated pairs.
func (r Rope) Half() int { return len(r.frequency) }

// Angles writes the cosines and sines, [len, Half], of the positions from start on.
// length is the length of the sequence up to and with the call's last token: dynamic
// scaling takes its base from it, so keys keep the angles of the call that made them,
// and longrope its factors (see Switches).
func (r Rope) Angles(cos, sin []float32, start, length int) {
	frequency := r.frequency
	if r.Long(length) {
		frequency = r.long
	}
	stretched := r.config.kind() == "dynamic" && length > r.config.Context
	n := len(frequency)
	var base float64
	if stretched {
		base = r.dynamicBase(length)
	}
	for i := range frequency {
		f := frequency[i]
		if stretched {
			f = float32(1 / math.Pow(base, float64(2*i)/float64(r.config.Dim)))
		}
		for t := 0; t*n < len(cos); t++ {
			s, c := math.Sincos(float64(float32(start+t) * f))
			cos[t*n+i], sin[t*n+i] = float32(c)*r.factor, float32(s)*r.factor
		}
	}
}

// dynamicBase is the base of dynamic NTK scaling for a sequence that is longer than
// the context.
func (r Rope) dynamicBase(length int) float64 {
	c := r.config
	factor, dim := c.Scaling.Factor, float64(c.Dim)
	stretch := factor*float64(length)/float64(c.Context) - (factor - 1)
	return c.Theta * math.Pow(stretch, dim/(dim-2))
}
