package web_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"helicon/queue"
)

// goldenModel is a whole StableDiffusionPipeline of random weights among the goldens.
const goldenModel = "image/sd15_pipeline"

// goldenPipeline copies the pipeline into a folder of models and returns the folder.
func goldenPipeline(t *testing.T) string {
	t.Helper()
	goldens := os.Getenv("HELICON_GOLDENS")
	if goldens == "" {
		goldens = filepath.Join("..", "..", "shared", "goldens")
	}
	from := filepath.Join(goldens, filepath.FromSlash(goldenModel))
	if _, err := os.Stat(from); err != nil {
		t.Skipf("no golden models: %v; set HELICON_GOLDENS to their folder", err)
	}
	models := t.TempDir()
	if err := os.CopyFS(filepath.Join(models, "tiny-sd"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return models
}

// TestPictures makes pictures in the studio: from a prompt, from a picture, from a part
// of one, larger, and again from what a file tells.
func TestPictures(t *testing.T) {
	t.Parallel()
	models := goldenPipeline(t)
	chromium := findChromium(t)
	srv := buildServer(t, "--models", models)
	srv.start(t)
	if !srv.serves(t, "image.generate") {
		t.Fatal("the server has no model for image.generate")
	}
	s := &studio{page: openBrowser(t, chromium), server: srv, line: layLine(t, srv.addr)}
	s.look(t, 1280, 900, "light")
	for _, part := range []struct {
		name string
		run  func(*testing.T, *studio)
	}{
		{"from a prompt", testPictureGenerate},
		{"as it comes along", testPicturePreview},
		{"from a picture", testPictureEdit},
		{"from a part that is painted", testPictureInpaint},
		{"larger", testPictureUpscale},
		{"again from a file", testPictureDropped},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, s) }) {
			return // what follows stands on what went before
		}
	}
}

// chooseModel picks the golden pipeline, whatever else is there.
func (s *studio) chooseModel(t *testing.T) {
	t.Helper()
	const option = `[...document.querySelectorAll('.composer-bar option')].find((o) => o.textContent.includes('tiny-sd'))`
	s.wait(t, "the model in the list", option)
	eval[chromedp.Void](t, s.page, `(() => {
		const option = `+option+`;
		option.parentElement.value = option.value;
		option.parentElement.dispatchEvent(new Event('change', { bubbles: true }));
	})()`)
}

// waitPictures waits until so many pictures of the job are in view, and returns it.
func (s *studio) waitPictures(t *testing.T, id string, n int) *queue.Job {
	t.Helper()
	s.waitState(t, id, "succeeded")
	s.wait(t, "the pictures", fmt.Sprintf(
		`(() => { const all = [...document.querySelectorAll('picture-grid .picture img')]; return all.length === %d && all.every((i) => i.complete && i.naturalWidth > 0); })()`, n))
	job := s.server.job(t, id)
	if len(job.Result.Artifacts) != n {
		t.Errorf("job %s has %d artifacts, want %d", id, len(job.Result.Artifacts), n)
	}
	return job
}

// pictureInput is what a job was asked with.
type pictureInput struct {
	Prompt, Image, Mask string
	Steps               int
}

func inputOf(t *testing.T, job *queue.Job) pictureInput {
	t.Helper()
	var in pictureInput
	if err := json.Unmarshal(job.Input, &in); err != nil {
		t.Fatal(err)
	}
	return in
}

func testPictureGenerate(t *testing.T, s *studio) {
	s.open(t, "#/new/image.generate")
	s.wait(t, "three examples", `document.querySelectorAll('.examples button').length === 3`)
	s.shoot(t, "20-picture-empty")
	s.chooseModel(t)
	for parameter, text := range map[string]string{"steps": "7", "n": "2", "width": "64", "height": "64"} {
		s.set(t, parameter, text)
	}
	id := s.submit(t, "a picture of nothing in particular")
	job := s.waitPictures(t, id, 2)
	s.shoot(t, "21-pictures")
	if job.Result.Artifacts[0].SHA256 == job.Result.Artifacts[1].SHA256 {
		t.Error("two seeds made the same picture")
	}
	s.wait(t, "a thumbnail in the list", `document.querySelector('.job-link .thumbnail')?.naturalWidth > 0`)
}

// testPicturePreview looks at a picture while it is made, and stops it.
func testPicturePreview(t *testing.T, s *studio) {
	finished := s.current(t)
	s.open(t, "#/new/image.generate")
	s.chooseModel(t)
	for parameter, text := range map[string]string{"steps": "150", "n": "10", "width": "128", "height": "128"} {
		s.set(t, parameter, text)
	}
	id := s.submit(t, "a picture that takes its time")
	s.wait(t, "a preview, and places for the others",
		`document.querySelector('.picture.live img')?.naturalWidth > 0 && document.querySelectorAll('picture-grid .picture').length === 10`)
	s.shoot(t, "26-preview")
	s.press(t, ".composer", "Stop")
	s.waitState(t, id, "canceled")
	s.open(t, "#/jobs/"+finished)
	s.waitPictures(t, finished, 2)
}

// follow presses a picture's button and waits for the composer to have it.
func (s *studio) follow(t *testing.T, title, task string) {
	t.Helper()
	s.click(t, fmt.Sprintf(`.picture:first-child button[title=%q]`, title))
	s.wait(t, "the picture in the composer", fmt.Sprintf(`location.hash === '#/new/%s' && document.querySelector('.source-picture img')?.naturalWidth > 0`, task))
}

func testPictureEdit(t *testing.T, s *studio) {
	from := s.server.job(t, s.current(t))
	s.follow(t, "Change this picture", "image.edit")
	s.shoot(t, "22-picture-source")
	s.chooseModel(t)
	s.set(t, "steps", "6")
	s.set(t, "n", "1")
	job := s.waitPictures(t, s.submit(t, "the same in winter"), 1)
	if in := inputOf(t, job); in.Image != from.Result.Artifacts[0].SHA256 || in.Prompt != "the same in winter" {
		t.Errorf("the job was asked with %+v", in)
	}
}

func testPictureInpaint(t *testing.T, s *studio) {
	s.follow(t, "Paint a part anew", "image.inpaint")
	s.chooseModel(t)
	s.set(t, "steps", "5")
	s.press(t, "picture-source", "Paint the part")
	s.wait(t, "the easel", `document.querySelector('dialog.painter[open] canvas')`)
	eval[chromedp.Void](t, s.page, `(() => {
		const brush = document.querySelector('.brush input');
		brush.value = '30';
		brush.dispatchEvent(new Event('input', { bubbles: true }));
	})()`)
	box := eval[[]float64](t, s.page, `(() => { const b = document.querySelector('.easel canvas').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()`)
	at := func(x, y float64) (float64, float64) { return box[0] + x*box[2], box[1] + y*box[3] }
	x, y := at(0.3, 0.3)
	toX, toY := at(0.6, 0.5)
	s.do(t, chromedp.MouseEvent("mousePressed", x, y, chromedp.ButtonLeft), chromedp.MouseEvent("mouseMoved", toX, toY, chromedp.ButtonLeft),
		chromedp.MouseEvent("mouseReleased", toX, toY, chromedp.ButtonLeft))
	s.shoot(t, "23-mask")
	s.press(t, ".painter", "Done")
	s.wait(t, "the painted part to be kept", `document.querySelector('picture-source')?.textContent.includes('Change the part')`)
	job := s.waitPictures(t, s.submit(t, "a hole in the snow"), 1)
	in := inputOf(t, job)
	if in.Mask == "" || in.Image == "" || in.Steps != 5 {
		t.Errorf("the job was asked with %+v", in)
	}
	// The mask is white where it was painted, and black elsewhere.
	colours := awaited[[]string](t, s.page, fmt.Sprintf(`(async () => {
		const picture = await createImageBitmap(await (await fetch('/v1/artifacts/%s')).blob());
		const context = new OffscreenCanvas(picture.width, picture.height).getContext('2d');
		context.drawImage(picture, 0, 0);
		const at = (x, y) => context.getImageData(Math.floor(x * picture.width), Math.floor(y * picture.height), 1, 1).data.join(' ');
		return [at(0.3, 0.3), at(0.95, 0.95)];
	})()`, in.Mask))
	if colours[0] != "255 255 255 255" || colours[1] != "0 0 0 255" {
		t.Errorf("the mask is %q where it was painted, and %q elsewhere", colours[0], colours[1])
	}
}

func testPictureUpscale(t *testing.T, s *studio) {
	s.follow(t, "Enlarge this picture", "image.upscale")
	s.wait(t, "no prompt to write", `document.querySelector('#prompt').hidden`)
	before := eval[string](t, s.page, `location.hash`)
	s.press(t, ".composer", "Generate")
	s.wait(t, "the page to go to the new job", fmt.Sprintf(`location.hash !== %q`, before))
	job := s.waitPictures(t, s.current(t), 1)
	if in := inputOf(t, job); in.Image == "" {
		t.Errorf("the job was asked with %+v", in)
	}
	s.shoot(t, "24-upscaled")
}

func testPictureDropped(t *testing.T, s *studio) {
	var list struct{ Data []*queue.Job }
	s.server.get(t, "/v1/jobs?limit=30", &list)
	first := list.Data[len(list.Data)-1] // of testPictureGenerate
	s.open(t, "#/new/text.complete")
	eval[chromedp.Void](t, s.page, fmt.Sprintf(`(async () => {
		const bytes = await (await fetch(%q)).blob();
		const transfer = new DataTransfer();
		transfer.items.add(new File([bytes], 'found.png', { type: 'image/png' }));
		document.querySelector('.stage').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
	})()`, first.Result.Artifacts[1].URL))
	s.press(t, "picture-source", "Use its settings")
	s.wait(t, "the prompt of the file", `document.querySelector('#prompt').value === 'a picture of nothing in particular'`)
	if seed := eval[string](t, s.page, `document.querySelector('#parameter-seed').value`); seed != fmt.Sprint(first.Seed+1) {
		t.Errorf("the seed is %q, want that of the second picture, %d", seed, first.Seed+1)
	}
	s.wait(t, "the page for new pictures", `location.hash === '#/new/image.generate' && !document.querySelector('.source-picture')`)
	s.shoot(t, "25-dropped")
	testPicturePhone(t, s, first.ID)
}

// testPicturePhone looks at the page of pictures on a phone in the dark.
func testPicturePhone(t *testing.T, s *studio, id string) {
	t.Helper()
	s.look(t, 390, 844, "dark")
	s.open(t, "#/jobs/"+id)
	s.waitPictures(t, id, 2)
	s.shoot(t, "27-phone-pictures")
	if over := eval[bool](t, s.page, `document.documentElement.scrollWidth > innerWidth`); over {
		t.Error("the page is wider than the phone")
	}
	if unnamed := eval[[]string](t, s.page, `[...document.querySelectorAll('button, a, input, select, textarea')]
		.filter((e) => e.offsetParent && !e.closest('[aria-hidden=true]') && !(e.ariaLabel || e.title || e.textContent.trim() || e.labels?.length || e.querySelector('[alt]:not([alt=""])')))
		.map((e) => e.outerHTML.slice(0, 120))`); len(unnamed) > 0 {
		t.Errorf("controls without a name: %q", unnamed)
	}
	s.open(t, "#/new/image.generate")
	s.press(t, ".composer", "Parameters")
	s.shoot(t, "28-phone-parameters")
}
