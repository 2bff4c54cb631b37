package grammar

import (
	"slices"
	"strings"
	"unicode/utf8"

	"helicon/models/sample/grammar/document"
)

// space is the white space between the parts of a JSON text: as models write it, and
// short.
func (b *Builder) space() (*node, error) {
	return b.shared("space", "", func() (*node, error) {
		return choice(sequence(), text(" "), sequence(text("\n"), repeat(oneOf(span{' ', ' '}, span{'\t', '\t'}), 0, 20))), nil
	})
}

// member returns what the parts say about the member of a name, and whether it may be
// there at all.
func (f *facts) member(name string) ([]part, bool) {
	var parts []part
	for _, p := range f.parts {
		o := p.value.(*document.Object)
		properties, _ := o.Values["properties"].(*document.Object)
		if properties != nil {
			if v, ok := properties.Values[name]; ok {
				parts = append(parts, part{pointer: document.Step(document.Step(p.pointer, "properties"), name), value: v})
				continue
			}
		}
		if v, ok := o.Values["additionalProperties"]; ok {
			parts = append(parts, part{pointer: document.Step(p.pointer, "additionalProperties"), value: v})
		}
	}
	return parts, !slices.ContainsFunc(parts, func(p part) bool { return p.value == false })
}

// others returns what the parts say about members that they do not name, and whether
// there may be any.
func (f *facts) others() ([]part, bool) {
	var parts []part
	named := false
	for _, p := range f.parts {
		o := p.value.(*document.Object)
		if v, ok := o.Values["additionalProperties"]; ok {
			parts = append(parts, part{pointer: document.Step(p.pointer, "additionalProperties"), value: v})
		}
		named = named || o.Values["properties"] != nil
	}
	if slices.ContainsFunc(parts, func(p part) bool { return p.value == false }) {
		return nil, false
	}
	return parts, len(parts) > 0 || !named // properties without a name say that there are none
}

// object returns the expression of objects: members in the order of their names, those
// that are not required or not, then others.
func (b *Builder) object(f *facts) (*node, error) {
	names := slices.Clone(f.names)
	for _, name := range f.required {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	other, open, err := b.otherMember(f, names)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return b.list("{}", other, f.minNames, f.maxNames, f.pointer)
	}
	members := make([]*node, 0, len(names))
	var needed []bool
	for _, name := range names {
		parts, allowed := f.member(name)
		required := slices.Contains(f.required, name)
		if !allowed && required {
			return nil, b.fail(f.pointer, "the property %q is required, but not allowed", name)
		}
		if !allowed {
			continue
		}
		if err := b.spend(f.pointer, workOf(name)); err != nil {
			return nil, err
		}
		m, err := b.pair(text(document.Quote(name)), parts)
		if err != nil {
			return nil, err
		}
		members, needed = append(members, m), append(needed, required)
	}
	if tooFew := f.minNames > len(f.required); tooFew && b.strict {
		return nil, b.fail(f.pointer, "minProperties beside properties is not supported; list the properties in required")
	}
	if tooMany := f.maxNames != unlimited && (open || f.maxNames < len(members)); tooMany && b.strict {
		return nil, b.fail(f.pointer, "maxProperties beside properties is not supported; leave it out")
	}
	return b.members(f.pointer, members, needed, other)
}

// otherMember returns the expression of a member that has none of the names.
func (b *Builder) otherMember(f *facts, names []string) (*node, bool, error) {
	parts, open := f.others()
	if !open {
		return nil, false, nil
	}
	name, err := b.text()
	if err != nil {
		return nil, false, err
	}
	if len(names) > 0 {
		if err := b.spend(f.pointer, len(strings.Join(names, ""))); err != nil {
			return nil, false, err
		}
		name = sequence(text(`"`), except(names), text(`"`))
	}
	other, err := b.pair(name, parts)
	return other, true, err
}

// pair returns the expression of a name with a value.
func (b *Builder) pair(name *node, parts []part) (*node, error) {
	value, err := b.schema(parts)
	if err != nil {
		return nil, err
	}
	space, err := b.space()
	return sequence(name, text(":"), space, value), err
}

// members returns the expression of an object of members, each needed or not, and any
// number of others, nil for none. What may follow each member is a rule: once for when
// a comma has to come first, and once for when nothing is written yet.
func (b *Builder) members(pointer string, members []*node, needed []bool, other *node) (*node, error) {
	space, err := b.space()
	if err != nil {
		return nil, err
	}
	comma := sequence(text(","), space)
	later, first := sequence(), sequence()
	if other != nil {
		later = repeat(sequence(comma, other), 0, -1)
		first = optional(sequence(other, later))
	}
	for i := len(members) - 1; i >= 0; i-- {
		if later, err = b.anonymous(pointer, later); err != nil {
			return nil, err
		}
		begun := sequence(members[i], later)
		next := sequence(comma, members[i])
		if !needed[i] {
			begun = choice(begun, first)
			next = optional(next)
		}
		if first, err = b.anonymous(pointer, begun); err != nil {
			return nil, err
		}
		later = sequence(next, later)
	}
	return sequence(text("{"), space, first, space, text("}")), nil
}

// anonymous makes a rule of an expression that is used more than once.
func (b *Builder) anonymous(pointer string, n *node) (*node, error) {
	if len(n.parts) == 0 && n.op == opSequence || n.op == opRule {
		return n, nil
	}
	if len(b.rules) >= maxRules {
		return nil, b.fail(pointer, "the schema is too large: more than %d rules", maxRules)
	}
	b.pointers = append(b.pointers, pointer)
	at := len(b.pointers) - 1
	b.rules = append(b.rules, rule{name: "the value", at: at, body: n})
	reference := call(len(b.rules) - 1)
	reference.at = at
	return reference, nil
}

// list returns the expression of m to n items with commas between a pair of brackets;
// without an item there are none.
func (b *Builder) list(brackets string, item *node, m, n int, pointer string) (*node, error) {
	space, err := b.space()
	if err != nil {
		return nil, err
	}
	open, end := text(brackets[:1]), text(brackets[1:])
	empty := sequence(open, space, end)
	if item == nil {
		n = 0
	}
	if n != unlimited && m > n {
		return nil, b.fail(pointer, "at least %d and at most %d cannot both hold", m, n)
	}
	if n == 0 {
		return empty, nil
	}
	rest := n
	if n != unlimited {
		rest = n - 1
	}
	again := repeat(sequence(text(","), space, item), max(m-1, 0), rest)
	full := sequence(open, space, item, again, space, end)
	if m > 0 {
		return full, nil
	}
	return choice(empty, full), nil
}

// item returns what the parts say about the item at an index, and whether it may be
// there at all.
func (f *facts) item(i int) ([]part, bool) {
	var parts []part
	for _, p := range f.parts {
		o := p.value.(*document.Object)
		if prefix, ok := o.Values["prefixItems"].([]any); ok && i < len(prefix) {
			parts = append(parts, part{pointer: document.Step(document.Step(p.pointer, "prefixItems"), i), value: prefix[i]})
		} else if v, ok := o.Values["items"]; ok {
			parts = append(parts, part{pointer: document.Step(p.pointer, "items"), value: v})
		}
	}
	return parts, !slices.ContainsFunc(parts, func(p part) bool { return p.value == false })
}

// array returns the expression of arrays.
func (b *Builder) array(f *facts) (*node, error) {
	parts, some := f.item(f.prefix)
	for _, p := range parts {
		if _, list := p.value.([]any); list {
			return nil, b.fail(p.pointer, "an array of schemas is not supported; use prefixItems")
		}
	}
	var item *node
	var err error
	if some && (f.maxItems == unlimited || f.maxItems > f.prefix) {
		if item, err = b.schema(parts); err != nil {
			return nil, err
		}
	}
	if f.prefix == 0 {
		return b.list("[]", item, f.minItems, f.maxItems, f.pointer)
	}
	return b.tuple(f, item)
}

// tuple returns the expression of arrays whose first items have schemas of their own,
// and the others, if there may be any, that of item.
func (b *Builder) tuple(f *facts, item *node) (*node, error) {
	space, err := b.space()
	if err != nil {
		return nil, err
	}
	comma := sequence(text(","), space)
	own := f.prefix
	if f.maxItems != unlimited {
		own = min(own, f.maxItems)
	}
	items := make([]*node, 0, own)
	for i := range own {
		parts, allowed := f.item(i)
		if !allowed {
			item = nil
			break
		}
		n, err := b.schema(parts)
		if err != nil {
			return nil, err
		}
		items = append(items, n)
	}
	tail := sequence()
	if item != nil {
		most := unlimited
		if f.maxItems != unlimited {
			most = f.maxItems - len(items)
		}
		tail = repeat(sequence(comma, item), max(f.minItems-len(items), 0), most)
	} else if f.minItems > len(items) {
		return nil, b.fail(f.pointer, "at least %d and at most %d items cannot both hold", f.minItems, len(items))
	}
	for i := len(items) - 1; i >= 0; i-- {
		one := sequence(items[i], tail)
		if i > 0 {
			one = sequence(comma, one)
		}
		if tail = one; i >= f.minItems {
			tail = optional(one)
		}
	}
	return sequence(text("["), space, tail, space, text("]")), nil
}

// except returns the expression of what names may be, as characters that need no
// escape, that are none of those given.
func except(names []string) *node {
	tree := &branch{next: map[rune]*branch{}}
	for _, name := range names {
		at := tree
		for _, r := range name {
			if at.next[r] == nil {
				at.next[r] = &branch{next: map[rune]*branch{}}
				at.order = append(at.order, r)
			}
			at = at.next[r]
		}
		at.taken = true
	}
	return tree.others()
}

// branch is a place in the tree of the characters of names.
type branch struct {
	next  map[rune]*branch
	order []rune
	taken bool // a name ends here
}

func (t *branch) others() *node {
	options := []*node{}
	if !t.taken {
		options = append(options, sequence())
	}
	var begun class
	for _, r := range t.order {
		begun = append(begun, span{r, r})
		options = append(options, sequence(text(string(r)), t.next[r].others()))
	}
	rest := &node{op: opClass, class: plain.and(newClass(begun...).not())}
	return choice(append(options, sequence(rest, repeat(&node{op: opClass, class: plain}, 0, -1)))...)
}

// plain are the characters that JSON strings hold without an escape.
var plain = class{{' ', '!'}, {'#', '['}, {']', firstSurrogate - 1}, {lastSurrogate + 1, utf8.MaxRune}}
