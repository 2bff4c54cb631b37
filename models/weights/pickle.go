package weights

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Limits of a pickle.
const (
	maxPickle      = 64 << 20 // bytes
	maxPickleSteps = 4 << 20  // instructions, and items that they copy
	maxPickleLine  = 256      // bytes of a module's or a global's name
)

// What a pickle is made of, beside nil, bool, int64, float64 and string.
type (
	pickleTuple []any
	pickleList  struct{ items []any }
	pickleDict  struct{ keys, values []any }
	global      string   // of the form module.name, one that is allowed
	opaque      struct{} // something that is no weights
	mark        struct{} // where a group of objects begins on the stack
)

// describe names a value in an error. What a tuple holds is left out: tuples that share
// others may stand for more than can be written.
func describe(value any) string {
	switch value := value.(type) {
	case nil:
		return "None"
	case bool, int64, float64, global:
		return fmt.Sprint(value)
	case string:
		return fmt.Sprintf("%.40q", value)
	case pickleTuple:
		return "a tuple"
	case *pickleList:
		return "a list"
	case *pickleDict:
		return "a dictionary"
	case *view:
		return "a tensor"
	default:
		return "an object"
	}
}

// unpickler reads pickles of PyTorch checkpoints and executes nothing: names stand for
// a few known constructors, or the pickle is refused.
//
// The instructions are those of https://docs.python.org/3/library/pickletools.html that
// the protocols 2 to 4 use for such data.
type unpickler struct {
	*cursor
	storages map[string]*storage

	stack []any
	memo  map[uint32]any
	steps int
}

// load reads one pickle. An error is in the cursor.
func (u *unpickler) load() any {
	u.stack, u.memo = u.stack[:0], map[uint32]any{}
	for u.err == nil {
		if u.steps++; u.steps > maxPickleSteps {
			u.fail("more than %d instructions", maxPickleSteps)
			break
		}
		op := read[uint8](u.cursor)
		if op == '.' {
			return u.pop()
		}
		if u.err == nil && !u.constant(op) && !u.group(op) && !u.link(op) {
			u.fail("instruction %#02x at byte %d is not known", op, u.at-1)
		}
	}
	return nil
}

// constant carries out an instruction that pushes a value by itself.
func (u *unpickler) constant(op byte) bool {
	switch op {
	case 0x80: // PROTO
		if v := read[uint8](u.cursor); v > 5 {
			u.fail("protocol %d", v)
		}
	case 0x95: // FRAME
		u.uint64()
	case 'N':
		u.push(nil)
	case 0x88: // NEWTRUE
		u.push(true)
	case 0x89: // NEWFALSE
		u.push(false)
	case 'J': // BININT
		u.push(int64(read[int32](u.cursor)))
	case 'K': // BININT1
		u.push(int64(read[uint8](u.cursor)))
	case 'M': // BININT2
		u.push(int64(read[uint16](u.cursor)))
	case 0x8a: // LONG1
		u.push(u.long(uint64(read[uint8](u.cursor))))
	case 'G': // BINFLOAT
		if raw := u.take(8); u.err == nil {
			u.push(math.Float64frombits(binary.BigEndian.Uint64(raw)))
		}
	case 'X', 'T', 'B': // BINUNICODE, BINSTRING, BINBYTES
		u.push(string(u.take(uint64(u.uint32()))))
	case 0x8c, 'U', 'C': // SHORT_BINUNICODE, SHORT_BINSTRING, SHORT_BINBYTES
		u.push(string(u.take(uint64(read[uint8](u.cursor)))))
	case 0x8d, 0x8e: // BINUNICODE8, BINBYTES8
		u.push(u.text())
	case ')':
		u.push(pickleTuple{})
	case ']':
		u.push(&pickleList{})
	case '}':
		u.push(&pickleDict{})
	case 0x8f: // EMPTY_SET
		u.push(opaque{})
	default:
		return false
	}
	return true
}

// long reads a whole number of n bytes. One that needs more than 64 bits is no size of
// anything.
func (u *unpickler) long(n uint64) any {
	raw := slices.Clone(u.take(n))
	if len(raw) > 8 {
		return opaque{}
	}
	fill := byte(0)
	if n := len(raw); n > 0 && raw[n-1] >= 0x80 {
		fill = 0xff
	}
	for len(raw) < 8 {
		raw = append(raw, fill)
	}
	return int64(binary.LittleEndian.Uint64(raw))
}

// group carries out an instruction about what lies on top of the stack.
func (u *unpickler) group(op byte) bool {
	switch op {
	case '(':
		u.push(mark{})
	case '0': // POP
		u.pop()
	case '1': // POP_MARK
		u.popMark()
	case 't':
		u.push(pickleTuple(u.popMark()))
	case 0x85, 0x86, 0x87: // TUPLE1 to TUPLE3
		u.push(pickleTuple(u.popN(int(op - 0x84))))
	case 'a': // APPEND
		u.extend(u.popN(1))
	case 'e', 0x90: // APPENDS, ADDITEMS
		u.extend(u.popMark())
	case 's': // SETITEM
		u.set(u.popN(2))
	case 'u': // SETITEMS
		u.set(u.popMark())
	default:
		return false
	}
	return true
}

// link carries out an instruction that leads to objects elsewhere.
func (u *unpickler) link(op byte) bool {
	switch op {
	case 'q': // BINPUT
		u.put(uint32(read[uint8](u.cursor)))
	case 'r': // LONG_BINPUT
		u.put(u.uint32())
	case 0x94: // MEMOIZE
		u.put(uint32(len(u.memo)))
	case 'h': // BINGET
		u.get(uint32(read[uint8](u.cursor)))
	case 'j': // LONG_BINGET
		u.get(u.uint32())
	case 'c': // GLOBAL
		module := u.line()
		u.find(module, u.line())
	case 0x93: // STACK_GLOBAL
		names := u.popN(2)
		module, isText := names[0].(string)
		name, alsoText := names[1].(string)
		if !isText || !alsoText {
			u.fail("a global without a name")
		}
		u.find(module, name)
	case 'R', 0x81: // REDUCE, NEWOBJ
		call := u.popN(2)
		u.push(u.call(call[0], call[1]))
	case 'b': // BUILD
		u.popN(1) // attributes, which are no weights
		if _, isTensor := u.top().(*view); isTensor {
			u.fail("a tensor with a state of its own")
		}
	case 'Q': // BINPERSID
		u.push(u.persistent(u.pop()))
	default:
		return false
	}
	return true
}

func (u *unpickler) push(value any) { u.stack = append(u.stack, value) }

// top returns the last object on the stack.
func (u *unpickler) top() any {
	if len(u.stack) == 0 {
		u.fail("an instruction at byte %d has no object", u.at)
		return nil
	}
	return u.stack[len(u.stack)-1]
}

func (u *unpickler) pop() any { return u.popN(1)[0] }

// popN returns the n last objects, nil if there are not so many.
func (u *unpickler) popN(n int) []any {
	if len(u.stack) < n {
		u.fail("an instruction at byte %d has fewer than %d objects", u.at, n)
		return make([]any, n)
	}
	at := len(u.stack) - n
	items := slices.Clone(u.stack[at:])
	u.stack = u.stack[:at]
	return items
}

// popMark returns the objects above the last mark.
func (u *unpickler) popMark() []any {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if u.stack[i] == any(mark{}) {
			items := u.popN(len(u.stack) - 1 - i)
			u.pop()
			return items
		}
	}
	u.fail("a group at byte %d has no start", u.at)
	return nil
}

// extend adds to the list, or the set, on top of the stack.
func (u *unpickler) extend(items []any) {
	switch list := u.top().(type) {
	case *pickleList:
		list.items = append(list.items, items...)
	case opaque:
	default:
		u.fail("%s is no list to add to", describe(list))
	}
}

// set adds keys and values in turn to the dictionary on top of the stack.
func (u *unpickler) set(items []any) {
	dict, ok := u.top().(*pickleDict)
	if !ok || len(items)%2 != 0 {
		u.fail("%d objects for %s, want keys and values for a dictionary", len(items), describe(u.top()))
		return
	}
	for i := 0; i < len(items); i += 2 {
		dict.keys, dict.values = append(dict.keys, items[i]), append(dict.values, items[i+1])
	}
}

func (u *unpickler) put(key uint32) { u.memo[key] = u.top() }

func (u *unpickler) get(key uint32) {
	value, ok := u.memo[key]
	if !ok {
		u.fail("object %d has not been stored", key)
	}
	u.push(value)
}

// line reads a name that ends with its line.
func (u *unpickler) line() string {
	var name []byte
	for u.err == nil {
		b := read[uint8](u.cursor)
		if b == '\n' {
			return string(name)
		}
		if name = append(name, b); len(name) > maxPickleLine {
			u.fail("a name of more than %d bytes", maxPickleLine)
		}
	}
	return ""
}

// find pushes a global of a name, if it is one that is allowed.
func (u *unpickler) find(module, name string) {
	g := global(module + "." + name)
	_, isElement := elementOf(g)
	if _, ok := constructors[g]; !ok && !isElement && !ignoredGlobals[g] {
		u.err = cmp.Or(u.err, fmt.Errorf("global %q is not one that weights need: %w", string(g), ErrUnsafe))
	}
	u.push(g)
}

// call makes an object with a constructor.
func (u *unpickler) call(f, arguments any) any {
	g, ok := f.(global)
	args, isTuple := arguments.(pickleTuple)
	if !ok || !isTuple {
		u.fail("%s is called with %s", describe(f), describe(arguments))
		return nil
	}
	if ignoredGlobals[g] {
		return opaque{}
	}
	construct, ok := constructors[g]
	if !ok {
		u.fail("global %q is called", string(g))
		return nil
	}
	if len(args) > 0 { // which the object may copy
		if list, ok := args[0].(*pickleList); ok {
			u.steps += len(list.items)
		}
	}
	object, err := construct(args)
	if err != nil {
		u.fail("%s: %v", g, err)
	}
	return object
}

// newDict makes a dictionary, of the pairs in a list if there is one.
func newDict(args pickleTuple) (any, error) {
	dict := &pickleDict{}
	if len(args) == 0 {
		return dict, nil
	}
	list, ok := args[0].(*pickleList)
	if !ok || len(args) > 1 {
		return nil, fmt.Errorf("its arguments are %s and %d more", describe(args[0]), len(args)-1)
	}
	for _, item := range list.items {
		var pair []any
		switch item := item.(type) {
		case pickleTuple:
			pair = item
		case *pickleList:
			pair = item.items
		}
		if len(pair) != 2 {
			return nil, fmt.Errorf("%s is no key with a value", describe(item))
		}
		dict.keys, dict.values = append(dict.keys, pair[0]), append(dict.values, pair[1])
	}
	return dict, nil
}

// firstArgument makes what its first argument is.
func firstArgument(args pickleTuple) (any, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("it has no argument")
	}
	return args[0], nil
}
