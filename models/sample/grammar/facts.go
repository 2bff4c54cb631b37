package grammar

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"helicon/models/sample/grammar/document"
)

// jsonType is a set of types of JSON values.
type jsonType uint8

const (
	typeObject jsonType = 1 << iota
	typeArray
	typeString
	typeNumber
	typeInteger
	typeBoolean
	typeNull

	typeAny = typeObject | typeArray | typeString | typeNumber | typeBoolean | typeNull
)

// typeNames are the types in the order of their bits.
var typeNames = [...]string{"object", "array", "string", "number", "integer", "boolean", "null"}

// typeOf returns the types that a value has.
func typeOf(v any) jsonType {
	switch v := v.(type) {
	case *document.Object:
		return typeObject
	case []any:
		return typeArray
	case string:
		return typeString
	case bool:
		return typeBoolean
	case json.Number:
		if x, err := v.Float64(); err == nil && x == math.Trunc(x) {
			return typeNumber | typeInteger
		}
		return typeNumber
	}
	return typeNull
}

// identity returns a text that equal values have in common; numbers are by value.
func identity(v any) string {
	if n, ok := v.(json.Number); ok {
		if x, err := n.Float64(); err == nil {
			return strconv.FormatFloat(x+0, 'g', -1, 64) // -0 and 0 are one
		}
	}
	return document.Write(v)
}

// facts is what several parts of a document say together about a value.
type facts struct {
	pointer string // of the first part
	parts   []part // without references and allOf
	types   jsonType
	enum    []any           // nil: no enumeration
	known   map[string]bool // the identities of enum; nil until they are asked for
	keyword string          // one that enumerations do not look at, or ""

	split   *part // the first part with an anyOf or oneOf
	splitBy string

	names    []string // of properties
	required []string
	minNames int
	maxNames int

	prefix   int // items with schemas of their own
	minItems int
	maxItems int

	minLength, maxLength int
	patterns             []located
	low, high            bound
}

// located is a string of a document.
type located struct{ pointer, text string }

// bound is a limit of numbers.
type bound struct {
	set       bool
	exclusive bool
	value     float64
	pointer   string
}

// unlimited is a largest number where there is none.
const unlimited = -1

// unsupported are keywords that a text could violate, with what to do instead.
var unsupported = map[string]string{
	"not": "say what is allowed instead", "if": "use anyOf", "then": "use anyOf", "else": "use anyOf",
	"dependentRequired": "use anyOf", "dependentSchemas": "use anyOf", "dependencies": "use anyOf",
	"patternProperties": "name the properties, or use additionalProperties", "propertyNames": "name the properties",
	"unevaluatedProperties": "use additionalProperties", "unevaluatedItems": "use items",
	"contains": "use items or prefixItems", "minContains": "use items or prefixItems", "maxContains": "use items or prefixItems",
	"uniqueItems": "leave it out and check the answer", "multipleOf": "leave it out and check the answer, or use enum",
	"nullable": `use "type": ["…", "null"]`, "$dynamicRef": "use $ref", "$recursiveRef": "use $ref",
	"additionalItems": "use items behind prefixItems",
}

// reader reads one keyword of a part into facts.
type reader func(b *Builder, f *facts, pointer string, value any) error

// readers has the keywords by the type of values that they are about.
var readers = map[string]struct {
	of   jsonType
	read reader
}{
	"type":  {0, readType},
	"enum":  {0, readEnum},
	"const": {0, func(b *Builder, f *facts, _ string, v any) error { return f.among([]any{v}) }},

	"properties":           {typeObject, readProperties},
	"required":             {typeObject, readRequired},
	"additionalProperties": {typeObject, nil},
	"minProperties":        {typeObject, count(func(f *facts, n int) { f.minNames = max(f.minNames, n) })},
	"maxProperties":        {typeObject, count(func(f *facts, n int) { f.maxNames = least(f.maxNames, n) })},

	"items":       {typeArray, nil},
	"prefixItems": {typeArray, readPrefix},
	"minItems":    {typeArray, count(func(f *facts, n int) { f.minItems = max(f.minItems, n) })},
	"maxItems":    {typeArray, count(func(f *facts, n int) { f.maxItems = least(f.maxItems, n) })},

	"minLength": {typeString, count(func(f *facts, n int) { f.minLength = max(f.minLength, n) })},
	"maxLength": {typeString, count(func(f *facts, n int) { f.maxLength = least(f.maxLength, n) })},
	"pattern":   {typeString, readPattern},
	"format":    {typeString, readFormat},

	"minimum":          {typeNumber, limit(false, false)},
	"exclusiveMinimum": {typeNumber, limit(false, true)},
	"maximum":          {typeNumber, limit(true, false)},
	"exclusiveMaximum": {typeNumber, limit(true, true)},
}

// gather reads what parts say together.
func (b *Builder) gather(parts []part) (*facts, error) {
	f := &facts{pointer: parts[0].pointer, maxNames: unlimited, maxItems: unlimited, maxLength: unlimited, types: typeAny | typeInteger}
	var err error
	if f.parts, err = b.flatten(parts); err != nil {
		return nil, err
	}
	about, typed := jsonType(0), false
	for i := range f.parts {
		p := &f.parts[i]
		o := p.value.(*document.Object)
		for _, keyword := range o.Names {
			at, value := document.Step(p.pointer, keyword), o.Values[keyword]
			switch advice, refused := unsupported[keyword]; {
			case refused && b.strict && value != false:
				return nil, b.fail(at, "%s is not supported; %s", keyword, advice)
			case keyword == "anyOf" || keyword == "oneOf":
				if f.split == nil && !wordIn(p.without, keyword) {
					f.split, f.splitBy = p, keyword
				}
				continue
			}
			r, known := readers[keyword]
			if !known {
				continue
			}
			if r.of != 0 {
				f.keyword = keyword
			}
			about |= r.of
			typed = typed || keyword == "type" || keyword == "enum" || keyword == "const"
			if r.read != nil {
				if err := r.read(b, f, at, value); err != nil {
					return nil, err
				}
			}
		}
	}
	if !typed && about != 0 {
		f.types = about // the keywords say what is meant
	}
	return f, nil
}

// wordIn reports whether word is one of those in a list with spaces between.
func wordIn(list, word string) bool {
	return slices.Contains(strings.Fields(list), word)
}

func readType(b *Builder, f *facts, pointer string, value any) error {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var types jsonType
	for _, v := range list {
		name, _ := v.(string)
		i := slices.Index(typeNames[:], name)
		if i < 0 {
			return b.fail(pointer, "want one or more of %s", strings.Join(typeNames[:], ", "))
		}
		if types |= 1 << i; types&typeNumber != 0 {
			types |= typeInteger
		}
	}
	f.types &= types
	return nil
}

func readEnum(b *Builder, f *facts, pointer string, value any) error {
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return b.fail(pointer, "want an array of values")
	}
	if err := b.spend(pointer, len(list)); err != nil {
		return err
	}
	return f.among(list)
}

// among leaves values of the list alone.
func (f *facts) among(list []any) error {
	if f.enum == nil {
		f.enum = slices.Clone(list)
		return nil
	}
	both := (&facts{enum: list}).identities()
	f.enum = slices.DeleteFunc(f.enum, func(v any) bool { return !both[identity(v)] })
	return nil
}

// identities returns those of the values of the enumeration, which must not change any more.
func (f *facts) identities() map[string]bool {
	if f.known == nil {
		f.known = make(map[string]bool, len(f.enum))
		for _, v := range f.enum {
			f.known[identity(v)] = true
		}
	}
	return f.known
}

func readProperties(b *Builder, f *facts, pointer string, value any) error {
	o, ok := value.(*document.Object)
	if !ok {
		return b.fail(pointer, "want an object of schemas")
	}
	for _, name := range o.Names {
		if !slices.Contains(f.names, name) {
			f.names = append(f.names, name)
		}
		if len(f.names) > maxRules {
			return b.fail(pointer, "more than %d properties", maxRules)
		}
	}
	return b.spend(pointer, len(o.Names))
}

func readRequired(b *Builder, f *facts, pointer string, value any) error {
	list, ok := value.([]any)
	for _, v := range list {
		name, isName := v.(string)
		ok = ok && isName
		if !slices.Contains(f.required, name) {
			f.required = append(f.required, name)
		}
		if len(f.required) > maxRules {
			return b.fail(pointer, "more than %d names", maxRules)
		}
	}
	if !ok {
		return b.fail(pointer, "want an array of names")
	}
	return b.spend(pointer, len(list))
}

func readPrefix(b *Builder, f *facts, pointer string, value any) error {
	list, ok := value.([]any)
	if !ok {
		return b.fail(pointer, "want an array of schemas")
	}
	f.prefix = max(f.prefix, len(list))
	return nil
}

func readPattern(b *Builder, f *facts, pointer string, value any) error {
	s, ok := value.(string)
	if !ok {
		return b.fail(pointer, "want a regular expression")
	}
	f.patterns = append(f.patterns, located{pointer, s})
	return nil
}

func readFormat(b *Builder, f *facts, pointer string, value any) error {
	name, ok := value.(string)
	if !ok {
		return b.fail(pointer, "want the name of a format")
	}
	pattern, known := formats[name]
	if known {
		f.patterns = append(f.patterns, located{pointer, pattern})
		return nil
	}
	if b.strict && f.types&typeString != 0 {
		return b.fail(pointer, "the format %q is not supported; want one of %s, or a pattern", name, formatNames())
	}
	return nil
}

// count reads a number of things.
func count(take func(f *facts, n int)) reader {
	return func(b *Builder, f *facts, pointer string, value any) error {
		x, ok := value.(json.Number)
		n, err := x.Float64()
		if !ok || err != nil || n < 0 || n != math.Trunc(n) {
			return b.fail(pointer, "want a whole number, at least 0")
		}
		if n > maxRepeat {
			return b.fail(pointer, "at most %d is supported", maxRepeat)
		}
		take(f, int(n))
		return nil
	}
}

// least returns the smaller limit, of which a may be unlimited.
func least(a, b int) int {
	if a == unlimited {
		return b
	}
	return min(a, b)
}

// maxBound is where float64 stops telling integers apart.
const maxBound = 1 << 53

// limit reads a bound of numbers.
func limit(upper, exclusive bool) reader {
	return func(b *Builder, f *facts, pointer string, value any) error {
		number, ok := value.(json.Number)
		x, err := strconv.ParseFloat(string(number), 64)
		if !ok || err != nil {
			return b.fail(pointer, "want a number")
		}
		if math.Abs(x) > maxBound {
			return b.fail(pointer, "want a number from -2^53 to 2^53, or no limit")
		}
		old := &f.low
		tighter := func(x, y float64) bool { return x > y }
		if upper {
			old = &f.high
			tighter = func(x, y float64) bool { return x < y }
		}
		if !old.set || tighter(x, old.value) || x == old.value && exclusive {
			*old = bound{true, exclusive, x, pointer}
		}
		return nil
	}
}
