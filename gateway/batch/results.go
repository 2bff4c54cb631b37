package batch

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"helicon/queue"
)

// Export writes the results of a batch that has ended in the forms that people take them
// in. It reads the records as it writes and holds one at a time.
type Export struct {
	Queue   *queue.Queue
	Tenant  string
	Batch   *Batch
	Account *Account
}

// records reads the records of the batch.
func (e *Export) records(ctx context.Context) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		_, content, err := e.Queue.Artifact(ctx, e.Tenant, e.Account.Results.Artifact.SHA256)
		if err != nil {
			yield(nil, err)
			return
		}
		defer content.Close()
		decoder := json.NewDecoder(bufio.NewReaderSize(content, 64<<10))
		decoder.UseNumber()
		for {
			rec := new(Record)
			err := decoder.Decode(rec)
			if err == io.EOF {
				return
			}
			if err != nil {
				err = fmt.Errorf("batch: %s: results: %w", e.Batch.ID, err)
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// number is what a spreadsheet reads as a number: it may begin with a sign.
var number = regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$`)

// cell makes a text safe in a spreadsheet: one that it would take for a formula gets an
// apostrophe before it. Numbers stay as they are.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) && !number.MatchString(text) {
		return "'" + text
	}
	return text
}

// Names of the columns of an exported table around those of the file.
var (
	leading  = []string{"row", "custom_id", "state"}
	trailing = []string{"text", "artifacts", "seed", "jobs", "input_tokens", "output_tokens", "compute_seconds", "error_code", "error"}
)

// CSV writes a table with a row for each row of the batch: what it was, and what became
// of it.
func (e *Export) CSV(ctx context.Context, w io.Writer) error {
	out := csv.NewWriter(w)
	columns := slices.DeleteFunc(slices.Clone(e.Account.Columns), func(name string) bool { return name == "" || name == customID })
	header := slices.Clone(leading)
	for _, name := range columns {
		for slices.Contains(header, cell(name)) || slices.Contains(trailing, name) {
			name += "_"
		}
		header = append(header, cell(name))
	}
	if err := out.Write(append(header, trailing...)); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	for rec, err := range e.records(ctx) {
		if err != nil {
			return err
		}
		if err := out.Write(rec.cells(columns)); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
	out.Flush()
	return out.Error()
}

// cells are the record as a row of a table.
func (rec *Record) cells(columns []string) []string {
	cells := []string{strconv.Itoa(rec.Row), cell(rec.CustomID), string(rec.State)}
	for _, name := range columns {
		cells = append(cells, cell(written(rec.Columns[name])))
	}
	urls := make([]string, len(rec.Artifacts))
	for i, a := range rec.Artifacts {
		urls[i] = a.URL
	}
	cells = append(cells, cell(rec.Text), strings.Join(urls, " "), strconv.FormatUint(rec.Seed, 10), strings.Join(rec.Jobs, " "))
	if rec.Usage == nil {
		cells = append(cells, "", "", "")
	} else {
		cells = append(cells, strconv.Itoa(rec.Usage.InputTokens), strconv.Itoa(rec.Usage.OutputTokens),
			strconv.FormatFloat(rec.Usage.ComputeSeconds, 'f', 3, 64))
	}
	if rec.Problem == nil {
		return append(cells, "", "")
	}
	return append(cells, rec.Problem.Code, cell(rec.Problem.Detail))
}

// written is a value as a text.
func written(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	}
	text, err := marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// manifestRow is a record with the names of its files.
type manifestRow struct {
	*Record
	Files []string `json:"files,omitempty"`
}

// ZIP writes an archive: manifest.json, which is the batch and its records, and what they
// made in files that are named after the rows.
func (e *Export) ZIP(ctx context.Context, w io.Writer) error {
	archive := zip.NewWriter(w)
	if err := e.manifest(ctx, archive); err != nil {
		return err
	}
	for rec, err := range e.records(ctx) {
		if err != nil {
			return err
		}
		for i, name := range rec.files() {
			if err := e.file(ctx, archive, name, rec, i); err != nil {
				return err
			}
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

// create begins a file of the archive. What is compressed already is only stored.
func (e *Export) create(archive *zip.Writer, name string) (io.Writer, error) {
	header := &zip.FileHeader{Name: name, Method: zip.Store, Modified: time.Unix(e.Batch.CreatedAt, 0).UTC()}
	if ext := path.Ext(name); ext == ".json" || ext == ".txt" || ext == ".wav" {
		header.Method = zip.Deflate
	}
	out, err := archive.CreateHeader(header)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	return out, nil
}

func (e *Export) manifest(ctx context.Context, archive *zip.Writer) error {
	out, err := e.create(archive, "manifest.json")
	if err != nil {
		return err
	}
	head, err := marshal(e.Batch)
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	if _, err := fmt.Fprintf(out, "{\"batch\":%s,\n\"rows\":[", head); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	before := "\n"
	for rec, err := range e.records(ctx) {
		if err != nil {
			return err
		}
		text, err := marshal(manifestRow{rec, rec.files()})
		if err != nil {
			return fmt.Errorf("batch: %w", err)
		}
		if _, err := fmt.Fprintf(out, "%s%s", before, text); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
		before = ",\n"
	}
	if _, err := io.WriteString(out, "\n]}\n"); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

// files are the names of what a row has made: its artifacts, and its text.
func (rec *Record) files() []string {
	var names []string
	for i, a := range rec.Artifacts {
		name := fmt.Sprintf("%06d", rec.Row)
		if len(rec.Artifacts) > 1 {
			name += fmt.Sprintf("-%d", i+1)
		}
		names = append(names, name+extension(&a))
	}
	if rec.Text != "" {
		names = append(names, fmt.Sprintf("%06d.txt", rec.Row))
	}
	return names
}

// extension is what the name of an artifact's file ends with.
func extension(a *queue.Artifact) string {
	known := map[string]string{
		"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif",
		"audio/wav": ".wav", "audio/x-wav": ".wav", "audio/mpeg": ".mp3", "audio/flac": ".flac", "audio/ogg": ".ogg",
		"video/mp4": ".mp4", "video/webm": ".webm", "application/json": ".json",
	}
	if ext := known[a.MediaType]; ext != "" {
		return ext
	}
	return ".bin"
}

// file writes the i-th file of a record.
func (e *Export) file(ctx context.Context, archive *zip.Writer, name string, rec *Record, i int) error {
	if i == len(rec.Artifacts) {
		out, err := e.create(archive, name)
		if err == nil {
			_, err = io.WriteString(out, rec.Text)
		}
		return err
	}
	_, content, err := e.Queue.Artifact(ctx, e.Tenant, rec.Artifacts[i].SHA256)
	if errors.Is(err, queue.ErrNoArtifact) { // it was deleted: the others are still wanted
		_, err = e.create(archive, name+".missing")
		return err
	}
	if err != nil {
		return err
	}
	defer content.Close()
	out, err := e.create(archive, name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, content); err != nil {
		return fmt.Errorf("batch: %s: %w", name, err)
	}
	return nil
}
