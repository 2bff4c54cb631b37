// Package terms cuts jobs and queries into the terms of a full-text index: the words of a
// job's texts, and a term for each value that lists filter by. Both databases of the catalog
// are given the same terms, and so find the same; a list is one conjunction of terms,
// whatever it filters and searches by.
package terms

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"helicon/queue"
)

// Limits on what of a job is indexed.
const (
	maxIndexed  = 32 << 10 // bytes of its input's texts, and of its result's
	maxWord     = 64       // bytes; longer words are cut, in queries as well
	maxOpaque   = 256      // bytes of a text without a space; a longer one is data, not words
	facetLength = 16       // letters of base32: 80 bits
)

// Kind is a kind of value that a term stands for.
type Kind string

// The kinds of values. No word has the mark in it that they begin with.
const (
	mark          = "§"
	Tenant   Kind = mark + "o"
	State    Kind = mark + "s"
	Task     Kind = mark + "t"
	Model    Kind = mark + "m"
	Batch    Kind = mark + "b"
	Pipeline Kind = mark + "p"
	Tag      Kind = mark + "g"
)

var facetLetters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Facet is the term that stands for a value of a tenant's job.
func Facet(kind Kind, tenant, value string) string {
	sum := sha256.Sum256([]byte(tenant + "\x00" + value))
	return string(kind) + facetLetters.EncodeToString(sum[:])[:facetLength]
}

// set collects distinct terms in the order of their first use.
type set struct {
	seen map[string]struct{}
	list []string
}

func newSet() *set { return &set{seen: map[string]struct{}{}} }

func (s *set) add(term string) {
	if _, known := s.seen[term]; !known {
		s.seen[term] = struct{}{}
		s.list = append(s.list, term)
	}
}

// facet adds the term of a value unless there is none.
func (s *set) facet(kind Kind, tenant, value string) {
	if value != "" {
		s.add(Facet(kind, tenant, value))
	}
}

// OfJob returns the terms that a job is found by, separated by spaces.
func OfJob(job *queue.Job) string {
	s := newSet()
	s.facet(Tenant, job.Tenant, job.Tenant)
	s.facet(State, job.Tenant, string(job.State))
	s.facet(Task, job.Tenant, job.Task)
	s.facet(Model, job.Tenant, job.Model)
	s.facet(Batch, job.Tenant, job.Batch)
	s.facet(Pipeline, job.Tenant, job.Pipeline)
	for _, tag := range job.Tags {
		s.facet(Tag, job.Tenant, tag)
	}
	budget := maxIndexed
	texts(job.Input, func(text string) bool {
		text = clip(text, budget)
		budget -= len(text)
		s.words(text, false)
		return budget > 0
	})
	if job.Result != nil {
		s.words(clip(job.Result.Text, maxIndexed), false)
	}
	return strings.Join(s.list, " ")
}

// OfQuery returns the terms that every job has that a query finds: all its words.
// Operators of any query language are text like other text.
func OfQuery(query string) []string {
	s := newSet()
	s.words(query, true)
	return s.list
}

// clip cuts a text to at most n bytes, between runes.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// texts calls f with the strings of a JSON document that are values, not names of
// members, until it returns false. The document is valid: it was decoded before.
func texts(document []byte, f func(string) bool) {
	for {
		start := bytes.IndexByte(document, '"')
		if start < 0 {
			return
		}
		end := start + 1
		for end < len(document) && document[end] != '"' {
			if document[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(document) {
			return
		}
		quoted := document[start : end+1]
		document = document[end+1:]
		if after := bytes.TrimLeft(document, " \t\r\n"); len(after) > 0 && after[0] == ':' {
			continue // the name of a member
		}
		var text string
		if json.Unmarshal(quoted, &text) != nil || opaque(text) {
			continue
		}
		if !f(text) {
			return
		}
	}
}

// opaque reports whether a text is data for machines, such as a picture in base64.
func opaque(text string) bool {
	if len(text) <= maxOpaque {
		return false
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// words adds the words of a text: runs of letters and digits, in small letters and
// without accents, and symbols such as emoji one by one. In scripts that do not put
// spaces between words, each character and each two neighbours are added; a query that
// has neighbours asks for those alone.
func (s *set) words(text string, query bool) {
	var word strings.Builder // of a script with spaces
	var run []rune           // of one without
	flush := func() {
		if word.Len() > 0 {
			s.add(clip(word.String(), maxWord))
			word.Reset()
		}
		for i, r := range run {
			if !query || len(run) == 1 {
				s.add(string(r))
			}
			if i > 0 {
				s.add(string(run[i-1 : i+1]))
			}
		}
		run = run[:0]
	}
	for _, r := range fold(text) {
		switch {
		case unicode.In(r, unspaced...):
			if word.Len() > 0 {
				flush()
			}
			run = append(run, r)
		case unicode.IsLetter(r), unicode.IsNumber(r), unicode.IsMark(r) && !unicode.Is(unicode.Variation_Selector, r):
			if len(run) > 0 {
				flush()
			}
			if word.Len() < maxWord {
				word.WriteRune(unicode.ToLower(r))
			}
		default:
			flush()
			if unicode.Is(unicode.So, r) {
				s.add(string(r))
			}
		}
	}
	flush()
}

// unspaced are the scripts that do not put spaces between words, or, as Korean, put
// endings behind them.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo,
	unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// fold brings characters that readers take for the same to one: forms of width,
// ligatures, letters with and without accents.
func fold(text string) string {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			bare := strings.Map(func(r rune) rune {
				if r >= 0x300 && r <= 0x36f { // combining diacritical marks
					return -1
				}
				return r
			}, norm.NFKD.String(text))
			return norm.NFKC.String(bare)
		}
	}
	return text
}
