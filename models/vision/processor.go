package vision

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Processor turns pictures into what a network reads, in the words of its
// preprocessor_config.json.
type Processor struct {
	DoResize      bool      `json:"do_resize"`
	Size          Size      `json:"size"`
	Resample      Filter    `json:"resample"`
	DoCenterCrop  bool      `json:"do_center_crop"`
	CropSize      Size      `json:"crop_size"`
	DoRescale     bool      `json:"do_rescale"`
	RescaleFactor float64   `json:"rescale_factor"`
	DoNormalize   bool      `json:"do_normalize"`
	Mean          []float32 `json:"image_mean"` // of red, green and blue
	Std           []float32 `json:"image_std"`
}

// Size is a size in pixels: of the shorter side, or of both.
type Size struct {
	ShortestEdge int `json:"shortest_edge"`
	Height       int `json:"height"`
	Width        int `json:"width"`

	number int // given without saying of what
}

// UnmarshalJSON reads an object, or a number as older files have it.
func (s *Size) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		type object Size // without this method
		*s = Size{}
		return json.Unmarshal(data, (*object)(s))
	}
	*s = Size{}
	return json.Unmarshal(data, &s.number)
}

// ParseProcessor reads a preprocessor_config.json of the processors of CLIP, BLIP, ViT and
// their relatives. Errors wrap ErrConfig or ErrUnsupported.
func ParseProcessor(data []byte) (Processor, error) {
	var kind struct {
		Processor string `json:"image_processor_type"`
		Extractor string `json:"feature_extractor_type"`
	}
	p := Processor{
		DoResize: true, Resample: Bicubic, DoRescale: true, RescaleFactor: 1.0 / 255, DoNormalize: true,
		Mean: []float32{0.48145466, 0.4578275, 0.40821073}, Std: []float32{0.26862954, 0.26130258, 0.27577711},
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return p, fmt.Errorf("vision: preprocessor: %v: %w", err, ErrConfig)
	}
	clip := strings.HasPrefix(kind.Processor+kind.Extractor, "CLIP")
	if clip {
		p.DoCenterCrop, p.Size.number, p.CropSize.number = true, 224, 224
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("vision: preprocessor: %v: %w", err, ErrConfig)
	}
	p.Size.settle(clip)
	p.CropSize.settle(false)
	return p, p.validate()
}

// settle says what a number stands for.
func (s *Size) settle(shortest bool) {
	if s.number == 0 {
		return
	}
	if shortest {
		s.ShortestEdge = s.number
	} else {
		s.Height, s.Width = s.number, s.number
	}
	s.number = 0
}

// maxSide bounds what pictures are resized to, in pixels.
const maxSide = 1 << 12

// validate lists every rule that a configuration must meet.
func (p *Processor) validate() error {
	s, c := p.Size, p.CropSize
	if p.DoResize {
		both := s.Height >= 1 && s.Width >= 1 && max(s.Height, s.Width) <= maxSide && s.ShortestEdge == 0
		one := s.ShortestEdge >= 1 && s.ShortestEdge <= maxSide && s.Height == 0 && s.Width == 0
		if !both && !one {
			return fmt.Errorf("vision: preprocessor: size %+v, want sides or the shortest edge, up to %d: %w", s, maxSide, ErrConfig)
		}
		if p.Resample < Nearest || p.Resample > Box {
			return fmt.Errorf("vision: preprocessor: resample %d: %w", p.Resample, ErrUnsupported)
		}
	}
	if p.DoCenterCrop && (c.Height < 1 || c.Width < 1 || max(c.Height, c.Width) > maxSide) {
		return fmt.Errorf("vision: preprocessor: crop_size %+v, want sides up to %d: %w", c, maxSide, ErrConfig)
	}
	if p.DoNormalize {
		if len(p.Mean) != 3 || len(p.Std) != 3 {
			return fmt.Errorf("vision: preprocessor: image_mean %v, image_std %v, want three each: %w", p.Mean, p.Std, ErrConfig)
		}
		for _, s := range p.Std {
			if !(s > 0) {
				return fmt.Errorf("vision: preprocessor: image_std %v: %w", p.Std, ErrConfig)
			}
		}
	}
	return nil
}

// Pixels returns a picture as a network reads it, [Height, Width, 3], and its size. The
// error wraps ErrImage if the picture is empty, or so long and thin that its longer side
// would become absurd, or smaller than what is to be cut out of it.
func (p *Processor) Pixels(m RGB) (pixels []float32, width, height int, err error) {
	if m.Width <= 0 || m.Height <= 0 {
		return nil, 0, 0, fmt.Errorf("vision: a picture of %d×%d pixels: %w", m.Width, m.Height, ErrImage)
	}
	if p.DoResize {
		width, height = p.Size.of(m.Width, m.Height)
		if max(width, height) > 4*maxSide {
			return nil, 0, 0, fmt.Errorf("vision: a picture of %d×%d pixels, resized to %d×%d: %w", m.Width, m.Height, width, height, ErrImage)
		}
		m = Resize(m, width, height, p.Resample)
	}
	if p.DoCenterCrop {
		if m.Width < p.CropSize.Width || m.Height < p.CropSize.Height {
			return nil, 0, 0, fmt.Errorf("vision: a picture of %d×%d pixels, want %d×%d of it: %w", m.Width, m.Height, p.CropSize.Width, p.CropSize.Height, ErrImage)
		}
		m = centre(m, p.CropSize.Width, p.CropSize.Height)
	}
	pixels = make([]float32, len(m.Pix))
	for i, v := range m.Pix {
		x := float32(v)
		if p.DoRescale {
			x = float32(float64(v) * p.RescaleFactor)
		}
		if p.DoNormalize {
			x = (x - p.Mean[i%3]) / p.Std[i%3]
		}
		pixels[i] = x
	}
	return pixels, m.Width, m.Height, nil
}

// of returns the size that a picture gets.
func (s Size) of(width, height int) (int, int) {
	switch {
	case s.ShortestEdge == 0:
		return s.Width, s.Height
	case width <= height:
		return s.ShortestEdge, s.ShortestEdge * height / width
	default:
		return s.ShortestEdge * width / height, s.ShortestEdge
	}
}

// centre returns the middle of a picture.
func centre(m RGB, width, height int) RGB {
	out := NewRGB(width, height)
	top, left := (m.Height-height)/2, (m.Width-width)/2
	for y := range height {
		copy(out.Pix[3*y*width:][:3*width], m.Pix[3*((top+y)*m.Width+left):])
	}
	return out
}
