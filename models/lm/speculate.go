package lm

import "helicon/models/lm/family"

// maxDraft is how many tokens are proposed at most in a step. They share it.
const maxDraft = 7

// lookup proposes how a text goes on by what followed the last time that it had its
// present end (prompt lookup, Saxena 2023). A step that computes a token computes some
// proposed ones beside it at little more cost, where the weights' way from memory is
// what takes time; those that turn out to be what is chosen are steps saved. What is
// chosen, from the same logits, does not change.
type lookup struct {
	most  int     // tokens that are worth proposing; 0 is not known yet
	gain  float64 // tokens that a proposal has saved of late
	rest  int     // tokens to be written before the next proposal
	pause int     // the last rest as it began
}

// The ends of a text that are looked for, in tokens, the longest first.
const (
	longestEnd  = 4
	shortestEnd = 2
)

// leastGain is what a proposal has to save, in tokens, to be worth its cost: a step of a
// few tokens takes up to a fifth longer than a step of one.
const leastGain = 0.25

// Bounds of lookup.pause.
const (
	firstPause = 2
	lastPause  = 64
)

// propose appends to the text at most so many tokens that may follow, and returns how
// many.
func (t *task) propose(c *family.Config, most int) int {
	l := &t.lookup
	if l.rest > 0 {
		l.rest--
		return 0
	}
	if l.most > 0 {
		most = min(most, l.most)
	}
	most = min(most, t.left-1, t.length-1)
	if most < 1 || anglesOf(c, t.length) != anglesOf(c, t.length+most) {
		return 0
	}
	from := recurrence(t.seq.text)
	if from == 0 {
		return 0
	}
	text := t.seq.text
	t.seq.text = append(text, text[from:min(from+most, len(text))]...)
	t.proposed = t.seq.text[t.length:]
	return len(t.proposed)
}

// recurrence returns where what follows the last earlier occurrence of the text's end
// begins, of the longest end that occurs, or 0.
func recurrence(text []int) int {
	best, at := shortestEnd-1, 0
	last := len(text) - 1
	for i := last - 1; i >= shortestEnd-1 && best < longestEnd; i-- {
		if text[i] != text[last] {
			continue
		}
		n := 1
		for n < longestEnd && n <= i && text[i-n] == text[last-n] {
			n++
		}
		if n > best {
			best, at = n, i+1
		}
	}
	return at
}

// judge learns from a proposal of which so many tokens were right.
func (l *lookup) judge(right, proposed int) {
	l.gain = (3*l.gain + float64(right)) / 4
	if l.gain < leastGain {
		l.pause = min(max(2*l.pause, firstPause), lastPause)
	} else {
		l.pause = 0
	}
	l.rest = l.pause
	l.most = max(right+1, 2)
	if right == proposed {
		l.most = 2*proposed + 1
	}
}
