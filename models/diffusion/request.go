package diffusion

import (
	"errors"
	"fmt"
	"image"
	"math"

	"helicon/models/diffusion/scheduler"
	"helicon/models/vision"
)

// Limits of a picture, far above what any model makes well.
const (
	maxSide     = 1 << 13 // pixels
	maxPixels   = 1 << 24
	maxInput    = 1 << 26 // pixels of a picture that is scaled
	maxGuidance = 100
	maxHires    = 4
)

// job is a request with its defaults filled in and its pictures as numbers.
type job struct {
	Request
	scheduler scheduler.Config
	guided    bool      // the negative prompt is computed, too
	picture   []float32 // Init [Height, Width, 3] in -1..1, or nil
	mask      []float32 // [Height, Width], 1 is made anew and 0 kept, or nil
	control   []float32 // [Height, Width, 3] in 0..1, or nil
	noise     noiseSource

	seen func(x []float32) // in tests: the latents after each call of the network
}

// resolve checks a request. Errors are RequestErrors.
func (p *Pipeline) resolve(r Request) (*job, error) {
	j := &job{Request: r, scheduler: p.scheduler, noise: seededNoise(r.Seed)}
	for _, check := range []func(*job) error{p.resolveSize, p.resolveScalars, p.resolvePictures, p.resolveHires} {
		if err := check(j); err != nil {
			return nil, err
		}
	}
	return j, nil
}

func bad(field, format string, args ...any) error {
	return &RequestError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

func (p *Pipeline) resolveSize(j *job) error {
	step := p.info.Multiple
	if j.Width == 0 && j.Height == 0 && j.Init != nil {
		b := j.Init.Bounds()
		j.Width, j.Height = b.Dx()/step*step, b.Dy()/step*step
	}
	if j.Width == 0 {
		j.Width = p.info.Width
	}
	if j.Height == 0 {
		j.Height = p.info.Height
	}
	for _, side := range []struct {
		field  string
		pixels int
	}{{"Width", j.Width}, {"Height", j.Height}} {
		if side.pixels < step || side.pixels > maxSide || side.pixels%step != 0 {
			return bad(side.field, "is %d pixels, want %d to %d in steps of %d", side.pixels, step, maxSide, step)
		}
	}
	if j.Width*j.Height > maxPixels {
		return bad("Width", "times Height is %d pixels, want at most %d", j.Width*j.Height, maxPixels)
	}
	if _, err := p.family.workspace(p.shape(j.Width, j.Height), 2); err != nil {
		return bad("Width", "and Height of %d×%d do not fit the network: %v", j.Width, j.Height, err)
	}
	return nil
}

func (p *Pipeline) resolveScalars(j *job) error {
	if err := p.resolveScheduler(j); err != nil {
		return err
	}
	steps, guidance := p.info.Steps, p.info.Guidance
	if c := j.scheduler.Class; c != p.scheduler.Class && (c == "LCMScheduler" || c == "TCDScheduler") {
		steps, guidance = 4, 1 // chosen for a model, or a LoRA, that was distilled for few steps
	}
	if j.Steps == 0 {
		j.Steps = steps
	}
	if j.Guidance == 0 {
		j.Guidance = guidance
	}
	within := func(v, low, high float32) bool { return v >= low && v <= high }
	switch {
	case j.Steps < 1:
		return bad("Steps", "is %d, want 1 or more", j.Steps)
	case !within(j.Guidance, 0, maxGuidance):
		return bad("Guidance", "is %v, want 0 to %d", j.Guidance, maxGuidance)
	case !within(j.GuidanceRescale, 0, 1):
		return bad("GuidanceRescale", "is %v, want 0 to 1", j.GuidanceRescale)
	case j.GuidanceRescale != 0 && p.family.traits().guidanceInput:
		return bad("GuidanceRescale", "is %v, but a %s model is told its guidance and makes no second prediction", j.GuidanceRescale, p.info.Kind)
	case !within(j.Eta, 0, 1):
		return bad("Eta", "is %v, want 0 to 1", j.Eta)
	case j.ClipSkip != 0 && !p.info.ClipSkip:
		return bad("ClipSkip", "is %d, but a %s model has no layers to leave out", j.ClipSkip, p.info.Kind)
	case j.Negative != "" && !p.info.Negative:
		return bad("Negative", "is given, but this model reads none")
	}
	if c := j.scheduler.Class; j.Eta != 0 && c != "DDIMScheduler" && c != "TCDScheduler" {
		return bad("Eta", "is %v, but scheduler %q has none", j.Eta, j.scheduler.Name())
	}
	j.guided = j.Guidance > 1 && !p.family.traits().guidanceInput
	return nil
}

// resolveScheduler takes the scheduler that the request names in the place of the model's.
func (p *Pipeline) resolveScheduler(j *job) error {
	if j.Scheduler == "" {
		return nil
	}
	var err error
	if j.scheduler, err = p.scheduler.With(j.Scheduler); errors.Is(err, scheduler.ErrOptions) {
		return bad("Scheduler", "is %q, want one of %v", j.Scheduler, p.info.Schedulers)
	}
	return err
}

func (p *Pipeline) resolvePictures(j *job) error {
	switch {
	case j.Strength != 0 && !(j.Strength > 0 && j.Strength <= 1):
		return bad("Strength", "is %v, want above 0 to 1", j.Strength)
	case j.Strength != 0 && j.Init == nil:
		return bad("Strength", "is %v, but there is no Init", j.Strength)
	case j.Init != nil && !p.info.Edit:
		return bad("Init", "is given, but the VAE of this model cannot encode pictures")
	case j.Mask != nil && j.Init == nil:
		return bad("Mask", "is given, but there is no Init")
	case j.Mask != nil && j.Mask.Bounds().Size() != j.Init.Bounds().Size():
		return bad("Mask", "is %v pixels, but Init is %v", j.Mask.Bounds().Size(), j.Init.Bounds().Size())
	case j.Mask == nil && p.inpaints():
		return bad("Mask", "is missing: this model fills in masked parts of pictures alone")
	case j.Control != nil && !p.info.Control:
		return bad("Control", "is given, but no ControlNet is loaded")
	case j.Control == nil && j.ControlScale != 0:
		return bad("ControlScale", "is %v, but there is no Control", j.ControlScale)
	case math.IsNaN(float64(j.ControlScale)) || math.Abs(float64(j.ControlScale)) > 10:
		return bad("ControlScale", "is %v, want -10 to 10", j.ControlScale)
	}
	for _, m := range []struct {
		field string
		image image.Image
	}{{"Init", j.Init}, {"Mask", j.Mask}, {"Control", j.Control}} {
		if m.image == nil {
			continue
		}
		if s := m.image.Bounds().Size(); s.X < 1 || s.Y < 1 || s.X > maxInput/s.Y {
			return bad(m.field, "is %v pixels, want 1 to %d in all", s, maxInput)
		}
	}
	if j.Init != nil {
		j.picture = signed(floats(fit(j.Init, j.Width, j.Height)))
		if j.Strength == 0 {
			j.Strength = 0.8
			if j.Mask != nil {
				j.Strength = 1
			}
		}
	}
	if j.Mask != nil {
		j.mask = binarized(fit(j.Mask, j.Width, j.Height))
	}
	if j.Control != nil {
		j.control = floats(fit(j.Control, j.Width, j.Height))
		if j.ControlScale == 0 {
			j.ControlScale = 1
		}
	}
	return nil
}

func (p *Pipeline) resolveHires(j *job) error {
	h := j.Hires
	if h == nil {
		return nil
	}
	filled := *h
	j.Hires = &filled
	if filled.Strength == 0 {
		filled.Strength = 0.7
	}
	if filled.Steps == 0 {
		filled.Steps = j.Steps
	}
	width, height := p.hiresSize(j)
	switch {
	case !(filled.Scale > 1 && filled.Scale <= maxHires):
		return bad("Hires.Scale", "is %v, want above 1 to %d", filled.Scale, maxHires)
	case filled.Steps < 1:
		return bad("Hires.Steps", "is %d, want 1 or more", filled.Steps)
	case !(filled.Strength > 0 && filled.Strength <= 1):
		return bad("Hires.Strength", "is %v, want above 0 to 1", filled.Strength)
	case j.Mask != nil:
		return bad("Hires", "is not possible with a Mask")
	case width > maxSide || height > maxSide || width*height > maxPixels:
		return bad("Hires.Scale", "is %v, which makes %d×%d pixels of %d×%d", filled.Scale, width, height, j.Width, j.Height)
	}
	if _, err := p.family.workspace(p.shape(width, height), 2); err != nil {
		return bad("Hires.Scale", "is %v, which makes %d×%d pixels, and they do not fit the network: %v", filled.Scale, width, height, err)
	}
	return nil
}

// hiresSize returns the width and height of the second pass.
func (p *Pipeline) hiresSize(j *job) (width, height int) {
	step := float64(p.info.Multiple)
	scaled := func(side int) int { return int(math.Round(float64(side)*float64(j.Hires.Scale)/step) * step) }
	if !(j.Hires.Scale <= maxHires) {
		return 0, 0
	}
	return scaled(j.Width), scaled(j.Height)
}

// inpaints reports whether the network was trained to fill in masked parts, and does
// nothing else.
func (p *Pipeline) inpaints() bool {
	t := p.family.traits()
	return t.input > t.channels
}

// fit returns a picture in a size.
func fit(m image.Image, width, height int) vision.RGB {
	p := vision.FromImage(m)
	if p.Width == width && p.Height == height {
		return p
	}
	return vision.Resize(p, width, height, vision.Lanczos)
}
