package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helicon/generators"
	"helicon/models/tensor"
	"helicon/models/weights"
	"helicon/queue"
)

// limit is how long any one thing may take before its test gives up.
const limit = 60 * time.Second

// startWorker runs a worker for pictures until the test ends.
func startWorker(t *testing.T, q *queue.Queue, g *Generator) {
	t.Helper()
	w, err := generators.NewWorker(generators.Config{Queue: q, Generators: []generators.Generator{g}, Memory: g.memory})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// watch follows a job to its end, calling each for its events.
func watch(t *testing.T, q *queue.Queue, job *queue.Job, each func(*queue.Event)) *queue.Job {
	t.Helper()
	if err := q.Submit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var last *queue.Job
	for e, err := range q.Watch(ctx, job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		each(e)
		if e.Job != nil {
			last = e.Job
		}
	}
	return last
}

// TestEvents makes pictures by a worker on a real queue: watchers see progress, previews
// and each picture as it is ready, and a job that takes up an earlier one's picture.
func TestEvents(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	startWorker(t, q, open(t, q, dir, 2))
	input := object{"prompt": "red", "width": 16, "height": 16, "steps": 60, "n": 2}
	var order []string
	previews := 0
	job := watch(t, q, jobOf(t, taskGenerate, "", input), func(e *queue.Event) {
		switch {
		case e.Preview != "" && (e.Progress == nil || !strings.HasPrefix(e.Preview, "data:image/jpeg;base64,")):
			t.Errorf("event %+v", e)
		case e.Preview != "":
			previews++
		}
		if e.Type != queue.EventProgress {
			order = append(order, string(e.Type))
		}
	})
	if got := strings.Join(order, " "); got != "queued started artifact artifact succeeded" && got != "started artifact artifact succeeded" || previews == 0 {
		t.Errorf("events %s, %d previews", got, previews)
	}
	if job.State != queue.Succeeded || job.Model != "tiny" || job.Result.Usage.ComputeSeconds <= 0 {
		t.Fatalf("job %+v", job)
	}
	next := jobOf(t, taskVariation, "", object{"steps": 2})
	next.Needs = []string{job.ID}
	if next = watch(t, q, next, func(*queue.Event) {}); next.State != queue.Succeeded {
		t.Errorf("the variation: %+v", next.Problem)
	}
}

// TestCancelByTheQueue cancels a job of many steps once it has begun, and has the worker do
// another one.
func TestCancelByTheQueue(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	startWorker(t, q, open(t, q, dir, 2))
	input := object{"prompt": "red", "width": 48, "height": 48, "steps": 150, "n": 10}
	canceled := time.Time{}
	long := jobOf(t, taskGenerate, "", input)
	job := watch(t, q, long, func(e *queue.Event) {
		if e.Type == queue.EventProgress && canceled.IsZero() {
			canceled = time.Now()
			if _, err := q.Cancel(t.Context(), long.ID); err != nil {
				t.Error(err)
			}
		}
	})
	if job.State != queue.Canceled {
		t.Errorf("the job ended %s", job.State)
	}
	if job := watch(t, q, jobOf(t, taskAdjust, "", object{}), func(*queue.Event) {}); job.State != queue.Failed {
		t.Errorf("an input without operations: %s", job.State)
	}
}

// TestLoRA applies a LoRA to a model, beside which the model stays as it was.
func TestLoRA(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	for _, name := range []string{"lora_kohya", "lora_peft"} {
		if err := os.Symlink(filepath.Join(golden(t, "lora"), name+".safetensors"), filepath.Join(dir, name+".safetensors")); err != nil {
			t.Fatal(err)
		}
	}
	g := open(t, q, dir, 2)
	input := object{"prompt": "red", "width": 16, "height": 16, "steps": 2}
	plain, _, _ := generate(t, q, g, jobOf(t, taskGenerate, "", input))
	input["loras"] = []object{{"model": "lora_kohya", "weight": 0.5}}
	result, m, _ := generate(t, q, g, jobOf(t, taskGenerate, "", input))
	_, about, _ := fetch(t, q, result.Artifacts[0])
	if result.Artifacts[0].SHA256 == plain.Artifacts[0].SHA256 || m.Model != "tiny" || !strings.HasPrefix(about.Meta.Parameters, "red <lora:lora_kohya:0.5>\n") {
		t.Errorf("with the LoRA: meta %+v, parameters %q", m, about.Meta.Parameters)
	}
	if need, err := g.Estimate(jobOf(t, taskGenerate, "", input)); err != nil || need.Model.ID != "tiny" || need.Model.Key == "tiny" {
		t.Errorf("need %+v, %v", need, err)
	}
	again, _, _ := generate(t, q, g, jobOf(t, taskGenerate, "", object{"prompt": "red", "width": 16, "height": 16, "steps": 2}))
	if again.Artifacts[0].SHA256 != plain.Artifacts[0].SHA256 {
		t.Error("the model is another one after it was used with the LoRA")
	}
}

// TestLoRAOfAnotherModel checks that the LoRA is told to be at fault, not the model alone.
func TestLoRAOfAnotherModel(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	for name, from := range map[string]string{"other": "sdxl_pipeline", "small.safetensors": "lora/lora_kohya.safetensors"} {
		if err := os.Symlink(golden(t, from), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	g := open(t, q, dir, 1)
	_, err := g.Generate(t.Context(), jobOf(t, taskGenerate, "other", object{"prompt": "red", "steps": 1, "loras": []object{{"model": "small"}}}), nil, &recorder{queue: q})
	var told *queue.Problem
	if !errors.As(err, &told) || told.Code != "model_unusable" || !strings.Contains(told.Detail, "other cannot be used with small") ||
		len(told.Errors) != 1 || told.Errors[0].Pointer != "/input/loras/0/model" {
		t.Errorf("%v, %+v", err, told)
	}
}

// TestAdditions decodes by a tiny autoencoder and reads a word that an embedding teaches.
func TestAdditions(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	if err := os.Symlink(golden(t, "taesd"), filepath.Join(dir, "taesd")); err != nil {
		t.Fatal(err)
	}
	writeEmbedding(t, filepath.Join(dir, "sunny.safetensors"), "<sunny>")
	g := open(t, q, dir, 2)
	seen := map[string]string{} // pictures, by what made them
	for name, more := range map[string]object{
		"plain":           {},
		"tiny":            {"tiny_vae": "taesd"},
		"word":            {"prompt": "red <sunny>"},
		"word, explained": {"prompt": "red <sunny>", "embeddings": []string{"sunny"}},
	} {
		input := object{"prompt": "red", "width": 16, "height": 16, "steps": 2}
		maps.Copy(input, more)
		result, _, _ := generate(t, q, g, jobOf(t, taskGenerate, "", input))
		sum := result.Artifacts[0].SHA256
		if other, twice := seen[sum]; twice {
			t.Errorf("%s and %s gave the same picture", name, other)
		}
		seen[sum] = name
	}
	for pointer, input := range map[string]object{
		"/input/embeddings/0": {"prompt": "x", "embeddings": []string{"taesd"}},
		"/input/tiny_vae":     {"prompt": "x", "tiny_vae": "tiny"},
	} {
		_, err := g.Estimate(jobOf(t, taskGenerate, "", input))
		var problem *queue.Problem
		if !errors.As(err, &problem) || len(problem.Errors) != 1 || problem.Errors[0].Pointer != pointer {
			t.Errorf("%v: %v, want a problem of %s", input, err, pointer)
		}
	}
}

// writeEmbedding writes a textual inversion of two vectors for the golden pipeline.
func writeEmbedding(t *testing.T, name, word string) {
	t.Helper()
	const width = 32 // of the golden text encoder
	vectors := make([]float32, 2*width)
	for i := range vectors {
		vectors[i] = float32(i%5) - 2
	}
	data := make([]byte, 4*len(vectors))
	tensor.Encode(data, tensor.F32, vectors)
	var file bytes.Buffer
	err := weights.EncodeSafetensors(t.Context(), &file, []weights.Source{{
		Name: word, DType: tensor.F32, Shape: []int{2, width},
		Write: func(w io.Writer) error { _, err := w.Write(data); return err },
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
