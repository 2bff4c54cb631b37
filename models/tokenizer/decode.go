package tokenizer

import (
	"strings"
	"unicode/utf8"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// Decoder turns a stream of ids into text as they arrive. It belongs to one
// stream; it is not safe for concurrent use.
type Decoder struct {
	tokenizer   *Tokenizer
	skipSpecial bool
	steps       []decodeStep
	sinks       []func(chunk) // sinks[i] feeds steps[i]; the last collects
	out         strings.Builder
}

// NewDecoder returns a Decoder at the start of a text. With skipSpecial,
// special tokens are left out.
func (t *Tokenizer) NewDecoder(skipSpecial bool) *Decoder {
	d := &Decoder{tokenizer: t, skipSpecial: skipSpecial, steps: t.newDecoder()}
	d.sinks = make([]func(chunk), len(d.steps)+1)
	for i, step := range d.steps {
		d.sinks[i] = func(c chunk) { step.push(c, d.sinks[i+1]) }
	}
	d.sinks[len(d.steps)] = func(c chunk) { d.out.WriteString(c.text) }
	return d
}

// Push returns the text that id completes: whole characters, possibly none.
// All that Push returned and what Flush returns make up the text that Decode
// gives for all ids.
func (d *Decoder) Push(id int) string {
	token, ok := d.tokenizer.Token(id)
	if !ok || d.skipSpecial && d.tokenizer.Special(id) {
		return ""
	}
	d.sinks[0](chunk{id: id, text: token, literal: d.tokenizer.added.has(id)})
	return d.take()
}

// Flush ends the text and returns what was held back: bytes of an incomplete
// character become U+FFFD. The Decoder must not be used afterwards.
func (d *Decoder) Flush() string {
	for i, step := range d.steps {
		step.flush(d.sinks[i+1])
	}
	return d.take()
}

func (d *Decoder) take() string {
	s := d.out.String()
	d.out.Reset()
	return s
}

// chunk is a token on its way to text.
type chunk struct {
	id      int
	text    string
	literal bool // an added token, spelled as it is in the text
}

// decodeStep is a stage of a decoder, with the state of one text.
type decodeStep interface {
	push(c chunk, next func(chunk))
	// flush ends the text.
	flush(next func(chunk))
	// raw returns the bytes of a token in the middle of a text.
	raw(c chunk) string
}

// stateless is a step that maps every token by itself.
type stateless func(s string) string

func (f stateless) push(c chunk, next func(chunk)) {
	c.text = f(c.text)
	next(c)
}
func (f stateless) flush(func(chunk))  {}
func (f stateless) raw(c chunk) string { return f(c.text) }

// byteLevelStep undoes the byte alphabet.
type byteLevelStep struct {
	alphabet *words.ByteAlphabet
	bytes    utf8Joiner
	buf      []byte
}

func (s *byteLevelStep) push(c chunk, next func(chunk)) {
	s.buf = s.buf[:0]
	if c.literal {
		s.buf = append(s.buf, c.text...)
	} else {
		s.buf = s.alphabet.Decode(s.buf, c.text)
	}
	if text := s.bytes.push(s.buf); text != "" {
		next(chunk{text: text})
	}
}

func (s *byteLevelStep) flush(next func(chunk)) {
	if text := s.bytes.flush(); text != "" {
		next(chunk{text: text})
	}
}

func (s *byteLevelStep) raw(c chunk) string {
	if c.literal {
		return c.text
	}
	return string(s.alphabet.Decode(nil, c.text))
}

// byteFallbackStep joins runs of tokens <0xNN> to characters; a byte that is
// part of none becomes U+FFFD.
type byteFallbackStep struct{ bytes utf8Joiner }

func newByteFallbackStep() *byteFallbackStep {
	return &byteFallbackStep{utf8Joiner{perByte: true}}
}

func (s *byteFallbackStep) push(c chunk, next func(chunk)) {
	if b, ok := subword.ByteOfToken(c.text); ok {
		if text := s.bytes.push([]byte{b}); text != "" {
			next(chunk{text: text})
		}
		return
	}
	s.flush(next)
	next(c)
}

func (s *byteFallbackStep) flush(next func(chunk)) {
	if text := s.bytes.flush(); text != "" {
		next(chunk{text: text})
	}
}

func (s *byteFallbackStep) raw(c chunk) string {
	if b, ok := subword.ByteOfToken(c.text); ok {
		return string([]byte{b})
	}
	return c.text
}

// utf8Joiner joins bytes to characters. What cannot become UTF-8 is replaced
// by U+FFFD: every byte if perByte, otherwise every longest part of a
// character, as Unicode recommends.
type utf8Joiner struct {
	held    []byte // the beginning of a character
	perByte bool
}

func (j *utf8Joiner) push(b []byte) string {
	if len(j.held) == 0 && utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for _, c := range b {
		j.add(c, &out)
	}
	return out.String()
}

func (j *utf8Joiner) add(c byte, out *strings.Builder) {
	j.held = append(j.held, c)
	if !utf8.FullRune(j.held) {
		return
	}
	if r, size := utf8.DecodeRune(j.held); r != utf8.RuneError || size > 1 {
		out.Write(j.held)
		j.held = j.held[:0]
		return
	}
	if len(j.held) == 1 {
		out.WriteRune(utf8.RuneError)
		j.held = j.held[:0]
		return
	}
	j.held = j.held[:len(j.held)-1]
	out.WriteString(j.flush())
	j.add(c, out)
}

// flush gives up on the held bytes.
func (j *utf8Joiner) flush() string {
	n := len(j.held)
	j.held = j.held[:0]
	switch {
	case n == 0:
		return ""
	case j.perByte:
		return strings.Repeat("\uFFFD", n)
	}
	return "\uFFFD"
}

// stripStep removes up to start characters at the start and up to stop at
// the end, if they equal content: of every token, or of the whole text after
// a Fuse.
type stripStep struct {
	content     string
	start, stop int
	fused       bool

	begun bool // fused: the start has been passed
	left  int  // fused: characters already removed at the start
	held  int  // fused: characters held back as they may be the end
}

func (s *stripStep) push(c chunk, next func(chunk)) {
	if !s.fused {
		c.text = s.strip(c.text)
		next(c)
		return
	}
	text := c.text
	for !s.begun && text != "" {
		rest, ok := strings.CutPrefix(text, s.content)
		if !ok || s.left == s.start {
			s.begun = true
			break
		}
		text = rest
		s.left++
	}
	if text == "" {
		return
	}
	body := text
	trailing := 0
	for trailing < s.stop && strings.HasSuffix(body, s.content) {
		body = strings.TrimSuffix(body, s.content)
		trailing++
	}
	if body != "" {
		next(chunk{text: strings.Repeat(s.content, s.held) + body})
		s.held = trailing
		return
	}
	// Only content: no more than stop of it can be the end.
	s.held += trailing
	if over := s.held - s.stop; over > 0 {
		next(chunk{text: strings.Repeat(s.content, over)})
		s.held = s.stop
	}
}

func (s *stripStep) strip(text string) string {
	for range s.start {
		text = strings.TrimPrefix(text, s.content)
	}
	for range s.stop {
		text = strings.TrimSuffix(text, s.content)
	}
	return text
}

func (s *stripStep) flush(func(chunk)) {}

func (s *stripStep) raw(c chunk) string {
	if s.fused {
		return c.text
	}
	return s.strip(c.text)
}

// metaspaceStep writes the visible space as a space, and drops it in the
// first token of a text.
type metaspaceStep struct {
	replacement string
	dropFirst   bool
	begun       bool
}

func (s *metaspaceStep) push(c chunk, next func(chunk)) {
	with := " "
	if s.dropFirst && !s.begun {
		with = ""
	}
	s.begun = true
	next(chunk{text: strings.ReplaceAll(c.text, s.replacement, with)})
}

func (s *metaspaceStep) flush(func(chunk)) {}

func (s *metaspaceStep) raw(c chunk) string {
	return strings.ReplaceAll(c.text, s.replacement, " ")
}

// wordPieceStep joins the parts of words, and words by spaces.
type wordPieceStep struct {
	prefix  string
	cleanup bool // undo the spaces before punctuation and contractions
	begun   bool
}

func (s *wordPieceStep) push(c chunk, next func(chunk)) {
	text := c.text
	if s.begun {
		text = s.raw(c)
	} else if s.cleanup {
		text = cleanEnglish(text)
	}
	s.begun = true
	next(chunk{text: text})
}

func (s *wordPieceStep) flush(func(chunk)) {}

func (s *wordPieceStep) raw(c chunk) string {
	text, inside := strings.CutPrefix(c.text, s.prefix)
	if !inside {
		text = " " + text
	}
	if s.cleanup {
		text = cleanEnglish(text)
	}
	return text
}

// cleanEnglish removes the spaces before punctuation and contractions.
func cleanEnglish(s string) string {
	for _, rule := range englishRules {
		s = strings.ReplaceAll(s, rule[0], rule[1])
	}
	return s
}

var englishRules = [...][2]string{
	{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
	{" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
}

// spacedStep joins tokens by spaces, where a bundle names no decoder.
type spacedStep struct{ begun bool }

func (s *spacedStep) push(c chunk, next func(chunk)) {
	if s.begun {
		c.text = " " + c.text
	}
	s.begun = true
	next(c)
}

func (s *spacedStep) flush(func(chunk)) {}

func (s *spacedStep) raw(c chunk) string { return " " + c.text }
