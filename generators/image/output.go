package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/disintegration/imaging"

	"helicon/generators"
	"helicon/generators/media"
	"helicon/models/diffusion"
	"helicon/queue"
)

// previewPause is the least time between two previews: a fast model does not flood the
// stream of events, and a slow one shows every step.
const previewPause = 250 * time.Millisecond

// observer passes on the progress of picture k of n, with previews.
func (s *studio) observer(k, n int) func(diffusion.Step) {
	show := s.input.Preview == nil || *s.input.Preview
	var last time.Time
	return func(step diffusion.Step) {
		s.out.Progress(k*step.Total+step.Index, n*step.Total)
		if !show || step.Preview == nil || step.Index == step.Total || time.Since(last) < previewPause {
			return
		}
		last = time.Now()
		if url := previewURL(step.Preview()); url != "" {
			s.out.Preview(url)
		}
	}
}

// previewSide is the larger side of a preview, pixels.
const previewSide = 192

// previewURL writes a picture as a data URL of a small JPEG, or "" if it will not be small.
func previewURL(p *image.NRGBA) string {
	if p == nil || p.Rect.Empty() {
		return ""
	}
	width, height := previewSide, previewSide
	if p.Rect.Dx() > p.Rect.Dy() {
		height = 0 // in proportion
	} else {
		width = 0
	}
	shown := imaging.Resize(p, width, height, imaging.Linear)
	for _, quality := range []int{75, 40} {
		var file bytes.Buffer
		if err := jpeg.Encode(&file, shown, &jpeg.Options{Quality: quality}); err != nil {
			return ""
		}
		if url := "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(file.Bytes()); len(url) <= generators.MaxPreview {
			return url
		}
	}
	return ""
}

// store writes a picture into a file with what it was made by, and announces it.
func (s *studio) store(ctx context.Context, p *image.NRGBA, by media.Meta) (queue.Artifact, error) {
	format := media.Format(s.input.Format)
	if format == "" {
		format = media.PNG
	}
	var file bytes.Buffer
	err := media.Encode(&file, p, media.EncodeOptions{Format: format, Quality: whole(s.input.Quality, 0), Meta: by})
	if err != nil {
		return queue.Artifact{}, at("/input/output_format", err)
	}
	return s.out.Artifact(ctx, bytes.NewReader(file.Bytes()), queue.Artifact{
		MediaType: format.MediaType(), Name: s.name(by.Record) + format.Extension(), Width: p.Rect.Dx(), Height: p.Rect.Dy(),
	})
}

// finish stores the one picture of a task without a seed and returns the result.
func (s *studio) finish(ctx context.Context, p *image.NRGBA, by media.Meta) (*queue.Result, error) {
	stored, err := s.store(ctx, p, by)
	if err != nil {
		return nil, err
	}
	about, err := json.Marshal(meta{Model: by.Record.Model, Digest: by.Record.Digest, Parameters: s.input})
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return &queue.Result{Artifacts: []queue.Artifact{stored}, Meta: about}, nil
}

// record is what makes a picture again, alone and without previews.
func (s *studio) record(in input, seed uint64) *media.Record {
	in.N, in.Preview = nil, nil
	text, err := json.Marshal(in)
	if err != nil {
		panic(fmt.Sprintf("image: an input that was JSON before cannot be written: %v", err))
	}
	r := &media.Record{Generator: "Helicon", Task: s.job.Task, Seed: seed, Input: text}
	if s.model != nil {
		r.Model = s.model.bundle.ID
	}
	return r
}

// provenance is what the file of a picture says that a model has made.
func (s *studio) provenance(seed uint64, digest string) media.Meta {
	m := media.Meta{Parameters: s.parameters(seed), Record: s.record(s.input, seed), Origin: media.Generated}
	m.Record.Digest = digest
	if s.job.Task != taskGenerate {
		m.Origin = media.Composite
	}
	return m
}

// parameters writes the input as AUTOMATIC1111's web UI does.
func (s *studio) parameters(seed uint64) string {
	in := &s.input
	number := func(p *float64) string {
		if p == nil {
			return ""
		}
		return strconv.FormatFloat(*p, 'g', -1, 64)
	}
	p := media.Parameters{Prompt: in.Prompt, Negative: in.Negative}
	for _, l := range in.LoRAs {
		p.Prompt += fmt.Sprintf(" <lora:%s:%g>", l.Model, value(l.Weight, 1))
	}
	sampler, schedule := media.Sampler(in.Scheduler)
	p.Add(media.FieldSteps, number(in.Steps))
	p.Add(media.FieldSampler, sampler)
	p.Add(media.FieldSchedule, schedule)
	p.Add(media.FieldGuidance, number(in.Guidance))
	p.Add(media.FieldSeed, strconv.FormatUint(seed, 10))
	p.Add(media.FieldSize, number(in.Width)+"x"+number(in.Height))
	p.Add(media.FieldModel, s.model.bundle.ID)
	p.Add(media.FieldStrength, number(in.Strength))
	if skip := whole(in.ClipSkip, 0); skip > 0 {
		p.Add(media.FieldClipSkip, strconv.Itoa(skip+1)) // counted from 1 there
	}
	if h := in.Hires; h != nil {
		p.Add(media.FieldHires, strconv.FormatFloat(value(h.Scale, defaultScale), 'g', -1, 64))
		p.Add(media.FieldHiresStep, number(h.Steps))
		p.Add(media.FieldStrength, number(h.Strength))
	}
	p.Add("Version", "Helicon")
	return p.String()
}

// maxName is how many letters of a prompt the name of a file has.
const maxName = 48

// name is a name for the file: the beginning of the prompt, and the seed.
func (s *studio) name(by *media.Record) string {
	var name strings.Builder
	gap, letters := false, 0
	for _, r := range s.input.Prompt {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			gap = true
			continue
		}
		if letters++; letters > maxName {
			break
		}
		if gap && name.Len() > 0 {
			name.WriteByte('-')
		}
		gap = false
		name.WriteRune(unicode.ToLower(r))
	}
	if name.Len() == 0 {
		_, verb, _ := strings.Cut(s.job.Task, ".")
		name.WriteString(verb)
	}
	return fmt.Sprintf("%s-%d", name.String(), by.Seed)
}
