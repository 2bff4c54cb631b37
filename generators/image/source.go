package image

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"strings"

	"helicon/generators/media"
	"helicon/queue"
)

// picture is one that a job was given.
type picture struct {
	*image.NRGBA
	about *media.Info
}

// source reads the picture that the job works on: the one it names, or the first that the
// jobs in its needs have made.
func (s *studio) source(ctx context.Context) (*picture, error) {
	if s.input.Image != "" {
		return s.read(ctx, s.input.Image, "/input/image")
	}
	for _, need := range s.needs {
		if need.Result == nil {
			continue
		}
		for _, a := range need.Result.Artifacts {
			if strings.HasPrefix(a.MediaType, "image/") {
				s.input.Image = a.SHA256 // from here on the input says what was used
				return s.read(ctx, a.SHA256, "/needs")
			}
		}
	}
	if len(s.needs) > 0 {
		return nil, invalid("/needs", "none of these jobs has made a picture")
	}
	return nil, invalid("/input/image", "required, but missing: the SHA-256 of an upload or of an artifact")
}

// read reads a stored picture, which the job names at pointer.
func (s *studio) read(ctx context.Context, digest, pointer string) (*picture, error) {
	stored, file, err := s.artifacts.Artifact(ctx, s.job.Tenant, digest)
	if errors.Is(err, queue.ErrNoArtifact) {
		return nil, &queue.Problem{
			Code: "input_missing", Detail: fmt.Sprintf("There is no file with the SHA-256 %s; upload it first.", digest),
			Errors: []queue.FieldError{{Pointer: pointer, Detail: "no such file"}},
		}
	}
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer file.Close()
	if stored.Size > media.MaxFile {
		return nil, at(pointer, queue.Problemf("image_too_large", "The picture's file has %d bytes; at most %d are read.", stored.Size, media.MaxFile))
	}
	data, err := io.ReadAll(io.LimitReader(file, media.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	p, about, err := media.Decode(data)
	if err != nil {
		return nil, at(pointer, err)
	}
	return &picture{p, about}, nil
}

// at says which value of the job a problem is about.
func at(pointer string, err error) error {
	var told *queue.Problem
	if !errors.As(err, &told) {
		return err
	}
	located := *told
	located.Errors = []queue.FieldError{{Pointer: pointer, Detail: strings.TrimSuffix(told.Detail, ".")}}
	return &located
}

// white is what transparent pictures are laid over.
func white() color.NRGBA { return color.NRGBA{255, 255, 255, 255} }

// Limits on the sizes that models work at, as the schemas state them.
const (
	maxSide = 2048
	step    = 8 // sizes are multiples of it
)

// fit returns the size for a picture of w × h pixels whose area is about that of the
// model's own, in multiples.
func fit(w, h, area, multiple int) (width, height int) {
	scale := math.Sqrt(float64(area) / (float64(w) * float64(h)))
	round := func(side int) int {
		n := int(math.Round(float64(side)*scale/float64(multiple))) * multiple
		return max(multiple, min(n, maxSide/multiple*multiple))
	}
	return round(w), round(h)
}

// sized returns the size to work at: the one given, or one that follows from the picture
// that is begun from, or the model's own.
func (in *input) sized(native image.Point, multiple int, from *image.NRGBA) (width, height int) {
	width, height = native.X, native.Y
	if from != nil {
		width, height = fit(from.Rect.Dx(), from.Rect.Dy(), native.X*native.Y, multiple)
	}
	return whole(in.Width, width), whole(in.Height, height)
}
