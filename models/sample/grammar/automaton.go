package grammar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"helicon/models/sample/grammar/characters"
)

// ErrToken is wrapped when a token is accepted that the grammar does not allow.
var ErrToken = errors.New("grammar: the token may not follow")

// Automaton is a grammar at work over the tokens of a model. What it finds out for one
// text serves all others, in bounded memory. It is safe for concurrent use.
type Automaton struct {
	grammar    *Grammar
	vocabulary *Vocabulary

	mu     sync.Mutex
	states map[string]*state
	frames map[frameKey]*frame
	ids    int32 // of frames
	epoch  int   // how often states and frames were forgotten
	masks  int   // bytes
	kept   int   // words of states
	start  *state
	dead   *state

	key     []byte // of a state that is looked up
	configs []config
	seen    map[config]struct{}
	path    []*state // of a walk along the trie
}

// config is one way to read the text so far: the text goes on at the terminal term of
// the instruction pc, and when the rule ends at frame.
type config struct {
	pc, term int32
	frame    *frame
}

// frame is a stack of rules to be finished.
type frame struct {
	frameKey
	id, depth int32
	epoch     int
}

type frameKey struct {
	pc     int32 // where the calling rule goes on
	parent *frame
}

// state is all ways to read the text so far.
type state struct {
	configs []config
	accepts bool // the text may end here
	epoch   int

	next    []*state // by class of bytes; nil where it is not known yet
	allowed []uint64 // tokens; nil while it is not known
	open    bool     // with allowed: a token other than an end may follow
}

// NewAutomaton returns an automaton of a grammar over a vocabulary.
func NewAutomaton(g *Grammar, v *Vocabulary) *Automaton {
	a := &Automaton{grammar: g, vocabulary: v, seen: map[config]struct{}{}, path: make([]*state, v.deep+1)}
	a.forget()
	a.dead = &state{epoch: -1}
	a.begin()
	a.closure(g.rules[0], nil)
	a.start = a.state()
	return a
}

// forget drops what is known but not in use.
func (a *Automaton) forget() {
	a.states, a.frames = map[string]*state{}, map[frameKey]*frame{}
	a.epoch++
	a.masks, a.kept = 0, 0
	if a.start != nil {
		a.start = a.adopt(a.start) // which leads to all others
	}
}

// adopt makes a state from before the last forget one of now.
func (a *Automaton) adopt(s *state) *state {
	if s.epoch == a.epoch || s == a.dead {
		return s
	}
	a.begin()
	for _, c := range s.configs {
		a.configs = append(a.configs, config{c.pc, c.term, a.adoptFrame(c.frame)})
	}
	if s.accepts {
		a.configs = append(a.configs, config{})
	}
	return a.state()
}

func (a *Automaton) adoptFrame(f *frame) *frame {
	if f == nil || f.epoch == a.epoch {
		return f
	}
	return a.push(f.pc, a.adoptFrame(f.parent))
}

// push returns the frame on top of parent.
func (a *Automaton) push(pc int32, parent *frame) *frame {
	key := frameKey{pc, parent}
	f := a.frames[key]
	if f == nil {
		a.ids++
		f = &frame{frameKey: key, id: a.ids, depth: 1, epoch: a.epoch}
		if parent != nil {
			f.depth = parent.depth + 1
		}
		a.frames[key] = f
	}
	return f
}

// begin starts to gather the configurations of a state.
func (a *Automaton) begin() {
	a.configs = a.configs[:0]
	clear(a.seen)
}

// closure adds what can be read at an instruction. That the whole text may end is the
// zero config.
func (a *Automaton) closure(pc int32, f *frame) {
	for len(a.seen) <= maxConfigs {
		c := config{pc: pc, frame: f}
		if _, known := a.seen[c]; known {
			return
		}
		a.seen[c] = struct{}{}
		i := a.grammar.program[pc]
		switch i.kind {
		case doRead:
			a.configs = append(a.configs, config{pc, i.a, f})
			return
		case doReturn:
			if f == nil {
				a.configs = append(a.configs, config{})
				return
			}
			pc, f = f.pc, f.parent
		case doSplit:
			a.closure(i.a, f)
			pc = i.b
		case doCall:
			// What ends together with the rule that calls needs no frame.
			if a.grammar.program[i.b].kind != doReturn {
				if f = a.push(i.b, f); f.depth > maxStack {
					return
				}
			}
			pc = a.grammar.rules[i.a]
		}
	}
}

// state returns the state of the configurations that were gathered.
func (a *Automaton) state() *state {
	if len(a.configs) == 0 || len(a.seen) > maxConfigs {
		return a.dead
	}
	slices.SortFunc(a.configs, func(x, y config) int {
		if x.pc != y.pc {
			return int(x.pc) - int(y.pc)
		}
		if x.term != y.term {
			return int(x.term) - int(y.term)
		}
		return int(x.frame.number()) - int(y.frame.number())
	})
	a.configs = slices.Compact(a.configs)
	a.key = a.key[:0]
	for _, c := range a.configs {
		a.key = binary.LittleEndian.AppendUint32(a.key, uint32(c.pc))
		a.key = binary.LittleEndian.AppendUint32(a.key, uint32(c.term))
		a.key = binary.LittleEndian.AppendUint32(a.key, uint32(c.frame.number()))
	}
	if s := a.states[string(a.key)]; s != nil {
		return s
	}
	s := &state{epoch: a.epoch, configs: slices.Clone(a.configs)}
	if s.configs[0] == (config{}) { // no instruction to read is at 0
		s.accepts, s.configs = true, s.configs[1:]
	}
	a.states[string(a.key)] = s
	a.kept += 16 + 5*len(a.configs) // a config has three words, and one and a half in the key
	return s
}

func (f *frame) number() int32 {
	if f == nil {
		return 0
	}
	return f.id
}

// step returns the state after one more byte, of the class b.
func (a *Automaton) step(s *state, b uint8) *state {
	if s.next == nil {
		s.next = make([]*state, a.grammar.classes)
		a.kept += a.grammar.classes
	}
	if s.next[b] == nil {
		s.next[b] = a.follow(s, b)
	}
	return s.next[b]
}

// follow works out a step. The caller has adopted s, but a walk may have begun before
// what it knows was forgotten.
func (a *Automaton) follow(s *state, b uint8) *state {
	if len(a.states) >= maxStates || len(a.frames) >= maxStates || a.kept >= maxKept {
		a.forget()
	}
	from := a.adopt(s)
	a.begin()
	for _, c := range from.configs {
		switch next := a.grammar.terminals[int(c.term)*a.grammar.classes+int(b)]; next {
		case characters.Dead:
		case characters.Matched:
			a.closure(a.grammar.program[c.pc].b, c.frame)
		default:
			a.configs = append(a.configs, config{c.pc, next, c.frame})
		}
	}
	return a.state()
}

// mask works out the tokens that may follow a state.
func (a *Automaton) mask(s *state) {
	if s.allowed != nil {
		return
	}
	v := a.vocabulary
	if a.masks += 8 * v.words(); a.masks > maxMasks {
		for _, other := range a.states {
			other.allowed = nil
		}
		a.masks = 8 * v.words()
	}
	allowed := make([]uint64, v.words())
	a.path[0] = s
	for node := 0; node < len(v.bytes); {
		d := v.depth[node]
		next := a.step(a.path[d-1], a.grammar.classOf[v.bytes[node]])
		if next == a.dead {
			node = int(v.skip[node])
			continue
		}
		a.path[d] = next
		first := int32(0)
		if node > 0 {
			first = v.last[node-1]
		}
		for _, id := range v.ids[first:v.last[node]] {
			allowed[id/64] |= 1 << (id % 64)
			s.open = true
		}
		node++
	}
	clear(a.path)
	if s.accepts {
		for _, id := range v.ends {
			allowed[id/64] |= 1 << (id % 64)
		}
	}
	s.allowed = allowed
}

// Matcher is one text under an automaton's grammar. It implements sample.Constraint
// and belongs to one goroutine at a time.
type Matcher struct {
	automaton *Automaton
	state     *state
	ended     bool
}

// NewMatcher returns a matcher of an empty text.
func (a *Automaton) NewMatcher() *Matcher {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Matcher{automaton: a, state: a.start}
}

// Allowed returns the set of tokens that may come next: token id is bit id%64 of word
// id/64. The tokens that end a text are among them if it may end. The set is shared
// and must not be changed.
func (m *Matcher) Allowed() []uint64 {
	allowed, _ := m.look()
	return allowed
}

// look returns the tokens that may follow, and whether one other than an end may.
func (m *Matcher) look() ([]uint64, bool) {
	a := m.automaton
	a.mu.Lock()
	defer a.mu.Unlock()
	m.state = a.adopt(m.state)
	a.mask(m.state)
	return m.state.allowed, m.state.open
}

// Accept takes the next token. The error wraps ErrToken if it may not follow; the
// matcher is then what it was.
func (m *Matcher) Accept(id int) error {
	v := m.automaton.vocabulary
	if slices.Contains(v.ends, id) {
		if !m.state.accepts {
			return fmt.Errorf("token %d ends the text too early: %w", id, ErrToken)
		}
		m.ended = true
		return nil
	}
	if spelled := v.bytesOf(id); m.ended || len(spelled) == 0 || !m.Push(spelled) {
		return fmt.Errorf("token %d: %w", id, ErrToken)
	}
	return nil
}

// Push reads a piece of text, which need not be a whole number of tokens, and reports
// whether it may follow. If not, the matcher is what it was.
func (m *Matcher) Push(text []byte) bool {
	a := m.automaton
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.adopt(m.state)
	for _, b := range text {
		if s = a.step(s, a.grammar.classOf[b]); s == a.dead {
			return false
		}
	}
	m.state = s
	return true
}

// Accepting reports whether the text may end here.
func (m *Matcher) Accepting() bool { return m.state.accepts }

// Ended reports whether the text is complete: it may end here, and no token may follow.
func (m *Matcher) Ended() bool {
	if m.ended || !m.state.accepts {
		return m.ended
	}
	if len(m.state.configs) == 0 {
		return true
	}
	_, open := m.look()
	return !open
}
