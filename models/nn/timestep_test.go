package nn

import (
	"math"
	"testing"
)

// TestTimesteps has values of diffusers' get_timestep_embedding by its formula.
func TestTimesteps(t *testing.T) {
	t.Parallel()
	frequency := func(i, n float64) float64 { return math.Exp(-math.Log(10000) * i / n) }
	for name, c := range map[string]struct {
		Timesteps
		want []float64 // of time 10
	}{
		"plain":   {Timesteps{Channels: 4}, []float64{math.Sin(10), math.Sin(10 * frequency(1, 2)), math.Cos(10), math.Cos(10 * frequency(1, 2))}},
		"flipped": {Timesteps{Channels: 4, Flip: true}, []float64{math.Cos(10), math.Cos(10 * frequency(1, 2)), math.Sin(10), math.Sin(10 * frequency(1, 2))}},
		"shifted": {Timesteps{Channels: 4, FreqShift: 1}, []float64{math.Sin(10), math.Sin(10 * frequency(1, 1)), math.Cos(10), math.Cos(10 * frequency(1, 1))}},
		"scaled":  {Timesteps{Channels: 2, Scale: 3, MaxPeriod: 7}, []float64{math.Sin(30), math.Cos(30)}},
		"odd":     {Timesteps{Channels: 3}, []float64{math.Sin(10), math.Cos(10), 0}},
	} {
		y := make([]float32, 2*c.Channels)
		y[len(y)-1] = 5
		c.Forward(y, []float32{0, 10})
		for i, want := range c.want {
			if got := float64(y[c.Channels+i]); math.Abs(got-want) > 1e-7 {
				t.Errorf("%s: y[%d] = %v, want %v", name, i, got, want)
			}
		}
	}
}
