package scheduler

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// trained is the configuration that Stable Diffusion 1.5 is published with.
const trained = `{"_class_name":"PNDMScheduler","beta_end":0.012,"beta_schedule":"scaled_linear","beta_start":0.00085,` +
	`"num_train_timesteps":1000,"set_alpha_to_one":false,"skip_prk_steps":true,"steps_offset":1,"trained_betas":null,"clip_sample":false}`

const dynamicTrained = `{"_class_name":"FlowMatchEulerDiscreteScheduler","shift":3.0,"use_dynamic_shifting":true}`

const flowTrained = `{"_class_name":"FlowMatchEulerDiscreteScheduler","num_train_timesteps":1000,"shift":3.0}`

func parse(t testing.TB, text string) Config {
	t.Helper()
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestExact runs every scheduler with a model that knows the picture: all must end there,
// but for the noise of a level that is not zero, whatever the model predicts.
func TestExact(t *testing.T) {
	t.Parallel()
	for _, base := range []string{trained, flowTrained, dynamicTrained} {
		for _, kind := range []Prediction{Epsilon, Velocity, Sample} {
			text := strings.Replace(base, "{", fmt.Sprintf(`{"prediction_type":%q,`, kind), 1)
			for _, name := range parse(t, text).Names() {
				for _, strength := range []float64{0, 0.35} {
					c, err := parse(t, text).With(name)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					t.Run(fmt.Sprintf("%s/%s/%v/%v", name, c.Prediction, c.DynamicShift, strength), func(t *testing.T) {
						goesHome(t, c, strength)
					})
				}
			}
		}
	}
}

func goesHome(t *testing.T, c Config, strength float64) {
	t.Parallel()
	picture := []float32{-1, -0.5, 0, 0.25, 1}
	noise := []float32{0.3, -1.2, 0.7, 0.1, -0.4}
	o := Options{Steps: 20, Strength: strength, Mu: 1.1}
	if c.DynamicShift {
		for i := range o.Steps {
			o.Sigmas = append(o.Sigmas, linspace(1, 1/float64(o.Steps), o.Steps, i))
		}
	}
	o.Noise = func(draw int, dst []float32) {
		for i := range dst {
			dst[i] = float32(math.Sin(float64(7*draw + 3*i)))
		}
	}
	r, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, len(picture))
	r.AddNoise(x, picture, noise, 0)
	out, seen := make([]float32, len(x)), make([]float32, len(x))
	for _, call := range r.Calls() {
		norm := math.Hypot(call.alpha, call.sigma)
		for i, p := range picture {
			v, p := float64(x[i]), float64(p)
			n := (v - call.alpha*p) / call.sigma
			switch {
			case c.Prediction == Sample:
				out[i] = float32(p)
			case r.flow:
				out[i] = float32(n - p)
			case c.Prediction == Velocity:
				out[i] = float32((call.alpha*n - call.sigma*p) / norm)
			default:
				out[i] = float32(n)
			}
		}
		r.Predict(seen, x, out)
		for i := range seen {
			if math.Abs(float64(seen[i]-picture[i])) > 2e-3 {
				t.Fatalf("predicted %v, want %v", seen, picture)
			}
		}
		r.Step(x, out)
	}
	for i := range x {
		if math.Abs(float64(x[i]-picture[i])) > 0.06 { // the last level of some is that of timestep 0
			t.Fatalf("ends at %v, want %v", x, picture)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, base := range []string{trained, flowTrained} {
		c := parse(t, base)
		for _, name := range c.Names() {
			with, err := c.With(name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if with.TrainSteps != 1000 || with.BetaEnd != c.BetaEnd || with.StepsOffset != c.StepsOffset {
				t.Errorf("%s changes what the model was trained with", name)
			}
			if got := with.Name(); got != name {
				t.Errorf("%s is called %q", name, got)
			}
			if !slices.Contains(Names(), name) {
				t.Errorf("%s is not among the names", name)
			}
		}
		if _, err := c.With("magic"); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), `"magic"`) {
			t.Errorf("unknown name: %v", err)
		}
	}
	karras, err := parse(t, trained).With("dpmpp_2m_karras")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := karras.With("euler"); err != nil || plain.Karras {
		t.Errorf("euler after Karras: %+v, %v", plain, err)
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"not JSON":          `{`,
		"class":             `{"_class_name":"VQDiffusionScheduler"}`,
		"type":              `{"_class_name":"DDIMScheduler","beta_start":"x"}`,
		"timesteps":         `{"_class_name":"DDIMScheduler","num_train_timesteps":0}`,
		"many timesteps":    `{"_class_name":"DDIMScheduler","num_train_timesteps":1000000000}`,
		"prediction":        `{"_class_name":"DDIMScheduler","prediction_type":"x"}`,
		"spacing":           `{"_class_name":"DDIMScheduler","timestep_spacing":"x"}`,
		"offset":            `{"_class_name":"DDIMScheduler","steps_offset":-1}`,
		"shift":             `{"_class_name":"FlowMatchEulerDiscreteScheduler","shift":0}`,
		"tokens":            `{"_class_name":"FlowMatchEulerDiscreteScheduler","use_dynamic_shifting":true,"max_image_seq_len":1}`,
		"flow without flow": `{"_class_name":"UniPCMultistepScheduler","prediction_type":"flow_prediction"}`,
		"lambdas":           `{"_class_name":"DPMSolverMultistepScheduler","use_lu_lambdas":true}`,
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: error %v, want ErrConfig", name, err)
		}
	}
	for name, text := range map[string]string{
		"betas":       `{"_class_name":"DDIMScheduler","beta_schedule":"x"}`,
		"beta":        `{"_class_name":"DDIMScheduler","beta_end":2}`,
		"some betas":  `{"_class_name":"DDIMScheduler","trained_betas":[0.1]}`,
		"runge-kutta": `{"_class_name":"PNDMScheduler"}`,
		"algorithm":   `{"_class_name":"DPMSolverMultistepScheduler","algorithm_type":"dpmsolver"}`,
		"order":       `{"_class_name":"DPMSolverSinglestepScheduler","solver_order":0}`,
		"uni order":   `{"_class_name":"UniPCMultistepScheduler","solver_order":9}`,
		"variance":    `{"_class_name":"DDPMScheduler","variance_type":"learned"}`,
		"original":    `{"_class_name":"LCMScheduler","original_inference_steps":0}`,
		"zero SNR":    `{"_class_name":"DDIMScheduler","rescale_betas_zero_snr":true,"timestep_spacing":"trailing"}`,
	} {
		if _, err := New(parse(t, text), Options{Steps: 4}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: error %v, want ErrConfig", name, err)
		}
	}
}

// TestPNDMWithoutSignal refuses what would divide by zero.
func TestPNDMWithoutSignal(t *testing.T) {
	t.Parallel()
	const text = `{"_class_name":"PNDMScheduler","skip_prk_steps":true,"rescale_betas_zero_snr":true,"timestep_spacing":"trailing","prediction_type":"v_prediction"}`
	if _, err := New(parse(t, text), Options{Steps: 4}); !errors.Is(err, ErrOptions) {
		t.Errorf("error %v, want ErrOptions", err)
	}
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	noise := func(int, []float32) {}
	for name, tt := range map[string]struct {
		scheduler string
		o         Options
	}{
		"no steps":       {"ddim", Options{}},
		"many steps":     {"ddim", Options{Steps: 1001}},
		"strength":       {"ddim", Options{Steps: 4, Strength: 1.5}},
		"no strength":    {"ddim", Options{Steps: 4, Strength: math.NaN()}},
		"little":         {"ddim", Options{Steps: 4, Strength: 0.1}},
		"eta":            {"ddim", Options{Steps: 4, Eta: -1}},
		"no noise":       {"euler_a", Options{Steps: 4}},
		"noise with eta": {"ddim", Options{Steps: 4, Eta: 0.5}},
		"LCM":            {"lcm", Options{Steps: 51, Noise: noise}},
		"sigmas":         {"euler", Options{Sigmas: []float64{1, 0.5}}},
	} {
		c, err := parse(t, trained).With(tt.scheduler)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(c, tt.o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: error %v, want ErrOptions", name, err)
		}
	}
	for _, sigmas := range [][]float64{{0.5, 1}, {1, 0}, {2, 1}, {}} {
		if _, err := New(parse(t, flowTrained), Options{Sigmas: sigmas}); !errors.Is(err, ErrOptions) {
			t.Errorf("sigmas %v: error %v, want ErrOptions", sigmas, err)
		}
	}
}

func TestMu(t *testing.T) {
	t.Parallel()
	c := parse(t, `{"_class_name":"FlowMatchEulerDiscreteScheduler","use_dynamic_shifting":true}`)
	for tokens, want := range map[int]float64{256: 0.5, 4096: 1.15, 1024: 0.63} {
		if got := c.Mu(tokens); math.Abs(got-want) > 1e-9 {
			t.Errorf("mu of %d tokens is %v, want %v", tokens, got, want)
		}
	}
}

// TestBetaQuantile compares with values of the arcsine distribution, which has a closed
// form, and checks symmetry.
func TestBetaQuantile(t *testing.T) {
	t.Parallel()
	for _, q := range []float64{0, 0.01, 0.3, 0.5, 0.9, 1} {
		s := math.Sin(math.Pi * q / 2)
		if got := betaQuantile(q, 0.5, 0.5); math.Abs(got-s*s) > 1e-9 {
			t.Errorf("arcsine quantile of %v is %v, want %v", q, got, s*s)
		}
		if a, b := betaQuantile(q, 0.6, 0.6), betaQuantile(1-q, 0.6, 0.6); math.Abs(a+b-1) > 1e-9 {
			t.Errorf("quantiles of %v are %v and %v", q, a, b)
		}
	}
}

// TestThresholding checks that a percentile of the picture becomes its range.
func TestThresholding(t *testing.T) {
	t.Parallel()
	c := parse(t, trained)
	c.Thresholding, c.ThresholdRatio, c.SampleMax = true, 0.5, 3
	r := &Run{config: c}
	x := []float32{-4, -2, 0.5, 1, 2}
	r.bound(x)
	if want := []float32{-1, -1, 0.25, 0.5, 1}; !slices.Equal(x, want) {
		t.Errorf("%v, want %v", x, want)
	}
}

func TestStepAllocates(t *testing.T) {
	for _, name := range []string{"ddim", "euler_a", "dpmpp_2m", "heun", "unipc"} {
		c, err := parse(t, trained).With(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(c, Options{Steps: 50, Noise: func(int, []float32) {}})
		if err != nil {
			t.Fatal(err)
		}
		x, out := make([]float32, 64), make([]float32, 64)
		for range 4 {
			r.Step(x, out)
		}
		if n := testing.AllocsPerRun(8, func() { r.Step(x, out) }); n > 4 && name != "unipc" {
			t.Errorf("%s: %v allocations a step", name, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(trained), 3, 0.5)
	f.Add([]byte(flowTrained), 4, 1.0)
	f.Add([]byte(`{"_class_name":"DPMSolverMultistepScheduler","lambda_min_clipped":-Infinity,"a":"-Infinity\""}`), 5, 0.3)
	f.Fuzz(func(t *testing.T, data []byte, steps int, strength float64) {
		c, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Errorf("error %v wraps no ErrConfig", err)
			}
			return
		}
		if c.TrainSteps > 2000 {
			return
		}
		r, err := New(c, Options{Steps: steps, Strength: strength, Noise: func(int, []float32) {}})
		if err != nil {
			return
		}
		x, out := make([]float32, 3), make([]float32, 3)
		for range r.Calls() {
			r.Step(x, out)
		}
	})
}
