package catalog

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"helicon/queue"
)

var (
	loadJobs = flag.Int("load.jobs", 2000, "jobs in the catalog of TestLoad; a tenth of them waits")
	loadFile = flag.String("load.db", "", "database of TestLoad, kept and used again; a new one each time unless given")
)

// world makes jobs as a busy installation has them: several tasks, models and tenants,
// words as frequent as in a language, one large batch among the oldest, rare tags.
type world struct {
	random *rand.Rand
	zipf   *rand.Zipf
	begin  time.Time
	n      int
}

func newWorld(n int) *world {
	random := rand.New(rand.NewPCG(1, 2))
	return &world{random: random, zipf: rand.NewZipf(random, 1.1, 4, 30_000), begin: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), n: n}
}

func (w *world) text(words int) string {
	out := make([]string, words)
	for i := range out {
		out[i] = fmt.Sprintf("w%d", w.zipf.Uint64())
	}
	return strings.Join(out, " ")
}

// job is the i-th oldest one.
func (w *world) job(i int) *queue.Job {
	created := w.begin.Add(time.Duration(i) * 3 * time.Second)
	id := ulid.ULID{}
	id.SetTime(uint64(created.UnixMilli()))
	for k := range 10 {
		id[6+k] = byte(w.random.Uint32())
	}
	job := &queue.Job{
		ID: id.String(), Tenant: queue.DefaultTenant, Priority: queue.Normal, Seed: w.random.Uint64N(queue.MaxSeed),
		State: queue.Succeeded, Created: created, Revision: uint64(i + 1), Attempts: 1, Worker: "worker-1",
	}
	if i%5 == 4 {
		job.Tenant = fmt.Sprintf("tenant-%d", w.random.IntN(50))
	}
	prompt := w.text(8 + w.random.IntN(25))
	if i%10 == 0 {
		prompt += " 一只戴着帽子的猫在月光下弹钢琴"
	}
	finished := created.Add(time.Duration(1+w.random.IntN(60)) * time.Second)
	job.Started, job.Finished = &created, &finished
	usage := &queue.Usage{InputTokens: 30, OutputTokens: 60, ComputeSeconds: 1.5}
	switch k := w.random.IntN(20); {
	case k < 11:
		job.Task, job.Model = "text.chat", "helicon-text"
		job.Input, _ = json.Marshal(map[string]any{"messages": []any{map[string]any{"role": "user", "content": prompt}}, "temperature": 0.7})
		job.Result = &queue.Result{Text: w.text(40), Usage: usage}
	case k < 19:
		job.Task, job.Model = "image.generate", []string{"sticker", "sd-turbo", "flux"}[w.random.IntN(3)]
		job.Input, _ = json.Marshal(map[string]any{"prompt": prompt, "width": 512, "height": 512})
		job.Result = &queue.Result{Artifacts: []queue.Artifact{{SHA256: strings.Repeat("0a", 32), MediaType: "image/png", Size: 100_000, Width: 512, Height: 512}}}
	default:
		job.Task, job.Model = "audio.speech", "voice"
		job.Input, _ = json.Marshal(map[string]any{"text": prompt, "voice": "anna"})
		job.Result = &queue.Result{Artifacts: []queue.Artifact{{MediaType: "audio/wav", Duration: 12.5}}}
	}
	if i%3 == 0 {
		job.Tags = append(job.Tags, "common")
	}
	if i%(w.n/7) == w.n/14 {
		job.Tags = append(job.Tags, "rare")
		job.Tenant = queue.DefaultTenant
	}
	if i >= w.n/20 && i < w.n/20+w.n/10 {
		job.Batch = "01BATCH0000000000000000000"
		job.Tenant = queue.DefaultTenant
	}
	if w.random.IntN(100) == 0 {
		job.State, job.Result, job.Problem = queue.Failed, nil, &queue.Problem{Code: "invalid_input", Detail: "no"}
	}
	if i >= w.n-w.n/10 {
		job.State, job.Result, job.Problem, job.Started, job.Finished, job.Attempts = queue.Queued, nil, nil, nil, nil, 0
	}
	if i%(w.n/5) == w.n/10-1 {
		job.State, job.Result, job.Problem, job.Finished = queue.Running, nil, nil, nil
	}
	return job
}

// fill projects all jobs of the world and returns how long that took.
func (w *world) fill(t testing.TB, c *Catalog) time.Duration {
	at, err := c.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var spent time.Duration
	for i := int(at.sequence); i < w.n; {
		var events []*queue.Event
		for ; i < w.n && len(events) < 1000; i++ {
			job := w.job(i)
			events = append(events, &queue.Event{Seq: job.Revision, Type: queue.EventSucceeded, JobID: job.ID, Tenant: job.Tenant, Time: job.Created, Job: job})
		}
		to := at
		to.sequence = int64(events[len(events)-1].Seq)
		begun := time.Now()
		if at, err = c.apply(t.Context(), at, to, events); err != nil {
			t.Fatal(err)
		}
		spent += time.Since(begun)
	}
	return spent
}

// loadCases are lists that people ask for, and the worst that they could.
func (w *world) loadCases() []struct {
	name string
	f    Filter
} {
	day := func(part int) time.Time { return w.begin.Add(time.Duration(w.n/100*part) * 3 * time.Second) }
	return []struct {
		name string
		f    Filter
	}{
		{"all", Filter{}},
		{"state queued", Filter{State: queue.Queued}},
		{"state succeeded", Filter{State: queue.Succeeded}},
		{"state failed", Filter{State: queue.Failed}},
		{"state running", Filter{State: queue.Running}},
		{"task", Filter{Task: "image.generate"}},
		{"model", Filter{Model: "flux"}},
		{"tag common", Filter{Tag: "common"}},
		{"tag rare", Filter{Tag: "rare"}},
		{"batch", Filter{Batch: "01BATCH0000000000000000000"}},
		{"task, state and tag", Filter{Task: "text.chat", State: queue.Failed, Tag: "common"}},
		{"batch and failed", Filter{Batch: "01BATCH0000000000000000000", State: queue.Failed}},
		{"batch and running: nothing", Filter{Batch: "01BATCH0000000000000000000", State: queue.Running, Model: "flux"}},
		{"batch and queued: nothing", Filter{Batch: "01BATCH0000000000000000000", State: queue.Queued}},
		{"model of another task: nothing", Filter{Model: "flux", Task: "text.chat"}},
		{"time", Filter{From: day(20), To: day(30)}},
		{"time and task", Filter{From: day(20), To: day(30), Task: "audio.speech"}},
		{"word frequent", Filter{Query: "w0"}},
		{"word common", Filter{Query: "w100"}},
		{"word rare", Filter{Query: "w29999"}},
		{"word unknown", Filter{Query: "nowhere"}},
		{"words frequent", Filter{Query: "w0 w1 w2 w3 w4"}},
		{"words common", Filter{Query: "w100 w200 w300"}},
		{"word and state", Filter{Query: "w0", State: queue.Failed}},
		{"word frequent, tag rare", Filter{Query: "w0", Tag: "rare"}},
		{"word frequent, running", Filter{Query: "w0", State: queue.Running}},
		{"word frequent, batch", Filter{Query: "w1", Batch: "01BATCH0000000000000000000"}},
		{"Chinese", Filter{Query: "月光下弹钢琴"}},
		{"Chinese, one character", Filter{Query: "猫"}},
		{"Chinese and batch", Filter{Query: "月光", Batch: "01BATCH0000000000000000000"}},
	}
}

// measure reads pages of a list, the first ones and deep ones, and returns the times.
func (w *world) measure(t testing.TB, c *Catalog, f Filter) (times []time.Duration, found int, short bool) {
	for range 4 {
		for i := range 5 {
			f.After = ""
			if i > 0 { // a deep page
				f.After = ulid.MustNewDefault(w.begin.Add(time.Duration(w.n/5*i) * 3 * time.Second)).String()
			}
			begun := time.Now()
			page, err := c.Jobs(t.Context(), queue.DefaultTenant, f)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(begun))
			found = max(found, len(page.Jobs))
			short = short || page.Next != "" && len(page.Jobs) < defaultPage
		}
	}
	return times, found, short
}

// TestLoad fills a catalog and reads every kind of list. It only reports: that the pages
// are right is tested elsewhere. For the figures of docs/search.md:
//
//	go test ./gateway/catalog -run TestLoad -v -load.jobs 1000000 -timeout 1h
func TestLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a load test")
	}
	run := func(t *testing.T, c *Catalog) {
		w := newWorld(*loadJobs)
		spent := w.fill(t, c)
		if c.postgres { // as a projection does that runs
			if _, err := c.db.ExecContext(t.Context(), "VACUUM (ANALYZE) jobs, terms"); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d jobs projected in %v: %.0f a second", w.n, spent, float64(w.n)/spent.Seconds())
		var all []time.Duration
		for _, l := range w.loadCases() {
			times, found, short := w.measure(t, c, l.f)
			slices.Sort(times)
			t.Logf("%-32s median %6.2f ms, worst %6.2f ms, %d jobs%s", l.name, ms(times[len(times)/2]), ms(times[len(times)-1]), found, map[bool]string{true: ", short pages"}[short])
			all = append(all, times...)
		}
		slices.Sort(all)
		t.Logf("all pages: median %.2f ms, p99 %.2f ms, worst %.2f ms; memory %d MiB", ms(all[len(all)/2]), ms(all[len(all)*99/100]), ms(all[len(all)-1]), resident())
	}
	t.Run("sqlite", func(t *testing.T) {
		file := *loadFile
		if file == "" {
			file = filepath.Join(t.TempDir(), "catalog.db")
		}
		c := open(t, "sqlite:"+file, Options{})
		run(t, c)
		if about, err := os.Stat(file); err == nil {
			t.Logf("file of %d MiB", about.Size()>>20)
		}
	})
	t.Run("postgres", func(t *testing.T) { run(t, open(t, postgresURL(t), Options{})) })
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// resident is how many MiB of memory the process has, where the system tells.
func resident() int {
	runtime.GC()
	text, _ := os.ReadFile("/proc/self/statm")
	var size, pages int
	fmt.Sscan(string(text), &size, &pages)
	return pages * os.Getpagesize() >> 20
}
