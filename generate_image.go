package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"helicon/queue"
)

// generateImageCmd is one image job. Flags that are not given leave the choice to the
// model's own settings.
type generateImageCmd struct {
	clientFlags
	Prompt    string     `arg:"" help:"What the picture is to show; - reads it from the standard input, less its last line end."`
	Output    string     `short:"o" help:"File to write: .png, .jpg or .webp; - is the standard output. Of several pictures each has its number before the ending. Unless given, files are named after the prompt." placeholder:"FILE"`
	Model     string     `help:"Model to use." placeholder:"ID"`
	Size      dimensions `help:"Width and height, such as 512x768; multiples of 8." placeholder:"WxH"`
	Steps     *int       `help:"Steps: more take longer and show more detail." placeholder:"N"`
	Guidance  *float64   `help:"How closely to keep to the prompt; 1 is not at all." placeholder:"G"`
	Seed      *uint64    `help:"Same seed, same picture." placeholder:"N"`
	Negative  string     `help:"What the picture is not to show." placeholder:"TEXT"`
	Scheduler string     `help:"Method of the steps, such as euler_a or dpmpp_2m_karras." placeholder:"NAME"`
	Count     *int       `short:"n" help:"Pictures to make." placeholder:"N"`
	Init      string     `help:"Picture to begin from." type:"existingfile" placeholder:"FILE"`
	Strength  *float64   `help:"With --init: how far it is changed, above 0 to 1." placeholder:"S"`
	Mask      string     `help:"With --init: picture of the same size that is white where it is to be made anew." type:"existingfile" placeholder:"FILE"`
	LoRA      []loraFlag `name:"lora" help:"LoRA to apply, with its weight; may be repeated." placeholder:"ID[:WEIGHT]"`
	Quality   *int       `help:"Of JPEG files, 1 to 100." placeholder:"Q"`
}

// dimensions is a size in pixels as people write it.
type dimensions struct{ width, height int }

// UnmarshalText reads a size.
func (d *dimensions) UnmarshalText(text []byte) error {
	w, h, _ := strings.Cut(string(text), "x")
	var err, err2 error
	d.width, err = strconv.Atoi(w)
	d.height, err2 = strconv.Atoi(h)
	if err != nil || err2 != nil || d.width < 1 || d.height < 1 {
		return fmt.Errorf("%q is not a size such as 512x768", text)
	}
	return nil
}

// loraFlag is a LoRA with its weight.
type loraFlag struct {
	Model  string  `json:"model"`
	Weight float64 `json:"weight"`
}

// UnmarshalText reads an id, and behind a colon the weight.
func (l *loraFlag) UnmarshalText(text []byte) error {
	id, weight, given := strings.Cut(string(text), ":")
	*l = loraFlag{Model: id, Weight: 1}
	if given {
		var err error
		if l.Weight, err = strconv.ParseFloat(weight, 64); err != nil {
			return fmt.Errorf("%q is not a LoRA such as name or name:0.7", text)
		}
	}
	return nil
}

// Validate refuses settings that mean nothing.
func (c *generateImageCmd) Validate() error {
	if c.Init == "" && (c.Mask != "" || c.Strength != nil) {
		return errors.New("--mask and --strength need --init")
	}
	if c.Output == "-" && c.Count != nil && *c.Count > 1 {
		return errors.New("--output -: the standard output takes one picture")
	}
	if c.Output == "-" && c.JSON {
		return errors.New("--output -: the standard output is for the job with --json")
	}
	if _, err := c.format(); err != nil {
		return err
	}
	return c.engineFlags.validate()
}

// format returns the output_format by the file's ending.
func (c *generateImageCmd) format() (string, error) {
	switch ending := strings.ToLower(filepath.Ext(c.Output)); {
	case ending == ".png", c.Output == "", c.Output == "-":
		return "png", nil
	case ending == ".jpg", ending == ".jpeg":
		return "jpeg", nil
	case ending == ".webp":
		return "webp", nil
	default:
		return "", fmt.Errorf("--output: %q does not end in .png, .jpg or .webp", c.Output)
	}
}

// Run submits the job and writes its pictures.
func (c *generateImageCmd) Run(ctx context.Context, env *environment) error {
	if dir := filepath.Dir(c.Output); c.Output != "" && c.Output != "-" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return fmt.Errorf("--output: there is no folder %s", dir)
		}
	}
	return c.withServer(ctx, env, func(ctx context.Context, server *client) error {
		job, err := c.submission(ctx, server)
		if err != nil {
			return err
		}
		view := &imageView{
			env: env, live: isTerminal(env.stderr) && !c.JSON, asJSON: c.JSON,
			save: func(job *queue.Job) ([]string, error) { return c.save(ctx, env, server, job) },
		}
		return runJob(ctx, server, job, view)
	})
}

func (c *generateImageCmd) submission(ctx context.Context, server *client) (*submission, error) {
	prompt := c.Prompt
	if prompt == "-" {
		var err error
		if prompt, err = readPrompt(ctx, os.Stdin); err != nil {
			return nil, fmt.Errorf("prompt: %w", err)
		}
	}
	format, err := c.format()
	if err != nil {
		return nil, err
	}
	job := &submission{Task: "image.generate", Model: c.Model, Seed: c.Seed, Priority: queue.High,
		Input: map[string]any{"prompt": prompt, "output_format": format, "preview": false}}
	for _, file := range []struct{ name, path, task string }{{"image", c.Init, "image.edit"}, {"mask", c.Mask, "image.inpaint"}} {
		if file.path == "" {
			continue
		}
		stored, err := server.upload(ctx, file.path)
		if err != nil {
			return nil, describe(err)
		}
		job.Task, job.Input[file.name] = file.task, stored.SHA256
	}
	if c.Size != (dimensions{}) {
		job.Input["width"], job.Input["height"] = c.Size.width, c.Size.height
	}
	if c.Negative != "" {
		job.Input["negative_prompt"] = c.Negative
	}
	if c.Scheduler != "" {
		job.Input["scheduler"] = c.Scheduler
	}
	if len(c.LoRA) > 0 {
		job.Input["loras"] = c.LoRA
	}
	set(job.Input, "steps", c.Steps)
	set(job.Input, "guidance", c.Guidance)
	set(job.Input, "n", c.Count)
	set(job.Input, "strength", c.Strength)
	set(job.Input, "quality", c.Quality)
	return job, nil
}

// save writes the pictures of a job and returns the names of the files.
func (c *generateImageCmd) save(ctx context.Context, env *environment, server *client, job *queue.Job) ([]string, error) {
	var names []string
	if c.JSON && c.Output == "" {
		return nil, nil
	}
	made := job.Result.Artifacts
	for i, a := range made {
		data, err := server.fetch(ctx, a)
		if err != nil {
			return names, err
		}
		if c.Output == "-" {
			_, err := env.stdout.Write(data)
			return nil, err
		}
		name := c.Output
		if ending := filepath.Ext(name); name != "" && len(made) > 1 {
			name = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ending), i+1, ending)
		}
		if name == "" {
			name = filepath.Base(a.Name)
		}
		if err := writeWhole(name, data); err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(name string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(name), ".helicon-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // in vain once it has its name
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// upload stores a file of the user's.
func (c *client) upload(ctx context.Context, path string) (*queue.Artifact, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	resp, err := c.do(ctx, http.MethodPost, "/v1/uploads", file, map[string]string{"Content-Type": "application/octet-stream"})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	stored := new(queue.Artifact)
	if err := json.NewDecoder(resp.Body).Decode(stored); err != nil {
		return nil, fmt.Errorf("answer of %s/v1/uploads: %w", c.base, err)
	}
	return stored, nil
}

// fetch reads an artifact and checks that it is the one meant.
func (c *client) fetch(ctx context.Context, a queue.Artifact) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/artifacts/"+a.SHA256, nil, nil)
	if err != nil {
		return nil, describe(err)
	}
	defer resp.Body.Close()
	var data bytes.Buffer
	digest := sha256.New()
	if _, err := io.Copy(io.MultiWriter(&data, digest), io.LimitReader(resp.Body, a.Size+1)); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", c.base, errUnreachable, err)
	}
	if hex.EncodeToString(digest.Sum(nil)) != a.SHA256 {
		return nil, fmt.Errorf("%s: the picture came otherwise than it was made", c.base)
	}
	return data.Bytes(), nil
}

// imageView shows how the pictures of a job come along.
type imageView struct {
	env    *environment
	live   bool // the standard error is a terminal: show a line that changes
	asJSON bool
	save   func(*queue.Job) (names []string, err error)
	shown  bool // that line is there
	job    *queue.Job
}

const barWidth = 30 // characters

func (v *imageView) show(e *queue.Event) error {
	if e.Job != nil {
		v.job = e.Job
	}
	if !v.live {
		return nil
	}
	switch {
	case e.Type == queue.EventQueued:
		v.line("queued …")
	case e.Type == queue.EventStarted:
		v.line("loading the model …")
	case e.Progress != nil && e.Progress.Total > 0:
		p := e.Progress
		done := barWidth * p.Step / p.Total
		text := fmt.Sprintf("%s%s %d of %d steps", strings.Repeat("█", done), strings.Repeat("░", barWidth-done), p.Step, p.Total)
		if p.ETA > 0 {
			text += fmt.Sprintf(", %s left", (time.Duration(p.ETA*float64(time.Second)) + time.Second/2).Truncate(time.Second))
		}
		v.line(text)
	}
	return nil
}

func (v *imageView) line(text string) {
	fmt.Fprint(v.env.stderr, "\r\x1b[K"+text)
	v.shown = true
}

func (v *imageView) clear() {
	if v.shown {
		fmt.Fprint(v.env.stderr, "\r\x1b[K")
		v.shown = false
	}
}

func (v *imageView) cut() {}

// finish writes the pictures and tells where.
func (v *imageView) finish() error {
	failed := failure(v.job)
	if failed == nil {
		names, err := v.save(v.job)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !v.asJSON {
				fmt.Fprintln(v.env.stdout, name)
			}
		}
	}
	if v.asJSON {
		return errors.Join(indented(v.env.stdout, v.job), failed)
	}
	if v.live && failed == nil && v.job.Started != nil && v.job.Finished != nil {
		fmt.Fprintf(v.env.stderr, "%.1f s, seed %d\n", v.job.Finished.Sub(*v.job.Started).Seconds(), v.job.Seed)
	}
	return failed
}
