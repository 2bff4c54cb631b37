package scheduler

import (
	"encoding/json"
	"fmt"
	"math"
)

// Config is a scheduler_config.json. Parse fills what the file leaves out with the
// defaults of its class.
type Config struct {
	Class      string     `json:"_class_name"`
	Prediction Prediction `json:"prediction_type"`

	// Training.
	TrainSteps   int       `json:"num_train_timesteps"`
	BetaStart    float64   `json:"beta_start"`
	BetaEnd      float64   `json:"beta_end"`
	BetaSchedule string    `json:"beta_schedule"`
	TrainedBetas []float64 `json:"trained_betas"`
	ZeroSNR      bool      `json:"rescale_betas_zero_snr"`

	// Timesteps and noise levels of a run.
	Spacing          string   `json:"timestep_spacing"`
	StepsOffset      int      `json:"steps_offset"`
	SetAlphaToOne    bool     `json:"set_alpha_to_one"`
	Karras           bool     `json:"use_karras_sigmas"`
	Exponential      bool     `json:"use_exponential_sigmas"`
	Beta             bool     `json:"use_beta_sigmas"`
	LuLambdas        bool     `json:"use_lu_lambdas"`
	SigmaMin         *float64 `json:"sigma_min"`
	SigmaMax         *float64 `json:"sigma_max"`
	FinalSigmas      string   `json:"final_sigmas_type"`
	TimestepType     string   `json:"timestep_type"`
	Interpolation    string   `json:"interpolation_type"`
	LambdaMinClipped *float64 `json:"lambda_min_clipped"`

	// Range of the predicted picture.
	ClipSample     bool    `json:"clip_sample"`
	ClipRange      float64 `json:"clip_sample_range"`
	Thresholding   bool    `json:"thresholding"`
	ThresholdRatio float64 `json:"dynamic_thresholding_ratio"`
	SampleMax      float64 `json:"sample_max_value"`

	// Samplers.
	SolverOrder      int     `json:"solver_order"`
	SolverType       string  `json:"solver_type"`
	Algorithm        string  `json:"algorithm_type"`
	LowerOrderFinal  bool    `json:"lower_order_final"`
	EulerAtFinal     bool    `json:"euler_at_final"`
	PredictX0        bool    `json:"predict_x0"`
	DisableCorrector []int   `json:"disable_corrector"`
	Variance         string  `json:"variance_type"`
	SkipPRK          bool    `json:"skip_prk_steps"`
	OriginalSteps    int     `json:"original_inference_steps"`
	TimestepScaling  float64 `json:"timestep_scaling"`

	// Flow matching.
	Shift         float64  `json:"shift"`
	FlowShift     float64  `json:"flow_shift"`
	FlowSigmas    bool     `json:"use_flow_sigmas"`
	DynamicShift  bool     `json:"use_dynamic_shifting"`
	BaseShift     float64  `json:"base_shift"`
	MaxShift      float64  `json:"max_shift"`
	BaseTokens    int      `json:"base_image_seq_len"`
	MaxTokens     int      `json:"max_image_seq_len"`
	ShiftTerminal *float64 `json:"shift_terminal"`
	ShiftType     string   `json:"time_shift_type"`
	InvertSigmas  bool     `json:"invert_sigmas"`
	Stochastic    bool     `json:"stochastic_sampling"`

	raw []byte // the file, for With
}

// Parse reads a scheduler_config.json. Errors wrap ErrConfig.
func Parse(data []byte) (Config, error) {
	data = finite(data)
	var head struct {
		Class string `json:"_class_name"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Config{}, fmt.Errorf("scheduler: configuration: %w: %w", err, ErrConfig)
	}
	return decode(head.Class, data)
}

// decode reads the file over the defaults of a class.
func decode(name string, data []byte) (Config, error) {
	k, err := classOf(name)
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Prediction: Epsilon, TrainSteps: 1000,
		BetaStart: 0.0001, BetaEnd: 0.02, BetaSchedule: "linear",
		Spacing: "leading", FinalSigmas: "zero", TimestepType: "discrete", Interpolation: "linear",
		ClipRange: 1, ThresholdRatio: 0.995, SampleMax: 1,
		SolverOrder: 2, SolverType: "midpoint", Algorithm: "dpmsolver++", PredictX0: true,
		Variance: "fixed_small", OriginalSteps: 50, TimestepScaling: 10,
		Shift: 1, FlowShift: 1, BaseShift: 0.5, MaxShift: 1.15, BaseTokens: 256, MaxTokens: 4096, ShiftType: "exponential",
	}
	if k.defaults != nil {
		k.defaults(&c)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("scheduler: configuration: %w: %w", err, ErrConfig)
	}
	c.Class, c.raw = name, data
	if k.flow {
		c.Prediction = Flow
	}
	return c, c.validate()
}

// validate checks what all classes have in common, and that no field of a class is
// heeded in part.
func (c Config) validate() error {
	bad := func(field string, value any) error {
		return fmt.Errorf("scheduler: %s %v: %w", field, value, ErrConfig)
	}
	sound := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	switch {
	case c.TrainSteps < 2 || c.TrainSteps > 100_000:
		return bad("num_train_timesteps", c.TrainSteps)
	case c.Prediction != Epsilon && c.Prediction != Velocity && c.Prediction != Sample && c.Prediction != Flow:
		return bad("prediction_type", c.Prediction)
	case c.Prediction == Flow && !c.FlowSigmas && !c.isFlow():
		return bad("prediction_type flow_prediction without use_flow_sigmas, class", c.Class)
	case c.FlowSigmas && c.Prediction != Flow && c.Prediction != Sample:
		return bad("use_flow_sigmas with prediction_type", c.Prediction)
	case c.StepsOffset < 0 || c.StepsOffset >= c.TrainSteps:
		return bad("steps_offset", c.StepsOffset)
	case c.Spacing != "leading" && c.Spacing != "trailing" && c.Spacing != "linspace":
		return bad("timestep_spacing", c.Spacing)
	case c.FinalSigmas != "zero" && c.FinalSigmas != "sigma_min":
		return bad("final_sigmas_type", c.FinalSigmas)
	case c.TimestepType != "discrete" && c.TimestepType != "continuous":
		return bad("timestep_type", c.TimestepType)
	case c.Interpolation != "linear" && c.Interpolation != "log_linear":
		return bad("interpolation_type", c.Interpolation)
	case c.LuLambdas:
		return bad("use_lu_lambdas", true)
	case c.SigmaMin != nil && !(*c.SigmaMin > 0 && sound(*c.SigmaMin)):
		return bad("sigma_min", *c.SigmaMin)
	case c.SigmaMax != nil && !(*c.SigmaMax > 0 && sound(*c.SigmaMax)):
		return bad("sigma_max", *c.SigmaMax)
	case !(c.ClipRange > 0) || !sound(c.ClipRange):
		return bad("clip_sample_range", c.ClipRange)
	case c.Thresholding && !(c.ThresholdRatio > 0 && c.ThresholdRatio <= 1):
		return bad("dynamic_thresholding_ratio", c.ThresholdRatio)
	case !(c.Shift > 0) || !sound(c.Shift):
		return bad("shift", c.Shift)
	case !(c.FlowShift > 0) || !sound(c.FlowShift):
		return bad("flow_shift", c.FlowShift)
	case c.DynamicShift && c.MaxTokens <= c.BaseTokens:
		return bad("max_image_seq_len", c.MaxTokens)
	case c.ShiftTerminal != nil && !(*c.ShiftTerminal >= 0 && *c.ShiftTerminal < 1):
		return bad("shift_terminal", *c.ShiftTerminal)
	case c.InvertSigmas:
		return bad("invert_sigmas", true)
	case c.Stochastic:
		return bad("stochastic_sampling", true)
	case c.ShiftType != "exponential" && c.ShiftType != "linear":
		return bad("time_shift_type", c.ShiftType)
	}
	return nil
}

// isFlow reports whether the levels of the class are those of flow matching.
func (c Config) isFlow() bool {
	k, err := classOf(c.Class)
	return err == nil && (k.flow || c.FlowSigmas)
}

// Mu returns the logarithm of the shift that use_dynamic_shifting asks for when a picture
// has so many tokens: it grows linearly with them (Esser et al. 2024, Flux).
func (c Config) Mu(tokens int) float64 {
	slope := (c.MaxShift - c.BaseShift) / float64(c.MaxTokens-c.BaseTokens)
	return c.BaseShift + slope*float64(tokens-c.BaseTokens)
}

// finite replaces what Python writes for numbers that JSON has not, outside of strings,
// by null: the only such default is lambda_min_clipped, minus infinity, which clips
// nothing.
func finite(data []byte) []byte {
	out, quoted := make([]byte, 0, len(data)), false
	for i := 0; i < len(data); {
		n := 1
		switch {
		case quoted && data[i] == '\\':
			n = min(2, len(data)-i)
		case data[i] == '"':
			quoted = !quoted
		case !quoted:
			if k := constant(data[i:]); k > 0 {
				out = append(out, "null"...)
				i += k
				continue
			}
		}
		out = append(out, data[i:i+n]...)
		i += n
	}
	return out
}

// constant returns the length of the constant that data begin with, 0 if there is none.
func constant(data []byte) int {
	for _, word := range []string{"-Infinity", "Infinity", "NaN"} {
		if len(data) >= len(word) && string(data[:len(word)]) == word {
			return len(word)
		}
	}
	return 0
}
