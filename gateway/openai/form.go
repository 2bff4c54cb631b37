package openai

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"

	"helicon/gateway/strict"
	"helicon/queue"
)

// maxFiles is how many files a request may carry.
const maxFiles = 2

// maxField is how many bytes a field of a form has that is not a file.
const maxField = 64 << 10

// readForm reads a form with files image and mask, which are stored as they come, and the
// other members of a request as text.
func (a *API) readForm(r *http.Request) (*imageRequest, error) {
	declared, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || declared != "multipart/form-data" {
		return nil, queue.Problemf("unsupported_media_type", "The body must be a form: send Content-Type: multipart/form-data, not %q.", r.Header.Get("Content-Type"))
	}
	request, members := new(imageRequest), map[string]json.RawMessage{}
	form := multipart.NewReader(r.Body, params["boundary"])
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, cut(err)
		}
		name := strings.TrimSuffix(part.FormName(), "[]")
		switch {
		case name == "image" && request.image != "":
			return nil, strict.Invalid("/image", "one picture is taken, not several")
		case name == "image":
			request.image, err = a.keep(r, part)
		case name == "mask" && request.mask != "":
			return nil, strict.Invalid("/mask", "the member appears twice")
		case name == "mask":
			request.mask, err = a.keep(r, part)
		case members[name] != nil:
			return nil, strict.Invalid("/"+strict.Escape(name), "the member appears twice")
		default:
			members[name], err = field(name, part)
		}
		if err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return request, strict.Object(text, "", request)
}

// keep stores a file of a form and returns its digest.
func (a *API) keep(r *http.Request, part *multipart.Part) (string, error) {
	declared, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
	if err != nil {
		declared = ""
	}
	stored, err := a.backend.Store(r.Context(), part, declared, part.FileName())
	return stored.SHA256, err
}

// field reads a text as JSON: the members that are no texts are numbers and truth values.
func field(name string, part *multipart.Part) (json.RawMessage, error) {
	text, err := io.ReadAll(io.LimitReader(part, maxField+1))
	if err != nil {
		return nil, cut(err)
	}
	if len(text) > maxField {
		return nil, strict.Invalid("/"+strict.Escape(name), "at most %d bytes", maxField)
	}
	if slices.Contains([]string{"n", "output_compression", "stream", "partial_images", "seed", "steps", "guidance"}, name) {
		if strict.Check(text) == nil {
			return text, nil
		}
	}
	return json.Marshal(strings.ToValidUTF8(string(text), "\ufffd"))
}

// cut explains a form that could not be read to its end.
func cut(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return queue.Problemf("too_large", "The form is larger than %d bytes.", tooLarge.Limit)
	}
	return queue.Problemf("invalid_request", "The form could not be read to its end: it is cut short or malformed.")
}
