package media

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// Parameters is the text that AUTOMATIC1111's web UI puts into its files: the prompt, the
// negative prompt behind "Negative prompt: ", and a last line of fields.
type Parameters struct {
	Prompt, Negative string
	Fields           []Field // in their order
}

// Field is a named value of the last line.
type Field struct{ Name, Value string }

// Names of the fields that both sides know.
const (
	FieldSteps     = "Steps"
	FieldSampler   = "Sampler"
	FieldSchedule  = "Schedule type"
	FieldGuidance  = "CFG scale"
	FieldSeed      = "Seed"
	FieldSize      = "Size"
	FieldModel     = "Model"
	FieldModelHash = "Model hash"
	FieldStrength  = "Denoising strength"
	FieldClipSkip  = "Clip skip"
	FieldHires     = "Hires upscale"
	FieldHiresStep = "Hires steps"
)

const negativePrompt = "Negative prompt: "

// Add appends a field unless its value is empty.
func (p *Parameters) Add(name, value string) {
	if value != "" {
		p.Fields = append(p.Fields, Field{name, value})
	}
}

// Get returns the value of a field, "" if there is none.
func (p *Parameters) Get(name string) string {
	for _, f := range p.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// String writes the text.
func (p *Parameters) String() string {
	var b strings.Builder
	b.WriteString(p.Prompt + "\n")
	if p.Negative != "" {
		b.WriteString(negativePrompt + p.Negative + "\n")
	}
	for i, f := range p.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		value := f.Value
		if strings.ContainsAny(value, ",\n:\"") {
			value = strconv.Quote(value)
		}
		b.WriteString(f.Name + ": " + value)
	}
	return b.String()
}

// fieldPattern is a field of the last line, as the web UI itself reads it.
var fieldPattern = regexp.MustCompile(`\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)`)

// fewestFields make a line the last one: a prompt may have a colon too.
const fewestFields = 3

// ParseParameters reads such a text. One without fields is a prompt alone.
func ParseParameters(text string) Parameters {
	var p Parameters
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := lines[len(lines)-1]
	if matches := fieldPattern.FindAllStringSubmatch(last, -1); len(matches) >= fewestFields {
		lines = lines[:len(lines)-1]
		for _, m := range matches {
			value := strings.TrimSpace(m[2])
			if unquoted, err := strconv.Unquote(value); err == nil && strings.HasPrefix(value, `"`) {
				value = unquoted
			}
			p.Fields = append(p.Fields, Field{m[1], value})
		}
	}
	var prompt, negative []string
	in := &prompt
	for _, line := range lines {
		line = strings.TrimRight(line, "\r")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), strings.TrimSpace(negativePrompt)); ok {
			in, line = &negative, strings.TrimSpace(rest)
		}
		*in = append(*in, line)
	}
	p.Prompt, p.Negative = strings.Join(prompt, "\n"), strings.Join(negative, "\n")
	return p
}

// samplers are the schedulers whose names in the web UI differ, by those.
func samplers() map[string]string {
	return map[string]string{
		"DDIM": "ddim", "DPM2": "dpm2", "DPM2 a": "dpm2_a", "DPM++ 2M": "dpmpp_2m", "DPM++ 2M SDE": "dpmpp_2m_sde",
		"DPM++ 2S a": "dpmpp_2s", "DPM++ SDE": "dpmpp_sde", "DPM++ 3M SDE": "dpmpp_3m", "Euler": "euler",
		"Euler a": "euler_a", "Heun": "heun", "LCM": "lcm", "LMS": "lms", "PLMS": "pndm", "UniPC": "unipc", "DDPM": "ddpm", "TCD": "tcd",
	}
}

// Sampler writes a scheduler's name, such as dpmpp_2m_karras, as the web UI does:
// "DPM++ 2M" of the schedule "Karras".
func Sampler(scheduler string) (sampler, schedule string) {
	base := scheduler
	for suffix, name := range map[string]string{"_karras": "Karras", "_exponential": "Exponential", "_beta": "Beta"} {
		if short, ok := strings.CutSuffix(scheduler, suffix); ok {
			base, schedule = short, name
		}
	}
	for name, ours := range samplers() {
		if ours == base {
			return name, schedule
		}
	}
	return scheduler, ""
}

// scheduler reads what Sampler writes, and the older form with the schedule behind the
// sampler's name; "" if it is none of ours.
func scheduler(sampler, schedule string) string {
	for _, name := range []string{"Karras", "Exponential"} {
		if short, ok := strings.CutSuffix(sampler, " "+name); ok {
			sampler, schedule = short, name
		}
	}
	base, known := samplers()[sampler]
	if !known {
		return ""
	}
	switch schedule {
	case "Karras", "Exponential", "Beta":
		return base + "_" + strings.ToLower(schedule)
	}
	return base
}

// Restored returns the record of a file: its own, or what its parameters say in the terms of
// the task image.generate; nil if there is neither. What is not a number where one has to
// be is left out, and so is the model, which other programs name otherwise.
func (m *Meta) Restored() *Record {
	if m.Record != nil || strings.TrimSpace(m.Parameters) == "" {
		return m.Record
	}
	p := ParseParameters(m.Parameters)
	input := map[string]any{"prompt": p.Prompt}
	if p.Negative != "" {
		input["negative_prompt"] = p.Negative
	}
	whole := func(field, name string, less int) {
		if n, err := strconv.Atoi(p.Get(field)); err == nil && n >= less {
			input[name] = n - less
		}
	}
	whole(FieldSteps, "steps", 0)
	whole(FieldClipSkip, "clip_skip", 1) // which there counts the layer itself
	if g, err := strconv.ParseFloat(p.Get(FieldGuidance), 64); err == nil && g >= 0 && g < 1000 {
		input["guidance"] = g
	}
	if name := scheduler(p.Get(FieldSampler), p.Get(FieldSchedule)); name != "" {
		input["scheduler"] = name
	}
	if w, h, ok := strings.Cut(p.Get(FieldSize), "x"); ok {
		width, err1 := strconv.Atoi(w)
		height, err2 := strconv.Atoi(h)
		if err1 == nil && err2 == nil {
			input["width"], input["height"] = width, height
		}
	}
	text, err := json.Marshal(input)
	if err != nil {
		return nil
	}
	r := &Record{Generator: "unknown", Task: "image.generate", Input: text}
	if seed, err := strconv.ParseUint(p.Get(FieldSeed), 10, 53); err == nil {
		r.Seed = seed
	}
	return r
}
