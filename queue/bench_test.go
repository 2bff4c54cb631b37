package queue

import (
	"sync/atomic"
	"testing"
)

// BenchmarkSubmit measures how fast jobs are accepted: one client waiting for each,
// and 16 at once, with and without a sync to disk before each acknowledgement.
func BenchmarkSubmit(b *testing.B) {
	for name, sync := range map[string]bool{"sync": true, "nosync": false} {
		b.Run(name, func(b *testing.B) {
			srv, err := StartServer(ServerConfig{Dir: b.TempDir(), Sync: sync})
			if err != nil {
				b.Fatal(err)
			}
			defer srv.Close()
			nc, err := srv.Connect()
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			q, err := Open(b.Context(), nc, Options{})
			if err != nil {
				b.Fatal(err)
			}
			one := func() error {
				return q.Submit(b.Context(), &Job{Task: "text.complete", Input: []byte(`{"prompt":"Once upon a time"}`)})
			}
			b.Run("one", func(b *testing.B) {
				for b.Loop() {
					if err := one(); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("many", func(b *testing.B) {
				b.SetParallelism(8)
				var failed atomic.Int32
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if one() != nil {
							failed.Add(1)
						}
					}
				})
				if failed.Load() > 0 {
					b.Fatalf("%d submissions failed", failed.Load())
				}
			})
		})
	}
}
