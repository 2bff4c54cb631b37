package sound

import (
	"math"
	"time"
)

// frames returns how many frames of the clip last so long.
func (c *Clip) frames(d time.Duration) int {
	return int(math.Round(d.Seconds() * float64(c.Rate)))
}

// Part returns the clip from one time to another; both are drawn into the clip.
func (c *Clip) Part(from, to time.Duration) *Clip {
	lo := min(max(c.frames(from), 0), c.Frames())
	hi := min(max(c.frames(to), lo), c.Frames())
	return &Clip{Rate: c.Rate, Channels: c.Channels, Samples: c.Samples[lo*c.Channels : hi*c.Channels]}
}

// Trimmed returns the clip without what is more than so many decibels below its highest
// sample at both ends, but for a margin. Silence stays as it is.
func (c *Clip) Trimmed(below float64, margin time.Duration) *Clip {
	threshold := float32(c.peak() * math.Pow(10, -below/20))
	first, last := -1, -1
	for i, v := range c.Samples {
		if v > threshold || v < -threshold {
			if first < 0 {
				first = i / c.Channels
			}
			last = i / c.Channels
		}
	}
	if first < 0 {
		return c
	}
	lo, hi := max(first-c.frames(margin), 0), min(last+1+c.frames(margin), c.Frames())
	return &Clip{Rate: c.Rate, Channels: c.Channels, Samples: c.Samples[lo*c.Channels : hi*c.Channels]}
}

// Fade raises the beginning of the clip and lowers its end, in place, along the quarter of a
// sine, by which two clips that are faded into each other keep their power.
func (c *Clip) Fade(in, out time.Duration) {
	fade := func(n int, at func(i int) int) {
		n = min(n, c.Frames())
		for i := range n {
			g := float32(math.Sin(math.Pi / 2 * (float64(i) + 0.5) / float64(n)))
			for ch := range c.Channels {
				c.Samples[at(i)*c.Channels+ch] *= g
			}
		}
	}
	fade(c.frames(in), func(i int) int { return i })
	fade(c.frames(out), func(i int) int { return c.Frames() - 1 - i })
}
