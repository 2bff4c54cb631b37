package media

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"helicon/queue"
)

// corpus returns a folder of the media corpus, or skips.
func corpus(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("HELICON_DATA_MEDIA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data", "media")
	}
	dir = filepath.Join(dir, name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("there is no corpus %s", dir)
	}
	return dir
}

// files calls each for every file below a folder.
func files(t testing.TB, dir string, each func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			each(path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// gradient is a picture in which every pixel is another one.
func gradient(w, h int) *image.NRGBA {
	p := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			p.SetNRGBA(x, y, color.NRGBA{uint8(x * 7), uint8(y * 11), uint8(x + y), 255})
		}
	}
	return p
}

func problem(t testing.TB, err error, code string) *queue.Problem {
	t.Helper()
	var p *queue.Problem
	if !errors.As(err, &p) || p.Code != code {
		t.Fatalf("error %v, want a problem %s", err, code)
	}
	return p
}

var fullMeta = Meta{
	Parameters: "a café, 狐狸\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 37x23",
	Record: &Record{
		Generator: "Helicon", Task: "image.generate", Model: "m", Digest: "sha256:0", Seed: 42,
		Input: json.RawMessage(`{"prompt":"a café <b>, 狐狸"}`),
	},
	Origin: Generated,
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	opaque := gradient(37, 23)
	clear := gradient(37, 23)
	clear.SetNRGBA(3, 4, color.NRGBA{10, 20, 30, 128})
	for _, f := range []Format{PNG, JPEG, WebP} {
		for name, p := range map[string]*image.NRGBA{"opaque": opaque, "alpha": clear} {
			for what, meta := range map[string]Meta{"full": fullMeta, "none": {}, "ascii": {Parameters: "x\nSteps: 1, Seed: 2, Size: 3x4"}} {
				var file, again bytes.Buffer
				if err := Encode(&file, p, EncodeOptions{Format: f, Meta: meta}); err != nil {
					t.Fatal(err)
				}
				if err := Encode(&again, p, EncodeOptions{Format: f, Meta: meta}); err != nil || !bytes.Equal(file.Bytes(), again.Bytes()) {
					t.Errorf("%s: a second file differs (%v)", f, err)
				}
				got, about, err := Decode(file.Bytes())
				if err != nil {
					t.Fatalf("%s %s %s: %v", f, name, what, err)
				}
				if about.Format != f || about.Width != 37 || about.Height != 23 || !reflect.DeepEqual(about.Meta, meta) {
					t.Errorf("%s %s %s: info %+v\nrecord %+v\nwant %+v", f, name, what, about, about.Meta.Record, meta)
				}
				if f != JPEG && !bytes.Equal(got.Pix, p.Pix) {
					t.Errorf("%s %s: the pixels differ", f, name)
				}
				if f == JPEG && !got.Opaque() {
					t.Errorf("a JPEG with alpha")
				}
			}
		}
	}
}

func TestLabel(t *testing.T) {
	t.Parallel()
	for origin, labelled := range map[Origin]bool{Generated: true, Composite: true, Enhanced: false} {
		var file bytes.Buffer
		if err := Encode(&file, gradient(4, 4), EncodeOptions{Meta: Meta{Origin: origin, Parameters: "x"}}); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(file.String(), "<TC260:AIGC>{&quot;Label&quot;:&quot;1&quot;,"); n != 0 != labelled || n > 1 {
			t.Errorf("%s: %d labels", origin, n)
		}
	}
}

func TestLongMetadata(t *testing.T) {
	t.Parallel()
	long := Meta{Parameters: strings.Repeat("狐", 40_000), Record: fullMeta.Record}
	var file bytes.Buffer
	if err := Encode(&file, gradient(4, 4), EncodeOptions{Format: JPEG, Meta: long}); err != nil {
		t.Fatal(err)
	}
	if about, err := Inspect(file.Bytes()); err != nil || about.Meta.Parameters != "" || about.Meta.Record == nil {
		t.Errorf("%+v, %v; want the record alone", about, err)
	}
	if err := Encode(&file, gradient(4, 4), EncodeOptions{Format: JPEG, Meta: Meta{Parameters: long.Parameters}}); !errors.Is(err, errMetaTooLarge) {
		t.Errorf("error %v, want %v", err, errMetaTooLarge)
	}
}

// TestOrientation decodes the same picture stored in eight orientations.
func TestOrientation(t *testing.T) {
	t.Parallel()
	dir := corpus(t, "exif-orientation")
	var want *image.NRGBA
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "0"} {
		data, err := os.ReadFile(filepath.Join(dir, "Landscape_"+n+".jpg"))
		if err != nil {
			t.Fatal(err)
		}
		got, about, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if got.Rect != want.Rect || about.Width != want.Rect.Dx() || about.Height != want.Rect.Dy() {
			t.Errorf("orientation %s: %v, info %d × %d, want %v", n, got.Rect, about.Width, about.Height, want.Rect)
			continue
		}
		var sum float64 // JPEG differs a little in each
		for i := 0; i < len(got.Pix); i += 97 {
			d := float64(got.Pix[i]) - float64(want.Pix[i])
			sum += d * d
		}
		if mean := 97 * sum / float64(len(got.Pix)); mean > 400 { // the number written in the picture differs
			t.Errorf("orientation %s: mean squared difference %.1f", n, mean)
		}
	}
}

// TestCorpora decodes other projects' test pictures: those of formats that are read must
// be, but for those that are broken or of a variant that the decoders do not know.
func TestCorpora(t *testing.T) {
	t.Parallel()
	refused := map[string]int{}
	read := 0
	for _, name := range []string{"libpng-pngs", filepath.Join("image-rs-tests", "tests", "images")} {
		files(t, corpus(t, name), func(path string, data []byte) {
			kind := strings.TrimPrefix(filepath.Ext(path), ".")
			switch kind {
			case "png", "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff":
			default:
				return
			}
			p, about, err := Decode(data)
			switch {
			case err == nil && (p.Rect.Dx() != about.Width || p.Rect.Dy() != about.Height || p.Rect.Min != image.Point{}):
				t.Errorf("%s: %v, info %d × %d", path, p.Rect, about.Width, about.Height)
			case err == nil:
				read++
			default:
				var told *queue.Problem
				if !errors.As(err, &told) {
					t.Errorf("%s: %v is no problem", path, err)
				}
				refused[kind]++
				t.Logf("%s: %v", filepath.Base(path), err)
			}
		})
	}
	t.Logf("%d read, refused %v", read, refused)
	if read < 200 {
		t.Errorf("only %d pictures were read", read)
	}
}

// TestBrokenFiles decodes corpora of broken files: what cannot be read is a problem.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"fuzz", filepath.Join("image-rs-tests", "tests", "bad"), filepath.Join("image-rs-tests", "tests", "regression")} {
		files(t, corpus(t, name), func(path string, data []byte) {
			if _, _, err := Decode(data); err != nil {
				var told *queue.Problem
				if !errors.As(err, &told) {
					t.Errorf("%s: %v is no problem", path, err)
				}
			}
		})
	}
}

// hugePNG is a header that announces so many pixels.
func hugePNG(w, h uint32) []byte {
	ihdr := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	ihdr = append(binary.BigEndian.AppendUint32(ihdr, h), 8, 6, 0, 0, 0)
	out := append([]byte(pngMagic), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(out, ihdr...), crc32.ChecksumIEEE(ihdr))
}

// TestRefused checks what is said of files that are not read, and that saying it takes
// little memory. It runs alone, as it measures what is allocated.
func TestRefused(t *testing.T) {
	var moving, still, pngFile bytes.Buffer
	frame := func() *image.Paletted {
		return image.NewPaletted(image.Rect(0, 0, 4, 4), color.Palette{color.Black, color.White})
	}
	if err := gif.EncodeAll(&moving, &gif.GIF{Image: []*image.Paletted{frame(), frame()}, Delay: []int{1, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := gif.Encode(&still, frame(), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Decode(still.Bytes()); err != nil {
		t.Errorf("a GIF of one frame: %v", err)
	}
	if err := png.Encode(&pngFile, gradient(64, 64)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		code string
		says string
	}{
		"empty":       {nil, codeUnreadable, "empty"},
		"text":        {[]byte("hello, this is a text"), codeUnreadable, "no picture"},
		"svg":         {[]byte(`<?xml version="1.0"?><svg xmlns="x"/>`), codeUnreadable, "SVG"},
		"heic":        {[]byte("\x00\x00\x00\x18ftypheic\x00\x00"), codeUnreadable, "HEIC"},
		"avif":        {[]byte("\x00\x00\x00\x18ftypavif\x00\x00"), codeUnreadable, "AVIF"},
		"moving":      {moving.Bytes(), codeUnreadable, "moves"},
		"cut short":   {pngFile.Bytes()[:pngFile.Len()/2], codeUnreadable, "cut short"},
		"header only": {pngFile.Bytes()[:40], codeUnreadable, "cut short"},
		"bomb":        {hugePNG(100_000, 100_000), codeTooLarge, "100000 × 100000"},
		"wide":        {hugePNG(40_000, 1), codeTooLarge, "40000 × 1"},
		"large":       {hugePNG(30_000, 30_000), codeTooLarge, "smaller"},
		"no pixels":   {hugePNG(0, 5), codeUnreadable, "PNG"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Decode(c.data)
		runtime.ReadMemStats(&after)
		if p := problem(t, err, c.code); !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: %q does not say %q", name, p.Detail, c.says)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 1<<20 {
			t.Errorf("%s: %d bytes taken", name, taken)
		}
	}
	if err := Encode(&still, image.NewNRGBA(image.Rect(0, 0, maxWebP+1, 1)), EncodeOptions{Format: WebP}); err == nil {
		t.Error("a WebP that is too wide was written")
	} else {
		problem(t, err, codeUnwritable)
	}
}

// TestDepths checks that pixels of other kinds become what they should.
func TestDepths(t *testing.T) {
	t.Parallel()
	deep := image.NewNRGBA64(image.Rect(0, 0, 1, 1))
	deep.SetNRGBA64(0, 0, color.NRGBA64{0x1234, 0xabcd, 0xffff, 0x8000})
	grey := image.NewGray16(image.Rect(0, 0, 1, 1))
	grey.SetGray16(0, 0, color.Gray16{0x80ff})
	for name, c := range map[string]struct {
		picture image.Image
		want    color.NRGBA
	}{
		"16 bits, alpha": {deep, color.NRGBA{0x12, 0xab, 0xff, 0x80}},
		"grey, 16 bits":  {grey, color.NRGBA{0x80, 0x80, 0x80, 0xff}},
	} {
		var file bytes.Buffer
		if err := png.Encode(&file, c.picture); err != nil {
			t.Fatal(err)
		}
		p, _, err := Decode(file.Bytes())
		if err != nil || p.NRGBAAt(0, 0) != c.want {
			t.Errorf("%s: %v, %v, want %v", name, p.NRGBAAt(0, 0), err, c.want)
		}
	}
	for f, encode := range map[Format]func(*bytes.Buffer) error{
		BMP:  func(b *bytes.Buffer) error { return bmp.Encode(b, gradient(5, 3)) },
		TIFF: func(b *bytes.Buffer) error { return tiff.Encode(b, gradient(5, 3), nil) },
	} {
		var file bytes.Buffer
		if err := encode(&file); err != nil {
			t.Fatal(err)
		}
		p, about, err := Decode(file.Bytes())
		if err != nil || about.Format != f || !bytes.Equal(p.Pix, gradient(5, 3).Pix) {
			t.Errorf("%s: %+v, %v", f, about, err)
		}
	}
	half := image.NewNRGBA(image.Rect(0, 0, 1, 1))
	half.SetNRGBA(0, 0, color.NRGBA{0, 100, 255, 127})
	if got := Flatten(half, color.NRGBA{255, 255, 255, 255}).NRGBAAt(0, 0); got != (color.NRGBA{128, 178, 255, 255}) {
		t.Errorf("over white: %v", got)
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want string // JSON of the restored input
		seed uint64
	}{
		"whole": {
			"masterpiece, (cat:1.2)\nsecond line\nNegative prompt: blurry,\nbad\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, Model hash: 6ce0161689, Clip skip: 2, Lora hashes: \"a: b, c: d\", Version: v1.6.0",
			`{"clip_skip":1,"guidance":7.5,"height":768,"negative_prompt":"blurry,\nbad","prompt":"masterpiece, (cat:1.2)\nsecond line","scheduler":"dpmpp_2m_karras","steps":20,"width":512}`, 965400086,
		},
		"old sampler": {"x\nSteps: 5, Sampler: DPM++ SDE Karras, Seed: 1, Size: 8x8", `{"height":8,"prompt":"x","scheduler":"dpmpp_sde_karras","steps":5,"width":8}`, 1},
		"prompt only": {"a fox: red", `{"prompt":"a fox: red"}`, 0},
		"nonsense":    {"x\nSteps: many, Sampler: ?, Seed: -3, Size: big, Clip skip: 0", `{"prompt":"x"}`, 0},
	} {
		m := Meta{Parameters: c.text}
		r := m.Restored()
		if string(r.Input) != c.want || r.Seed != c.seed {
			t.Errorf("%s: %s, seed %d\nwant %s, %d", name, r.Input, r.Seed, c.want, c.seed)
		}
	}
	p := ParseParameters("x\nSteps: 1, A: \"b, \\\"c\\\"\", Seed: 2")
	if p.Get("A") != `b, "c"` || p.Get("Seed") != "2" {
		t.Errorf("fields %q", p.Fields)
	}
	if again := ParseParameters(p.String()); !reflect.DeepEqual(again, p) {
		t.Errorf("%+v is read back as %+v", p, again)
	}
	for _, name := range []string{"euler_a", "dpmpp_2m_karras", "euler_beta", "pndm", "dpmpp_2m_exponential"} {
		if got := scheduler(Sampler(name)); got != name {
			t.Errorf("the scheduler %s is read back as %q", name, got)
		}
	}
}

func seeds(f *testing.F) {
	for _, format := range []Format{PNG, JPEG, WebP} {
		var file bytes.Buffer
		if err := Encode(&file, gradient(9, 7), EncodeOptions{Format: format, Meta: fullMeta}); err != nil {
			f.Fatal(err)
		}
		f.Add(file.Bytes())
	}
	var b, g, ti bytes.Buffer
	if bmp.Encode(&b, gradient(3, 3)) != nil || tiff.Encode(&ti, gradient(3, 3), &tiff.Options{Compression: tiff.Deflate}) != nil ||
		gif.Encode(&g, gradient(3, 3), nil) != nil {
		f.Fatal("no seeds")
	}
	f.Add(b.Bytes())
	f.Add(g.Bytes())
	f.Add(ti.Bytes())
}

func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		about, err := Inspect(data)
		if err == nil && about.Width*about.Height > 1<<22 {
			return // allowed, but slow
		}
		p, about, err := Decode(data)
		if err == nil && (p.Rect.Dx() != about.Width || p.Rect.Dy() != about.Height) {
			t.Fatalf("%v, info %d × %d", p.Rect, about.Width, about.Height)
		}
		var told *queue.Problem
		if err != nil && !errors.As(err, &told) {
			t.Fatal(err)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	block, err := fullMeta.exif()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Add([]byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"))
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, look := range []func([]byte, *Info){lookPNG, lookJPEG, lookWebP, lookGIF} {
			if len(data) >= 16 {
				look(data, &Info{})
			}
		}
		var i Info
		i.readEXIF(data)
		i.Meta.Restored()
	})
}

func FuzzParameters(f *testing.F) {
	f.Add(fullMeta.Parameters)
	f.Fuzz(func(t *testing.T, text string) {
		m := Meta{Parameters: text}
		if r := m.Restored(); r != nil && !json.Valid(r.Input) {
			t.Fatalf("%s", r.Input)
		}
	})
}
