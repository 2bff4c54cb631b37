package diffusion

import (
	"context"

	"helicon/models/diffusion/scheduler"
	"helicon/models/tensor"
)

// family is what differs between kinds of models: how prompts become what the network
// reads, and the network. Each kind has one, in a file of its name (stable.go, …), that the
// table in kinds.go lists. What is the same for all - noise, schedule, guidance, pictures
// to begin from, masks, the VAE, previews, safety - is Pipeline's.
//
// A family is made in two steps: configure reads the configurations alone and load the
// weights. It is read-only then.
type family interface {
	// configure reads and checks the configurations of the bundle.
	configure(b *bundle) error

	// load reads the weights. They stay as long as the bundle does.
	load(ctx context.Context, b *bundle) error

	// describe fills in what the family knows of the pipeline: native size, in latent
	// pixels, defaults of steps and guidance with a scheduler, prompt tokens and what it
	// can do. The caller does the rest.
	describe(i *Info, c scheduler.Config)

	// traits is what the steps around the network need to know.
	traits() traits

	// workspace returns the bytes that encode or a denoiser takes, whichever is more, for a
	// condition of one or two prompts. Like describe and traits it needs no weights.
	workspace(s shape, batch int) (int64, error)

	// encode turns prompts into what the network reads. Errors about the request are
	// RequestErrors.
	encode(ctx context.Context, e *tensor.Exec, p prompt) (*condition, error)

	// denoiser returns the network ready for latents of a shape, with all the memory of its
	// steps. c was made by encode.
	denoiser(e *tensor.Exec, c *condition, s shape) (denoiser, error)

	// schedule adds what the family wants of the scheduler for latents of a shape.
	schedule(o *scheduler.Options, c scheduler.Config, s shape)
}

// traits are facts about a family's network.
type traits struct {
	// channels are those of the latents, and input those that the network reads: more if it
	// was trained to inpaint, by a mask and the latents of the masked picture.
	channels, input int

	patch         int  // latent sides are multiples of it; 0 is 1
	guidanceInput bool // guidance is an input of the network: there is no negative half
}

// shape is the size of latents.
type shape struct{ height, width, channels int }

// floats returns the number of elements of the latents of one picture.
func (s shape) floats() int { return s.height * s.width * s.channels }

// prompt is what a picture is to show.
type prompt struct {
	text, negative string
	guided         bool    // classifier-free guidance: the negative prompt is wanted, too
	guidance       float32 // its scale, for networks that take it as an input
	clipSkip       int
	width, height  int // of the picture, pixels
}

// condition is prompts as a network reads them: one, or two of which the first is the
// negative. A family uses the fields that its network has.
type condition struct {
	batch    int       // B, 1 or 2
	tokens   int       // S
	context  []float32 // [B, S, C] states of text encoders
	mask     []bool    // [B, S] tokens that count; nil is all
	pooled   []float32 // [B, P]
	labels   []int     // [B] classes
	guidance float32
	width    int // of the picture, pixels
	height   int
}

// denoiser is a network at work on one picture.
type denoiser interface {
	// forward computes y [B, H, W, channels], what the network predicts of x [B, H, W,
	// input] at a timestep, B that of the condition. It returns ctx's cause within one block
	// of the network when ctx ends.
	forward(ctx context.Context, y, x []float32, timestep float32) error
}

// controlled is a denoiser that a ControlNet can steer.
type controlled interface {
	// control sets the picture [height, width, 3] in 0..1 that the ControlNet looks at, and
	// the factor of its influence.
	control(picture []float32, width, height int, scale float32) error
}
