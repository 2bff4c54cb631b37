package openai_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

// tinyPNG is a picture of one pixel.
const tinyPNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func pixel(t testing.TB) []byte {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(tinyPNG)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// picture is a file with that.
func picture(t testing.TB) io.Reader {
	return sdk.File(bytes.NewReader(pixel(t)), "a.png", "image/png")
}

// paint makes n pictures of a few bytes that say which they are, each in four steps.
func paint(h *harness.Harness) harness.Work {
	return func(ctx context.Context, l *queue.Lease) error {
		in := struct {
			N      int
			Format string `json:"output_format"`
		}{1, "png"}
		if err := json.Unmarshal(l.Job.Input, &in); err != nil {
			return err
		}
		result := &queue.Result{}
		for k := range in.N {
			for step := range 4 {
				e := queue.Event{Type: queue.EventProgress, Progress: &queue.Progress{Step: 4*k + step + 1, Total: 4 * in.N}}
				e.Preview = "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "preview %d.%d", k, step))
				if err := l.Emit(ctx, e); err != nil {
					return err
				}
			}
			a, err := h.Queue.PutArtifact(ctx, queue.DefaultTenant, strings.NewReader(fmt.Sprintf("picture %d of %s", k, l.Job.ID)), 1000,
				queue.Artifact{MediaType: "image/" + in.Format, Width: 16, Height: 24})
			if err != nil {
				return err
			}
			if err := l.Emit(ctx, queue.Event{Type: queue.EventArtifact, Artifact: &a}); err != nil {
				return err
			}
			result.Artifacts = append(result.Artifacts, a)
		}
		return l.Succeed(ctx, result)
	}
}

// inputOf returns the job behind an answer.
func inputOf(t testing.TB, h *harness.Harness, response *http.Response) *queue.Job {
	t.Helper()
	job, err := h.Queue.Job(t.Context(), response.Header.Get("X-Helicon-Job"))
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func decoded(t testing.TB, b64 string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestImages(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.ImageWorker(t, "w1", paint(h))
	c := client(h)
	var response *http.Response
	answer, err := c.Images.Generate(t.Context(), sdk.ImageGenerateParams{
		Model: harness.Model, Prompt: "a fox", N: sdk.Int(2), Size: "512x768", Quality: "high", OutputFormat: "jpeg", OutputCompression: sdk.Int(70),
	}, option.WithResponseInto(&response), option.WithJSONSet("seed", 7), option.WithJSONSet("steps", 3))
	if err != nil {
		t.Fatal(err)
	}
	job := inputOf(t, h, response)
	const want = `{"effort":"high","height":768,"n":2,"output_format":"jpeg","preview":false,"prompt":"a fox","quality":70,"steps":3,"width":512}`
	if job.Task != "image.generate" || job.Seed != 7 || job.Model != harness.Model || string(job.Input) != want {
		t.Errorf("job %s %d %s", job.Task, job.Seed, job.Input)
	}
	if answer.Created != job.Created.Unix() || answer.OutputFormat != "jpeg" || answer.Size != "16x24" || answer.Quality != "high" || answer.Background != "opaque" || len(answer.Data) != 2 {
		t.Fatalf("answer %s", answer.RawJSON())
	}
	for k, datum := range answer.Data {
		picture := fmt.Sprintf("picture %d of %s", k, job.ID)
		if got := decoded(t, datum.B64JSON); got != picture {
			t.Errorf("picture %d is %q", k, got)
		}
		fetched, err := h.Client.Get(datum.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(fetched.Body)
		fetched.Body.Close()
		if err != nil || string(body) != picture || fetched.Header.Get("Content-Type") != "image/jpeg" {
			t.Errorf("%s: %s %q, %v", datum.URL, fetched.Header.Get("Content-Type"), body, err)
		}
	}
	for format, check := range map[sdk.ImageGenerateParamsResponseFormat]func(sdk.Image) bool{
		sdk.ImageGenerateParamsResponseFormatURL:     func(i sdk.Image) bool { return i.URL != "" && i.B64JSON == "" },
		sdk.ImageGenerateParamsResponseFormatB64JSON: func(i sdk.Image) bool { return i.URL == "" && i.B64JSON != "" },
	} {
		answer, err := c.Images.Generate(t.Context(), sdk.ImageGenerateParams{Prompt: "x", ResponseFormat: format, Size: "auto"})
		if err != nil || len(answer.Data) != 1 || !check(answer.Data[0]) {
			t.Errorf("%s: %+v, %v", format, answer, err)
		}
	}
}

func TestImageStream(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.ImageWorker(t, "w1", paint(h))
	stream := client(h).Images.GenerateStreaming(t.Context(), sdk.ImageGenerateParams{
		Prompt: "a fox", N: sdk.Int(2), PartialImages: sdk.Int(2),
	})
	var got []string
	for stream.Next() {
		switch e := stream.Current().AsAny().(type) {
		case sdk.ImageGenPartialImageEvent:
			got = append(got, fmt.Sprintf("%d %s %s", e.PartialImageIndex, e.OutputFormat, decoded(t, e.B64JSON)))
		case sdk.ImageGenCompletedEvent:
			text, _, _ := strings.Cut(decoded(t, e.B64JSON), " of ")
			got = append(got, fmt.Sprintf("%s %s %s", text, e.Size, e.OutputFormat))
			if e.CreatedAt == 0 || e.JSON.Usage.Valid() {
				t.Errorf("event %s", e.RawJSON())
			}
		default:
			t.Errorf("event %s", stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	want := "0 jpeg preview 0.1|1 jpeg preview 0.2|picture 0 16x24 png|0 jpeg preview 1.1|1 jpeg preview 1.2|picture 1 16x24 png"
	if strings.Join(got, "|") != want {
		t.Errorf("events %s\nwant   %s", strings.Join(got, "|"), want)
	}
}

// TestImageStreamOfASecondAttempt checks that pictures which were sent are not sent again
// when the job is begun anew.
func TestImageStreamOfASecondAttempt(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	work := paint(h)
	h.ImageWorker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		if l.Job.Attempts > 1 {
			return work(ctx, l)
		}
		a, err := h.Queue.PutArtifact(ctx, queue.DefaultTenant, strings.NewReader("picture 0 of "+l.Job.ID), 1000, queue.Artifact{MediaType: "image/png"})
		if err != nil {
			return err
		}
		if err := l.Emit(ctx, queue.Event{Type: queue.EventArtifact, Artifact: &a}); err != nil {
			return err
		}
		return l.Retry(ctx, "it broke")
	})
	stream := client(h).Images.GenerateStreaming(t.Context(), sdk.ImageGenerateParams{Prompt: "x", N: sdk.Int(2)})
	var got []string
	for stream.Next() {
		text, _, _ := strings.Cut(decoded(t, stream.Current().B64JSON), " of ")
		got = append(got, text)
	}
	if err := stream.Err(); err != nil || strings.Join(got, "|") != "picture 0|picture 1" {
		t.Errorf("events %q, %v", got, err)
	}
}

func TestImageEdit(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.ImageWorker(t, "w1", paint(h))
	c := client(h)
	file := func(name string) io.Reader { return sdk.File(bytes.NewReader(pixel(t)), name, "image/png") }
	var response *http.Response
	answer, err := c.Images.Edit(t.Context(), sdk.ImageEditParams{
		Image: sdk.ImageEditParamsImageUnion{OfFile: file("a.png")}, Prompt: "red", N: sdk.Int(1), InputFidelity: "high", Size: "256x256",
	}, option.WithResponseInto(&response))
	if err != nil || len(answer.Data) != 1 {
		t.Fatalf("%+v, %v", answer, err)
	}
	var in map[string]any
	job := inputOf(t, h, response)
	if err := json.Unmarshal(job.Input, &in); err != nil {
		t.Fatal(err)
	}
	digest, _ := in["image"].(string)
	if job.Task != "image.edit" || in["mask_mode"] != "transparent" || in["strength"] != 0.5 || in["width"] != 256.0 || in["prompt"] != "red" {
		t.Errorf("job %s %s", job.Task, job.Input)
	}
	if about, err := h.Queue.ArtifactInfo(t.Context(), queue.DefaultTenant, digest); err != nil || about.MediaType != "image/png" || about.Name != "a.png" {
		t.Errorf("the picture is stored as %+v, %v", about, err)
	}
	mask := append(pixel(t), 0) // other bytes, so that they are told apart
	_, err = c.Images.Edit(t.Context(), sdk.ImageEditParams{
		Image: sdk.ImageEditParamsImageUnion{OfFileArray: []io.Reader{file("a.png")}}, Mask: sdk.File(bytes.NewReader(mask), "m.png", "image/png"), Prompt: "red",
	}, option.WithResponseInto(&response))
	if err != nil {
		t.Fatal(err)
	}
	if job = inputOf(t, h, response); job.Task != "image.inpaint" || !strings.Contains(string(job.Input), `"mask_mode":"transparent"`) {
		t.Errorf("job %s %s", job.Task, job.Input)
	}
	if _, err = c.Images.NewVariation(t.Context(), sdk.ImageNewVariationParams{Image: file("a.png"), N: sdk.Int(2)}, option.WithResponseInto(&response)); err != nil {
		t.Fatal(err)
	}
	if job = inputOf(t, h, response); job.Task != "image.variation" {
		t.Errorf("job %s %s", job.Task, job.Input)
	}
	stream := c.Images.EditStreaming(t.Context(), sdk.ImageEditParams{
		Image: sdk.ImageEditParamsImageUnion{OfFile: file("a.png")}, Prompt: "red", PartialImages: sdk.Int(1),
	})
	var types []string
	for stream.Next() {
		types = append(types, stream.Current().Type)
	}
	if err := stream.Err(); err != nil || strings.Join(types, " ") != "image_edit.partial_image image_edit.completed" {
		t.Errorf("events %v, %v", types, err)
	}
}

func TestImagesRefused(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{MaxUpload: 1 << 20})
	h.ImageWorker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		return l.Fail(ctx, queue.Problemf("image_unreadable", "The picture is none."))
	})
	c := client(h, option.WithMaxRetries(0))
	for name, r := range map[string]struct {
		params sdk.ImageGenerateParams
		status int
		code   string
		param  string
	}{
		"no prompt":    {sdk.ImageGenerateParams{}, 400, "invalid_request", "prompt"},
		"odd size":     {sdk.ImageGenerateParams{Prompt: "x", Size: "511x512"}, 400, "invalid_input", "size"},
		"size":         {sdk.ImageGenerateParams{Prompt: "x", Size: "large"}, 400, "invalid_request", "size"},
		"too many":     {sdk.ImageGenerateParams{Prompt: "x", N: sdk.Int(11)}, 400, "invalid_request", "n"},
		"transparent":  {sdk.ImageGenerateParams{Prompt: "x", Background: "transparent"}, 400, "invalid_request", "background"},
		"moderation":   {sdk.ImageGenerateParams{Prompt: "x", Moderation: "low"}, 400, "invalid_request", "moderation"},
		"style":        {sdk.ImageGenerateParams{Prompt: "x", Style: "vivid"}, 400, "invalid_request", "style"},
		"compressed":   {sdk.ImageGenerateParams{Prompt: "x", OutputCompression: sdk.Int(50)}, 400, "invalid_request", "output_compression"},
		"model":        {sdk.ImageGenerateParams{Prompt: "x", Model: "dall-e-3"}, 404, "model_not_found", "model"},
		"failed":       {sdk.ImageGenerateParams{Prompt: "x"}, 400, "image_unreadable", ""},
		"partials":     {sdk.ImageGenerateParams{Prompt: "x", PartialImages: sdk.Int(2)}, 400, "invalid_request", "partial_images"},
		"quality":      {sdk.ImageGenerateParams{Prompt: "x", Quality: "superb"}, 400, "invalid_request", "quality"},
		"other format": {sdk.ImageGenerateParams{Prompt: "x", OutputFormat: "gif"}, 400, "invalid_request", "output_format"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.Images.Generate(t.Context(), r.params)
			wantError(t, err, r.status, r.code, r.param)
		})
	}
	t.Run("failed stream", func(t *testing.T) {
		t.Parallel()
		stream := c.Images.GenerateStreaming(t.Context(), sdk.ImageGenerateParams{Prompt: "x"})
		if stream.Next() || stream.Err() == nil || !strings.Contains(stream.Err().Error(), "400") {
			t.Errorf("ended with %v", stream.Err())
		}
	})
	t.Run("several pictures", func(t *testing.T) {
		t.Parallel()
		_, err := c.Images.Edit(t.Context(), sdk.ImageEditParams{Prompt: "x", Image: sdk.ImageEditParamsImageUnion{
			OfFileArray: []io.Reader{sdk.File(bytes.NewReader(pixel(t)), "a.png", "image/png"), sdk.File(bytes.NewReader(pixel(t)), "b.png", "image/png")},
		}})
		wantError(t, err, 400, "invalid_request", "image")
	})
	t.Run("large picture", func(t *testing.T) {
		t.Parallel()
		_, err := c.Images.NewVariation(t.Context(), sdk.ImageNewVariationParams{Image: sdk.File(bytes.NewReader(make([]byte, 2<<20)), "a.png", "image/png")})
		wantError(t, err, 413, "too_large", "")
	})
	t.Run("no picture", func(t *testing.T) {
		t.Parallel()
		_, err := c.Images.Edit(t.Context(), sdk.ImageEditParams{Prompt: "x", Image: sdk.ImageEditParamsImageUnion{}, N: param.Null[int64]()})
		wantError(t, err, 400, "invalid_request", "image")
	})
	t.Run("not a form", func(t *testing.T) {
		t.Parallel()
		h.Do(t, "POST", "/v1/images/edits", `{"prompt":"x"}`).JSON(t, 415, new(any))
	})
	t.Run("unknown field", func(t *testing.T) {
		t.Parallel()
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, err := form.CreateFormFile("image", "a.png")
		if err != nil {
			t.Fatal(err)
		}
		part.Write(pixel(t))
		form.WriteField("prompt", "x")
		form.WriteField("colour", "red")
		form.Close()
		answer := h.Do(t, "POST", "/v1/images/edits", body.String(), "Content-Type", form.FormDataContentType())
		if answer.Status != 400 || !strings.Contains(string(answer.Body), "colour") {
			t.Errorf("%d %s", answer.Status, answer.Body)
		}
		half := h.Do(t, "POST", "/v1/images/edits", body.String()[:body.Len()/2], "Content-Type", form.FormDataContentType())
		if half.Status != 400 {
			t.Errorf("half a form: %d %s", half.Status, half.Body)
		}
	})
}

// TestRepeatedForm checks that an SDK's retry of an upload is given the first one's job,
// and that the same key makes no second one.
func TestRepeatedForm(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.ImageWorker(t, "w1", paint(h))
	c := client(h)
	ids := map[string]bool{}
	for _, o := range []option.RequestOption{
		option.WithHeader("X-Stainless-Retry-Count", "0"), option.WithHeader("X-Stainless-Retry-Count", "1"), option.WithHeader("X-Stainless-Retry-Count", "2"),
	} {
		var response *http.Response
		_, err := c.Images.Edit(t.Context(), sdk.ImageEditParams{
			Image: sdk.ImageEditParamsImageUnion{OfFile: sdk.File(bytes.NewReader(pixel(t)), "a.png", "image/png")}, Prompt: "red",
		}, o, option.WithResponseInto(&response))
		if err != nil {
			t.Fatal(err)
		}
		ids[response.Header.Get("X-Helicon-Job")] = true
	}
	if len(ids) != 1 {
		t.Errorf("%d jobs for one request and its retries", len(ids))
	}
}

// TestImageConnectionLost checks that a client which leaves has its job canceled.
func TestImageConnectionLost(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	begun := make(chan string, 1)
	h.ImageWorker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		begun <- l.Job.ID
		<-ctx.Done()
		return queue.ErrCanceled
	})
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := client(h, option.WithMaxRetries(0)).Images.Generate(ctx, sdk.ImageGenerateParams{Prompt: "x"})
		done <- err
	}()
	id := <-begun
	leave()
	if err := <-done; err == nil {
		t.Error("an answer came")
	}
	for e, err := range h.Queue.Watch(t.Context(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Terminal() && e.Type != queue.EventCanceled {
			t.Errorf("the job ended by %s", e.Type)
		}
	}
}
