//go:build !purego

#include "textflag.h"

// The loops multiply and add into accumulators of their own, enough of them that no
// instruction waits for the one before it: what is left is the rate of the units.

#define EACH16Z(op) \
	op(Z0); op(Z1); op(Z2); op(Z3);     \
	op(Z4); op(Z5); op(Z6); op(Z7);     \
	op(Z8); op(Z9); op(Z10); op(Z11);   \
	op(Z12); op(Z13); op(Z14); op(Z15)

#define ZERO512(z) VPXORQ z, z, z
#define FMA512(z) VFMADD231PS Z31, Z30, z
#define DOT8512(z) VPDPBUSD Z31, Z30, z

// func peakF32AVX512(n int)
// n rounds of 16 fused multiplications and additions of 16 float32.
TEXT ·peakF32AVX512(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
	EACH16Z(ZERO512)
	ZERO512(Z30)
	ZERO512(Z31)

loop:
	EACH16Z(FMA512)
	SUBQ $1, CX
	JNZ  loop
	VZEROUPPER
	RET

// func peakInt8AVX512(n int)
// n rounds of 16 VPDPBUSD: 64 products and sums each.
TEXT ·peakInt8AVX512(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
	EACH16Z(ZERO512)
	ZERO512(Z30)
	ZERO512(Z31)

loop:
	EACH16Z(DOT8512)
	SUBQ $1, CX
	JNZ  loop
	VZEROUPPER
	RET

// VDPBF16PS Z31, Z30, Zr, which the assembler does not know, for r below 8 and from 8
// on: EVEX.512.F3.0F38.W0 52 /r.
#define DOTBF16LOW(r)  LONG $0x400e9262; WORD $(0xc752 + r*0x0800)
#define DOTBF16HIGH(r) LONG $0x400e1262; WORD $(0xc752 + r*0x0800)

// func peakBF16AVX512(n int)
// n rounds of 16 VDPBF16PS: 32 products and sums each.
TEXT ·peakBF16AVX512(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
	EACH16Z(ZERO512)
	ZERO512(Z30)
	ZERO512(Z31)

loop:
	DOTBF16LOW(0)
	DOTBF16LOW(1)
	DOTBF16LOW(2)
	DOTBF16LOW(3)
	DOTBF16LOW(4)
	DOTBF16LOW(5)
	DOTBF16LOW(6)
	DOTBF16LOW(7)
	DOTBF16HIGH(0)
	DOTBF16HIGH(1)
	DOTBF16HIGH(2)
	DOTBF16HIGH(3)
	DOTBF16HIGH(4)
	DOTBF16HIGH(5)
	DOTBF16HIGH(6)
	DOTBF16HIGH(7)
	SUBQ $1, CX
	JNZ  loop
	VZEROUPPER
	RET

// func peakBF16Tiles(c *tileConfig, n int)
// n rounds of 4 TDPBF16PS of whole tiles: 16·16·32 products and sums each.
TEXT ·peakBF16Tiles(SB), NOSPLIT, $0-16
	MOVQ c+0(FP), AX
	MOVQ n+8(FP), CX
	BYTE $0xc4; BYTE $0xe2; BYTE $0x78; BYTE $0x49; BYTE $0x00 // LDTILECFG (AX), which clears the tiles

loop:
	BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5c; BYTE $0xc6 // TDPBF16PS TMM7, TMM6, TMM0
	BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5c; BYTE $0xce // TDPBF16PS TMM7, TMM6, TMM1
	BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5c; BYTE $0xd6 // TDPBF16PS TMM7, TMM6, TMM2
	BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5c; BYTE $0xde // TDPBF16PS TMM7, TMM6, TMM3
	SUBQ $1, CX
	JNZ  loop
	BYTE $0xc4; BYTE $0xe2; BYTE $0x78; BYTE $0x49; BYTE $0xc0 // TILERELEASE
	RET

#define EACH12Y(op) \
	op(Y0); op(Y1); op(Y2); op(Y3);   \
	op(Y4); op(Y5); op(Y6); op(Y7);   \
	op(Y8); op(Y9); op(Y10); op(Y11)

#define ZERO256(y) VPXOR y, y, y
#define FMA256(y) VFMADD231PS Y15, Y14, y

// func peakF32AVX2(n int)
// n rounds of 12 fused multiplications and additions of 8 float32.
TEXT ·peakF32AVX2(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
	EACH12Y(ZERO256)
	ZERO256(Y14)
	ZERO256(Y15)

loop:
	EACH12Y(FMA256)
	SUBQ $1, CX
	JNZ  loop
	VZEROUPPER
	RET

// Products of 32 bytes: to 16 bits in pairs, to 32 bits, to the accumulator.
#define DOT8256(y, t) \
	VPMADDUBSW Y15, Y14, t \
	VPMADDWD   Y13, t, t   \
	VPADDD     t, y, y

// func peakInt8AVX2(n int)
// n rounds of 6 times 32 products and sums of bytes.
TEXT ·peakInt8AVX2(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
	EACH12Y(ZERO256)
	ZERO256(Y13)
	ZERO256(Y14)
	ZERO256(Y15)

loop:
	DOT8256(Y0, Y6)
	DOT8256(Y1, Y7)
	DOT8256(Y2, Y8)
	DOT8256(Y3, Y9)
	DOT8256(Y4, Y10)
	DOT8256(Y5, Y11)
	SUBQ $1, CX
	JNZ  loop
	VZEROUPPER
	RET

// func peakReadAVX512(p *byte, n int)
// Reads n bytes, a multiple of 512 and not 0, in four streams side by side, which
// processors fetch ahead better than one.
TEXT ·peakReadAVX512(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ CX, DX
	SHRQ $2, DX
	LEAQ (SI)(DX*2), DI

loop:
	VMOVDQU64 (SI), Z0
	VMOVDQU64 64(SI), Z1
	VMOVDQU64 (SI)(DX*1), Z2
	VMOVDQU64 64(SI)(DX*1), Z3
	VMOVDQU64 (DI), Z4
	VMOVDQU64 64(DI), Z5
	VMOVDQU64 (DI)(DX*1), Z6
	VMOVDQU64 64(DI)(DX*1), Z7
	ADDQ      $128, SI
	ADDQ      $128, DI
	SUBQ      $512, CX
	JNZ       loop
	VZEROUPPER
	RET

// func peakReadAVX2(p *byte, n int)
// As peakReadAVX512.
TEXT ·peakReadAVX2(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ CX, DX
	SHRQ $2, DX
	LEAQ (SI)(DX*2), DI

loop:
	VMOVDQU (SI), Y0
	VMOVDQU 32(SI), Y1
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y3
	VMOVDQU (SI)(DX*1), Y4
	VMOVDQU 32(SI)(DX*1), Y5
	VMOVDQU 64(SI)(DX*1), Y6
	VMOVDQU 96(SI)(DX*1), Y7
	VMOVDQU (DI), Y8
	VMOVDQU 32(DI), Y9
	VMOVDQU 64(DI), Y10
	VMOVDQU 96(DI), Y11
	VMOVDQU (DI)(DX*1), Y12
	VMOVDQU 32(DI)(DX*1), Y13
	VMOVDQU 64(DI)(DX*1), Y14
	VMOVDQU 96(DI)(DX*1), Y15
	ADDQ    $128, SI
	ADDQ    $128, DI
	SUBQ    $512, CX
	JNZ     loop
	VZEROUPPER
	RET
