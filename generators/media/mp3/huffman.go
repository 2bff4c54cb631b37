package mp3

// word is a Huffman code's bits.
type word struct {
	bits   uint32
	length uint8
}

// book is a table of codes, by x·16 + y, or by the four bits of a quadruple.
type book struct {
	number  int
	largest int // value without more bits behind
	words   [256]word
}

// newBooks returns the tables by their number in the standard, those that share codes under
// each of their numbers.
func newBooks() [34]*book {
	var all [34]*book
	for _, c := range codes {
		b := &book{number: c.number}
		next, last := uint32(0), uint8(0)
		for i := range c.lengths {
			symbol, length := digit(c.symbols[2*i])<<4|digit(c.symbols[2*i+1]), digit(c.lengths[i])
			if i > 0 {
				next++
			}
			if length >= last {
				next <<= length - last
			} else {
				next >>= last - length
			}
			last = length
			b.words[symbol] = word{next, length}
			b.largest = max(b.largest, int(symbol>>4))
		}
		all[c.number] = b
	}
	for n := 17; n < 24; n++ {
		all[n] = all[16]
	}
	for n := 25; n < 32; n++ {
		all[n] = all[24]
	}
	return all
}

// digit returns the value of a digit to base 36.
func digit(c byte) uint8 {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// extra is the number of bits that a table has behind values of 15 and more.
var extra = [32]int{16: 1, 17: 2, 18: 3, 19: 4, 20: 6, 21: 8, 22: 10, 23: 13, 24: 4, 25: 5, 26: 6, 27: 7, 28: 8, 29: 9, 30: 11, 31: 13}

// largestValue is the largest that a spectrum may be quantised to.
const largestValue = 15 + 1<<13 - 1

// candidates returns the tables that can write values up to largest, the only ones that can
// be shortest.
func candidates(largest int) []int {
	switch {
	case largest == 0:
		return nil
	case largest == 1:
		return []int{1}
	case largest == 2:
		return []int{2, 3}
	case largest == 3:
		return []int{5, 6}
	case largest <= 5:
		return []int{7, 8, 9}
	case largest <= 7:
		return []int{10, 11, 12}
	case largest <= 15:
		return []int{13, 15}
	}
	pair := make([]int, 0, 2)
	for _, first := range [...]int{16, 24} {
		for n := first; n < first+8; n++ {
			if largest < 15+1<<extra[n] {
				pair = append(pair, n)
				break
			}
		}
	}
	return pair
}

// pairBits returns the bits that pairs of values take in a table.
func (b *book) pairBits(values []int32, extra int) int {
	n := 0
	for i := 0; i < len(values); i += 2 {
		x, y := min(magnitude(values[i]), 15), min(magnitude(values[i+1]), 15)
		n += int(b.words[x<<4|y].length)
		for _, v := range [2]int{x, y} {
			if v > 0 {
				n++ // its sign
			}
			if v == 15 {
				n += extra
			}
		}
	}
	return n
}

func magnitude(v int32) int {
	if v < 0 {
		return int(-v)
	}
	return int(v)
}
