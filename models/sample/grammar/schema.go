package grammar

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"helicon/models/sample/grammar/document"
)

// FromSchema compiles the grammar of the JSON texts that a JSON Schema (2020-12)
// describes. What it allows always is valid; it may allow less than is valid, where
// that is of no use to a model: members come in the order of properties, white space is
// short, numbers have at most 18 digits before the point, and an object that names
// properties has no others unless additionalProperties says so.
//
// It knows type, enum, const, anyOf, oneOf, allOf, $ref within the document, properties,
// required, additionalProperties, minProperties, maxProperties, items, prefixItems,
// minItems, maxItems, minLength, maxLength, pattern, format, minimum, maximum and their
// exclusive forms. With strict, other keywords that a text could violate are refused;
// without, they are ignored.
//
// The error is a *SchemaError.
func FromSchema(schema []byte, strict bool) (*Grammar, error) {
	b := NewBuilder()
	root, err := b.Schema(schema, strict)
	if err != nil {
		return nil, err
	}
	return b.Compile(root)
}

// Expression is a part of a grammar that a Builder puts together.
type Expression struct{ *node }

// Text returns the expression of a text.
func Text(s string) Expression { return Expression{text(s)} }

// Sequence returns the expression of parts one after another.
func Sequence(parts ...Expression) Expression { return Expression{sequence(nodes(parts)...)} }

// Choice returns the expression of any one of the parts, of which there must be one.
func Choice(parts ...Expression) Expression { return Expression{choice(nodes(parts)...)} }

// Repeat returns the expression of m to n times the part; n is -1 for any number.
func Repeat(part Expression, m, n int) Expression { return Expression{repeat(part.node, m, n)} }

func nodes(parts []Expression) []*node {
	list := make([]*node, len(parts))
	for i, p := range parts {
		list[i] = p.node
	}
	return list
}

// Builder makes a grammar of texts and JSON Schemas.
type Builder struct {
	rules    []rule
	pointers []string       // of what nodes and rules are made from; indexed by at
	named    map[string]int // rules by what they are made from

	// Of the schema that is read.
	root   any
	count  int // of schemas
	work   int // see maxWork
	strict bool
}

// NewBuilder returns an empty Builder.
func NewBuilder() *Builder {
	return &Builder{rules: make([]rule, 1), pointers: []string{""}, named: map[string]int{}}
}

// Compile returns the grammar of which root is what a text must be. The error is a
// *SchemaError.
func (b *Builder) Compile(root Expression) (*Grammar, error) {
	b.rules[0] = rule{name: "the schema", body: root.node}
	g, err := compile(b.rules)
	if err == nil {
		return g, nil
	}
	var f *fault
	if errors.As(err, &f) {
		return nil, &SchemaError{b.pointers[f.at], f.detail}
	}
	return nil, &SchemaError{"", err.Error()}
}

// Schema returns the expression of a JSON Schema; see FromSchema.
func (b *Builder) Schema(schema []byte, strict bool) (Expression, error) {
	if len(schema) > maxSource {
		return Expression{}, &SchemaError{"", fmt.Sprintf("the schema has %d bytes; at most %d", len(schema), maxSource)}
	}
	var err error
	if b.root, err = document.Read(schema); err != nil {
		return Expression{}, &SchemaError{"", err.Error()}
	}
	b.strict = strict
	b.count++
	n, err := b.schema([]part{{value: b.root}})
	return Expression{n}, err
}

// part is a place in the document that says something about a value; several parts
// must all hold.
type part struct {
	pointer string
	value   any
	without string // a keyword that does not count: it was taken care of
}

func (b *Builder) fail(pointer, format string, args ...any) error {
	return &SchemaError{pointer, fmt.Sprintf(format, args...)}
}

// spend counts work, so that a small schema that stands for a lot is refused in good time.
func (b *Builder) spend(pointer string, work int) error {
	if b.work += work; b.work > maxWork {
		return b.fail(pointer, "the schema is too large, or combines too much; make it simpler")
	}
	return nil
}

// workOf is the work of writing a text.
func workOf(text string) int { return 1 + len(text)/64 }

// shared returns a call of the rule of that name, which make defines the first time.
func (b *Builder) shared(name, pointer string, make func() (*node, error)) (*node, error) {
	i, known := b.named[name]
	if !known {
		if len(b.rules) >= maxRules {
			return nil, b.fail(pointer, "the schema is too large: more than %d rules", maxRules)
		}
		i = len(b.rules)
		b.named[name] = i
		b.pointers = append(b.pointers, pointer)
		nothing := &node{op: opClass}
		b.rules = append(b.rules, rule{name: "the value", at: len(b.pointers) - 1, body: nothing})
		body, err := make()
		if err != nil {
			delete(b.named, name)
			return nil, err
		}
		b.rules[i].body = body
	}
	n := call(i)
	n.at = b.rules[i].at
	return n, nil
}

// schema returns the expression of the values that satisfy all parts.
func (b *Builder) schema(parts []part) (*node, error) {
	if len(parts) == 0 {
		parts = []part{{pointer: "any", value: true}}
	}
	if err := b.spend(parts[0].pointer, len(parts)); err != nil {
		return nil, err
	}
	key := fmt.Sprint(b.count)
	if len(parts) == 1 && parts[0].value == true {
		key = "any" // the same of all schemas
	} else {
		keys := map[string]bool{}
		for _, p := range parts {
			keys[p.pointer+" "+p.without] = true
		}
		key += strings.Join(slices.Sorted(maps.Keys(keys)), "\n")
	}
	return b.shared(key, parts[0].pointer, func() (*node, error) {
		f, err := b.gather(parts)
		if err != nil {
			return nil, err
		}
		return b.values(f)
	})
}

// flatten follows references and allOf, so that all parts are objects without them.
func (b *Builder) flatten(parts []part) ([]part, error) {
	var flat []part
	seen := map[string]bool{}
	var add func(p part) error
	add = func(p part) error {
		if key := p.pointer + " " + p.without; seen[key] {
			return nil
		} else {
			seen[key] = true
		}
		o, ok := p.value.(*document.Object)
		if p.value == true {
			return nil
		}
		if p.value == false {
			return b.fail(p.pointer, "nothing satisfies false; leave it out")
		}
		if !ok {
			return b.fail(p.pointer, "want a schema: an object, true or false")
		}
		if err := b.spend(p.pointer, 1+len(o.Names)); err != nil {
			return err
		}
		flat = append(flat, p)
		if ref, ok := o.Values["$ref"]; ok && !wordIn(p.without, "$ref") {
			target, err := b.resolve(p.pointer, ref)
			if err != nil {
				return err
			}
			if err := add(target); err != nil {
				return err
			}
		}
		if all, ok := o.Values["allOf"]; ok && !wordIn(p.without, "allOf") {
			branches, err := b.branches(p.pointer, "allOf", all)
			if err != nil {
				return err
			}
			for _, branch := range branches {
				if err := add(branch); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, p := range parts {
		if err := add(p); err != nil {
			return nil, err
		}
	}
	return flat, nil
}

// resolve returns what a $ref leads to.
func (b *Builder) resolve(pointer string, ref any) (part, error) {
	s, ok := ref.(string)
	target, ours := strings.CutPrefix(s, "#")
	target, err := url.PathUnescape(target)
	if !ok || !ours || err != nil {
		return part{}, b.fail(pointer+"/$ref", "want a reference within the schema, as #/$defs/name")
	}
	value, found := document.LookUp(b.root, target)
	if !found {
		return part{}, b.fail(pointer+"/$ref", "there is nothing at %s", s)
	}
	return part{pointer: target, value: value}, nil
}

// branches returns the schemas of allOf, anyOf or oneOf.
func (b *Builder) branches(pointer, keyword string, value any) ([]part, error) {
	pointer = document.Step(pointer, keyword)
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return nil, b.fail(pointer, "want an array of schemas")
	}
	parts := make([]part, len(list))
	for i, v := range list {
		parts[i] = part{pointer: document.Step(pointer, i), value: v}
	}
	return parts, nil
}

// values returns the expression of the values that the facts describe.
func (b *Builder) values(f *facts) (*node, error) {
	if f.split != nil {
		return b.alternatives(f)
	}
	if f.enum != nil {
		return b.enumeration(f)
	}
	var kinds []*node
	for i := range typeNames {
		if f.types&(1<<i) == 0 {
			continue
		}
		n, err := b.write(f, 1<<i)
		if err != nil {
			return nil, err
		}
		if n != nil {
			kinds = append(kinds, n)
		}
	}
	if len(kinds) == 0 {
		return nil, b.fail(f.pointer, "nothing satisfies it: its types contradict each other")
	}
	return choice(kinds...), nil
}

// write returns the expression of the values of one type, nil if those of another type
// are all of them.
func (b *Builder) write(f *facts, t jsonType) (*node, error) {
	switch t {
	case typeObject:
		return b.object(f)
	case typeArray:
		return b.array(f)
	case typeString:
		return b.string(f)
	case typeNumber:
		return b.number(f, false)
	case typeInteger:
		if f.types&typeNumber != 0 {
			return nil, nil
		}
		return b.number(f, true)
	case typeBoolean:
		return choice(text("true"), text("false")), nil
	}
	return text("null"), nil
}

// alternatives returns the expression of anyOf or oneOf: of each branch together with
// all else.
func (b *Builder) alternatives(f *facts) (*node, error) {
	branches, err := b.branches(f.split.pointer, f.splitBy, f.split.value.(*document.Object).Values[f.splitBy])
	if err != nil {
		return nil, err
	}
	rest := slices.Clone(f.parts)
	for i := range rest {
		if f.split == &f.parts[i] {
			rest[i].without += " " + f.splitBy
		}
		if !wordIn(rest[i].without, "allOf") {
			rest[i].without += " $ref allOf" // what they lead to is among the parts
		}
	}
	if f.splitBy == "oneOf" && b.strict {
		if err := b.exclusive(f.split.pointer+"/oneOf", branches); err != nil {
			return nil, err
		}
	}
	var options []*node
	var failed error
	for _, branch := range branches {
		n, err := b.schema(append([]part{branch}, rest...))
		if err != nil {
			failed = err
			if b.strict {
				return nil, err
			}
			continue
		}
		options = append(options, n)
	}
	if options == nil {
		return nil, failed
	}
	return choice(options...), nil
}

// enumeration returns the expression of the values of enum or const.
func (b *Builder) enumeration(f *facts) (*node, error) {
	if f.keyword != "" && b.strict {
		return nil, b.fail(f.pointer, "%s beside enum or const is not supported; leave out the values that it excludes", f.keyword)
	}
	var texts []*node
	for _, v := range f.enum {
		if typeOf(v)&f.types == 0 {
			continue
		}
		s := document.Write(v)
		if err := b.spend(f.pointer, workOf(s)); err != nil {
			return nil, err
		}
		texts = append(texts, text(s))
	}
	if len(texts) == 0 {
		return nil, b.fail(f.pointer, "nothing satisfies it: no value of enum or const has the type")
	}
	return choice(texts...), nil
}

// exclusive refuses branches of which a value could satisfy several.
func (b *Builder) exclusive(pointer string, branches []part) error {
	gathered := make([]*facts, len(branches))
	for i, branch := range branches {
		var err error
		if gathered[i], err = b.gather([]part{branch}); err != nil {
			return err
		}
		for j := range i {
			apart, err := b.disjoint(gathered[i], gathered[j], 0)
			if err != nil {
				return err
			}
			if !apart {
				return b.fail(pointer, "a value might satisfy both %d and %d; use anyOf, or a property with a different const in each", j, i)
			}
		}
	}
	return nil
}

// disjoint reports whether no value satisfies both, as far as types, enumerations and
// required properties show.
func (b *Builder) disjoint(f, g *facts, depth int) (bool, error) {
	types := func(f *facts) jsonType {
		if f.types&typeInteger != 0 {
			return f.types | typeNumber
		}
		return f.types
	}
	if f.split == nil && g.split == nil && types(f)&types(g) == 0 {
		return true, nil
	}
	if err := b.spend(f.pointer, 1); err != nil {
		return false, err
	}
	if f.enum != nil && g.enum != nil {
		few, many := f, g
		if len(few.enum) > len(many.enum) {
			few, many = many, few
		}
		known := many.identities()
		apart := !slices.ContainsFunc(few.enum, func(v any) bool { return known[identity(v)] })
		return apart, b.spend(f.pointer, len(few.enum))
	}
	if depth == maxNesting || f.types != typeObject || g.types != typeObject {
		return false, nil
	}
	for _, name := range f.required {
		if !slices.Contains(g.required, name) {
			continue
		}
		mine, _ := f.member(name)
		others, _ := g.member(name)
		if len(mine) == 0 || len(others) == 0 {
			continue
		}
		p, err := b.gather(mine)
		if err != nil {
			return false, err
		}
		q, err := b.gather(others)
		if err != nil {
			return false, err
		}
		if apart, err := b.disjoint(p, q, depth+1); apart || err != nil {
			return apart, err
		}
	}
	return false, nil
}
