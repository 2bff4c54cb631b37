package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"helicon/generators/media"
	"helicon/queue"
)

// paintingModels returns a models folder with the tiny Stable Diffusion of the golden
// cases as "tiny", or skips.
func paintingModels(t *testing.T) string {
	t.Helper()
	goldens := os.Getenv("HELICON_GOLDENS")
	if goldens == "" {
		goldens = filepath.Join("..", "shared", "goldens")
	}
	source, err := filepath.Abs(filepath.Join(goldens, "image", "sd15_pipeline"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(source); err != nil {
		t.Skipf("there is no golden model %s", source)
	}
	dir := t.TempDir()
	if err := os.Symlink(source, filepath.Join(dir, "tiny")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a helicon command in a folder and returns what it printed.
func run(t *testing.T, dir string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := command(t.Context(), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// TestGenerateImage makes pictures by the command, with a server and without.
func TestGenerateImage(t *testing.T) {
	t.Parallel()
	models, dir := paintingModels(t), t.TempDir()
	server := launch(t, "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--models", models).address(t)
	awaitWorkers(t, server, 1)
	with := []string{"--model", "tiny", "--size", "16x24", "--steps", "2", "--seed", "5", "--server", server.base}
	out, said, err := run(t, dir, append([]string{"generate", "image", "a red fox", "-o", "fox.png", "-n", "2"}, with...)...)
	if err != nil || out != "fox-1.png\nfox-2.png\n" {
		t.Fatalf("%v: %s%s", err, out, said)
	}
	first, err := os.ReadFile(filepath.Join(dir, "fox-1.png"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := media.Inspect(first)
	if err != nil || info.Width != 16 || info.Height != 24 || !strings.HasPrefix(info.Meta.Parameters, "a red fox\nSteps: 2,") {
		t.Errorf("the picture is %+v, %v", info, err)
	}
	// The same without the server, to the standard output.
	out, said, err = run(t, dir, "generate", "image", "a red fox", "-o", "-", "--model", "tiny", "--size", "16x24", "--steps", "2", "--seed", "5", "--models", models, "--threads", "1")
	if err != nil || out != string(first) {
		t.Errorf("without a server: %v, %d bytes and not the %d of the server's: %s", err, len(out), len(first), said)
	}
	out, said, err = run(t, dir, append([]string{"generate", "image", "blue", "--init", "fox-1.png", "--strength", "0.6", "--json"}, with...)...)
	var job queue.Job
	if err != nil || json.Unmarshal([]byte(out), &job) != nil || job.Task != "image.edit" || len(job.Result.Artifacts) != 1 {
		t.Errorf("%v: %s%s", err, out, said)
	}
	if out, said, err = run(t, dir, append([]string{"generate", "image", "a blue fox!"}, with...)...); err != nil || out != "a-blue-fox-5.png\n" {
		t.Errorf("%v: %s%s", err, out, said)
	}
	for what, args := range map[string][]string{
		"size":      {"x", "--size", "17x16", "-o", "bad.png"},
		"scheduler": {"x", "--scheduler", "magic", "-o", "bad.png"},
		"mask":      {"x", "--init", "fox-1.png", "--mask", "fox-1.png", "--size", "16x2040", "--steps", "500", "-o", "bad.png"},
		"folder":    {"x", "-o", "no/bad.png"},
	} {
		if out, said, err := run(t, dir, append([]string{"generate", "image"}, append(args, "--server", server.base)...)...); err == nil || said == "" || out != "" {
			t.Errorf("%s: %v: %q %q", what, err, out, said)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("files %v, %v; want 3", left, err)
	}
}

// TestImageRoutes makes pictures through OpenAI's SDK, the gateway and a worker, and reads
// back what they were made by.
func TestImageRoutes(t *testing.T) {
	t.Parallel()
	server := launch(t, "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--models", paintingModels(t)).address(t)
	awaitWorkers(t, server, 1)
	c := sdk.NewClient(option.WithBaseURL(server.base+"/v1"), option.WithAPIKey("none"), option.WithHTTPClient(http.DefaultClient))
	answer, err := c.Images.Generate(t.Context(), sdk.ImageGenerateParams{Model: "tiny", Prompt: "a red cat", Size: "24x16", N: sdk.Int(2), Quality: "low"}, option.WithJSONSet("seed", 9))
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(answer.Data[1].B64JSON)
	if err != nil {
		t.Fatal(err)
	}
	p, err := png.Decode(bytes.NewReader(data))
	if err != nil || p.Bounds().Dx() != 24 || answer.Size != "24x16" {
		t.Errorf("picture %v, answer %s", err, answer.RawJSON()[:100])
	}
	var info struct {
		Width      int
		Parameters string
		Generation media.Record
	}
	path := strings.TrimPrefix(answer.Data[1].URL, server.base)
	if err := server.call(t.Context(), http.MethodGet, path+"/info", nil, &info); err != nil || info.Width != 24 ||
		info.Generation.Seed != 10 || info.Generation.Task != "image.generate" || !strings.Contains(info.Parameters, "Seed: 10") {
		t.Errorf("info %+v, %v", info, err)
	}
	again := &submission{Task: info.Generation.Task, Model: info.Generation.Model, Seed: &info.Generation.Seed}
	if err := json.Unmarshal(info.Generation.Input, &again.Input); err != nil {
		t.Fatal(err)
	}
	job, err := server.submit(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.follow(t.Context(), job.ID, func(e *queue.Event) error { job = cmp.Or(e.Job, job); return nil }); err != nil {
		t.Fatal(err)
	}
	if job.Result == nil || !strings.HasSuffix(answer.Data[1].URL, job.Result.Artifacts[0].SHA256) {
		t.Errorf("made again: %+v, want %s", job, answer.Data[1].URL)
	}
	stream := c.Images.GenerateStreaming(t.Context(), sdk.ImageGenerateParams{Model: "tiny", Prompt: "x", PartialImages: sdk.Int(1), Size: "16x16"}, option.WithJSONSet("steps", 40))
	var types []string
	for stream.Next() {
		types = append(types, stream.Current().Type)
	}
	if err := stream.Err(); err != nil || len(types) == 0 || types[len(types)-1] != "image_generation.completed" {
		t.Errorf("events %v, %v", types, err)
	}
	file := func() io.Reader { return sdk.File(bytes.NewReader(data), "a.png", "image/png") }
	edited, err := c.Images.Edit(t.Context(), sdk.ImageEditParams{Model: "tiny", Image: sdk.ImageEditParamsImageUnion{OfFile: file()}, Prompt: "blue", Quality: "low"})
	if err != nil || len(edited.Data) != 1 {
		t.Errorf("edit: %v", err)
	}
	if _, err = c.Images.NewVariation(t.Context(), sdk.ImageNewVariationParams{Model: "tiny", Image: file()}); err != nil {
		t.Errorf("variation: %v", err)
	}
	_, err = c.Images.Edit(t.Context(), sdk.ImageEditParams{Image: sdk.ImageEditParamsImageUnion{OfFile: sdk.File(strings.NewReader("text"), "a.png", "image/png")}, Prompt: "x"})
	var told *sdk.Error
	if !errors.As(err, &told) || told.StatusCode != http.StatusBadRequest || told.Code != "image_unreadable" || told.Param != "image" {
		t.Errorf("a text as a picture: %v", err)
	}
}

// TestImageModelsAreListed checks what the commands say of models for pictures.
func TestImageModelsAreListed(t *testing.T) {
	t.Parallel()
	models := paintingModels(t)
	out, said, err := run(t, "", "models", "list", "--models", models)
	if err != nil || !strings.Contains(out, "StableDiffusionPipeline") || strings.Contains(out, "unusable: tiny") {
		t.Errorf("%v: %s%s", err, out, said)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	doctor, err := command(ctx, "doctor", "--json", "--data", t.TempDir(), "--models", models, "--addr", "127.0.0.1:0").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, doctor)
	}
	var findings []finding
	if err := json.Unmarshal(doctor, &findings); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(findings, func(f finding) bool { return f.Name == "models" && strings.Contains(f.Found, "tiny") }) {
		t.Errorf("findings %+v", findings)
	}
}
