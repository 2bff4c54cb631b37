package diffusion

import (
	"fmt"
	"slices"
)

// kindEntry is a kind of models.
type kindEntry struct {
	kind    Kind
	classes []string // of pipelines that share the components
	new     func() family
}

// kinds lists the kinds. Text-to-image, image-to-image and inpainting pipelines of one
// kind differ in what they are called with alone.
func kinds() []kindEntry {
	return []kindEntry{
		{StableDiffusion, []string{
			"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
			"LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
		}, func() family { return &stable{} }},
		{StableDiffusionXL, []string{
			"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
		}, func() family { return &stable{xl: true} }},
		{StableDiffusion3, []string{
			"StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline",
		}, func() family { return &stable3{} }},
		{Flux, []string{"FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"}, func() family { return &flux{} }},
		{PixArt, []string{"PixArtAlphaPipeline", "PixArtSigmaPipeline"}, func() family { return &pixart{} }},
		{DiT, []string{"DiTPipeline"}, func() family { return &classes{} }},
	}
}

// kindOf returns the kind of a class of pipelines.
func kindOf(class string) (Kind, bool) {
	for _, k := range kinds() {
		if slices.Contains(k.classes, class) {
			return k.kind, true
		}
	}
	return "", false
}

// familyOf returns a family of the bundle's kind, configured.
func familyOf(b *bundle) (family, error) {
	for _, k := range kinds() {
		if k.kind == b.kind {
			f := k.new()
			return f, f.configure(b)
		}
	}
	return nil, fmt.Errorf("diffusion: kind %q: %w", b.kind, ErrUnsupported)
}
