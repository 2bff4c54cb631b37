package gateway_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"helicon/gateway"
	"helicon/gateway/access"
	"helicon/gateway/catalog"
	"helicon/queue"
)

// limitedProblem is the answer to a request that is one too many.
type limitedProblem struct {
	Code     string
	Detail   string
	Violated []string `json:"violated-policies"`
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{Limits: access.Limits{Rate: 0.5, Burst: 3}})
	first, second := g.key(t, "first"), g.key(t, "second")
	for i := range 3 {
		a := g.as(t, first, "GET", "/v1/models", "")
		if left := strconv.Itoa(2 - i); a.Status != 200 || a.Header.Get("RateLimit-Remaining") != left || a.Header.Get("RateLimit-Limit") != "3" {
			t.Fatalf("request %d: %d %v", i, a.Status, a.Header)
		}
		for name, want := range map[string]string{"RateLimit-Policy": `"requests";q=3;w=6`, "RateLimit": fmt.Sprintf(`"requests";r=%d;t=%d`, 2-i, 2*(i+1))} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("request %d: %s: %s, want %s", i, name, got, want)
			}
		}
	}
	a := g.as(t, g.key(t, "first"), "GET", "/v1/models", "") // another key of the same tenant
	var p limitedProblem
	a.JSON(t, 429, &p)
	if p.Code != "rate_limit_exceeded" || len(p.Violated) != 1 || p.Violated[0] != "requests" {
		t.Errorf("%s", a.Body)
	}
	ms, err := strconv.Atoi(a.Header.Get("Retry-After-Ms"))
	if err != nil || ms < 1000 || ms > 2001 || a.Header.Get("Retry-After") != "2" || a.Header.Get("RateLimit-Remaining") != "0" {
		t.Errorf("headers %v, %v", a.Header, err)
	}
	if a := g.as(t, second, "GET", "/v1/models", ""); a.Status != 200 {
		t.Errorf("the other tenant: %d %s", a.Status, a.Body)
	}
	if a := g.Do(t, "GET", "/healthz", ""); a.Status != 200 || a.Header.Get("RateLimit") != "" {
		t.Errorf("what needs no key: %d %v", a.Status, a.Header)
	}
	var told struct{ Error struct{ Type, Code string } }
	a = g.as(t, first, "POST", "/v1/chat/completions", `{}`)
	a.JSON(t, 429, &told)
	if told.Error.Code != "rate_limit_exceeded" || a.Header.Get("X-Should-Retry") != "true" {
		t.Errorf("OpenAI's: %s, %v", a.Body, a.Header)
	}
}

// TestSDKWaits checks that OpenAI's client obeys the limit by itself.
func TestSDKWaits(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{Limits: access.Limits{Rate: 1, Burst: 1}})
	g.Worker(t, "w1", echo)
	var answers [600]atomic.Int32
	client := openai.NewClient(option.WithBaseURL(g.URL+"/v1"), option.WithAPIKey(g.key(t, "acme")), option.WithHTTPClient(g.Client),
		option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
			response, err := next(r)
			if err == nil {
				answers[response.StatusCode].Add(1)
			}
			return response, err
		}))
	start := time.Now()
	for i := range 3 {
		if _, err := client.Completions.New(t.Context(), openai.CompletionNewParams{
			Model: "test-model", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("hello")},
		}); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	if answers[200].Load() != 3 || answers[429].Load() == 0 {
		t.Errorf("%d succeeded and %d were one too many, in %v", answers[200].Load(), answers[429].Load(), time.Since(start))
	}
}

// TestLiveLimits changes limits under a running gateway: those of all by its method, those
// of one tenant in the catalog.
func TestLiveLimits(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{})
	key := g.key(t, "acme")
	limit := func(want string) {
		t.Helper()
		var got string
		for patience := time.Now().Add(5 * time.Second); time.Now().Before(patience); {
			if got = g.as(t, key, "GET", "/v1/models", "").Header.Get("RateLimit-Limit"); got == want {
				return
			}
			time.Sleep(50 * time.Millisecond) // asks again, as a client would
		}
		t.Errorf("the limit is %q after 5 s, want %q", got, want)
	}
	limit("")
	if err := g.Gateway.SetLimits(access.Limits{Rate: 100}); err != nil {
		t.Fatal(err)
	}
	limit("200")
	rate := 300.0
	if err := g.catalog.SetLimits(t.Context(), "acme", catalog.Limits{Rate: &rate}); err != nil {
		t.Fatal(err)
	}
	limit("600")
	if err := g.catalog.UnsetLimits(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	limit("200")
	if err := g.Gateway.SetLimits(access.Limits{Rate: -1}); err == nil {
		t.Error("a negative rate was accepted")
	}
}

func TestJobQuota(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{Limits: access.Limits{Jobs: 5}})
	if err := g.Queue.Define(t.Context(), []queue.Task{{Name: "text.complete", Schema: []byte(`{"type":"object"}`)}}); err != nil {
		t.Fatal(err)
	}
	key := g.key(t, "acme")
	var mu sync.Mutex
	var jobs []queue.Job
	var refused int
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			answer := g.as(t, key, "POST", "/v1/jobs", hello)
			mu.Lock()
			defer mu.Unlock()
			switch answer.Status {
			case 202:
				var job queue.Job
				answer.JSON(t, 202, &job)
				jobs = append(jobs, job)
			case 429:
				refused++
				if !strings.Contains(string(answer.Body), `"violated-policies":["jobs"]`) || answer.Header.Get("Retry-After") != "1" {
					t.Errorf("%s %v", answer.Body, answer.Header)
				}
			default:
				t.Errorf("%d %s", answer.Status, answer.Body)
			}
		})
	}
	wg.Wait()
	if len(jobs) != 5 || refused != 15 {
		t.Fatalf("%d jobs accepted and %d refused, want 5 and 15", len(jobs), refused)
	}
	if a := g.as(t, g.key(t, "other"), "POST", "/v1/jobs", hello); a.Status != 202 {
		t.Errorf("the other tenant: %d %s", a.Status, a.Body)
	}
	if a := g.as(t, key, "POST", "/v1/jobs/"+jobs[0].ID+"/cancel", ""); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	for patience := time.Now().Add(10 * time.Second); ; {
		a := g.as(t, key, "POST", "/v1/jobs/"+jobs[0].ID+"/retry", "")
		if a.Status == 202 {
			break
		}
		if a.Status != 429 || time.Now().After(patience) {
			t.Fatalf("there is room for one more, but: %d %s", a.Status, a.Body)
		}
	}
	if a := g.as(t, key, "POST", "/v1/jobs/"+jobs[0].ID+"/retry", ""); a.Status != 429 {
		t.Errorf("a retry beyond the quota: %d %s", a.Status, a.Body)
	}
}

func TestUploadQuota(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{Limits: access.Limits{Uploads: 1000}})
	key := g.key(t, "acme")
	if a := g.as(t, key, "POST", "/v1/uploads", strings.Repeat("a", 2500), "Content-Type", "text/plain"); a.Status != 201 {
		t.Fatalf("the first: %d %s", a.Status, a.Body)
	}
	var p limitedProblem
	answer := g.as(t, key, "POST", "/v1/uploads", "b", "Content-Type", "text/plain")
	answer.JSON(t, 429, &p)
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil || seconds < 86400 || seconds > 2*86400 || p.Code != "quota_exceeded" || len(p.Violated) != 1 || p.Violated[0] != "uploads" {
		t.Errorf("%v %s", answer.Header, answer.Body)
	}
	if a := g.as(t, g.key(t, "other"), "POST", "/v1/uploads", "b", "Content-Type", "text/plain"); a.Status != 201 {
		t.Errorf("the other tenant: %d %s", a.Status, a.Body)
	}
}
