package main

import (
	"bytes"
	"fmt"
	"strings"
)

// asm collects the text of one file of Go assembly. Operands stand in the order of
// the Go assembler: sources first, destination last.
type asm struct {
	text   bytes.Buffer
	labels int
}

// reg is a general register by its Go name.
type reg string

// The general registers. SP is the assembler's, and R14 holds the goroutine.
const (
	AX  reg = "AX"
	BX  reg = "BX"
	CX  reg = "CX"
	DX  reg = "DX"
	SI  reg = "SI"
	DI  reg = "DI"
	BP  reg = "BP"
	R8  reg = "R8"
	R9  reg = "R9"
	R10 reg = "R10"
	R11 reg = "R11"
	R12 reg = "R12"
	R13 reg = "R13"
	R15 reg = "R15"
)

// number returns the register's number in an instruction.
func (r reg) number() int {
	const order = "AX CX DX BX SP BP SI DI R8 R9 R10R11R12R13R14R15"
	at := strings.Index(order, string(r))
	if r == "" || at < 0 {
		panic(fmt.Sprintf("no register %q", string(r)))
	}
	return at / 3
}

// vec is a vector register: kind X, Y or Z for 16, 32 or 64 bytes.
type vec struct {
	kind byte
	n    int
}

func x(n int) vec { return vec{'X', n} }
func y(n int) vec { return vec{'Y', n} }
func z(n int) vec { return vec{'Z', n} }

// as returns the register of the same number and another kind.
func (v vec) as(kind byte) vec { return vec{kind, v.n} }

// bytes returns the register's size.
func (v vec) bytes() int {
	switch v.kind {
	case 'X':
		return 16
	case 'Y':
		return 32
	}
	return 64
}

func (v vec) String() string { return fmt.Sprintf("%c%d", v.kind, v.n) }

// mask is a mask register.
type mask int

func (m mask) String() string { return fmt.Sprintf("K%d", int(m)) }

// mem is the memory at disp + base + index·scale; index may be empty.
type mem struct {
	base  reg
	disp  int
	index reg
	scale int
}

// at is the memory disp bytes from base.
func at(base reg, disp int) mem { return mem{base: base, disp: disp} }

// plus is the memory disp bytes further on.
func (m mem) plus(disp int) mem {
	m.disp += disp
	return m
}

func (m mem) String() string {
	var s strings.Builder
	if m.disp != 0 {
		fmt.Fprintf(&s, "%d", m.disp)
	}
	fmt.Fprintf(&s, "(%s)", m.base)
	if m.index != "" {
		fmt.Fprintf(&s, "(%s*%d)", m.index, m.scale)
	}
	return s.String()
}

func (a *asm) line(format string, args ...any) {
	fmt.Fprintf(&a.text, format, args...)
	a.text.WriteByte('\n')
}

// op writes an instruction. An int operand is an immediate; a string is written as
// it is: an argument such as t+0(FP), a symbol or a label.
func (a *asm) op(name string, operands ...any) {
	var s []string
	for _, o := range operands {
		if i, ok := o.(int); ok {
			s = append(s, fmt.Sprintf("$%d", i))
		} else {
			s = append(s, fmt.Sprint(o))
		}
	}
	a.line("\t%s", strings.TrimSpace(fmt.Sprintf("%s %s", name, strings.Join(s, ", "))))
}

// comment writes a line for the reader of the output.
func (a *asm) comment(format string, args ...any) { a.line("\t// "+format, args...) }

// function begins the function name of a Go signature such as "(t *tile)", whose
// arguments and results take so many bytes. It needs no stack of its own.
func (a *asm) function(name, signature string, argBytes int) {
	a.line("")
	a.line("// func %s%s", name, signature)
	a.line("TEXT ·%s(SB), NOSPLIT, $0-%d", name, argBytes)
}

// load writes moves of the fields of a struct, 8 bytes each in the order given, from
// the pointer that is the function's argument named argument into registers. The
// register through is used for the pointer and may be loaded last.
func (a *asm) load(argument string, through reg, fields ...reg) {
	a.op("MOVQ", argument+"+0(FP)", through)
	for i, r := range fields {
		if r != "" {
			a.op("MOVQ", at(through, 8*i), r)
		}
	}
}

// ret ends a function that has used vectors.
func (a *asm) ret() {
	a.op("VZEROUPPER")
	a.op("RET")
}

// newLabel returns a label that no other is like, to be placed by label.
func (a *asm) newLabel(hint string) string {
	a.labels++
	return fmt.Sprintf("%s%d", hint, a.labels)
}

func (a *asm) label(name string) { a.line("\n%s:", name) }

// loop repeats body count times, counting down; count is at least 1.
func (a *asm) loop(count reg, body func()) {
	top := a.newLabel("loop")
	a.label(top)
	body()
	a.op("DECQ", count)
	a.op("JNZ", top)
}

// constant declares a read-only table of 32-bit words, to be used as ·name(SB).
func (a *asm) constant(name string, words ...uint32) {
	a.line("")
	for i, w := range words {
		a.line("DATA ·%s+%d(SB)/4, $0x%08x", name, 4*i, w)
	}
	a.line("GLOBL ·%s(SB), RODATA|NOPTR, $%d", name, 4*len(words))
}

// zero clears vector registers.
func (a *asm) zero(registers ...vec) {
	for _, v := range registers {
		if v.kind == 'Z' {
			a.op("VPXORD", v, v, v)
		} else {
			a.op("VXORPS", v, v, v)
		}
	}
}
