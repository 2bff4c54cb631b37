// Package diffusion makes pictures from prompts by models of the diffusion family:
// prompt → conditioning → latents → picture.
//
// It reads bundles in the layout of Hugging Face's diffusers (a folder with
// model_index.json), single files in the original names of Stable Diffusion, and GGUF as
// stable-diffusion.cpp writes it. A pipeline is five verbs in the order of the papers:
// encode the prompt, draw the noise, set the schedule, denoise, decode. Latent diffusion
// is Rombach et al. 2022; guidance is Ho and Salimans 2022.
//
// One call makes one picture, wholly determined by the files, the options and the
// request: the same bytes on any number of threads.
package diffusion

import (
	"errors"
	"fmt"
	"image"
	"io/fs"

	"helicon/models/diffusion/components"
	"helicon/models/tensor"
)

// Errors that callers tell apart.
var (
	// ErrUnsupported is wrapped by errors about bundles that are well formed and that this
	// package has no pipeline for, or that have a part that it cannot compute.
	ErrUnsupported = components.ErrUnsupported
	// ErrRequest is wrapped by errors about a request or an option: see RequestError.
	ErrRequest = errors.New("invalid request")
)

// RequestError is an error about one field of a request. It wraps ErrRequest.
type RequestError struct {
	Field  string // of Request, as its Go name: "Width"
	Reason string // a sentence without its subject: "is 7, want a multiple of 8"
}

// Error returns field and reason.
func (e *RequestError) Error() string { return fmt.Sprintf("diffusion: %s %s", e.Field, e.Reason) }

// Unwrap returns ErrRequest.
func (e *RequestError) Unwrap() error { return ErrRequest }

// Kind is a family of models with a pipeline of their own, by the name users see.
type Kind string

// The kinds.
const (
	StableDiffusion   Kind = "stable-diffusion"    // 1.x and 2.x, with 4 or 9 channels, LCM
	StableDiffusionXL Kind = "stable-diffusion-xl" // SDXL, Turbo and Lightning
	StableDiffusion3  Kind = "stable-diffusion-3"  // 3 and 3.5
	Flux              Kind = "flux"
	PixArt            Kind = "pixart"
	DiT               Kind = "dit" // by class, without text
)

// Options are what a pipeline is loaded with. The zero value computes alone on its
// caller, in the types that the weights are stored in.
type Options struct {
	Pool *tensor.Pool
	// Compute is the type that products are computed in: 0 as the weights are stored,
	// tensor.F32, tensor.BF16, or tensor.I8 (weights and activations of 8 bits).
	Compute tensor.DType

	LoRAs      []LoRA      // merged into the weights, in this order
	Embeddings []Embedding // textual inversions
	Tokenizers fs.FS       // folder with tokenizer, tokenizer_2, … for models that are a single file; nil is the model's own
	ControlNet fs.FS       // folder of a ControlNet; nil is none
	TinyVAE    fs.FS       // folder of an AutoencoderTiny that decodes in place of the VAE; nil is none

	// SkipSafety leaves the bundle's safety checker aside: pictures are neither checked
	// nor blacked out.
	SkipSafety bool
}

// LoRA is a low-rank change of a model's weights (Hu et al. 2021), in a file.
type LoRA = components.LoRA

// Embedding is a textual inversion (Gal et al. 2022), in a file: vectors for a new word.
type Embedding = components.Embedding

// Footprint is the memory that a pipeline takes.
type Footprint struct {
	Kind    Kind
	Weights int64 // bytes, of the weights as they are loaded
	// Width and Height are the native size, pixels: that of pictures for which none is asked.
	Width, Height int
	// Work returns the bytes of one call that makes a picture of so many pixels; batch is
	// the number of calls at a time.
	Work func(width, height, batch int) int64
}

// Info is what a pipeline is and can do.
type Info struct {
	Kind          Kind
	Width, Height int // native size, pixels
	Multiple      int // sizes are multiples of it, pixels
	PromptTokens  int // tokens that are read at once; longer prompts are read in chunks, or cut if Chunks is unset
	Chunks        bool

	Steps     int     // default
	Guidance  float32 // default guidance scale
	Scheduler string  // default, one of Schedulers

	Schedulers []string // names that a request may choose from, sorted

	Negative bool     // reads negative prompts
	Edit     bool     // takes an Init picture
	Inpaint  bool     // takes a Mask
	Control  bool     // takes a Control picture
	Safety   bool     // checks its pictures
	ClipSkip bool     // heeds ClipSkip
	Classes  []string // class names that are the prompts of a model without text, or nil
}

// Request is one picture to be made.
type Request struct {
	Prompt, Negative string

	Width, Height int // pixels, multiples of Info.Multiple; 0 is the size of Init, or native
	Steps         int // of the scheduler; 0 is the default
	// Guidance is the scale of classifier-free guidance, up to 100; 0 is the default. Up to
	// 1 it is off and the negative prompt is not used. Models trained with guidance as an
	// input are given it.
	Guidance        float32
	GuidanceRescale float32 // 0 to 1: how far the guided prediction gets the spread of the unguided (Lin et al. 2023)
	ClipSkip        int     // last layers of the text encoder that are left out
	Scheduler       string  // of scheduler.Names; empty is the bundle's own
	Eta             float32 // 0 to 1: share of fresh noise of the schedulers "ddim" and "tcd"
	Seed            uint64  // of all noise

	Init     image.Image // picture to begin from, or nil; scaled to Width×Height
	Strength float32     // above 0 to 1: how far Init is changed; 0 is 0.8, and 1 with a Mask
	Mask     image.Image // of the size of Init: white is made anew, black is kept

	Control      image.Image // what the ControlNet looks at; scaled to Width×Height
	ControlScale float32     // factor of its influence; 0 is 1

	Hires *Hires // second pass at a larger size, or nil

	// Observe, if not nil, is called after every step, on the caller's goroutine.
	Observe func(Step)
}

// Hires is a second pass over the enlarged picture (hires fix), which lets a model make
// pictures above the size that it composes well.
type Hires struct {
	Scale    float32 // factor of width and height, above 1 to 4; the result is rounded to Info.Multiple
	Steps    int     // of the second pass; 0 is that of the first
	Strength float32 // above 0 to 1; 0 is 0.7
}

// Step is news of one step that was done.
type Step struct {
	Index, Total int // Index counts from 1 to Total
	// Preview returns a small picture of what is there so far. It may only be called
	// before Observe returns.
	Preview func() *image.NRGBA
}

// Picture is a finished picture.
type Picture struct {
	Image *image.NRGBA
	// NSFW is whether the safety checker took offence, and the picture is blacked out
	// then; nil without a checker.
	NSFW *bool
}
