package diffusion

import (
	"fmt"
	"image"

	"helicon/models/clip"
	"helicon/models/diffusion/components"
	"helicon/models/tensor"
	"helicon/models/vision"
	"helicon/models/weights"
)

// safety is the bundle's safety checker and what prepares pictures for it.
type safety struct {
	checker   *vision.SafetyChecker
	processor vision.Processor
	store     *weights.Store
}

// loadSafety reads the components safety_checker and feature_extractor.
func loadSafety(b *bundle) (*safety, error) {
	raw, err := b.Config("safety_checker")
	if err != nil {
		return nil, fmt.Errorf("%w (SkipSafety does without)", err)
	}
	c, err := clip.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("diffusion: safety_checker/config.json: %w: %w", err, ErrUnsupported)
	}
	raw, err = components.ReadText(b.Files, "feature_extractor/preprocessor_config.json")
	if err != nil {
		return nil, err
	}
	s := &safety{}
	if s.processor, err = vision.ParseProcessor(raw); err != nil {
		return nil, fmt.Errorf("diffusion: feature_extractor/preprocessor_config.json: %w: %w", err, ErrUnsupported)
	}
	if s.store, err = b.Brief("safety_checker"); err != nil {
		return nil, err
	}
	if s.checker, err = vision.LoadSafetyChecker(s.store, c); err != nil {
		return nil, fmt.Errorf("diffusion: safety_checker: %w", err)
	}
	return s, nil
}

// check reports whether a picture is not to be shown.
func (s *safety) check(e *tensor.Exec, m image.Image) (bool, error) {
	defer s.store.Evict()
	pixels, _, _, err := s.processor.Pixels(vision.FromImage(m))
	if err != nil {
		return false, fmt.Errorf("diffusion: safety checker: %w", err)
	}
	flags, err := s.checker.Check(e, pixels)
	if err != nil {
		return false, fmt.Errorf("diffusion: safety checker: %w", err)
	}
	return flags[0], nil
}
