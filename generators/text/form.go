package text

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"helicon/models/sample"
	"helicon/models/sample/grammar"
	"helicon/models/tokenizer"
	"helicon/queue"
)

// responseFormat says that the answer is JSON, as OpenAI's API has it.
type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema *struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Schema      json.RawMessage `json:"schema"`
		Strict      *bool           `json:"strict"`
	} `json:"json_schema"`
}

// The types of a responseFormat.
const (
	formatText   = "text"
	formatObject = "json_object"
	formatSchema = "json_schema"
)

// anyObject is the schema of json_object.
const anyObject = `{"type":"object"}`

// validateForm checks the members that give the answer a form.
func (in *input) validateForm(f *findings) {
	given := 0
	if rf := in.ResponseFormat; rf != nil && rf.Type != formatText {
		given++
		f.check(rf.Type == formatObject || rf.Type == formatSchema, "/response_format/type", "want text, json_object or json_schema")
		f.check(rf.Type != formatSchema || rf.JSONSchema != nil && len(rf.JSONSchema.Schema) > 0, "/response_format/json_schema", "want an object with a schema")
	}
	if in.Grammar != "" {
		given++
		f.check(length(in.Grammar) <= maxGrammar, "/grammar", "want at most %d characters", maxGrammar)
	}
	f.check(given < 2, "/grammar", "contradicts response_format; give one of them")
	f.check(given == 0 || !in.usesTools(), "/tools", "cannot be called in an answer of a given form; leave out response_format and grammar, or set tool_choice to none")
}

// form is what the answers of a request must look like.
type form struct {
	grammar *grammar.Grammar
	pointer string     // of the input's member that gives it
	style   *callStyle // nil: the whole answer is a sentence of the grammar
	tools   []tool
	free    bool // of the grammar until a tool call begins
}

// maxGrammars is how many grammars a generator remembers, each of some megabytes at most.
const maxGrammars = 32

// compiled returns the grammar of a key, which compile makes if it is not known.
func (g *Generator) compiled(key string, compile func() (*grammar.Grammar, error)) (*grammar.Grammar, error) {
	g.mu.Lock()
	known := g.grammars[key]
	g.mu.Unlock()
	if known != nil {
		return known, nil
	}
	made, err := compile()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.grammars) >= maxGrammars {
		clear(g.grammars)
	}
	g.grammars[key] = made
	return made, nil
}

// form returns the form that an input gives its answer, nil for none; that of tools
// depends on the model and is bound later. The error is a *queue.Problem.
func (g *Generator) form(in *input) (*form, error) {
	f := &form{}
	var err error
	switch rf := in.ResponseFormat; {
	case in.usesTools():
		f.tools = in.Tools
	case in.Grammar != "":
		f.pointer = "/grammar"
		f.grammar, err = g.compiled("grammar "+in.Grammar, func() (*grammar.Grammar, error) { return grammar.Parse(in.Grammar) })
	case rf != nil && rf.Type == formatObject:
		f.pointer = "/response_format"
		f.grammar, err = g.compiled("object", func() (*grammar.Grammar, error) { return grammar.FromSchema([]byte(anyObject), true) })
	case rf != nil && rf.Type == formatSchema:
		f.pointer = "/response_format/json_schema/schema"
		strict := rf.JSONSchema.Strict != nil && *rf.JSONSchema.Strict
		f.grammar, err = g.compiled(fmt.Sprint("schema ", strict, " ", string(rf.JSONSchema.Schema)), func() (*grammar.Grammar, error) {
			return grammar.FromSchema(rf.JSONSchema.Schema, strict)
		})
	default:
		return nil, nil
	}
	if err != nil {
		return nil, formProblem(f.pointer, err)
	}
	return f, nil
}

// formProblem is the problem of a grammar or a schema that cannot be used.
func formProblem(pointer string, err error) *queue.Problem {
	detail := err.Error()
	var wrong *grammar.SchemaError
	if errors.As(err, &wrong) {
		pointer, detail = pointer+wrong.Pointer, wrong.Detail
	}
	return &queue.Problem{
		Code: "invalid_request", Detail: fmt.Sprintf("The input is not valid: %s: %s.", pointer, detail),
		Errors: []queue.FieldError{{Pointer: pointer, Detail: detail}},
	}
}

// automata are the grammars in use on one model.
type automata struct {
	mu           sync.Mutex
	vocabularies map[bool]*grammar.Vocabulary // with the markers of tool calls, or without
	known        map[*grammar.Grammar]*grammar.Automaton
}

// maxAutomata is how many automata a model keeps, each with some megabytes of what it
// has found out.
const maxAutomata = 8

// automaton returns the automaton of a grammar on the engine's model. markers are the
// special tokens that are part of the text.
func (e *engine) automaton(g *grammar.Grammar, markers map[int]string) *grammar.Automaton {
	e.automata.mu.Lock()
	defer e.automata.mu.Unlock()
	if known := e.automata.known[g]; known != nil {
		return known
	}
	marked := len(markers) > 0
	v := e.automata.vocabularies[marked]
	if v == nil {
		v = grammar.NewVocabulary(e.model.Config().Vocab, func(id int) []byte {
			if marker, ok := markers[id]; ok {
				return []byte(marker)
			}
			if e.tokenizer.Special(id) {
				return nil
			}
			return e.tokenizer.TokenBytes(id)
		}, slices.Sorted(maps.Keys(e.stops)))
		if e.automata.vocabularies == nil {
			e.automata.vocabularies = map[bool]*grammar.Vocabulary{}
		}
		e.automata.vocabularies[marked] = v
	}
	if len(e.automata.known) >= maxAutomata || e.automata.known == nil {
		e.automata.known = map[*grammar.Grammar]*grammar.Automaton{}
	}
	a := grammar.NewAutomaton(g, v)
	e.automata.known[g] = a
	return a
}

// boundForm is a form on one model.
type boundForm struct {
	form
	automaton *grammar.Automaton
	tokenizer *tokenizer.Tokenizer
	markers   map[int]string // special tokens that are part of the text
}

// bind returns a form on the engine's model. The error is a *queue.Problem.
func (e *engine) bind(f *form) (*boundForm, error) {
	if f == nil {
		return nil, nil
	}
	b := &boundForm{form: *f, tokenizer: e.tokenizer}
	if f.style != nil {
		b.markers = f.style.markersOf(e.tokenizer)
	}
	b.automaton = e.automaton(f.grammar, b.markers)
	return b, nil
}

// constraint returns what holds one answer to the form.
func (b *boundForm) constraint() sample.Constraint {
	if b.free {
		return b.automaton.NewTrigger(b.style.openings()...)
	}
	return b.automaton.NewMatcher()
}

// stuck is the problem of an answer that cannot go on.
func (b *boundForm) stuck(model string) *queue.Problem {
	return &queue.Problem{
		Code:   "form_impossible",
		Detail: fmt.Sprintf("The model %s has no token with which its answer could go on as %s wants it.", model, b.pointer),
		Errors: []queue.FieldError{{Pointer: b.pointer, Detail: "the model has no token that may follow"}},
	}
}

// decoder returns one that spells every token as the grammar reads it.
func (b *boundForm) decoder() textDecoder {
	d := &formDecoder{form: b}
	if b.free {
		d.free = b.tokenizer.NewDecoder(true)
	}
	return d
}

// formDecoder decodes text that has a form. The model's own decoder may change what
// tokens say, as it does with spaces; where a grammar counts, they say what they spell.
type formDecoder struct {
	form *boundForm
	free *tokenizer.Decoder // for text before a tool call; nil: spell all
	held []byte             // the beginning of a character
}

// Push implements textDecoder.
func (d *formDecoder) Push(id int) string {
	marker, special := d.form.markers[id]
	if d.free != nil {
		if special {
			return d.free.Flush() + marker
		}
		return d.free.Push(id)
	}
	if special {
		d.held = append(d.held, marker...)
	} else if !d.form.tokenizer.Special(id) {
		d.held = append(d.held, d.form.tokenizer.TokenBytes(id)...)
	}
	n := 0
	for n < len(d.held) && utf8.FullRune(d.held[n:]) {
		_, size := utf8.DecodeRune(d.held[n:])
		n += size
	}
	text := strings.ToValidUTF8(string(d.held[:n]), "\uFFFD")
	d.held = slices.Clone(d.held[n:])
	return text
}

// Flush implements textDecoder.
func (d *formDecoder) Flush() string {
	if d.free != nil {
		return d.free.Flush()
	}
	held := d.held
	d.held = nil
	return strings.ToValidUTF8(string(held), "\uFFFD")
}

// isObject reports whether a text is a JSON object.
func isObject(text []byte) bool {
	return json.Valid(text) && bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
}
