package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"helicon/queue"
)

// story projects events of jobs, one after the other.
type story struct {
	t *testing.T
	c *Catalog
	n uint64 // sequence of the last event
}

var morning = time.Date(2026, 3, 24, 8, 0, 0, 0, time.UTC)

// job returns a job that was accepted some seconds after the morning began.
func (s *story) job(second int, prompt string) *queue.Job {
	created := morning.Add(time.Duration(second) * time.Second)
	input, err := json.Marshal(map[string]any{"prompt": prompt})
	if err != nil {
		s.t.Fatal(err)
	}
	return &queue.Job{
		ID: ulid.MustNew(ulid.Timestamp(created), ulid.DefaultEntropy()).String(), Tenant: queue.DefaultTenant,
		Task: "text.chat", State: queue.Queued, Input: input, Priority: queue.Normal, Created: created,
	}
}

// tell projects events that leave the jobs as they are.
func (s *story) tell(jobs ...*queue.Job) {
	s.t.Helper()
	var events []*queue.Event
	for _, job := range jobs {
		s.n++
		job.Revision = s.n
		told := *job
		types := map[queue.State]queue.EventType{queue.Running: queue.EventStarted}
		eventType, ok := types[job.State]
		if !ok {
			eventType = queue.EventType(job.State)
		}
		events = append(events, &queue.Event{Seq: s.n, Type: eventType, JobID: job.ID, Tenant: job.Tenant, Time: job.Created, Job: &told})
	}
	s.apply(events...)
}

func (s *story) apply(events ...*queue.Event) {
	s.t.Helper()
	at, err := s.c.position(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	to := at
	to.sequence = int64(events[len(events)-1].Seq)
	if _, err := s.c.apply(s.t.Context(), at, to, events); err != nil {
		s.t.Fatal(err)
	}
}

// end makes the job a succeeded one.
func end(job *queue.Job, text string) *queue.Job {
	finished := job.Created.Add(time.Minute)
	job.State, job.Finished = queue.Succeeded, &finished
	job.Result = &queue.Result{Text: text, Usage: &queue.Usage{InputTokens: 10, OutputTokens: 20, ComputeSeconds: 0.5}}
	return job
}

// list returns the ids of all pages.
func (s *story) list(tenant string, f Filter) []string {
	s.t.Helper()
	var ids []string
	for range 1000 {
		page, err := s.c.Jobs(s.t.Context(), tenant, f)
		if err != nil {
			s.t.Fatalf("%+v: %v", f, err)
		}
		for _, job := range page.Jobs {
			ids = append(ids, job.ID)
		}
		if page.Next == "" {
			return ids
		}
		f.After = page.Next
	}
	s.t.Fatalf("%+v: pages without end", f)
	return nil
}

func (s *story) want(f Filter, jobs ...*queue.Job) {
	s.t.Helper()
	var ids []string
	for _, job := range jobs {
		ids = append(ids, job.ID)
	}
	if got := s.list(queue.DefaultTenant, f); !slices.Equal(got, ids) {
		s.t.Errorf("%+v: got %d jobs %.60s, want %d %.60s", f, len(got), got, len(ids), ids)
	}
}

func TestListsAreFiltered(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		a := s.job(1, "a red fox")
		a.Tags, a.Batch, a.Model = []string{"animals", "red'; DROP TABLE jobs"}, "batch-1", "m1"
		b := s.job(2, "a red car")
		b.Task, b.Pipeline, b.Model = "image.generate", "pipe", "m2"
		d := s.job(2, "the same second")
		d.Tags, d.State = []string{"animals", "Ä ö"}, queue.Failed
		foreign := s.job(3, "a red secret")
		foreign.Tenant, foreign.Batch = "other", "batch-1"
		s.tell(a, b, d, foreign)
		end(b, "")
		running := s.job(4, "in work")
		running.State = queue.Running
		s.tell(b, running)

		s.want(Filter{}, running, d, b, a)
		s.want(Filter{Limit: 1}, running, d, b, a)
		s.want(Filter{State: queue.Queued}, a)
		s.want(Filter{State: queue.Running}, running)
		s.want(Filter{State: queue.Succeeded}, b)
		s.want(Filter{State: queue.Canceled})
		s.want(Filter{Task: "text.chat"}, running, d, a)
		s.want(Filter{Task: "text"})
		s.want(Filter{Model: "m1"}, a)
		s.want(Filter{Tag: "animals"}, d, a)
		s.want(Filter{Tag: "animal"})
		s.want(Filter{Tag: "Ä ö"}, d)
		s.want(Filter{Tag: "red'; DROP TABLE jobs"}, a)
		s.want(Filter{Batch: "batch-1"}, a)
		s.want(Filter{Pipeline: "pipe"}, b)
		s.want(Filter{Tag: "animals", State: queue.Failed, Task: "text.chat"}, d)
		s.want(Filter{Tag: "animals", Task: "image.generate"})
		s.want(Filter{From: morning.Add(2 * time.Second)}, running, d, b)
		s.want(Filter{From: morning.Add(2 * time.Second), To: morning.Add(4 * time.Second)}, d, b)
		s.want(Filter{To: morning.Add(2 * time.Second)}, a)
		s.want(Filter{Query: "red"}, b, a)
		s.want(Filter{Query: "red", Task: "image.generate", State: queue.Succeeded}, b)
		s.want(Filter{Query: "secret"})
		if got := s.list("other", Filter{Batch: "batch-1"}); !slices.Equal(got, []string{foreign.ID}) {
			t.Errorf("the other tenant sees %v", got)
		}
		if got := s.list("nobody", Filter{}); got != nil {
			t.Errorf("nobody sees %v", got)
		}

		job, err := c.Job(t.Context(), queue.DefaultTenant, b.ID)
		if err != nil || job.State != queue.Succeeded || job.Revision != b.Revision || !job.Created.Equal(b.Created) || string(job.Input) != string(b.Input) {
			t.Errorf("job %+v, %v", job, err)
		}
		if _, err := c.Job(t.Context(), "other", b.ID); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("a foreign job: %v", err)
		}
	})
}

func TestSearch(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		prompts := map[string]*queue.Job{}
		for i, prompt := range []string{
			`A "quoted" title: don't panic`,
			`一只戴着帽子的猫在月光下弹钢琴`,
			`月下独酌，花间一壶酒`,
			`NOT near OR far AND away* (c++) -minus ^x col:umn`,
			`Crème brûlée, ΑΘΗΝΑ, Straße`,
			`rocket 🚀 and family 👨‍👩‍👧 ❤️`,
			`ｆｕｌｌｗｉｄｔｈ ﬁne カタカナ ｶﾀｶﾅ`,
			`한국어를 배우는 고양이`,
			`สวัสดีครับ แมว`,
			`null \u0000 and <b>tags</b> C:\path\to {"json":"inside"}`,
			strings.Repeat("x", 300) + "end " + "shortword",
		} {
			job := s.job(i, prompt)
			prompts[prompt[:1]+fmt.Sprint(i)] = job
			prompts[fmt.Sprint(i)] = job
			s.tell(job)
		}
		answered := s.job(100, "tell me about it")
		s.tell(answered)
		s.want(Filter{Query: "zebra"})
		end(answered, "Ein Zebra läuft. 斑马在草原上。")
		s.tell(answered)
		data := s.job(101, "")
		data.Input = json.RawMessage(`{"messages":[{"role":"user","content":[{"type":"text","text":"deep inside"}]}],"image":"` + strings.Repeat("QUJD", 100) + `","nested":{"seed":7,"note":"escaped \"quote\" \u732b"}}`)
		s.tell(data)

		for _, q := range []struct {
			query string
			found []int // of the prompts, newest first; 100 and 101 for the others
		}{
			{`quoted`, []int{0}}, {`"quoted title"`, []int{0}}, {`PANIC`, []int{0}}, {`don't`, []int{0}}, {`title quoted panic`, []int{0}},
			{`quot`, nil}, {`quoted AND missing`, nil},
			{`猫`, []int{101, 1}}, {`帽子`, []int{1}}, {`月光下`, []int{1}}, {`月`, []int{2, 1}}, {`光月`, nil}, {`独酌 花间`, []int{2}}, {`钢琴！`, []int{1}}, {`草原`, []int{100}},
			{`NOT`, []int{3}}, {`OR`, []int{3}}, {`near`, []int{3}}, {`away*`, []int{3}}, {`(c++)`, []int{9, 3}}, {`-minus`, []int{3}}, {`col:umn`, []int{3}}, {`^x`, []int{3}}, {`NEAR(near far)`, []int{3}}, {`aw*`, nil},
			{`creme BRULEE`, []int{4}}, {`crème`, []int{4}}, {`αθηνα`, []int{4}}, {`straße`, []int{4}},
			{`🚀`, []int{5}}, {`👨‍👩‍👧`, []int{5}}, {`👧`, []int{5}}, {`❤`, []int{5}}, {`❤️`, []int{5}}, {`🚁`, nil},
			{`fullwidth`, []int{6}}, {`fine`, []int{6}}, {`ｶﾀｶﾅ`, []int{6}}, {`カタカナ`, []int{6}},
			{`고양이`, []int{7}}, {`배우`, []int{7}}, {`แมว`, []int{8}},
			{`path`, []int{9}}, {`{"json"}`, []int{9}}, {`'; DROP TABLE jobs; --`, nil}, {`inside`, []int{101, 9}},
			{`shortword`, []int{10}}, {strings.Repeat("x", 80), []int{10}}, {strings.Repeat("X", 300), []int{10}},
			{`zebra`, []int{100}}, {`Läuft about`, []int{100}},
			{`deep`, []int{101}}, {`QUJD`, nil}, {`messages`, nil}, {`user`, []int{101}}, {`escaped quote`, []int{101}},
		} {
			var want []*queue.Job
			for _, i := range q.found {
				switch i {
				case 100:
					want = append(want, answered)
				case 101:
					want = append(want, data)
				default:
					want = append(want, prompts[fmt.Sprint(i)])
				}
			}
			s.want(Filter{Query: q.query}, want...)
		}
		var manyWords strings.Builder
		for i := range maxQueryTerms + 1 {
			fmt.Fprintf(&manyWords, "w%d ", i)
		}
		var problem *queue.Problem
		for _, nothing := range []string{"!!!", "   ", `"'*()`, manyWords.String()} {
			if _, err := c.Jobs(t.Context(), queue.DefaultTenant, Filter{Query: nothing}); !errors.As(err, &problem) {
				t.Errorf("%q: %v, want a problem", nothing, err)
			}
		}
	})
}

func TestPagesAreStable(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		var jobs []*queue.Job // newest first
		for i := range 10 {
			job := s.job(i, "word")
			s.tell(job)
			jobs = append([]*queue.Job{job}, jobs...)
		}
		first, err := c.Jobs(t.Context(), queue.DefaultTenant, Filter{Query: "word", Limit: 3})
		if err != nil || len(first.Jobs) != 3 || first.Next != jobs[2].ID {
			t.Fatalf("%+v, %v", first, err)
		}
		late := s.job(100, "word")
		s.tell(late, end(jobs[1], "x"), end(jobs[5], "y")) // new ones and changes
		s.want(Filter{Query: "word", After: first.Next, Limit: 3}, jobs[3:]...)
		// The job that the page ended with is gone: the next page goes on behind it.
		if err := c.Delete(t.Context(), queue.DefaultTenant, first.Next, queue.EventLog{Last: s.n}); err != nil {
			t.Fatal(err)
		}
		s.want(Filter{After: first.Next}, jobs[3:]...)
		s.want(Filter{Query: "word", After: jobs[9].ID})
		exact, err := c.Jobs(t.Context(), queue.DefaultTenant, Filter{Limit: 10})
		if err != nil || len(exact.Jobs) != 10 || exact.Next != "" {
			t.Errorf("a page that holds all: %d jobs, next %q, %v", len(exact.Jobs), exact.Next, err)
		}
		var problem *queue.Problem
		if _, err := c.Jobs(t.Context(), queue.DefaultTenant, Filter{After: "nonsense"}); !errors.As(err, &problem) {
			t.Errorf("after nonsense: %v", err)
		}
	})
}

// A page that takes too long is made of the next jobs only.
func TestPagesThatTakeLong(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		var jobs []*queue.Job
		for i := range 5 {
			jobs = append(jobs, s.job(i, "word"))
		}
		s.tell(jobs...)
		near := func(f Filter, window int) Page {
			t.Helper()
			selected, err := c.selection(t.Context(), queue.DefaultTenant, f)
			if err != nil {
				t.Fatal(err)
			}
			var page Page
			if err := c.near(t.Context(), selected, &page, window); err != nil {
				t.Fatal(err)
			}
			return page
		}
		if page := near(Filter{Query: "word", Limit: 2}, 3); len(page.Jobs) != 2 || page.Next != jobs[3].ID {
			t.Errorf("a full page: %+v", page)
		}
		if page := near(Filter{Query: "missing", Limit: 2}, 3); len(page.Jobs) != 0 || page.Next != jobs[1].ID {
			t.Errorf("an empty page that is not the last: %+v", page)
		}
		if page := near(Filter{Query: "missing", Limit: 2}, 5); len(page.Jobs) != 0 || page.Next != "" {
			t.Errorf("the last page: %+v", page)
		}
		// A page that ended at a time is followed by the one that begins there.
		s.want(Filter{Query: "word", After: cursor(align(numAt(jobs[3].Created)))}, jobs[2], jobs[1], jobs[0])
		s.want(Filter{Query: "word", After: cursor(align(numAt(jobs[3].Created.Add(time.Millisecond))))}, jobs[3], jobs[2], jobs[1], jobs[0])
	})
}

func TestLargeJobsEndAPage(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		for i := range 4 {
			s.tell(s.job(i, strings.Repeat("word ", 1600<<10)))
		}
		page, err := c.Jobs(t.Context(), queue.DefaultTenant, Filter{})
		if err != nil || len(page.Jobs) != 3 || page.Next == "" {
			t.Errorf("%d jobs, next %q, %v", len(page.Jobs), page.Next, err)
		}
		if all := s.list(queue.DefaultTenant, Filter{Query: "word"}); len(all) != 4 {
			t.Errorf("found %d", len(all))
		}
	})
}

func TestProjectionIsIdempotent(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		job := s.job(1, "once")
		s.tell(job)
		queued := *job
		running := *job
		running.State = queue.Running
		s.tell(&running)
		s.tell(end(job, "done"))
		sum := func() Usage {
			sums, err := c.Usage(t.Context(), UsageFilter{From: morning, To: morning})
			if err != nil || len(sums) != 1 {
				t.Fatalf("%v, %v", sums, err)
			}
			return sums[0]
		}
		if u := sum(); u.Jobs != 1 || u.OutputTokens != 20 {
			t.Errorf("usage %+v", u)
		}
		// From the start again, as after a rebuild, and in pieces.
		if n, err := c.Rebuild(t.Context()); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		s.apply(&queue.Event{Seq: 1, Type: queue.EventQueued, JobID: job.ID, Job: &queued})
		s.want(Filter{State: queue.Succeeded}, job) // what has ended stays so
		s.apply(&queue.Event{Seq: 2, Type: queue.EventStarted, JobID: job.ID, Job: &running}, &queue.Event{Seq: 3, Type: queue.EventSucceeded, JobID: job.ID, Job: job})
		s.want(Filter{State: queue.Succeeded, Query: "done"}, job)
		s.want(Filter{State: queue.Queued})
		if u := sum(); u.Jobs != 1 || u.OutputTokens != 20 {
			t.Errorf("usage after a rebuild %+v", u)
		}
		// Another process that is behind must not move the projection back.
		at, err := c.position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		old := at
		old.sequence = 1
		to := old
		to.sequence = 2
		if _, err := c.apply(t.Context(), old, to, []*queue.Event{{Seq: 2, Type: queue.EventStarted, JobID: job.ID, Job: &running}}); !errors.Is(err, errMoved) {
			t.Errorf("projecting from an old position: %v", err)
		}
		if now, err := c.position(t.Context()); err != nil || now != at {
			t.Errorf("position %+v, %v, was %+v", now, err, at)
		}
	})
}

func TestUnreadableAndForeignEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		job := s.job(1, "fine")
		job.Revision = 3
		s.apply(&queue.Event{Seq: 1}, &queue.Event{Seq: 2, Type: queue.EventProgress, JobID: job.ID}, &queue.Event{Seq: 3, Type: queue.EventQueued, JobID: job.ID, Job: job})
		s.want(Filter{Query: "fine"}, job)
	})
}

func TestUsage(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		chat := end(s.job(1, "a"), "b")
		chat.Model = "m"
		image := end(s.job(86400, "a"), "")
		image.Task, image.Model = "image.generate", "sd"
		image.Result.Artifacts = []queue.Artifact{{MediaType: "image/png", Width: 512, Height: 256}, {MediaType: "video/mp4", Width: 10, Height: 10, Duration: 2.5}}
		failed := s.job(2, "a")
		failed.State, failed.Model = queue.Failed, "m"
		canceled := s.job(3, "a")
		canceled.State, canceled.Tenant = queue.Canceled, "other"
		batch := end(s.job(4, "a"), "")
		batch.Task = "batch.run"
		waiting := s.job(5, "a")
		s.tell(chat, image, failed, canceled, batch, waiting)
		s.tell(image) // told twice
		usage := func(f UsageFilter) []Usage {
			t.Helper()
			if f.To.IsZero() {
				f.To = morning.AddDate(0, 0, 30)
			}
			sums, err := c.Usage(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			return sums
		}
		check := func(got []Usage, want ...Usage) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		}
		texts := Usage{Jobs: 2, Succeeded: 1, Failed: 1, InputTokens: 10, OutputTokens: 20, ComputeSeconds: 0.5}
		images := Usage{Jobs: 1, Succeeded: 1, InputTokens: 10, OutputTokens: 20, ComputeSeconds: 0.5, Pixels: 512 * 256, MediaSeconds: 2.5}
		byTask := func(u Usage, task string) Usage { u.Task = task; return u }
		byDay := func(u Usage, day string) Usage { u.Day = day; return u }
		check(usage(UsageFilter{Tenant: queue.DefaultTenant, By: []string{"task"}}), byTask(images, "image.generate"), byTask(texts, "text.chat"))
		check(usage(UsageFilter{Tenant: queue.DefaultTenant, By: []string{"task", "day"}}),
			byDay(byTask(texts, "text.chat"), "2026-03-24"), byDay(byTask(images, "image.generate"), "2026-03-25"))
		check(usage(UsageFilter{Tenant: queue.DefaultTenant, From: morning.AddDate(0, 0, 1), By: []string{"day"}}), byDay(images, "2026-03-25"))
		check(usage(UsageFilter{Tenant: queue.DefaultTenant, To: morning, By: []string{"model"}}), func() Usage { u := texts; u.Model = "m"; return u }())
		check(usage(UsageFilter{Tenant: "other"}), Usage{Jobs: 1, Canceled: 1})
		check(usage(UsageFilter{Tenant: "nobody"}), Usage{})
		check(usage(UsageFilter{Tenant: "nobody", By: []string{"day"}}))
		if all := usage(UsageFilter{By: []string{"tenant"}}); len(all) != 2 || all[0].Tenant != queue.DefaultTenant || all[0].Jobs != 3 {
			t.Errorf("by tenant: %+v", all)
		}
		if err := c.Delete(t.Context(), queue.DefaultTenant, chat.ID, queue.EventLog{Last: s.n}); err != nil {
			t.Fatal(err)
		}
		check(usage(UsageFilter{Tenant: queue.DefaultTenant, To: morning}), texts)
	})
}

func TestDeletedJobsStayAway(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		job, late := end(s.job(1, "gone"), "x"), end(s.job(2, "gone"), "y")
		s.tell(job)
		// The second one's events are on their way when it is deleted.
		for _, id := range []string{job.ID, late.ID} {
			if err := c.Delete(t.Context(), queue.DefaultTenant, id, queue.EventLog{Last: s.n + 1}); err != nil {
				t.Fatal(err)
			}
		}
		s.tell(late)
		s.want(Filter{})
		s.want(Filter{Query: "gone"})
		other := s.job(3, "other")
		s.tell(other)
		at, err := c.position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.tidy(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		var marks int
		if err := c.read.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM deleted").Scan(&marks); err != nil || marks != 0 {
			t.Errorf("%d marks are left, %v", marks, err)
		}
	})
}

func TestOldJobsAge(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		c.opts.Keep = time.Since(morning.Add(1000 * time.Second))
		var kept []*queue.Job
		for i := range 250 {
			s.tell(end(s.job(i, "old"), "x"))
		}
		waits := s.job(300, "old")
		young := end(s.job(3000, "young"), "x")
		s.tell(waits, young)
		if err := c.tidy(t.Context(), position{}); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, young, waits)
		s.want(Filter{}, kept...)
		s.want(Filter{Query: "old"}, waits)
		sums, err := c.Usage(t.Context(), UsageFilter{From: morning, To: morning})
		if err != nil || sums[0].Succeeded != 251 {
			t.Errorf("usage %+v, %v", sums, err)
		}
	})
}

// Jobs of one moment have numbers of their own.
func TestManyJobsOfOneMoment(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		s := &story{t: t, c: c}
		for range 3 {
			var jobs []*queue.Job
			for range 90 {
				jobs = append(jobs, s.job(1, "same"))
			}
			s.tell(jobs...)
		}
		if all := s.list(queue.DefaultTenant, Filter{Query: "same", Limit: 7}); len(slices.Compact(slices.Sorted(slices.Values(all)))) != 270 {
			t.Errorf("listed %d different jobs", len(all))
		}
	})
}
