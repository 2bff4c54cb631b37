package image

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io/fs"

	"github.com/disintegration/imaging"

	"helicon/generators"
	"helicon/generators/media"
	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/models/upscale"
	"helicon/models/weights"
	"helicon/queue"
)

// enlarger is a loaded network that enlarges pictures. It is shared by jobs.
type enlarger struct {
	*upscale.Model
	store  *weights.Store
	arena  *tensor.Arena
	digest string
}

// Close implements io.Closer.
func (e *enlarger) Close() error { return errors.Join(e.arena.Close(), e.store.Close()) }

// describeUpscaler tells what network a bundle holds.
func describeUpscaler(files fs.FS) (upscale.Info, error) {
	name, err := weightsFile(files)
	if err != nil {
		return upscale.Info{}, err
	}
	s, err := weights.OpenFile(files, name)
	if err != nil {
		return upscale.Info{}, err
	}
	info, err := upscale.Describe(s)
	return info, errors.Join(err, s.Close())
}

// loadUpscaler loads a network. What is wrong with its file is a *queue.Problem.
func (g *Generator) loadUpscaler(ctx context.Context, b *hub.Bundle) (*enlarger, error) {
	digest, err := b.Digest(ctx)
	if err != nil {
		return nil, err
	}
	name, err := weightsFile(b.Files)
	if err != nil {
		return nil, unusable(b.ID, "/model", err)
	}
	e := &enlarger{arena: &tensor.Arena{}, digest: digest}
	if e.store, err = weights.OpenFile(b.Files, name); err != nil {
		g.reject(b, err)
		return nil, unusable(b.ID, "/model", err)
	}
	if e.Model, err = upscale.Load(e.store.Packed(e.arena, g.compute)); err != nil {
		g.reject(b, err)
		return nil, errors.Join(unusable(b.ID, "/model", err), e.Close())
	}
	return e, nil
}

// maxEnlarged is how many pixels a network makes at most: they are computed as float32.
const maxEnlarged = 1 << 25

// upscaleNeed adds what the network takes to a need.
func (g *Generator) upscaleNeed(r *request, need generators.Need) (generators.Need, error) {
	// What is computed at once is a tile, of a picture as large as there may be.
	work, err := r.model.network.Workspace(media.MaxSide/r.model.network.Scale, maxEnlarged/media.MaxSide, upscale.Options{})
	if err != nil {
		return need, unusable(r.model.bundle.ID, "/model", err)
	}
	const pixelBytes = 3*4 + 4 // as float32, and of the picture
	need.Memory = min(need.Memory+maxEnlarged*pixelBytes, g.memory.Total()/2) + work
	const unpacked = 2 // weights of 16 bits may be computed as 32
	need.Model = generators.Footprint{Key: r.model.bundle.ID, Bytes: unpacked * r.model.bundle.Bytes}
	return need, nil
}

// upscale does image.upscale. What the file said of how the picture was made stays.
func (s *studio) upscale(ctx context.Context) (*queue.Result, error) {
	from, err := s.source(ctx)
	if err != nil {
		return nil, err
	}
	by := s.descent(from)
	if s.request.model == nil {
		s.input.Scale = pointer(value(s.input.Scale, defaultScale))
		by.Record = s.record(s.input, s.job.Seed)
		by.Record.Model = lanczos
		p, err := enlarge(from.NRGBA, *s.input.Scale)
		if err != nil {
			return nil, err
		}
		return s.finish(ctx, p, by)
	}
	need, err := s.upscaleNeed(s.request, generators.Need{})
	if err != nil {
		return nil, err
	}
	e, done, err := generators.Use(ctx, s.memory, need.Model, func(ctx context.Context) (*enlarger, error) {
		return s.loadUpscaler(ctx, s.model.bundle)
	})
	if err != nil {
		return nil, err
	}
	defer done()
	s.input.Scale = pointer(value(s.input.Scale, float64(e.Scale())))
	by.Record = s.record(s.input, s.job.Seed)
	by.Record.Digest = e.digest
	p, err := s.restore(ctx, e, from.NRGBA)
	if err != nil {
		return nil, err
	}
	return s.finish(ctx, p, by)
}

// enlarge interpolates by Lanczos's kernel.
func enlarge(p *image.NRGBA, scale float64) (*image.NRGBA, error) {
	larger, err := resize(p, float64(p.Rect.Dx())*scale, float64(p.Rect.Dy())*scale)
	return larger, at("/input/scale", err)
}

// restore enlarges by a network, and brings the picture to the scale that is wanted if the
// network has another. Alpha is interpolated.
func (s *studio) restore(ctx context.Context, e *enlarger, p *image.NRGBA) (*image.NRGBA, error) {
	width, height, scale := p.Rect.Dx(), p.Rect.Dy(), e.Scale()
	if width*height*scale*scale > maxEnlarged || max(width, height)*scale > media.MaxSide {
		return nil, at("/input/image", queue.Problemf("image_too_large",
			"The model %s would make %d × %d pixels of the picture; at most %d million are made.", s.model.bundle.ID, width*scale, height*scale, maxEnlarged/1_000_000))
	}
	source := upscale.Picture{Pixels: make([]float32, 3*width*height), Width: width, Height: height}
	for i := range width * height {
		for c := range 3 {
			source.Pixels[3*i+c] = float32(p.Pix[4*i+c]) / 255
		}
	}
	made := make([]float32, len(source.Pixels)*scale*scale)
	err := e.Upscale(ctx, tensor.NewExec(s.pool), made, source, upscale.Options{Progress: s.out.Progress})
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("image: %w", err)
	}
	out := image.NewNRGBA(image.Rect(0, 0, width*scale, height*scale))
	for i := range len(out.Pix) / 4 {
		for c := range 3 {
			out.Pix[4*i+c] = uint8(made[3*i+c]*255 + 0.5)
		}
		out.Pix[4*i+3] = 255
	}
	if !p.Opaque() {
		alpha := imaging.Resize(p, width*scale, height*scale, imaging.Lanczos)
		for i := 3; i < len(out.Pix); i += 4 {
			out.Pix[i] = alpha.Pix[i]
		}
	}
	if wanted := *s.input.Scale; wanted != float64(scale) {
		larger, err := resize(out, float64(width)*wanted, float64(height)*wanted)
		return larger, at("/input/scale", err)
	}
	return out, nil
}
