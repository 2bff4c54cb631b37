package lm

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"helicon/models/tensor"
)

// largeLlama has 163 million parameters.
var largeLlama = llamaSize{vocab: 32000, hidden: 1024, layers: 12, heads: 16, kvHeads: 4, headDim: 64, intermediate: 2816, context: 1024}

// BenchmarkDecodeBatch writes texts side by side, each 64 tokens after a prompt of 32
// that is known from the second round on.
func BenchmarkDecodeBatch(b *testing.B) {
	for _, model := range []struct {
		name string
		size llamaSize
	}{{"11.5M", benchLlama}, {"163M", largeLlama}} {
		if testing.Short() && model.size == largeLlama {
			continue
		}
		fsys := randomLlama(model.size).fsys(b, tensor.BF16)
		for _, texts := range []int{1, 4, 16} {
			b.Run(fmt.Sprintf("%s/BF16/%d", model.name, texts), func(b *testing.B) {
				m := load(b, fsys, 2)
				batcher := newBatcher(b, m, BatchOptions{NoLookup: true})
				for b.Loop() {
					writeTexts(b, batcher, texts, 64)
				}
				b.ReportMetric(float64(b.N*texts*64)/b.Elapsed().Seconds(), "tok/s")
			})
		}
	}
}

// writeTexts writes so many texts of so many tokens.
func writeTexts(b *testing.B, batcher *Batcher, texts, tokens int) {
	var group sync.WaitGroup
	for i := range texts {
		prompt := someTokens(33, batcher.model.config.Vocab)
		prompt[0] = i
		n := 0
		group.Go(func() {
			if err := batcher.Generate(b.Context(), prompt, tokens, func([]float32) (int, bool) {
				n++
				return (n*n + i) % batcher.model.config.Vocab, true
			}); err != nil {
				b.Error(err)
			}
		})
	}
	group.Wait()
}

// BenchmarkLookup writes a text with and without speculation: one that repeats itself
// every 40 tokens, and one of 20 words at random, whose pairs recur and mean nothing.
func BenchmarkLookup(b *testing.B) {
	for _, model := range []struct {
		name string
		size llamaSize
	}{{"11.5M", benchLlama}, {"163M", largeLlama}} {
		fsys := randomLlama(model.size).fsys(b, tensor.BF16)
		for _, period := range []int{40, 0} {
			for _, off := range []bool{true, false} {
				b.Run(fmt.Sprintf("%s/period=%d/off=%t", model.name, period, off), func(b *testing.B) {
					m := load(b, fsys, 2)
					batcher := newBatcher(b, m, BatchOptions{NoLookup: off})
					tokens := 300
					for b.Loop() {
						n, random := 0, rand.New(rand.NewPCG(1, 2))
						err := batcher.Generate(b.Context(), someTokens(33, m.config.Vocab), tokens, func([]float32) (int, bool) {
							n++
							if period > 0 {
								return n % period, true
							}
							return random.IntN(20), true
						})
						if err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.N*tokens)/b.Elapsed().Seconds(), "tok/s")
				})
			}
		}
	}
}
