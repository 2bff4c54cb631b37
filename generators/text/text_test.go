package text

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"helicon/generators"
	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder keeps what a job emits.
type recorder struct {
	mu       sync.Mutex
	texts    map[int]string
	logprobs map[int][]queue.TokenLogprob
	progress []queue.Progress
	fault    string
	onDelta  func()
}

func (r *recorder) Progress(step, total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress = append(r.progress, queue.Progress{Step: step, Total: total})
}

func (r *recorder) Delta(d queue.Delta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.texts == nil {
		r.texts, r.logprobs = map[int]string{}, map[int][]queue.TokenLogprob{}
	}
	if len(r.texts[d.Choice]) != d.Offset {
		r.fault = "a delta is not where the text ends"
	}
	if !utf8.ValidString(d.Text) || d.Text == "" {
		r.fault = "a delta splits a character or is empty"
	}
	r.texts[d.Choice] += d.Text
	r.logprobs[d.Choice] = append(r.logprobs[d.Choice], d.Logprobs...)
	if r.onDelta != nil {
		r.onDelta()
	}
}

func (r *recorder) Preview(string) {}

func (r *recorder) Artifact(context.Context, io.ReadSeeker, queue.Artifact) (queue.Artifact, error) {
	return queue.Artifact{}, errors.New("text makes no artifacts")
}

// models writes the usual test bundles: "chatty", and "plain" without a template.
func models(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	testBundle{seed: 1, template: chatTemplate}.write(t, filepath.Join(dir, "chatty"))
	testBundle{seed: 2}.write(t, filepath.Join(dir, "plain"))
	return dir
}

// open returns a generator of the bundles in a folder that computes on so many threads.
func open(t testing.TB, dir string, threads int) *Generator {
	t.Helper()
	h, err := hub.Open(hub.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: threads})
	t.Cleanup(pool.Close)
	memory := generators.NewMemory(1 << 28)
	t.Cleanup(memory.Close)
	g, err := New(Config{Hub: h, Pool: pool, Memory: memory, Model: "chatty"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// jobOf returns a job with the input as JSON.
func jobOf(t testing.TB, task, model string, input any) *queue.Job {
	t.Helper()
	body, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	return &queue.Job{ID: queue.NewID(), Task: task, Model: model, Input: body, Seed: 7}
}

type object = map[string]any

// written is a result with its meta taken apart.
type written struct {
	*queue.Result
	meta meta
}

// generate runs a job that must succeed and checks what holds for every job.
func generate(t testing.TB, g *Generator, job *queue.Job) (written, *recorder) {
	t.Helper()
	out := &recorder{}
	result, err := g.Generate(t.Context(), job, nil, out)
	if err != nil {
		t.Fatal(err)
	}
	w := written{Result: result}
	if err := json.Unmarshal(result.Meta, &w.meta); err != nil {
		t.Fatal(err)
	}
	if out.fault != "" {
		t.Error(out.fault)
	}
	if out.texts[0] != result.Text {
		t.Errorf("deltas add up to %q, want the result's %q", out.texts[0], result.Text)
	}
	for _, c := range w.meta.Choices {
		if out.texts[c.Index] != c.Text {
			t.Errorf("deltas of choice %d add up to %q, want %q", c.Index, out.texts[c.Index], c.Text)
		}
		if len(out.logprobs[c.Index]) != len(c.Logprobs) {
			t.Errorf("deltas of choice %d have %d log probabilities, want %d", c.Index, len(out.logprobs[c.Index]), len(c.Logprobs))
		}
	}
	if w.meta.Digest == "" || w.meta.Model == "" || w.Usage.InputTokens == 0 {
		t.Errorf("model %q, digest %q, usage %+v", w.meta.Model, w.meta.Digest, w.Usage)
	}
	return w, out
}

// problemOf runs a job that must be refused and returns why.
func problemOf(t testing.TB, g *Generator, job *queue.Job) *queue.Problem {
	t.Helper()
	_, err := g.Generate(t.Context(), job, nil, &recorder{})
	var problem *queue.Problem
	if !errors.As(err, &problem) {
		t.Fatalf("error %v, want a problem", err)
	}
	return problem
}

func TestComplete(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	w, out := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Once upon", "max_tokens": 20, "stop": []string{}}))
	if w.Usage.InputTokens != len("Once upon") || w.Usage.OutputTokens == 0 || w.Usage.OutputTokens > 20 {
		t.Errorf("usage %+v", w.Usage)
	}
	want := parameters{MaxTokens: 20, Temperature: 0.8, TopK: 40, TopP: 0.95, RepetitionPenalty: 1.1, N: 1, Seed: 7}
	got, _ := json.Marshal(w.meta.Parameters)
	if expect, _ := json.Marshal(want); string(got) != string(expect) {
		t.Errorf("parameters %s, want %s", got, expect)
	}
	if w.meta.Choices != nil || w.meta.Model != "plain" {
		t.Errorf("meta %+v", w.meta)
	}
	last := out.progress[len(out.progress)-1]
	if last.Step != w.Usage.OutputTokens || last.Total != 20 {
		t.Errorf("progress ends at %+v after %d tokens", last, w.Usage.OutputTokens)
	}
}

func TestSameJobSameText(t *testing.T) {
	t.Parallel()
	dir := models(t)
	job := jobOf(t, taskComplete, "plain", object{"prompt": "The same", "max_tokens": 100, "n": 3, "logprobs": 2})
	first, _ := generate(t, open(t, dir, 1), job)
	g := open(t, dir, 2)
	for range 2 {
		again, _ := generate(t, g, job)
		for i, c := range first.meta.Choices {
			a, _ := json.Marshal(c)
			b, _ := json.Marshal(again.meta.Choices[i])
			if string(a) != string(b) {
				t.Fatalf("choice %d differs:\n%s\n%s", i, a, b)
			}
		}
	}
	if a := first.meta.Choices; a[0].Text == a[1].Text || a[1].Text == a[2].Text {
		t.Error("choices have the same text")
	}
	alone, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "The same", "max_tokens": 100}))
	if alone.Text != first.Text {
		t.Errorf("the first of three is %q, alone it is %q", first.Text, alone.Text)
	}
	other := jobOf(t, taskComplete, "plain", object{"prompt": "The same", "max_tokens": 100})
	other.Seed++
	if changed, _ := generate(t, g, other); changed.Text == first.Text {
		t.Error("another seed gives the same text")
	}
}

func TestManyJobsAtOnce(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 2)
	input := object{"prompt": "All at once", "max_tokens": 40}
	want, _ := generate(t, g, jobOf(t, taskComplete, "plain", input))
	var jobs sync.WaitGroup
	for range 8 {
		jobs.Go(func() {
			if got, _ := generate(t, g, jobOf(t, taskComplete, "plain", input)); got.Text != want.Text {
				t.Errorf("text %q, alone %q", got.Text, want.Text)
			}
		})
	}
	jobs.Wait()
}

func TestStopStringEndsTheText(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	input := object{"prompt": "Stop", "max_tokens": 80, "temperature": 0, "repetition_penalty": 1.3, "logprobs": 0}
	free, _ := generate(t, g, jobOf(t, taskComplete, "plain", input))
	runes := []rune(free.Text)
	if len(runes) < 12 {
		t.Fatalf("the text %q is too short for the test", free.Text)
	}
	stop := string(runes[8:11])
	input["stop"] = []string{"nowhere in it", stop}
	w, _ := generate(t, g, jobOf(t, taskComplete, "plain", input))
	if want := free.Text[:strings.Index(free.Text, stop)]; w.Text != want || w.meta.FinishReason != finishStop {
		t.Errorf("text %q, finished by %s; want %q", w.Text, w.meta.FinishReason, want)
	}
}

func TestLengthIsClippedToTheContextWindow(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	prompt := strings.Repeat("x", testContext-5)
	w, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": prompt, "max_tokens": 4096, "temperature": 0}))
	if w.meta.Parameters.MaxTokens != 5 || w.Usage.OutputTokens > 5 {
		t.Errorf("max_tokens %d, %d written", w.meta.Parameters.MaxTokens, w.Usage.OutputTokens)
	}
	if w.Usage.OutputTokens == 5 && w.meta.FinishReason != finishLength {
		t.Errorf("finished by %s", w.meta.FinishReason)
	}
	problem := problemOf(t, g, jobOf(t, taskComplete, "plain", object{"prompt": prompt + "12345"}))
	if problem.Code != "prompt_too_long" || !strings.Contains(problem.Detail, "160") {
		t.Errorf("problem %v", problem)
	}
	problem = problemOf(t, g, jobOf(t, taskComplete, "plain", object{"prompt": strings.Repeat("x", 170)}))
	if !strings.Contains(problem.Detail, "170") || !strings.Contains(problem.Detail, "160") {
		t.Errorf("problem %v does not name both numbers", problem)
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	plain, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Echo", "max_tokens": 10, "n": 2}))
	echo, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Echo", "max_tokens": 10, "n": 2, "echo": true}))
	for i, c := range echo.meta.Choices {
		if want := "Echo" + plain.meta.Choices[i].Text; c.Text != want {
			t.Errorf("choice %d is %q, want %q", i, c.Text, want)
		}
	}
}

func TestLogprobs(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	w, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Probably", "max_tokens": 30, "logprobs": 3, "temperature": 0, "repetition_penalty": 1}))
	rows := w.meta.Choices[0].Logprobs
	if len(rows) == 0 {
		t.Fatal("no log probabilities")
	}
	for i, row := range rows {
		if row.Logprob > 0 || len(row.Top) != 3 || row.Top[0].Logprob != row.Logprob || len(row.Bytes) != 1 {
			t.Fatalf("row %d: %+v; greedy decoding takes the likeliest", i, row)
		}
	}
	problem := problemOf(t, open(t, models(t), 1), jobOf(t, taskComplete, "plain",
		object{"prompt": "x", "max_tokens": 4096, "logprobs": 20, "n": 13}))
	if problem.Code != "invalid_request" || problem.Errors[0].Pointer != "/n" {
		t.Errorf("problem %v", problem)
	}
}

func TestCancelStopsWithinOneToken(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	out := &recorder{}
	out.onDelta = func() { cancel(queue.ErrCanceled) }
	_, err := g.Generate(ctx, jobOf(t, taskComplete, "plain", object{"prompt": "Cancel", "max_tokens": 100}), nil, out)
	if !errors.Is(err, queue.ErrCanceled) {
		t.Fatalf("error %v", err)
	}
	count := 0
	for _, text := range out.texts {
		count += utf8.RuneCountInString(text)
	}
	if count != 1 {
		t.Errorf("%d characters were written after the cancel", count-1)
	}
}

func TestModelsAndTasks(t *testing.T) {
	t.Parallel()
	dir := models(t)
	if err := os.MkdirAll(filepath.Join(dir, "broken"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"broken/config.json": `{"architectures":["LlamaForCausalLM"]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g := open(t, dir, 1)
	tasks := map[string][]string{}
	for _, m := range g.Models() {
		tasks[m.ID] = m.Tasks
		if m.Source != hub.Embedded && (m.Context != testContext || m.Parameters == 0 || m.Architecture != "LlamaForCausalLM") {
			t.Errorf("model %+v", m)
		}
	}
	if !slices.Equal(tasks["plain"], []string{taskComplete, taskEmbed}) || !slices.Equal(tasks["chatty"], []string{taskComplete, taskChat, taskEmbed}) || tasks["broken"] != nil {
		t.Errorf("tasks by model %v", tasks)
	}
	for _, task := range g.Tasks() {
		if task.Model != "chatty" || task.Title == "" || len(task.Schema) == 0 {
			t.Errorf("task %s: model %q, title %q", task.Name, task.Model, task.Title)
		}
	}
	if problem := problemOf(t, g, jobOf(t, taskComplete, "broken", object{"prompt": "x"})); problem.Code != "model_unusable" {
		t.Errorf("problem %v", problem)
	}
	if problem := problemOf(t, g, jobOf(t, taskComplete, "../plain", object{"prompt": "x"})); problem.Code != "model_not_found" {
		t.Errorf("problem %v", problem)
	}
	if problem := problemOf(t, g, jobOf(t, taskChat, "plain", object{"messages": []message{{Role: user, Content: "hi"}}})); problem.Code != "no_chat_template" {
		t.Errorf("problem %v", problem)
	}
	testBundle{seed: 3}.write(t, filepath.Join(dir, "owner", "late"))
	generate(t, g, jobOf(t, taskComplete, "owner/late", object{"prompt": "found by a rescan", "max_tokens": 2}))
}

func TestGenerationConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, config := range map[string]map[string]any{
		"greedy":  {"do_sample": false, "max_new_tokens": 12, "eos_token_id": []int{tokenEnd, tokenUser}},
		"sampled": {"do_sample": true, "temperature": 0.3, "top_k": 5, "top_p": nil, "max_new_tokens": 100000},
		"wrong":   {"top_p": 7},
	} {
		testBundle{seed: 1, generation: config}.write(t, filepath.Join(dir, name))
	}
	g := open(t, dir, 1)
	w, _ := generate(t, g, jobOf(t, taskComplete, "greedy", object{"prompt": "x"}))
	if p := w.meta.Parameters; p.Temperature != 0 || p.MaxTokens != 12 || p.TopK != 40 {
		t.Errorf("greedy: %+v", p)
	}
	w, _ = generate(t, g, jobOf(t, taskComplete, "sampled", object{"prompt": "x", "temperature": 0.5, "max_tokens": 3}))
	if p := w.meta.Parameters; p.Temperature != 0.5 || p.TopK != 5 || p.TopP != 0.95 {
		t.Errorf("sampled: %+v", p)
	}
	if problem := problemOf(t, g, jobOf(t, taskComplete, "wrong", object{"prompt": "x"})); problem.Code != "model_unusable" || !strings.Contains(problem.Detail, "top_p") {
		t.Errorf("wrong: %v", problem)
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	info, err := os.Stat(filepath.Join(bundleDir(t, g, "plain"), "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	short, err := g.Estimate(jobOf(t, taskComplete, "plain", object{"prompt": "x", "max_tokens": 1}))
	if err != nil {
		t.Fatal(err)
	}
	if short.Model.Key != "plain" || short.Model.Bytes <= info.Size() || short.Memory <= 0 {
		t.Errorf("need %+v, weights %d", short, info.Size())
	}
	long, err := g.Estimate(jobOf(t, taskComplete, "plain", object{"prompt": "x", "max_tokens": 100, "n": 2}))
	if err != nil {
		t.Fatal(err)
	}
	if long.Model != short.Model || long.Memory != 2*short.Memory {
		t.Errorf("need %+v for two texts, %+v for one", long, short)
	}
	if _, err := g.Estimate(jobOf(t, taskComplete, "plain", object{"prompt": ""})); err == nil {
		t.Error("an empty prompt is estimated")
	}
}

func bundleDir(t testing.TB, g *Generator, id string) string {
	t.Helper()
	b, err := g.hub.Bundle(id)
	if err != nil {
		t.Fatal(err)
	}
	return b.Source
}

// TestSchemas compares the schemas with the rules and defaults that the code has.
func TestSchemas(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	compiler := jsonschema.NewCompiler()
	compiled := map[string]*jsonschema.Schema{}
	for _, task := range g.Tasks() {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(task.Schema)))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(task.Name, doc); err != nil {
			t.Fatal(err)
		}
		if compiled[task.Name], err = compiler.Compile(task.Name); err != nil {
			t.Fatal(err)
		}
		stated := defaults()
		var schema struct {
			Properties map[string]struct {
				Title       string `json:"title"`
				Description string `json:"description"`
				Default     any    `json:"default"`
			} `json:"properties"`
		}
		if err := json.Unmarshal(task.Schema, &schema); err != nil {
			t.Fatal(err)
		}
		values := map[string]any{}
		for name, p := range schema.Properties {
			if p.Title == "" || p.Description == "" {
				t.Errorf("%s: %s has no title or description", task.Name, name)
			}
			if p.Default != nil && name != "echo" {
				values[name] = p.Default
			}
		}
		body, _ := json.Marshal(values)
		var s sampling
		if err := json.Unmarshal(body, &s); err != nil {
			t.Fatal(err)
		}
		if task.Name == taskEmbed {
			continue // has no defaults
		}
		got, _ := json.Marshal(s.over(parameters{}))
		if want, _ := json.Marshal(stated); string(got) != string(want) {
			t.Errorf("%s: defaults %s, want %s", task.Name, got, want)
		}
	}
	long := strings.Repeat("é", maxTextLength)
	say := func(role, content string) object { return object{"role": role, "content": content} }
	for _, c := range []struct {
		task  string
		input object
		ok    bool
	}{
		{taskComplete, object{"prompt": "x"}, true},
		{taskComplete, object{"prompt": ""}, false},
		{taskComplete, object{}, false},
		{taskComplete, object{"prompt": long}, true},
		{taskComplete, object{"prompt": long + "x"}, false},
		{taskComplete, object{"prompt": "x", "color": "red"}, false},
		{taskComplete, object{"prompt": 7}, false},
		{taskComplete, object{"prompt": "x", "max_tokens": 4096, "temperature": 2, "top_k": 1000, "top_p": 1, "min_p": 1, "repetition_penalty": 2, "presence_penalty": -2, "frequency_penalty": 2, "n": 8}, true},
		{taskComplete, object{"prompt": "x", "max_tokens": 1, "temperature": 0, "top_k": 0, "top_p": 0, "min_p": 0, "repetition_penalty": 0.1, "n": 1, "logprobs": 0, "echo": true}, true},
		{taskComplete, object{"prompt": "x", "max_tokens": 0}, false},
		{taskComplete, object{"prompt": "x", "max_tokens": 4097}, false},
		{taskComplete, object{"prompt": "x", "max_tokens": 1.5}, false},
		{taskComplete, object{"prompt": "x", "temperature": 2.1}, false},
		{taskComplete, object{"prompt": "x", "temperature": -0.1}, false},
		{taskComplete, object{"prompt": "x", "temperature": "hot"}, false},
		{taskComplete, object{"prompt": "x", "top_k": -1}, false},
		{taskComplete, object{"prompt": "x", "top_k": 1001}, false},
		{taskComplete, object{"prompt": "x", "top_p": 1.1}, false},
		{taskComplete, object{"prompt": "x", "min_p": -1}, false},
		{taskComplete, object{"prompt": "x", "repetition_penalty": 0}, false},
		{taskComplete, object{"prompt": "x", "presence_penalty": 2.5}, false},
		{taskComplete, object{"prompt": "x", "frequency_penalty": -2.5}, false},
		{taskComplete, object{"prompt": "x", "n": 9}, false},
		{taskComplete, object{"prompt": "x", "n": 0}, false},
		{taskComplete, object{"prompt": "x", "logprobs": 21}, false},
		{taskComplete, object{"prompt": "x", "stop": slices.Repeat([]string{"s"}, 16)}, true},
		{taskComplete, object{"prompt": "x", "stop": slices.Repeat([]string{"s"}, 17)}, false},
		{taskComplete, object{"prompt": "x", "stop": []string{""}}, false},
		{taskComplete, object{"prompt": "x", "stop": []string{strings.Repeat("s", 257)}}, false},
		{taskComplete, object{"prompt": "x", "messages": []object{say(user, "x")}}, false},
		{taskChat, object{"messages": []object{say(system, "x"), say(user, "x"), say(assistant, "")}}, true},
		{taskChat, object{"messages": []object{}}, false},
		{taskChat, object{"messages": []object{say("tool", "x")}}, false},
		{taskChat, object{"messages": []object{say(user, long+"x")}}, false},
		{taskChat, object{"messages": []object{{"role": user, "content": "x", "name": "y"}}}, false},
		{taskChat, object{"messages": slices.Repeat([]object{say(user, "x")}, 1000)}, true},
		{taskChat, object{"messages": slices.Repeat([]object{say(user, "x")}, 1001)}, false},
		{taskChat, object{"messages": []object{say(user, "x")}, "prompt": "x"}, false},
		{taskChat, object{"messages": []object{say(user, "x")}, "echo": true}, false},
	} {
		job := jobOf(t, c.task, "chatty", c.input)
		shown := string(job.Input[:min(len(job.Input), 100)])
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(job.Input)))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled[c.task].Validate(document); (err == nil) != c.ok {
			t.Errorf("schema: %s %s: %v", c.task, shown, err)
		}
		_, err = g.request(job)
		var problem *queue.Problem
		if (err == nil) != c.ok || err != nil && !errors.As(err, &problem) {
			t.Errorf("code: %s %s: %v", c.task, shown, err)
		}
	}
}

// TestDefaultModel runs the embedded model on both tasks: it writes words, and the
// same ones on any number of threads.
func TestDefaultModel(t *testing.T) {
	t.Parallel()
	one, two := open(t, "", 1), open(t, "", 2)
	if _, err := one.hub.Bundle(defaultModel); errors.Is(err, hub.ErrNotFound) {
		t.Skip("this build embeds no ", defaultModel)
	}
	for _, job := range []*queue.Job{
		jobOf(t, taskComplete, "", object{"prompt": "Once upon a time, there was a little", "max_tokens": 60}),
		jobOf(t, taskChat, "", object{"messages": []message{{Role: user, Content: "Write a story about a dog."}}, "max_tokens": 60}),
		jobOf(t, taskChat, "", object{"messages": []message{{Role: user, Content: "写一首五言绝句，题为《春晓》。"}}, "max_tokens": 60}),
	} {
		a, _ := generate(t, one, job)
		b, _ := generate(t, two, job)
		if a.meta.Model != defaultModel || a.Usage.OutputTokens < 10 || a.Text != b.Text {
			t.Errorf("%s: %d tokens of %s\non one thread %q\non two %q", job.Input, a.Usage.OutputTokens, a.meta.Model, a.Text, b.Text)
		}
		t.Logf("%s\n→ %s", job.Input, a.Text)
	}
}

func FuzzRequest(f *testing.F) {
	g := open(f, models(f), 1)
	f.Add([]byte(`{"prompt":"x","max_tokens":3}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":"x"}],"stop":["a"],"logprobs":3}`))
	f.Add([]byte(`{"prompt":{}}`))
	f.Add([]byte(`{"prompt":"x","max_tokens":1e1,"n":2.0,"top_k":1.5}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, task := range []string{taskComplete, taskChat} {
			_, err := g.request(&queue.Job{Task: task, Model: "chatty", Input: body})
			var problem *queue.Problem
			if err != nil && !errors.As(err, &problem) {
				t.Errorf("%s: %v is no problem", task, err)
			}
		}
	})
}
