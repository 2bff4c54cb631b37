package lm

import (
	"fmt"
	"testing"

	"helicon/models/tensor"
)

// BenchmarkDecode writes tokens one by one, with a sequence of 256 before them.
func BenchmarkDecode(b *testing.B) {
	for _, d := range []tensor.DType{tensor.BF16, tensor.F32} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("11.5M/%v/threads=%d", d, threads), func(b *testing.B) {
				m := load(b, randomLlama(benchLlama).fsys(b, d), threads)
				s := newState(b, m, benchLlama.context)
				forward(b, m, s, someTokens(256, benchLlama.vocab))
				b.ReportAllocs()
				for b.Loop() {
					if s.Len() == s.Cap() {
						s.Truncate(256)
					}
					forward(b, m, s, []int{s.Len()})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tok/s")
			})
		}
	}
}

// BenchmarkPrefill reads prompts of 256 tokens.
func BenchmarkPrefill(b *testing.B) {
	for _, d := range []tensor.DType{tensor.BF16, tensor.F32} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("11.5M/%v/threads=%d", d, threads), func(b *testing.B) {
				m := load(b, randomLlama(benchLlama).fsys(b, d), threads)
				s := newState(b, m, benchLlama.context)
				prompt := someTokens(256, benchLlama.vocab)
				for b.Loop() {
					s.Truncate(0)
					forward(b, m, s, prompt)
				}
				b.ReportMetric(float64(b.N*len(prompt))/b.Elapsed().Seconds(), "tok/s")
			})
		}
	}
}

// forward returns the logits after tokens.
func forward(t testing.TB, m *Model, s *State, tokens []int) []float32 {
	t.Helper()
	logits, err := m.Forward(t.Context(), s, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}
