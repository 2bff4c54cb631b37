package clip

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// ErrPrompt is wrapped by every error about a prompt that cannot be read.
var ErrPrompt = errors.New("unsuitable prompt")

// Fragment is a part of a prompt.
type Fragment struct {
	Text   string
	Weight float32 // 1 is as it is
	Break  bool    // there is no text, and what follows begins a chunk of its own
}

const (
	maxPrompt = 1 << 16 // bytes
	maxWeight = 100     // of either sign

	bracketWeight = 1.1 // what a pair of round brackets is worth
)

// ParsePrompt reads a prompt in the syntax that AUTOMATIC1111's web interface made common:
//
//	(text)      weight 1.1, (text:1.3) weight 1.3, [text] weight 1/1.1; they multiply
//	\( \) \[ \] the brackets themselves, \\ a backslash
//	BREAK       what follows is read as a chunk of its own
//
// A bracket that is never closed counts to the end, and one that was never opened is text.
// Neighbours of the same weight are joined. There is at least one fragment. The error
// wraps ErrPrompt if a weight is beyond ±100 or the prompt is absurdly long.
func ParsePrompt(prompt string) ([]Fragment, error) {
	if len(prompt) > maxPrompt {
		return nil, fmt.Errorf("clip: a prompt of %d bytes, want at most %d: %w", len(prompt), maxPrompt, ErrPrompt)
	}
	p := promptParser{rest: prompt}
	for p.rest != "" {
		p.next()
	}
	for _, from := range p.round {
		p.weigh(from, bracketWeight)
	}
	for _, from := range p.square {
		p.weigh(from, 1/bracketWeight)
	}
	for _, f := range p.fragments {
		if !(f.weight <= maxWeight && f.weight >= -maxWeight) {
			return nil, fmt.Errorf("clip: a weight of %g in a prompt, want at most %d: %w", f.weight, maxWeight, ErrPrompt)
		}
	}
	return p.joined(), nil
}

// promptParser is a prompt being read.
type promptParser struct {
	rest          string
	fragments     []weighted
	round, square []int // brackets that are open: the fragments that they begin at
}

type weighted struct {
	text     string
	weight   float64
	boundary bool // BREAK
}

// next reads one element.
func (p *promptParser) next() {
	switch c := p.rest[0]; {
	case c == '\\' && len(p.rest) > 1 && strings.IndexByte(`()[]\`, p.rest[1]) >= 0:
		p.add(p.take(2)[1:])
	case c == '(':
		p.take(1)
		p.round = append(p.round, len(p.fragments))
	case c == '[':
		p.take(1)
		p.square = append(p.square, len(p.fragments))
	case c == ':' && len(p.round) > 0 && p.closeWeighted():
	case c == ')' && len(p.round) > 0:
		p.take(1)
		p.weigh(pop(&p.round), bracketWeight)
	case c == ']' && len(p.square) > 0:
		p.take(1)
		p.weigh(pop(&p.square), 1/bracketWeight)
	default:
		n := strings.IndexAny(p.rest[1:], `\()[]:`) + 1
		if n == 0 {
			n = len(p.rest)
		}
		p.words(p.take(n))
	}
}

func (p *promptParser) take(n int) string {
	s := p.rest[:n]
	p.rest = p.rest[n:]
	return s
}

func pop(stack *[]int) int {
	last := len(*stack) - 1
	from := (*stack)[last]
	*stack = (*stack)[:last]
	return from
}

// closeWeighted reads ": number )" and reports whether it is there.
func (p *promptParser) closeWeighted() bool {
	inside, after, ok := strings.Cut(p.rest[1:], ")")
	if !ok {
		return false
	}
	number := strings.TrimSpace(inside)
	if strings.Trim(number, "+-.0123456789") != "" { // of all that ParseFloat reads
		return false
	}
	w, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return false
	}
	p.rest = after
	p.weigh(pop(&p.round), w)
	return true
}

// weigh multiplies the weights of all fragments from one on.
func (p *promptParser) weigh(from int, w float64) {
	for i := range p.fragments[from:] {
		p.fragments[from+i].weight *= w
	}
}

func (p *promptParser) add(text string) {
	p.fragments = append(p.fragments, weighted{text: text, weight: 1})
}

// words adds text in which there may be BREAK, as a word.
func (p *promptParser) words(text string) {
	const word = "BREAK"
	for from := 0; ; {
		at := strings.Index(text[from:], word)
		if at < 0 {
			p.add(text)
			return
		}
		at += from
		before, after := text[:at], text[at+len(word):]
		if !wordEnds(before, after) {
			from = at + len(word)
			continue
		}
		p.add(strings.TrimRightFunc(before, unicode.IsSpace))
		p.fragments = append(p.fragments, weighted{weight: 1, boundary: true})
		text, from = strings.TrimLeftFunc(after, unicode.IsSpace), 0
	}
}

// wordEnds reports whether neither the end of before nor the beginning of after belongs
// to the word between them.
func wordEnds(before, after string) bool {
	last, first := ' ', ' '
	for _, r := range after {
		first = r
		break
	}
	if before != "" {
		runes := []rune(before[max(0, len(before)-4):])
		last = runes[len(runes)-1]
	}
	return !wordRune(last) && !wordRune(first)
}

func wordRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// joined returns the fragments, neighbours of the same weight as one.
func (p *promptParser) joined() []Fragment {
	var out []Fragment
	for _, f := range p.fragments {
		last := len(out) - 1
		switch w := float32(f.weight); {
		case f.boundary:
			out = append(out, Fragment{Weight: 1, Break: true})
		case f.text == "":
		case last >= 0 && !out[last].Break && out[last].Weight == w:
			out[last].Text += f.text
		default:
			out = append(out, Fragment{Text: f.text, Weight: w})
		}
	}
	if len(out) == 0 {
		out = []Fragment{{Weight: 1}}
	}
	return out
}
