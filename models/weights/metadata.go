package weights

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrNoKey is wrapped when the metadata has no such key.
var ErrNoKey = errors.New("no such key")

// Pair is a key of a file's metadata and its value. The type of the value is one of
// uint8, int8, uint16, int16, uint32, int32, uint64, int64, float32, float64, bool and
// string, a slice of one of these, or, as an array of arrays, []any of such slices.
type Pair struct {
	Key   string
	Value any
}

// Metadata is what a file says beside its tensors: all of a GGUF file's keys, or the
// strings of a safetensors file. It may be read by any number of goroutines. The errors
// of its getters name file and key, and wrap ErrNoKey if there is none of that name and
// ErrFormat if its value is of another kind.
type Metadata struct {
	origin string
	pairs  []Pair
	index  map[string]int
}

// NewMetadata returns the metadata of so many pairs, in their order; origin is what
// errors name. The error wraps ErrFormat if a key occurs twice.
func NewMetadata(origin string, pairs []Pair) (Metadata, error) {
	m := Metadata{origin: origin, pairs: slices.Clone(pairs), index: make(map[string]int, len(pairs))}
	for i, p := range pairs {
		if _, twice := m.index[p.Key]; twice {
			return Metadata{}, fmt.Errorf("weights: %s: key %q occurs twice: %w", origin, p.Key, ErrFormat)
		}
		m.index[p.Key] = i
	}
	return m, nil
}

// Pairs returns keys and values in the order of the file. The values must not be written.
func (m Metadata) Pairs() []Pair { return slices.Clone(m.pairs) }

// Has reports whether there is the key.
func (m Metadata) Has(key string) bool {
	_, ok := m.index[key]
	return ok
}

// Value returns the value as the file has it, of a type that Pair lists. Slices must
// not be written.
func (m Metadata) Value(key string) (any, error) {
	i, ok := m.index[key]
	if !ok {
		return nil, fmt.Errorf("weights: %s: key %q: %w", m.origin, key, ErrNoKey)
	}
	return m.pairs[i].Value, nil
}

// wrongKind is the error for a value that is not what its user needs.
func (m Metadata) wrongKind(key, want string) error {
	value, err := m.Value(key)
	if err != nil {
		return err
	}
	return fmt.Errorf("weights: %s: key %q is of type %T, want %s: %w", m.origin, key, value, want, ErrFormat)
}

// String returns a string.
func (m Metadata) String(key string) (string, error) {
	return scalar[string](m, key, "string")
}

// Bool returns a truth value.
func (m Metadata) Bool(key string) (bool, error) {
	return scalar[bool](m, key, "bool")
}

// Int returns a whole number of any type, if it is one that an int holds.
func (m Metadata) Int(key string) (int, error) {
	value, err := m.Value(key)
	if err != nil {
		return 0, err
	}
	if n, ok := integer(value); ok {
		return n, nil
	}
	return 0, m.wrongKind(key, "a whole number that an int holds")
}

// Float returns a number of any type.
func (m Metadata) Float(key string) (float64, error) {
	value, err := m.Value(key)
	if err != nil {
		return 0, err
	}
	switch value := value.(type) {
	case float32:
		return float64(value), nil
	case float64:
		return value, nil
	}
	if n, ok := integer(value); ok {
		return float64(n), nil
	}
	return 0, m.wrongKind(key, "a number")
}

// Strings returns an array of strings, which must not be written.
func (m Metadata) Strings(key string) ([]string, error) {
	return scalar[[]string](m, key, "array of strings")
}

// Bools returns an array of truth values, which must not be written.
func (m Metadata) Bools(key string) ([]bool, error) {
	return scalar[[]bool](m, key, "array of bools")
}

// Ints returns an array of whole numbers of any type, if they are ones that an int holds.
func (m Metadata) Ints(key string) ([]int, error) {
	value, err := m.Value(key)
	if err != nil {
		return nil, err
	}
	list, ok := integers(value)
	if !ok {
		return nil, m.wrongKind(key, "array of whole numbers that an int holds")
	}
	return list, nil
}

// Floats returns an array of numbers of any type, rounded to float32.
func (m Metadata) Floats(key string) ([]float32, error) {
	value, err := m.Value(key)
	if err != nil {
		return nil, err
	}
	switch value := value.(type) {
	case []float32:
		return slices.Clone(value), nil
	case []float64:
		return convert[float32](value), nil
	}
	list, ok := integers(value)
	if !ok {
		return nil, m.wrongKind(key, "array of numbers")
	}
	return convert[float32](list), nil
}

// scalar returns a value that must be of one type.
func scalar[T any](m Metadata, key, want string) (T, error) {
	var zero T
	value, err := m.Value(key)
	if err != nil {
		return zero, err
	}
	if v, ok := value.(T); ok {
		return v, nil
	}
	return zero, m.wrongKind(key, want)
}

// integer returns a whole number of any type that an int holds.
func integer(value any) (int, bool) {
	switch n := value.(type) {
	case uint8:
		return int(n), true
	case int8:
		return int(n), true
	case uint16:
		return int(n), true
	case int16:
		return int(n), true
	case int32:
		return int(n), true
	case uint32:
		return int(n), uint64(n) <= math.MaxInt
	case int64:
		return int(n), int64(int(n)) == n
	case uint64:
		return int(n), n <= math.MaxInt
	}
	return 0, false
}

// integers returns the whole numbers of a slice of any type, if an int holds them all.
func integers(value any) ([]int, bool) {
	switch list := value.(type) {
	case []uint8:
		return convert[int](list), true
	case []int8:
		return convert[int](list), true
	case []uint16:
		return convert[int](list), true
	case []int16:
		return convert[int](list), true
	case []int32:
		return convert[int](list), true
	case []uint32:
		return checked(list)
	case []int64:
		return checked(list)
	case []uint64:
		return checked(list)
	}
	return nil, false
}

type number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

func convert[To, From number](list []From) []To {
	out := make([]To, len(list))
	for i, n := range list {
		out[i] = To(n)
	}
	return out
}

// checked is convert to int for types that an int may not hold.
func checked[From uint32 | int64 | uint64](list []From) ([]int, bool) {
	out := convert[int](list)
	for i, n := range list {
		if From(out[i]) != n || (out[i] < 0) != (n < 0) {
			return nil, false
		}
	}
	return out, true
}
