package tensor

import "fmt"

// Interpolation is how Resize fills in pixels.
type Interpolation uint8

// The interpolations, with PyTorch's rules for interpolate.
const (
	Nearest  Interpolation = iota // pixel ⌊i·from/to⌋
	Bilinear                      // between pixel centres (align_corners off), without antialiasing
)

// Resize is an image that is to get another size.
type Resize struct {
	Y                   []float32 // [B, OutHeight, OutWidth, C]; may not overlap X
	X                   []float32 // [B, Height, Width, C]
	Batch               int       // B; 0 is 1
	Height, Width       int
	OutHeight, OutWidth int
	Channels            int
	By                  Interpolation
}

// Resize computes y. A sequence is an image of height 1.
func (e *Exec) Resize(r Resize) {
	r.Batch = defaultOne(r.Batch)
	if min(r.Height, r.Width, r.OutHeight, r.OutWidth, r.Channels) <= 0 || r.By > Bilinear ||
		len(r.X) != r.Batch*r.Height*r.Width*r.Channels || len(r.Y) != r.Batch*r.OutHeight*r.OutWidth*r.Channels {
		panic(fmt.Sprintf("tensor: resize by rule %d of %d floats [%d, %d, %d, %d] to %d floats [%d, %d]",
			r.By, len(r.X), r.Batch, r.Height, r.Width, r.Channels, len(r.Y), r.OutHeight, r.OutWidth))
	}
	t := &e.resize
	*t = resizeTask{Resize: r, level: e.features.level}
	e.run(t, r.Batch*r.OutHeight)
}

// resizeTask is a call of Resize. A part is a row of the result.
type resizeTask struct {
	Resize
	level Level
}

func (t *resizeTask) part(i int) {
	image, c := i/t.OutHeight*t.Height, t.Channels
	v := t.between(i%t.OutHeight, t.Height, t.OutHeight)
	above, below := t.X[(image+v.first)*t.Width*c:], t.X[(image+v.second)*t.Width*c:]
	for x := range t.OutWidth {
		h := t.between(x, t.Width, t.OutWidth)
		y := t.Y[(i*t.OutWidth+x)*c:][:c]
		if t.By == Nearest {
			copy(y, above[h.first*c:])
			continue
		}
		scale(t.level, y, above[h.first*c:][:c], (1-v.share)*(1-h.share))
		axpy(t.level, y, above[h.second*c:][:c], (1-v.share)*h.share)
		axpy(t.level, y, below[h.first*c:][:c], v.share*(1-h.share))
		axpy(t.level, y, below[h.second*c:][:c], v.share*h.share)
	}
}

// mix is two neighbours on an axis, and the share of the second.
type mix struct {
	first, second int
	share         float32
}

// between returns what makes pixel i of out, of from pixels.
func (t *resizeTask) between(i, from, out int) mix {
	ratio := float32(from) / float32(out)
	if t.By == Nearest {
		return mix{first: min(int(float32(i)*ratio), from-1)}
	}
	at := max((float32(i)+0.5)*ratio-0.5, 0)
	first := min(int(at), from-1)
	return mix{first, min(first+1, from-1), at - float32(first)}
}
