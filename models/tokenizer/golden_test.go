package tokenizer_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helicon/models/tokenizer"
)

// goldenDir returns the folder of reference cases, or skips the test.
func goldenDir(t testing.TB, area string) string {
	t.Helper()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	dir := filepath.Join(root, area)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("reference cases are absent: %s (set HELICON_GOLDENS)", dir)
	}
	return dir
}

// goldenRow is a row of cases.json. Cases of tokenizer.json have plain and
// decoded, and parse special tokens; the others hold ids of ordinary text.
type goldenRow struct {
	Text    string  `json:"text"`
	IDs     []int   `json:"ids"`
	Plain   []int   `json:"plain"`
	Decoded *string `json:"decoded"`
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readJSON(t testing.TB, path string, into any) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, path), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestGoldenTokenizer(t *testing.T) {
	cases, err := filepath.Glob(filepath.Join(goldenDir(t, "tokenizer"), "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no case.json found: %v", err)
	}
	for _, path := range cases {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			testGoldenCase(t, dir)
		})
	}
}

func testGoldenCase(t *testing.T, dir string) {
	tok := loadCase(t, dir)
	var rows []goldenRow
	readJSON(t, filepath.Join(dir, "cases.json"), &rows)
	_, err := os.Stat(filepath.Join(dir, "tokenizer.json"))
	// CLIP's ids come from a tokenizer.json as well, which the case leaves out.
	special := err == nil || filepath.Base(dir) == "clip"
	for i, row := range rows {
		opts := tokenizer.EncodeOptions{ParseSpecial: special}
		plain := row.IDs
		if row.Plain != nil {
			plain = row.Plain
			checkEncode(t, tok, i, row.Text, tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}, row.IDs)
		}
		checkEncode(t, tok, i, row.Text, opts, plain)
		if row.Decoded != nil {
			if got := tok.Decode(row.IDs, special); got != *row.Decoded {
				t.Errorf("row %d: decode(%v) = %q, want %q", i, row.IDs, got, *row.Decoded)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%s: %d rows, exact", filepath.Base(dir), len(rows))
}

// loadCase loads the tokenizer of a case, or skips the case.
func loadCase(t testing.TB, dir string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Load(os.DirFS(dir))
	if ranks, _ := filepath.Glob(filepath.Join(dir, "*.tiktoken")); errors.Is(err, tokenizer.ErrNoTokenizer) && ranks != nil {
		var special map[string]int
		readJSON(t, filepath.Join(dir, "special_tokens.json"), &special)
		tok, err = tokenizer.ReadTiktoken(readFile(t, ranks[0]), special)
	}
	if errors.Is(err, tokenizer.ErrNoTokenizer) {
		t.Skipf("%s: skipped, its layout is not supported", filepath.Base(dir))
	}
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func checkEncode(t *testing.T, tok *tokenizer.Tokenizer, row int, text string, opts tokenizer.EncodeOptions, want []int) {
	t.Helper()
	got, err := tok.Encode(text, opts)
	if err != nil {
		t.Errorf("row %d: %v", row, err)
		return
	}
	if !slices.Equal(got, want) {
		t.Errorf("row %d: encode(%q, %+v)\n got %v\nwant %v", row, text, opts, got, want)
	}
}
