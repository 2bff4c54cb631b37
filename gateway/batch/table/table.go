// Package table reads what people upload as the rows of a batch: CSV files (RFC 4180) as
// spreadsheets write them, in whatever encoding and with whatever separator, and files of
// one JSON object a line. It reads row by row, so that a file may be large, and says what
// is wrong by row, line and column. It knows nothing of jobs.
package table

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"helicon/queue"
)

// Limits on a file. A row over MaxRecord ends the file, since where the next begins cannot
// be told; the others are faults of a row.
const (
	MaxRows    = 500_000
	MaxColumns = 256
	MaxName    = 128       // bytes of a column's name
	MaxCell    = 256 << 10 // bytes
	MaxRecord  = 4 << 20   // bytes of a row
)

// Fault is one thing wrong with a row, in the words that OpenAI's batches have for it.
type Fault struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Line    int    `json:"line,omitempty"`  // of the file, from 1
	Row     int    `json:"row,omitempty"`   // from 1; a header is none
	Param   string `json:"param,omitempty"` // the column, or the part of a line
}

// Row is one row of a table: the cells of a line of a CSV file, or a line of JSON.
type Row struct {
	Number int      // from 1
	Line   int      // of the file, where it begins
	Cells  []string // as many as there are columns; nil for JSON
	Text   []byte   // of JSON
	Faults []Fault  // if there are any, the cells are not to be used
}

// Fault makes a fault of the row. What it quotes of the row may be long: it is cut.
func (r *Row) Fault(code, param, format string, args ...any) Fault {
	return Fault{Code: code, Message: cut(fmt.Sprintf(format, args...), 500), Line: r.Line, Row: r.Number, Param: cut(param, MaxName)}
}

// cut shortens a text to at most so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}

// Table reads the rows of a file.
type Table struct {
	Columns  []string // of a CSV file, as its header names them
	Comma    string   // what separates the cells of a CSV file; "" for JSON
	Encoding Encoding

	fuse   *fuse
	csv    *csv.Reader
	lines  *bufio.Reader
	number int // of the last row
	line   int // of the last line of JSON
}

// Open begins to read a file of the encoding. A file whose first character is a brace has
// lines of JSON; every other is CSV with a header. The error is a *queue.Problem if the
// file is at fault.
func Open(r io.Reader, e Encoding) (*Table, error) {
	text, err := e.decoded(r)
	if err != nil {
		return nil, err
	}
	t := &Table{Encoding: e, lines: bufio.NewReaderSize(text, peeked)}
	head, err := t.lines.Peek(peeked)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("table: %w", err)
	}
	first := bytes.TrimLeftFunc(head, unicode.IsSpace)
	if len(first) == 0 {
		return nil, queue.Problemf("empty_file", "The file has no rows.")
	}
	if first[0] == '{' {
		return t, nil
	}
	return t, t.openCSV(first)
}

// peeked is how many bytes the kind of a file and its separator are told from.
const peeked = 64 << 10

// openCSV reads the header.
func (t *Table) openCSV(head []byte) error {
	t.fuse = &fuse{r: t.lines}
	t.csv = csv.NewReader(t.fuse)
	t.csv.FieldsPerRecord = -1
	t.csv.Comma = comma(head)
	t.Comma = string(t.csv.Comma)
	header, err := t.record()
	if err != nil {
		return err
	}
	if len(header) > MaxColumns {
		return queue.Problemf("invalid_file", "The header names %d columns; at most %d.", len(header), MaxColumns)
	}
	for i, name := range header {
		name = strings.TrimSpace(name)
		switch {
		case len(name) > MaxName:
			return queue.Problemf("invalid_file", "The name of column %d has %d bytes; at most %d. Is the first row the header?", i+1, len(name), MaxName)
		case strings.ContainsRune(name, 0):
			return queue.Problemf("invalid_file", "The name of column %d has a NUL character. Save the file as UTF-8, or as UTF-16 with its byte order mark.", i+1)
		case t.garbled(name):
			return queue.Problemf("invalid_file", "The name of column %d cannot be read: the file is neither valid UTF-8 nor GB18030.", i+1)
		case name != "" && slices.Contains(t.Columns, name):
			return queue.Problemf("duplicate_column", "The header names the column %q twice.", name)
		}
		t.Columns = append(t.Columns, name)
	}
	return nil
}

// comma tells what separates the cells: of a header without commas, semicolons or tabs.
func comma(head []byte) rune {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	for _, c := range []byte(",;\t") {
		if bytes.IndexByte(line, c) >= 0 {
			return rune(c)
		}
	}
	return ','
}

// fuse breaks when a row takes more than it may.
type fuse struct {
	r    io.Reader
	left int
}

var errLong = errors.New("table: the row is too long")

// Read implements io.Reader.
func (f *fuse) Read(p []byte) (int, error) {
	if f.left <= 0 {
		return 0, errLong
	}
	n, err := f.r.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}

// record reads one record of a CSV file.
func (t *Table) record() ([]string, error) {
	t.fuse.left = MaxRecord
	record, err := t.csv.Read()
	var syntax *csv.ParseError
	switch {
	case err == nil, err == io.EOF:
		return record, err
	case errors.Is(err, errLong):
		return nil, queue.Problemf("invalid_file", "Row %d is longer than %d bytes. Is a quotation mark left open?", t.number+1, MaxRecord)
	case errors.As(err, &syntax):
		return nil, queue.Problemf("invalid_file", "Line %d, column %d: %v. A cell with quotation marks is put in quotation marks and has them doubled.", syntax.Line, syntax.Column, syntax.Err)
	}
	return nil, fmt.Errorf("table: %w", err)
}

// Next returns the next row, whose memory is its own, or io.EOF behind the last. Another
// error ends the table; it is a *queue.Problem if the file is at fault.
func (t *Table) Next() (*Row, error) {
	row := new(Row)
	var err error
	if t.csv != nil {
		err = t.nextRecord(row)
	} else {
		err = t.nextLine(row)
	}
	if err != nil {
		return nil, err
	}
	if t.number++; t.number > MaxRows {
		return nil, queue.Problemf("too_many_rows", "The file has more than %d rows. Divide it.", MaxRows)
	}
	row.Number = t.number
	for i := range row.Faults {
		row.Faults[i].Row = row.Number
	}
	return row, nil
}

func (t *Table) nextRecord(row *Row) error {
	cells, err := t.record()
	if err != nil {
		return err
	}
	row.Line, _ = t.csv.FieldPos(0)
	row.Cells = cells
	if len(cells) != len(t.Columns) {
		row.Faults = append(row.Faults, row.Fault("ragged_row", "", "The row has %d cells and the header %d.", len(cells), len(t.Columns)))
		return nil
	}
	for i, cell := range cells {
		switch {
		case len(cell) > MaxCell:
			row.Faults = append(row.Faults, row.Fault("cell_too_large", t.Columns[i], "The cell has %d bytes; at most %d.", len(cell), MaxCell))
		case strings.ContainsRune(cell, 0):
			row.Faults = append(row.Faults, row.Fault("invalid_cell", t.Columns[i], "The cell has a NUL character."))
		case t.garbled(cell):
			row.Faults = append(row.Faults, row.Fault("invalid_cell", t.Columns[i], "The cell has bytes that are no characters in %s.", t.Encoding))
		}
	}
	return nil
}

// garbled reports whether a text has bytes that its file's encoding has no character for.
func (t *Table) garbled(text string) bool {
	return !utf8.ValidString(text) || t.Encoding != UTF8 && strings.ContainsRune(text, utf8.RuneError)
}

// nextLine reads the next line that is not blank.
func (t *Table) nextLine(row *Row) error {
	for {
		t.line++
		text, long, err := t.readLine()
		if err != nil {
			return err
		}
		if text = bytes.TrimSpace(text); len(text) == 0 && !long {
			continue
		}
		row.Line, row.Text = t.line, text
		switch {
		case long:
			row.Text = nil
			row.Faults = []Fault{row.Fault("line_too_long", "", "The line is longer than %d bytes.", MaxRecord)}
		case t.garbled(string(text)):
			row.Faults = []Fault{row.Fault("invalid_json_line", "", "The line has bytes that are no characters in %s.", t.Encoding)}
		}
		return nil
	}
}

// readLine reads a line. Of one that is too long, what is beyond the limit is skipped.
func (t *Table) readLine() (text []byte, long bool, err error) {
	for {
		part, err := t.lines.ReadSlice('\n')
		if !long {
			text = append(text, part...)
			long = len(text) > MaxRecord
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(text) > 0:
			return text, long, nil
		case err == io.EOF:
			return nil, false, io.EOF
		case err != nil:
			return nil, false, fmt.Errorf("table: %w", err)
		}
		return text, long, nil
	}
}
