package openai

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"helicon/gateway/strict"
	"helicon/queue"
)

const filePath = "/v1/files"

// MaxFile is how many bytes a file has at most.
const MaxFile = 200 << 20

// Purposes of files that are uploaded; those of output files are the server's own.
var purposes = []string{"batch", "user_data", "vision"}

// fileHandlers are the routes of files.
func (a *API) fileHandlers() []Handler {
	const one = filePath + "/:id"
	return []Handler{
		{Method: http.MethodPost, Path: filePath, Body: MaxFile, Serve: a.uploadFile},
		{Method: http.MethodGet, Path: filePath, Serve: a.listFiles},
		{Method: http.MethodGet, Path: one, Serve: a.showFile},
		{Method: http.MethodDelete, Path: one, Serve: a.deleteFile},
		{Method: http.MethodGet, Path: one + "/content", Serve: a.fileContent},
	}
}

// fileObject is a file as OpenAI's clients see it. SHA256 and MediaType are not OpenAI's:
// inputs of jobs name files by them.
type fileObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"` // Unix seconds
	ExpiresAt *int64 `json:"expires_at,omitempty"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"`
	SHA256    string `json:"sha256"`
	MediaType string `json:"media_type"`
}

func newFileObject(f *queue.File) *fileObject {
	out := &fileObject{
		ID: f.ID, Object: "file", Bytes: f.Artifact.Size, CreatedAt: f.Created.Unix(), Filename: f.Name,
		Purpose: f.Purpose, Status: "processed", SHA256: f.Artifact.SHA256, MediaType: f.Artifact.MediaType,
	}
	if f.Expires != nil {
		seconds := f.Expires.Unix()
		out.ExpiresAt = &seconds
	}
	return out
}

// fileForm is the body of POST /v1/files.
type fileForm struct {
	file    *queue.File
	purpose string
	anchor  string
	seconds string
}

// uploadFile answers POST /v1/files. The file is stored as it comes.
func (a *API) uploadFile(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > MaxFile+maxField {
		return queue.Problemf("too_large", "The upload has %d bytes; a file may have %d.", r.ContentLength, MaxFile)
	}
	form, err := a.readFileForm(r)
	if err != nil {
		return err
	}
	switch {
	case form.file == nil:
		return strict.Invalid("/file", "required, but missing")
	case !slices.Contains(purposes, form.purpose):
		return strict.Invalid("/purpose", "want %s", strings.Join(purposes, ", "))
	}
	f := form.file
	f.ID, f.Purpose, f.Created = queue.NewFileID(), form.purpose, time.Now().UTC()
	if f.Expires, err = form.expiry(f.Created); err != nil {
		return err
	}
	files, tenant := a.backend.Files(r.Context())
	if _, err := files.Put(r.Context(), tenant, f.ID, f, 0); err != nil {
		return err
	}
	return a.tell(w, newFileObject(f))
}

// Limits on how long a file is kept that is to expire.
const (
	LeastExpiry = time.Hour
	MostExpiry  = 30 * 24 * time.Hour
)

// expiry is when a file expires that is created now, or nil.
func (f *fileForm) expiry(now time.Time) (*time.Time, error) {
	if f.anchor == "" && f.seconds == "" {
		return nil, nil
	}
	if f.anchor != "created_at" {
		return nil, strict.Invalid("/expires_after/anchor", "want created_at")
	}
	seconds, err := strconv.ParseInt(f.seconds, 10, 32)
	keep := time.Duration(seconds) * time.Second
	if err != nil || keep < LeastExpiry || keep > MostExpiry {
		return nil, strict.Invalid("/expires_after/seconds", "want %.0f to %.0f", LeastExpiry.Seconds(), MostExpiry.Seconds())
	}
	expires := now.Add(keep)
	return &expires, nil
}

func (a *API) readFileForm(r *http.Request) (*fileForm, error) {
	declared, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || declared != "multipart/form-data" {
		return nil, queue.Problemf("unsupported_media_type", "The body must be a form: send Content-Type: multipart/form-data, not %q.", r.Header.Get("Content-Type"))
	}
	form, parts := new(fileForm), multipart.NewReader(r.Body, params["boundary"])
	fields := map[string]*string{"purpose": &form.purpose, "expires_after[anchor]": &form.anchor, "expires_after[seconds]": &form.seconds}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return form, nil
		}
		if err != nil {
			return nil, cut(err)
		}
		name := part.FormName()
		into, known := fields[name]
		switch {
		case name == "file" && form.file == nil:
			form.file, err = a.keepFile(r.Context(), part)
		case name == "file", known && *into != "":
			err = strict.Invalid("/"+strict.Escape(name), "the field appears twice")
		case known:
			*into, err = text(name, part)
		default:
			err = strict.Invalid("/"+strict.Escape(name), "unknown field; the known ones are file, purpose, expires_after[anchor] and expires_after[seconds]")
		}
		if err != nil {
			return nil, err
		}
	}
}

// text reads a field that is not a file.
func text(name string, part *multipart.Part) (string, error) {
	const most = 64 // bytes
	value, err := io.ReadAll(io.LimitReader(part, most+1))
	if err != nil {
		return "", cut(err)
	}
	if len(value) > most {
		return "", strict.Invalid("/"+strict.Escape(name), "at most %d bytes", most)
	}
	return string(value), nil
}

func (a *API) keepFile(ctx context.Context, part *multipart.Part) (*queue.File, error) {
	declared, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
	if err != nil {
		declared = ""
	}
	return a.backend.KeepFile(ctx, part, MaxFile, declared, part.FileName())
}

// Limits on a page of files.
const (
	mostFiles = 10_000
	someFiles = 1_000
)

// listFiles answers GET /v1/files.
func (a *API) listFiles(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "after", "limit", "order", "purpose")
	if err != nil {
		return err
	}
	limit := someFiles
	if t := q.Get("limit"); t != "" {
		if limit, err = strconv.Atoi(t); err != nil || limit < 1 || limit > mostFiles {
			return queue.Problemf("invalid_request", "limit=%.64q: want 1 to %d.", t, mostFiles)
		}
	}
	order := q.Get("order")
	if order != "" && order != "asc" && order != "desc" {
		return queue.Problemf("invalid_request", "order=%.64q: want asc or desc.", order)
	}
	page, more, err := a.files(r.Context(), q.Get("after"), limit, order == "asc", q.Get("purpose"))
	if err != nil {
		return err
	}
	answer := struct {
		Object  string        `json:"object"`
		Data    []*fileObject `json:"data"`
		FirstID string        `json:"first_id,omitempty"`
		LastID  string        `json:"last_id,omitempty"`
		HasMore bool          `json:"has_more"`
	}{Object: "list", Data: []*fileObject{}, HasMore: more}
	for _, f := range page {
		answer.Data = append(answer.Data, newFileObject(f))
	}
	if len(page) > 0 {
		answer.FirstID, answer.LastID = page[0].ID, page[len(page)-1].ID
	}
	return a.tell(w, answer)
}

// files reads a page of the caller's files, the newest first unless ascending, and reports
// whether there are more.
func (a *API) files(ctx context.Context, after string, limit int, ascending bool, purpose string) (page []*queue.File, more bool, err error) {
	files, tenant := a.backend.Files(ctx)
	keys, err := files.Keys(ctx, tenant)
	if err != nil {
		return nil, false, err
	}
	if !ascending {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		if after != "" && (ascending && k.ID <= after || !ascending && k.ID >= after) {
			continue
		}
		f, err := a.backend.File(ctx, k.ID)
		if errors.Is(err, queue.ErrNoRecord) {
			continue // deleted since the keys were listed, or expired
		}
		if err != nil {
			return nil, false, err
		}
		if purpose != "" && f.Purpose != purpose {
			continue
		}
		if len(page) == limit {
			return page, true, nil
		}
		page = append(page, f)
	}
	return page, false, nil
}

// file returns the file that a request names.
func (a *API) file(r *http.Request) (*queue.File, error) {
	id := r.PathValue("id")
	f, err := a.backend.File(r.Context(), id)
	if errors.Is(err, queue.ErrNoRecord) {
		return nil, queue.Problemf("not_found", "There is no file %q.", id)
	}
	return f, err
}

// showFile answers GET /v1/files/{id}.
func (a *API) showFile(w http.ResponseWriter, r *http.Request) error {
	f, err := a.file(r)
	if err != nil {
		return err
	}
	return a.tell(w, newFileObject(f))
}

// deleteFile answers DELETE /v1/files/{id}. The bytes go when nothing else needs them.
func (a *API) deleteFile(w http.ResponseWriter, r *http.Request) error {
	f, err := a.file(r)
	if err != nil {
		return err
	}
	files, tenant := a.backend.Files(r.Context())
	if err := files.Delete(r.Context(), tenant, f.ID); err != nil {
		return err
	}
	return a.tell(w, map[string]any{"id": f.ID, "object": "file", "deleted": true})
}

// fileContent answers GET /v1/files/{id}/content.
func (a *API) fileContent(w http.ResponseWriter, r *http.Request) error {
	f, err := a.file(r)
	if err != nil {
		return err
	}
	return a.backend.SendFile(w, r, f)
}
