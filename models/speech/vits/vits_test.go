package vits

import (
	"errors"
	"math"
	"testing"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	if c, err := ParseConfig([]byte("{}")); err != nil || c.decoder().Hop() != 256 {
		t.Errorf("the published shape: %v", err)
	}
	for _, bad := range []string{
		"", "[]", `{"hidden_size":0}`, `{"hidden_size":7}`, `{"num_attention_heads":0}`, `{"vocab_size":-1}`, `{"upsample_rates":[0,1,2,3]}`,
		`{"upsample_rates":[]}`, `{"upsample_initial_channel":3}`, `{"resblock_kernel_sizes":[4,7,11]}`, `{"hidden_act":"gelu"}`, `{"flow_size":3}`,
		`{"num_speakers":2}`, `{"sampling_rate":0}`, `{"duration_predictor_tail_bound":0}`, `{"depth_separable_channels":4}`, `{"wavenet_dilation_rate":0}`,
	} {
		if _, err := ParseConfig([]byte(bad)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"hidden_size":32,"upsample_rates":[4,2],"upsample_kernel_sizes":[8,4]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		if c.decoder().Hop() <= 0 || c.Hidden%c.Heads != 0 {
			t.Errorf("accepted %s", data)
		}
	})
}

// TestSpline goes along a spline and back: the inverse of every knot is its place, and the
// function rises everywhere.
func TestSpline(t *testing.T) {
	t.Parallel()
	s := newSpline([]float32{0.3, -1, 2}, []float32{1, 0, -0.5}, []float32{0.2, -3}, 1, 5)
	for i, y := range s.y {
		if x := s.inverse(y); math.Abs(x-s.x[i]) > 1e-9 {
			t.Errorf("knot %d: %v, want %v", i, x, s.x[i])
		}
	}
	last := math.Inf(-1)
	for y := -7.0; y <= 7; y += 0.01 {
		x := s.inverse(y)
		if x <= last {
			t.Fatalf("falls at %v", y)
		}
		if math.Abs(y) > 5 && x != y {
			t.Errorf("%v becomes %v outside", y, x)
		}
		last = x
	}
	if x := s.inverse(math.NaN()); !math.IsNaN(x) {
		t.Errorf("of no number: %v", x)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		logs []float32
		rate float32
		want int // frames in all; 0 is an error
	}{
		"plain":    {[]float32{0, 1}, 1, 1 + 3},
		"slow":     {[]float32{0, 1}, 0.5, 2 + 6},
		"nothing":  {[]float32{float32(math.Inf(-1))}, 1, 1},
		"infinity": {[]float32{float32(math.Inf(1))}, 1, 0},
		"NaN":      {[]float32{float32(math.NaN())}, 1, 0},
		"huge":     {[]float32{11, 11}, 1, 0},
	} {
		frames, err := expand(c.logs, c.rate)
		total := 0
		for _, n := range frames {
			total += n
		}
		if c.want == 0 && !errors.Is(err, ErrInput) || c.want > 0 && (err != nil || total != c.want) {
			t.Errorf("%s: %v, %v", name, frames, err)
		}
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	m := &Model{config: Config{Vocab: 10, Speakers: 1}}
	noise := func(int, []float32) {}
	good := Request{IDs: []int{1, 2}, SpeakingRate: 1, NoiseScale: 0.5, Noise: noise}
	if err := m.check(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Request){
		"no ids":     func(r *Request) { r.IDs = nil },
		"many ids":   func(r *Request) { r.IDs = make([]int, maxIDs+1) },
		"an id":      func(r *Request) { r.IDs = []int{10} },
		"below 0":    func(r *Request) { r.IDs = []int{-1} },
		"speaker":    func(r *Request) { r.Speaker = 1 },
		"no rate":    func(r *Request) { r.SpeakingRate = 0 },
		"NaN":        func(r *Request) { r.NoiseScale = float32(math.NaN()) },
		"no noise":   func(r *Request) { r.Noise = nil },
		"much noise": func(r *Request) { r.NoiseDuration = 11 },
	} {
		r := good
		change(&r)
		if _, err := m.Speak(t.Context(), nil, r); !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
