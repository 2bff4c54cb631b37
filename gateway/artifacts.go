package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"helicon/gateway/strict"
	"helicon/queue"
)

// upload answers POST /v1/uploads: the bytes are the body itself or the field file
// of a form, and are never held in memory as a whole.
func (g *Gateway) upload(c *gin.Context) error {
	r := c.Request
	// What surrounds a file in a form is small; the file itself is limited as it is read.
	r.Body = http.MaxBytesReader(c.Writer, r.Body, g.config.MaxUpload+1<<20)
	r.Body = &patientReader{ReadCloser: r.Body, control: http.NewResponseController(c.Writer)}
	declared, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && r.Header.Get("Content-Type") != "" {
		return queue.Problemf("unsupported_media_type", "The Content-Type %q is not a media type.", r.Header.Get("Content-Type"))
	}
	var stored queue.Artifact
	if declared == "multipart/form-data" {
		stored, err = g.storeForm(c.Request.Context(), multipart.NewReader(r.Body, params["boundary"]))
	} else {
		stored, err = g.store(c.Request.Context(), r.Body, declared, disposition(r.Header.Get("Content-Disposition")))
	}
	if err != nil {
		return err
	}
	c.Writer.Header().Set("Location", stored.URL)
	writeJSON(c, http.StatusCreated, stored)
	return nil
}

// storeForm stores the one file of a form.
func (g *Gateway) storeForm(ctx context.Context, form *multipart.Reader) (stored queue.Artifact, err error) {
	found := false
	for {
		part, err := form.NextPart()
		if err == io.EOF && found {
			return stored, nil
		}
		if err == io.EOF {
			return stored, queue.Problemf("invalid_request", `The form has no file in its field "file".`)
		}
		if err != nil {
			return stored, broken(err)
		}
		if part.FormName() != "file" || found {
			return stored, queue.Problemf("invalid_request", `The form has a field %q too many; want one file in the field "file".`, part.FormName())
		}
		declared, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			declared = "" // browsers leave it out for kinds that they do not know
		}
		if stored, err = g.store(ctx, part, declared, part.FileName()); err != nil {
			return stored, err
		}
		found = true
	}
}

// sniffed is how many bytes the kind of a file is told from.
const sniffed = 512

// store stores the bytes of one upload.
func (g *Gateway) store(ctx context.Context, file io.Reader, declared, name string) (queue.Artifact, error) {
	return g.storeLarge(ctx, file, g.config.MaxUpload, declared, name)
}

// storeLarge stores the bytes of one file, of which there may be so many.
func (g *Gateway) storeLarge(ctx context.Context, file io.Reader, limit int64, declared, name string) (queue.Artifact, error) {
	in := &source{Reader: bufio.NewReaderSize(file, sniffed)}
	head, err := in.Reader.(*bufio.Reader).Peek(sniffed)
	if err != nil && err != io.EOF {
		return queue.Artifact{}, broken(err)
	}
	if len(head) == 0 {
		return queue.Artifact{}, queue.Problemf("invalid_request", "The upload is empty.")
	}
	spend, err := g.limiter.Upload(ctx)
	if err != nil {
		return queue.Artifact{}, err
	}
	stored, err := g.queue.PutArtifact(ctx, principalOf(ctx).Tenant, in, limit,
		queue.Artifact{MediaType: mediaType(head, declared), Name: cleanName(name)})
	if in.err != nil {
		return stored, broken(in.err)
	}
	if errors.Is(err, queue.ErrTooLarge) {
		return stored, queue.Problemf("too_large", "The file is larger than %d bytes.", limit)
	}
	spend(stored.Size)
	return stored, err
}

// source remembers why reading failed, to tell the client's fault from the server's.
type source struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// broken explains an upload that could not be read to its end.
func broken(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return queue.Problemf("too_large", "The upload is larger than %d bytes.", tooLarge.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return strict.ErrSlow
	}
	return queue.Problemf("invalid_request", "The upload could not be read to its end: it is cut short or malformed.")
}

// patientReader gives a client that keeps sending all the time it needs.
type patientReader struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read implements io.Reader.
func (p *patientReader) Read(b []byte) (int, error) {
	now := time.Now()
	_ = p.control.SetReadDeadline(now.Add(readTimeout)) // a recorder in a test has no deadlines
	_ = p.control.SetWriteDeadline(now.Add(readTimeout + writeTimeout))
	return p.ReadCloser.Read(b)
}

// mediaType decides what a file is: what its first bytes show, where they show
// anything; else what the client declares.
func mediaType(head []byte, declared string) string {
	seen, _, _ := strings.Cut(http.DetectContentType(head), ";")
	family, _, _ := strings.Cut(declared, "/")
	switch seen {
	case "application/octet-stream":
		if declared == "" || family == "text" {
			return seen
		}
		return declared
	case "text/plain", "text/xml":
		if family == "text" || declared == "application/json" || declared == "image/svg+xml" {
			return declared
		}
		return seen
	case "video/mp4", "video/webm", "application/ogg": // containers of sound as well
		if family == "audio" || family == "video" {
			return declared
		}
	}
	return seen
}

// disposition returns the file name that a Content-Disposition header carries.
func disposition(header string) string {
	_, params, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return params["filename"]
}

const maxName = 128 // bytes

// cleanName makes a client's file name safe to show and to save under: its last
// element, without control characters and leading dots, of bounded length.
func cleanName(name string) string {
	name = strings.ToValidUTF8(name, "")
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) || strings.ContainsRune(`<>:"|?*`, r) {
			return -1
		}
		return r
	}, name)
	name = strings.TrimLeft(strings.TrimSpace(name), ".")
	if len(name) <= maxName {
		return name
	}
	extension := path.Ext(name)
	if len(extension) > 16 {
		extension = ""
	}
	stem := name[:maxName-len(extension)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return stem + extension
}

// inert keeps what an artifact contains from acting in the reader's browser.
const inert = "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; sandbox"

// artifact answers GET and HEAD /v1/artifacts/{sha256}.
func (g *Gateway) artifact(c *gin.Context) error {
	if err := onlyQuery(c, "download"); err != nil {
		return err
	}
	ctx := c.Request.Context()
	about, content, err := g.queue.Artifact(ctx, principalOf(ctx).Tenant, c.Param("sha256"))
	if err != nil {
		return err
	}
	defer content.Close()
	return g.send(c.Writer, c.Request, about, content, c.Query("download") != "")
}

// send answers with stored bytes, or the part that the client asks for.
func (g *Gateway) send(out http.ResponseWriter, r *http.Request, about queue.Artifact, content io.ReadSeeker, download bool) error {
	ctx, end, err := g.hold(out, r)
	if err != nil {
		return err
	}
	defer end()
	header := out.Header()
	header.Set("Content-Type", about.MediaType)
	if strings.HasPrefix(about.MediaType, "text/") && !strings.Contains(about.MediaType, ";") {
		header.Set("Content-Type", about.MediaType+"; charset=utf-8") // browsers would assume another
	}
	header.Set("ETag", `"`+about.SHA256+`"`)
	header.Set("Cache-Control", "private, max-age=31536000, immutable")
	header.Set("Content-Disposition", presentation(about, download))
	header.Set("Content-Security-Policy", inert)
	http.ServeContent(&patientWriter{out, g.sender(out), ctx.Err}, r, "", time.Time{}, content)
	return nil
}

// presentation says whether a browser shows an artifact or saves it, and its name.
func presentation(about queue.Artifact, download bool) string {
	family, _, _ := strings.Cut(about.MediaType, "/")
	shown := family == "image" || family == "audio" || family == "video" ||
		about.MediaType == "text/plain" || about.MediaType == "application/json" || about.MediaType == "application/pdf"
	kind := "attachment"
	if shown && !download {
		kind = "inline"
	}
	name := about.Name
	if name == "" {
		name = fmt.Sprintf("%.12s", about.SHA256)
		if extensions, err := mime.ExtensionsByType(about.MediaType); err == nil && len(extensions) > 0 {
			name += extensions[0]
		}
	}
	return mime.FormatMediaType(kind, map[string]string{"filename": name})
}

// patientWriter gives a client that keeps reading all the time it needs, until the
// gateway stops.
type patientWriter struct {
	http.ResponseWriter
	send    func([]byte) error
	closing func() error
}

// Write implements io.Writer.
func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.closing(); err != nil {
		return 0, err
	}
	if err := p.send(b); err != nil {
		return 0, err
	}
	return len(b), nil
}
