package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helicon/gateway/batch"
	"helicon/queue"
)

// TestBatchCommand runs a batch by the command, and looks after it with the others.
func TestBatchCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rows.csv"), []byte("\xef\xbb\xbfanimal;n\nfox;3\ncat;many\ndog;3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := launch(t, "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--workers", "text").address(t)
	awaitWorkers(t, server, 1)
	job := []string{"batch", "run", "rows.csv", "--task", "text.complete", "--template", `{"prompt":"The {{animal}}","max_tokens":"{{n}}"}`, "--seed", "5"}
	with := append(job, "--server", server.base)

	var dry batch.DryRun
	out, said, err := run(t, dir, append(with, "--dry-run", "2")...)
	if err != nil || json.Unmarshal([]byte(out), &dry) != nil || len(dry.Inputs) != 1 || dry.Errors.Total != 1 || dry.Errors.Data[0].Param != "n" {
		t.Fatalf("dry run: %v: %s%s", err, out, said)
	}
	out, said, err = run(t, dir, append(with, "-o", "results.csv")...)
	if err == nil || out != "" || !strings.Contains(said, "2 of 3 rows succeeded, 1 failed") || !strings.Contains(said, "line 3 n:") {
		t.Errorf("%v: %s%s", err, out, said)
	}
	if table, err := os.ReadFile(filepath.Join(dir, "results.csv")); err != nil || !strings.HasPrefix(string(table), "row,custom_id,state,animal,n,text,") || strings.Count(string(table), ",succeeded,") != 2 {
		t.Errorf("%v: %s", err, table)
	}
	id, _, _ := strings.Cut(said, "\n")
	look := func(args ...string) string {
		t.Helper()
		out, said, err := run(t, dir, append([]string{"batch"}, append(args, "--server", server.base)...)...)
		if err != nil {
			t.Errorf("%v: %v: %s", args, err, said)
		}
		return out
	}
	var b batch.Batch
	if out := look("status", id); json.Unmarshal([]byte(out), &b) != nil || b.Status != "completed" || b.RequestCounts.Failed != 1 {
		t.Errorf("status: %s", out)
	}
	look("results", id, "--out", "results.zip")
	if archive, err := zip.OpenReader(filepath.Join(dir, "results.zip")); err != nil || len(archive.File) != 3 || archive.File[2].Name != "000003.txt" {
		t.Errorf("zip: %v", err)
	}
	if out := look("retry", id); json.Unmarshal([]byte(out), &b) != nil || b.RetryOf != id {
		t.Errorf("retry: %s", out)
	}
	if out, _, err := run(t, dir, "batch", "cancel", id, "--server", server.base); err == nil || out != "" {
		t.Errorf("a batch that has ended is canceled: %s", out)
	}
	if _, _, err := run(t, dir, append(with, "-o", "results.txt")...); err == nil {
		t.Error("results in a form that there is not")
	}
	// Results on the standard output have all that they have in files.
	if out, _, err = run(t, dir, with...); err == nil {
		t.Error("a batch with a row that failed ends without an error")
	}
	first, _, _ := strings.Cut(out, "\n")
	var rec batch.Record
	if json.Unmarshal([]byte(first), &rec) != nil || rec.Text == "" || rec.Seed != 5 {
		t.Errorf("first record %s", first)
	}
}

// TestBatchBar draws progress on one line, and removes it.
func TestBatchBar(t *testing.T) {
	t.Parallel()
	var screen bytes.Buffer
	bar := &batchBar{out: &screen, live: true}
	for _, p := range []*queue.Progress{nil, {Total: 10}, {Step: 5, Total: 10, Failed: 1, ETA: 7.2}, {Step: 10, Total: 10}} {
		if err := bar.show(&queue.Event{Progress: p}); err != nil {
			t.Fatal(err)
		}
	}
	bar.clear()
	got := screen.String()
	for _, want := range []string{"  0 %  0 of 10", " 50 %  5 of 10, 1 failed, 7s left", "100 %  10 of 10"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	if !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("the line stays: %q", got)
	}
}
