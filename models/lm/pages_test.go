package lm

import (
	"slices"
	"testing"

	"helicon/models/lm/family"
)

// TestPagesGrow checks that memory comes as it is needed, that what was written stays,
// and that pages of prefixes go, the longest unused first, when there is no more.
func TestPagesGrow(t *testing.T) {
	t.Parallel()
	c := &family.Config{Layers: 2, KVHeads: 1, HeadDim: 4}
	p := newPages(c, 20)
	p.prefixes = newPrefixes()
	if p.bytes() != 0 {
		t.Errorf("%d bytes before there is a sequence", p.bytes())
	}
	write := func(first, pages int) *sequence {
		t.Helper()
		if !p.promise(pages) {
			t.Fatalf("no room for %d pages beside %d", pages, p.promised)
		}
		s := p.newSequence(pages*PageTokens, pages)
		for i := range pages * PageTokens {
			s.text = append(s.text, first+i)
		}
		s.begin(c, len(s.text))
		s.adopt()
		for s.ready < len(s.text) {
			n := min(10, len(s.text)-s.ready)
			s.need(n)
			s.computed(n)
		}
		return s
	}
	a := write(0, 6)
	if want := minPages * pageBytes(c) / 2; p.bytes() < want/2 || len(p.refs) != minPages {
		t.Errorf("%d pages of %d bytes in all for 6, want %d", len(p.refs), p.bytes(), minPages)
	}
	p.layers[1].K[5] = 7
	b := write(1000, 6)
	if len(p.refs) != 2*minPages || p.layers[1].K[5] != 7 {
		t.Errorf("%d pages for 12, the first one with %v", len(p.refs), p.layers[1].K[5])
	}
	if p.promise(9) || !p.promise(8) {
		t.Error("20 pages, of which 12 are promised, have not room for 8 or for 9 more")
	}
	p.promised -= 8
	aPages, bPages := slices.Clone(a.table), slices.Clone(b.table)
	a.close()
	b.close()
	if p.promised != 0 || len(p.refs) != 2*minPages {
		t.Errorf("%d pages are promised to nobody", p.promised)
	}
	again := write(0, 6)
	if !slices.Equal(again.table[:5], aPages[:5]) {
		t.Errorf("pages %v of a known text, want those that have it: %v", again.table, aPages)
	}
	d := write(2000, 13) // what is free, what is not allocated yet, and what is known
	if slices.ContainsFunc(d.table, func(page int32) bool { return slices.Contains(again.table, page) }) {
		t.Errorf("pages %v and %v overlap", d.table, again.table)
	}
	d.close()
	again.close()
	parent, found := uint64(plainAngles), 0
	for ; found < len(bPages); found++ {
		var tokens []int
		for i := range PageTokens {
			tokens = append(tokens, 1000+found*PageTokens+i)
		}
		page, ok := p.prefixes.find(parent, tokens)
		if !ok {
			break
		}
		parent = p.prefixes.nodes[page].serial
	}
	if found != 1 {
		t.Errorf("%d pages are known of a text that had to make room for 5, want the first one", found)
	}
}

// TestFork checks that forks go on by themselves from the same text, and give back
// their pages.
func TestFork(t *testing.T) {
	t.Parallel()
	for name, fsys := range batchModels(t) {
		m := load(t, fsys, 1)
		ids := someTokens(64, m.config.Vocab)
		whole := func(text ...int) []float32 { return slices.Clone(forward(t, m, newState(t, m, 64), text)) }
		s := newState(t, m, 64)
		forward(t, m, s, ids[:40])
		f := s.Fork()
		g := f.Fork()
		if f.Len() != 40 || f.Cap() != 64 {
			t.Fatalf("%s: a fork of 40 tokens in 64 has %d in %d", name, f.Len(), f.Cap())
		}
		same(t, name+": the fork", forward(t, m, f, ids[50:60]), whole(slices.Concat(ids[:40], ids[50:60])...))
		same(t, name+": the first one", forward(t, m, s, ids[40:45]), whole(ids[:45]...))
		g.Truncate(35)
		same(t, name+": the fork's fork", forward(t, m, g, ids[5:8]), whole(slices.Concat(ids[:35], ids[5:8])...))
		same(t, name+": the fork, again", forward(t, m, f, ids[60:61]), whole(slices.Concat(ids[:40], ids[50:61])...))
		pages := len(s.seq.cache.refs)
		for range 50 {
			next := f.Fork()
			f.Close()
			f = next
			f.Truncate(40)
			forward(t, m, f, ids[1:10])
		}
		if got := len(s.seq.cache.refs); got > 2*pages {
			t.Errorf("%s: %d pages after forks that were closed, %d before", name, got, pages)
		}
		same(t, name+": the first one, at last", forward(t, m, s, ids[45:46]), whole(ids[:46]...))
	}
}

func TestPageBytes(t *testing.T) {
	t.Parallel()
	for _, dim := range []int{1, 16, 20, 64} {
		c := &family.Config{Layers: 3, KVHeads: 2, HeadDim: dim}
		p := newPages(c, 10)
		p.grow(10)
		if got := p.bytes(); got != 10*pageBytes(c) {
			t.Errorf("dimension %d: 10 pages are %d bytes, want %d", dim, got, 10*pageBytes(c))
		}
	}
	kv := kvPages(&family.Config{KVHeads: 2, HeadDim: 20})
	if kv.PageTokens != PageTokens {
		t.Errorf("pages of %d tokens, want %d", kv.PageTokens, PageTokens)
	}
}
