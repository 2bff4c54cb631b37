package table

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	"helicon/queue"
)

// read reads a whole file as Detect and Open would have it.
func read(file []byte) (*Table, []*Row, error) {
	encoding, err := Detect(bytes.NewReader(file))
	if err != nil {
		return nil, nil, err
	}
	t, err := Open(bytes.NewReader(file), encoding)
	if err != nil {
		return nil, nil, err
	}
	var rows []*Row
	for {
		row, err := t.Next()
		if err == io.EOF {
			return t, rows, nil
		}
		if err != nil {
			return t, rows, err
		}
		rows = append(rows, row)
	}
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	const text = "名字,colour\n猫,red\n🐈,\"blue\nor so\"\n"
	gb, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	le, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().Bytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	be, err := unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewEncoder().Bytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file []byte
		want Encoding
	}{
		"utf-8":        {[]byte(text), UTF8},
		"utf-8 marked": {[]byte("\xef\xbb\xbf" + text), UTF8},
		"utf-16le":     {le, UTF16LE},
		"utf-16be":     {be, UTF16BE},
		"gb18030":      {gb, GB18030},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table, rows, err := read(c.file)
			if err != nil {
				t.Fatal(err)
			}
			if table.Encoding != c.want || !reflect.DeepEqual(table.Columns, []string{"名字", "colour"}) {
				t.Errorf("%s %q", table.Encoding, table.Columns)
			}
			if len(rows) != 2 || rows[0].Cells[0] != "猫" || rows[1].Cells[0] != "🐈" || rows[1].Cells[1] != "blue\nor so" || rows[1].Line != 3 {
				t.Errorf("rows %+v", rows)
			}
		})
	}
}

// TestDetectAcrossBuffers: a character may lie across two reads.
func TestDetectAcrossBuffers(t *testing.T) {
	t.Parallel()
	for shift := range 4 {
		text := strings.Repeat("a", 64<<10-shift) + "猫🐈" + strings.Repeat("b", 70<<10)
		if e, err := Detect(strings.NewReader(text)); err != nil || e != UTF8 {
			t.Errorf("shift %d: %s, %v", shift, e, err)
		}
		if e, err := Detect(strings.NewReader(text + "\xe7\x8c")); err != nil || e != GB18030 {
			t.Errorf("shift %d, cut short: %s, %v", shift, e, err)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file    string
		problem string // code of the file's
		faults  string // of the rows, as code/param
		rows    int
	}{
		"semicolons":      {file: "a;b\n1;2\n", rows: 1},
		"tabs":            {file: "a\tb\n1\t2\n", rows: 1},
		"crlf":            {file: "a,b\r\n1,2\r\n\r\n3,4", rows: 2},
		"ragged":          {file: "a,b\n1\n1,2\n1,2,3\n", rows: 3, faults: "ragged_row/ ragged_row/"},
		"unnamed column":  {file: "a,,\n1,,\n", rows: 1},
		"duplicate":       {file: "a, a\n1,2\n", problem: "duplicate_column"},
		"empty":           {file: "", problem: "empty_file"},
		"blank":           {file: " \n\n", problem: "empty_file"},
		"header only":     {file: "a,b\n"},
		"NUL":             {file: "a,b\n1,\x00\n", rows: 1, faults: "invalid_cell/b"},
		"UTF-16 unmarked": {file: "a\x00,\x00b\x00\n\x001\x00,\x002\x00\n\x00", problem: "invalid_file"},
		"bad bytes":       {file: "\xef\xbb\xbfa,b\n1,\xff\n", rows: 1, faults: "invalid_cell/b"},
		"neither":         {file: "a,b\n\xff\xff,1\n", rows: 1, faults: "invalid_cell/a"},
		"huge cell":       {file: "a,b\n1," + strings.Repeat("x", MaxCell+1) + "\n", rows: 1, faults: "cell_too_large/b"},
		"huge row":        {file: "a,b\n1,\"" + strings.Repeat("x\n", MaxRecord), problem: "invalid_file"},
		"open quote":      {file: "a,b\n1,\"2\n3,4\n", problem: "invalid_file"},
		"bare quote":      {file: "a,b\n1,x\"y\n", problem: "invalid_file"},
		"long name":       {file: strings.Repeat("x", MaxName+1) + ",b\n1,2\n", problem: "invalid_file"},
		"many columns":    {file: strings.Repeat("x,", MaxColumns) + "y\n", problem: "invalid_file"},
		"json lines":      {file: "{\"a\":1}\n\n  {\"a\":2}", rows: 2},
		"long line":       {file: "{\"a\":\"" + strings.Repeat("x", MaxRecord) + "\"}\n{}\n", rows: 2, faults: "line_too_long/"},
		"json, gb18030":   {file: "{\"a\":\"\xff\xff\"}\n", rows: 1, faults: "invalid_json_line/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, rows, err := read([]byte(c.file))
			var problem *queue.Problem
			if code := ""; errors.As(err, &problem) {
				if code = problem.Code; code != c.problem {
					t.Errorf("%v, want %q", err, c.problem)
				}
				return
			}
			if err != nil || c.problem != "" {
				t.Fatalf("%v, want %q", err, c.problem)
			}
			var faults []string
			for i, row := range rows {
				if row.Number != i+1 || row.Line < 1 {
					t.Errorf("row %d: number %d, line %d", i, row.Number, row.Line)
				}
				for _, f := range row.Faults {
					if f.Row != row.Number || f.Line != row.Line || f.Message == "" {
						t.Errorf("fault %+v of row %+v", f, row)
					}
					faults = append(faults, f.Code+"/"+f.Param)
				}
			}
			if len(rows) != c.rows || strings.Join(faults, " ") != c.faults {
				t.Errorf("%d rows, faults %q; want %d, %q", len(rows), faults, c.rows, c.faults)
			}
		})
	}
}

func TestTooManyRows(t *testing.T) {
	t.Parallel()
	table, err := Open(strings.NewReader("a\n"+strings.Repeat("1\n", MaxRows+1)), UTF8)
	for err == nil {
		_, err = table.Next()
	}
	var problem *queue.Problem
	if !errors.As(err, &problem) || problem.Code != "too_many_rows" {
		t.Error(err)
	}
}

// FuzzTable: any bytes are read without a panic, in bounded memory, and what is CSV for
// encoding/csv has the same cells here.
func FuzzTable(f *testing.F) {
	for _, seed := range []string{"a,b\n1,2\n", "{\"a\":1}\n{\"b\":[2]}", "a;b\r\n\"x\"\"y\";\n", "\xff\xfea\x00,\x00", "\xb2\xe2,\xca\xd4\n1,2", "\"", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		table, rows, err := read(file)
		if err != nil {
			var problem *queue.Problem
			if !errors.As(err, &problem) {
				t.Fatalf("not a problem: %v", err)
			}
			return
		}
		for i, row := range rows {
			if row.Number != i+1 {
				t.Fatalf("row %d is numbered %d", i+1, row.Number)
			}
			if len(row.Faults) == 0 && row.Cells != nil && len(row.Cells) != len(table.Columns) {
				t.Fatalf("row %d has %d cells", row.Number, len(row.Cells))
			}
		}
		if table.Comma != "," || table.Encoding != UTF8 || bytes.HasPrefix(file, []byte("\xef\xbb\xbf")) {
			return
		}
		reader := csv.NewReader(bytes.NewReader(file))
		reader.FieldsPerRecord = -1
		want, err := reader.ReadAll()
		if err != nil {
			t.Fatalf("encoding/csv refuses the file: %v", err)
		}
		if len(want) != len(rows)+1 {
			t.Fatalf("%d rows, want %d", len(rows), len(want)-1)
		}
		for i, row := range rows {
			if fmt.Sprint(row.Cells) != fmt.Sprint(want[i+1]) {
				t.Fatalf("row %d: %q, want %q", row.Number, row.Cells, want[i+1])
			}
		}
	})
}
