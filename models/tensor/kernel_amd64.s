//go:build !purego

#include "textflag.h"

// Registers of every dots kernel: DI y, R12 its stride; SI x, R8 its stride, R9 three
// times that; DX w, R10 its stride, R11 three times that; CX columns left.
#define ARGUMENTS \
	MOVQ t+0(FP), AX   \
	MOVQ 0(AX), DI     \
	MOVQ 8(AX), R12    \
	MOVQ 16(AX), SI    \
	MOVQ 24(AX), R8    \
	MOVQ 32(AX), DX    \
	MOVQ 40(AX), R10   \
	MOVQ 48(AX), CX    \
	LEAQ (R8)(R8*2), R9 \
	LEAQ (R10)(R10*2), R11

// Sixteen weights as float32.
#define WIDE_F32(address, z)  VMOVUPS address, z
#define WIDE_F16(address, z)  VCVTPH2PS address, z
#define WIDE_BF16(address, z) \
	VPMOVZXWD address, z \
	VPSLLD    $16, z, z

// Four vectors of sums into four sums, in x0.
#define FOLD512(z, y, x) \
	VEXTRACTF64X4 $1, z, Y30 \
	VADDPS        Y30, y, y  \
	VEXTRACTF32X4 $1, y, X30 \
	VADDPS        X30, x, x

#define ADD4(x0, x1, x2, x3) \
	VHADDPS x1, x0, x0 \
	VHADDPS x3, x2, x2 \
	VHADDPS x2, x0, x0

#define STEP1X4_512(wide, bytes) \
	VMOVUPS     (SI), Z16           \
	wide((DX), Z20)                 \
	wide((DX)(R10*1), Z21)          \
	wide((DX)(R10*2), Z22)          \
	wide((DX)(R11*1), Z23)          \
	VFMADD231PS Z20, Z16, Z0        \
	VFMADD231PS Z21, Z16, Z1        \
	VFMADD231PS Z22, Z16, Z2        \
	VFMADD231PS Z23, Z16, Z3        \
	ADDQ        $64, SI             \
	ADDQ        $bytes, DX          \
	SUBQ        $16, CX

#define START1X4_512 \
	ARGUMENTS          \
	VPXORQ Z0, Z0, Z0  \
	VPXORQ Z1, Z1, Z1  \
	VPXORQ Z2, Z2, Z2  \
	VPXORQ Z3, Z3, Z3  \
	TESTQ  CX, CX

#define END1X4_512 \
	FOLD512(Z0, Y0, X0) \
	FOLD512(Z1, Y1, X1) \
	FOLD512(Z2, Y2, X2) \
	FOLD512(Z3, Y3, X3) \
	ADD4(X0, X1, X2, X3) \
	VMOVUPS X0, (DI) \
	VZEROUPPER

// func dots1x4AVX512F32(t *tile)
TEXT ·dots1x4AVX512F32(SB), NOSPLIT, $0-8
	START1X4_512
	JZ done

loop:
	STEP1X4_512(WIDE_F32, 64)
	JNZ loop

done:
	END1X4_512
	RET

// func dots1x4AVX512F16(t *tile)
TEXT ·dots1x4AVX512F16(SB), NOSPLIT, $0-8
	START1X4_512
	JZ done

loop:
	STEP1X4_512(WIDE_F16, 32)
	JNZ loop

done:
	END1X4_512
	RET

// func dots1x4AVX512BF16(t *tile)
TEXT ·dots1x4AVX512BF16(SB), NOSPLIT, $0-8
	START1X4_512
	JZ done

loop:
	STEP1X4_512(WIDE_BF16, 32)
	JNZ loop

done:
	END1X4_512
	RET

#define ROW4X4(wide, address, a, b, c, d) \
	wide(address, Z20)       \
	VFMADD231PS Z20, Z16, a  \
	VFMADD231PS Z20, Z17, b  \
	VFMADD231PS Z20, Z18, c  \
	VFMADD231PS Z20, Z19, d

#define STEP4X4_512(wide, bytes) \
	VMOVUPS (SI), Z16                                \
	VMOVUPS (SI)(R8*1), Z17                          \
	VMOVUPS (SI)(R8*2), Z18                          \
	VMOVUPS (SI)(R9*1), Z19                          \
	ROW4X4(wide, (DX), Z0, Z4, Z8, Z12)              \
	ROW4X4(wide, (DX)(R10*1), Z1, Z5, Z9, Z13)       \
	ROW4X4(wide, (DX)(R10*2), Z2, Z6, Z10, Z14)      \
	ROW4X4(wide, (DX)(R11*1), Z3, Z7, Z11, Z15)      \
	ADDQ $64, SI                                     \
	ADDQ $bytes, DX                                  \
	SUBQ $16, CX

#define START4X4_512 \
	ARGUMENTS             \
	VPXORQ Z0, Z0, Z0     \
	VPXORQ Z1, Z1, Z1     \
	VPXORQ Z2, Z2, Z2     \
	VPXORQ Z3, Z3, Z3     \
	VPXORQ Z4, Z4, Z4     \
	VPXORQ Z5, Z5, Z5     \
	VPXORQ Z6, Z6, Z6     \
	VPXORQ Z7, Z7, Z7     \
	VPXORQ Z8, Z8, Z8     \
	VPXORQ Z9, Z9, Z9     \
	VPXORQ Z10, Z10, Z10  \
	VPXORQ Z11, Z11, Z11  \
	VPXORQ Z12, Z12, Z12  \
	VPXORQ Z13, Z13, Z13  \
	VPXORQ Z14, Z14, Z14  \
	VPXORQ Z15, Z15, Z15  \
	TESTQ  CX, CX

#define END4X4_512 \
	FOLD512(Z0, Y0, X0)       \
	FOLD512(Z1, Y1, X1)       \
	FOLD512(Z2, Y2, X2)       \
	FOLD512(Z3, Y3, X3)       \
	FOLD512(Z4, Y4, X4)       \
	FOLD512(Z5, Y5, X5)       \
	FOLD512(Z6, Y6, X6)       \
	FOLD512(Z7, Y7, X7)       \
	FOLD512(Z8, Y8, X8)       \
	FOLD512(Z9, Y9, X9)       \
	FOLD512(Z10, Y10, X10)    \
	FOLD512(Z11, Y11, X11)    \
	FOLD512(Z12, Y12, X12)    \
	FOLD512(Z13, Y13, X13)    \
	FOLD512(Z14, Y14, X14)    \
	FOLD512(Z15, Y15, X15)    \
	ADD4(X0, X1, X2, X3)      \
	ADD4(X4, X5, X6, X7)      \
	ADD4(X8, X9, X10, X11)    \
	ADD4(X12, X13, X14, X15)  \
	LEAQ    (R12)(R12*2), R13 \
	VMOVUPS X0, (DI)          \
	VMOVUPS X4, (DI)(R12*1)   \
	VMOVUPS X8, (DI)(R12*2)   \
	VMOVUPS X12, (DI)(R13*1)  \
	VZEROUPPER

// func dots4x4AVX512F32(t *tile)
TEXT ·dots4x4AVX512F32(SB), NOSPLIT, $0-8
	START4X4_512
	JZ done

loop:
	STEP4X4_512(WIDE_F32, 64)
	JNZ loop

done:
	END4X4_512
	RET

// func dots4x4AVX512F16(t *tile)
TEXT ·dots4x4AVX512F16(SB), NOSPLIT, $0-8
	START4X4_512
	JZ done

loop:
	STEP4X4_512(WIDE_F16, 32)
	JNZ loop

done:
	END4X4_512
	RET

// func dots4x4AVX512BF16(t *tile)
TEXT ·dots4x4AVX512BF16(SB), NOSPLIT, $0-8
	START4X4_512
	JZ done

loop:
	STEP4X4_512(WIDE_BF16, 32)
	JNZ loop

done:
	END4X4_512
	RET

#define FOLD256(y, x) \
	VEXTRACTF128 $1, y, X15 \
	VADDPS       X15, x, x

#define STEP1X4_256(wide, bytes) \
	VMOVUPS     (SI), Y8       \
	wide((DX), Y9)             \
	wide((DX)(R10*1), Y10)     \
	wide((DX)(R10*2), Y11)     \
	wide((DX)(R11*1), Y12)     \
	VFMADD231PS Y9, Y8, Y0     \
	VFMADD231PS Y10, Y8, Y1    \
	VFMADD231PS Y11, Y8, Y2    \
	VFMADD231PS Y12, Y8, Y3    \
	ADDQ        $32, SI        \
	ADDQ        $bytes, DX     \
	SUBQ        $8, CX

#define START1X4_256 \
	ARGUMENTS         \
	VXORPS Y0, Y0, Y0 \
	VXORPS Y1, Y1, Y1 \
	VXORPS Y2, Y2, Y2 \
	VXORPS Y3, Y3, Y3 \
	TESTQ  CX, CX

#define END1X4_256 \
	FOLD256(Y0, X0)      \
	FOLD256(Y1, X1)      \
	FOLD256(Y2, X2)      \
	FOLD256(Y3, X3)      \
	ADD4(X0, X1, X2, X3) \
	VMOVUPS X0, (DI)     \
	VZEROUPPER

// func dots1x4AVX2F32(t *tile)
TEXT ·dots1x4AVX2F32(SB), NOSPLIT, $0-8
	START1X4_256
	JZ done

loop:
	STEP1X4_256(WIDE_F32, 32)
	JNZ loop

done:
	END1X4_256
	RET

// func dots1x4AVX2F16(t *tile)
TEXT ·dots1x4AVX2F16(SB), NOSPLIT, $0-8
	START1X4_256
	JZ done

loop:
	STEP1X4_256(WIDE_F16, 16)
	JNZ loop

done:
	END1X4_256
	RET

// func dots1x4AVX2BF16(t *tile)
TEXT ·dots1x4AVX2BF16(SB), NOSPLIT, $0-8
	START1X4_256
	JZ done

loop:
	STEP1X4_256(WIDE_BF16, 16)
	JNZ loop

done:
	END1X4_256
	RET

#define ROW2X4(wide, address, a, b) \
	wide(address, Y10)      \
	VFMADD231PS Y10, Y8, a  \
	VFMADD231PS Y10, Y9, b

#define STEP2X4_256(wide, bytes) \
	VMOVUPS (SI), Y8                     \
	VMOVUPS (SI)(R8*1), Y9               \
	ROW2X4(wide, (DX), Y0, Y4)           \
	ROW2X4(wide, (DX)(R10*1), Y1, Y5)    \
	ROW2X4(wide, (DX)(R10*2), Y2, Y6)    \
	ROW2X4(wide, (DX)(R11*1), Y3, Y7)    \
	ADDQ $32, SI                         \
	ADDQ $bytes, DX                      \
	SUBQ $8, CX

#define START2X4_256 \
	ARGUMENTS         \
	VXORPS Y0, Y0, Y0 \
	VXORPS Y1, Y1, Y1 \
	VXORPS Y2, Y2, Y2 \
	VXORPS Y3, Y3, Y3 \
	VXORPS Y4, Y4, Y4 \
	VXORPS Y5, Y5, Y5 \
	VXORPS Y6, Y6, Y6 \
	VXORPS Y7, Y7, Y7 \
	TESTQ  CX, CX

#define END2X4_256 \
	FOLD256(Y0, X0)         \
	FOLD256(Y1, X1)         \
	FOLD256(Y2, X2)         \
	FOLD256(Y3, X3)         \
	FOLD256(Y4, X4)         \
	FOLD256(Y5, X5)         \
	FOLD256(Y6, X6)         \
	FOLD256(Y7, X7)         \
	ADD4(X0, X1, X2, X3)    \
	ADD4(X4, X5, X6, X7)    \
	VMOVUPS X0, (DI)        \
	VMOVUPS X4, (DI)(R12*1) \
	VZEROUPPER

// func dots2x4AVX2F32(t *tile)
TEXT ·dots2x4AVX2F32(SB), NOSPLIT, $0-8
	START2X4_256
	JZ done

loop:
	STEP2X4_256(WIDE_F32, 32)
	JNZ loop

done:
	END2X4_256
	RET

// func dots2x4AVX2F16(t *tile)
TEXT ·dots2x4AVX2F16(SB), NOSPLIT, $0-8
	START2X4_256
	JZ done

loop:
	STEP2X4_256(WIDE_F16, 16)
	JNZ loop

done:
	END2X4_256
	RET

// func dots2x4AVX2BF16(t *tile)
TEXT ·dots2x4AVX2BF16(SB), NOSPLIT, $0-8
	START2X4_256
	JZ done

loop:
	STEP2X4_256(WIDE_BF16, 16)
	JNZ loop

done:
	END2X4_256
	RET

// Registers of the addWeighted kernels: DI y, SI p, DX x, AX columns left, BX rows,
// R8 stride; R9 walks down the rows of x, R10 along p, R11 counts.

// func addWeightedAVX512(y, p, x *float32, columns, rows, stride int)
TEXT ·addWeightedAVX512(SB), NOSPLIT, $0-48
	MOVQ y+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ x+16(FP), DX
	MOVQ columns+24(FP), AX
	MOVQ rows+32(FP), BX
	MOVQ stride+40(FP), R8

wide:
	CMPQ    AX, $64
	JLT     narrow
	VMOVUPS (DI), Z0
	VMOVUPS 64(DI), Z1
	VMOVUPS 128(DI), Z2
	VMOVUPS 192(DI), Z3
	MOVQ    DX, R9
	MOVQ    SI, R10
	MOVQ    BX, R11

wideRow:
	VBROADCASTSS (R10), Z4
	VFMADD231PS  (R9), Z4, Z0
	VFMADD231PS  64(R9), Z4, Z1
	VFMADD231PS  128(R9), Z4, Z2
	VFMADD231PS  192(R9), Z4, Z3
	ADDQ         R8, R9
	ADDQ         $4, R10
	DECQ         R11
	JNZ          wideRow
	VMOVUPS      Z0, (DI)
	VMOVUPS      Z1, 64(DI)
	VMOVUPS      Z2, 128(DI)
	VMOVUPS      Z3, 192(DI)
	ADDQ         $256, DI
	ADDQ         $256, DX
	SUBQ         $64, AX
	JMP          wide

narrow:
	TESTQ   AX, AX
	JZ      done
	VMOVUPS (DI), Z0
	MOVQ    DX, R9
	MOVQ    SI, R10
	MOVQ    BX, R11

narrowRow:
	VBROADCASTSS (R10), Z4
	VFMADD231PS  (R9), Z4, Z0
	ADDQ         R8, R9
	ADDQ         $4, R10
	DECQ         R11
	JNZ          narrowRow
	VMOVUPS      Z0, (DI)
	ADDQ         $64, DI
	ADDQ         $64, DX
	SUBQ         $16, AX
	JMP          narrow

done:
	VZEROUPPER
	RET

// func addWeightedAVX2(y, p, x *float32, columns, rows, stride int)
TEXT ·addWeightedAVX2(SB), NOSPLIT, $0-48
	MOVQ y+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ x+16(FP), DX
	MOVQ columns+24(FP), AX
	MOVQ rows+32(FP), BX
	MOVQ stride+40(FP), R8

wide:
	CMPQ    AX, $32
	JLT     narrow
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VMOVUPS 64(DI), Y2
	VMOVUPS 96(DI), Y3
	MOVQ    DX, R9
	MOVQ    SI, R10
	MOVQ    BX, R11

wideRow:
	VBROADCASTSS (R10), Y4
	VFMADD231PS  (R9), Y4, Y0
	VFMADD231PS  32(R9), Y4, Y1
	VFMADD231PS  64(R9), Y4, Y2
	VFMADD231PS  96(R9), Y4, Y3
	ADDQ         R8, R9
	ADDQ         $4, R10
	DECQ         R11
	JNZ          wideRow
	VMOVUPS      Y0, (DI)
	VMOVUPS      Y1, 32(DI)
	VMOVUPS      Y2, 64(DI)
	VMOVUPS      Y3, 96(DI)
	ADDQ         $128, DI
	ADDQ         $128, DX
	SUBQ         $32, AX
	JMP          wide

narrow:
	TESTQ   AX, AX
	JZ      done
	VMOVUPS (DI), Y0
	MOVQ    DX, R9
	MOVQ    SI, R10
	MOVQ    BX, R11

narrowRow:
	VBROADCASTSS (R10), Y4
	VFMADD231PS  (R9), Y4, Y0
	ADDQ         R8, R9
	ADDQ         $4, R10
	DECQ         R11
	JNZ          narrowRow
	VMOVUPS      Y0, (DI)
	ADDQ         $32, DI
	ADDQ         $32, DX
	SUBQ         $8, AX
	JMP          narrow

done:
	VZEROUPPER
	RET
