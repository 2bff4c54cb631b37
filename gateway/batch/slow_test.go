//go:build slow

package batch_test

import (
	"flag"
	"runtime"
	"testing"
	"time"
)

var slowRows = flag.Int("rows", 100_000, "rows of TestHundredThousand")

// TestHundredThousand: a batch of 100,000 rows ends while gateways are killed, in memory
// that does not grow with the rows.
func TestHundredThousand(t *testing.T) {
	var most uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
		}
	}()
	begun := time.Now()
	killed(t, *slowRows, 10, func() {
		close(stop)
		<-done
	})
	t.Logf("%v, heap of gateways, workers and message server at most %d MiB", time.Since(begun), most>>20)
}
