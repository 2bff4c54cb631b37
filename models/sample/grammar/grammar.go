// Package grammar holds generated text to a context-free grammar: it says which
// tokens may come next, so that whatever a model writes is a sentence of the grammar.
//
// A grammar is written in GBNF, the notation of llama.cpp (Parse), or follows from a
// JSON Schema (FromSchema). It is compiled to a program in the manner of Thompson's
// and Pike's machines with calls, which an Automaton runs over bytes as a set of
// stacks, made deterministic step by step as texts need it. An Automaton also knows a
// Vocabulary, the tokens of a model as a trie, along which it finds the tokens that
// may follow; a Matcher is one text on its way through it.
//
// The package knows nothing of models, tokenizers or sampling. Matcher and Trigger
// implement sample.Constraint.
package grammar

import "fmt"

// Limits on what is read and built, and on what a text may make of it.
const (
	maxSource       = 256 << 10 // bytes of a grammar or a schema
	maxRules        = 5000
	maxNesting      = 64      // of groups, and of schemas
	maxRepeat       = 100_000 // of {m,n}
	maxInstructions = 200_000
	maxWork         = 1 << 17 // parts of a schema looked at, counted as often as that happens
	maxTerminals    = 20_000  // states of the automata of characters
	maxTable        = 1 << 20 // transitions of them

	maxStack   = 250     // rules within rules; what would go deeper is forbidden
	maxConfigs = 1 << 13 // ways to read a text so far; what would have more is forbidden
	maxStates  = 1 << 14 // kept at a time
	maxKept    = 1 << 20 // words of 8 bytes that they take
	maxMasks   = 8 << 20
)

// Grammar is a compiled grammar. It is immutable.
type Grammar struct {
	program []instruction
	rules   []int32 // where each begins in the program; the first is the root

	terminals []int32 // [terminal][byte class]: the next terminal, characters.Matched or Dead
	classes   int     // of bytes that no terminal tells apart
	classOf   [256]uint8
}

// Error says where a grammar is wrong and why.
type Error struct {
	Line, Column int // from 1; columns are counted in characters
	Detail       string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Detail)
}

// SchemaError says which part of a JSON Schema cannot be used and why.
type SchemaError struct {
	Pointer string // JSON Pointer within the schema; "" is its root
	Detail  string
}

// Error implements error.
func (e *SchemaError) Error() string {
	if e.Pointer == "" {
		return e.Detail
	}
	return e.Pointer + ": " + e.Detail
}

// fault is an error of compilation at the node that is to blame.
type fault struct {
	at     int // as the node has it
	detail string
}

func (f *fault) Error() string { return f.detail }
