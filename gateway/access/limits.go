package access

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// Limits are what one tenant may do at most; 0 is no limit. Each gateway counts requests
// and uploads for itself, and unfinished jobs for all.
type Limits struct {
	Rate    float64 // requests a second, in the long run
	Burst   int     // requests at once before Rate holds; 0: those of two seconds
	Jobs    int     // jobs that have not ended
	Uploads int64   // bytes a day
}

// Validate reports limits that mean nothing.
func (l Limits) Validate() error {
	if !(l.Rate >= 0 && l.Rate <= MaxRate) || l.Burst < 0 || l.Jobs < 0 || l.Uploads < 0 {
		return fmt.Errorf("limits: want 0 or more, and a rate of at most %d", MaxRate)
	}
	return nil
}

// MaxRate is the largest limit on requests a second.
const MaxRate = 1_000_000

// burst is how many requests may come at once.
func (l Limits) burst() int {
	return max(1, cmp.Or(l.Burst, int(math.Ceil(2*l.Rate))))
}

// with returns the limits with those that are set for one tenant.
func (l Limits) with(own catalog.Limits) Limits {
	if own.Rate != nil {
		l.Rate, l.Burst = *own.Rate, 0 // another rate makes the common burst meaningless
	}
	if own.Burst != nil {
		l.Burst = *own.Burst
	}
	if own.Jobs != nil {
		l.Jobs = *own.Jobs
	}
	if own.Uploads != nil {
		l.Uploads = *own.Uploads
	}
	return l
}

// Limiter holds every tenant to his limits. Its methods may be called concurrently.
type Limiter struct {
	catalog  *catalog.Catalog // nil: no tenant has limits of his own
	common   atomic.Pointer[Limits]
	accounts *recent[string, *allowance]
}

// maxAllowances bounds the memory for tenants; whoever is forgotten begins anew.
const maxAllowances = 1 << 14

// NewLimiter returns a Limiter with the limits of the tenants that have none of their own
// in the catalog, which may be nil.
func NewLimiter(common Limits, c *catalog.Catalog) *Limiter {
	l := &Limiter{catalog: c, accounts: newRecent[string, *allowance](maxAllowances)}
	l.common.Store(&common)
	return l
}

// Set changes the limits of the tenants that have none of their own. It takes effect
// within seconds.
func (l *Limiter) Set(common Limits) { l.common.Store(&common) }

const (
	limitsAge      = 2 * time.Second // for how long limits are good that were read from the catalog
	limitsPatience = time.Second     // for its answer
)

// of returns what a tenant may do, by limits that are seconds old at most. While the
// catalog is being read, or cannot be, those that were known hold.
func (l *Limiter) of(ctx context.Context, tenant string) *allowance {
	a := l.accounts.orMake(tenant, func() *allowance { return new(allowance) })
	if !a.due(time.Now(), *l.common.Load()) {
		return a
	}
	var own catalog.Limits
	var err error
	if l.catalog != nil {
		ctx, cancel := context.WithTimeout(ctx, limitsPatience)
		defer cancel()
		own, err = l.catalog.Limits(ctx, tenant)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.own = own
	}
	a.set(l.common.Load().with(a.own))
	return a
}

// due reports whether the limits are to be read, which the caller then does alone. The
// first time the common ones hold until that is done.
func (a *allowance) due(now time.Time, common Limits) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.requests == nil {
		a.set(common)
	} else if now.Sub(a.read) < limitsAge {
		return false
	}
	a.read = now
	return true
}

// allowance is what one tenant may still do.
type allowance struct {
	mu        sync.Mutex
	read      time.Time // when own was
	own       catalog.Limits
	limits    Limits
	requests  *rate.Limiter
	uploads   *rate.Limiter
	accepting int // jobs that are not counted by the queue yet
}

const day = 24 * time.Hour

// set changes the limits. A counter whose limit changes begins anew.
func (a *allowance) set(limits Limits) {
	if a.requests == nil || limits.Rate != a.limits.Rate || limits.burst() != a.limits.burst() {
		a.requests = rate.NewLimiter(orInf(limits.Rate), limits.burst())
	}
	if a.uploads == nil || limits.Uploads != a.limits.Uploads {
		a.uploads = rate.NewLimiter(orInf(float64(limits.Uploads)/day.Seconds()), int(min(limits.Uploads, math.MaxInt)))
	}
	a.limits = limits
}

func orInf(perSecond float64) rate.Limit {
	if perSecond == 0 {
		return rate.Inf
	}
	return rate.Limit(perSecond)
}

// Limited says that a limit is reached.
type Limited struct {
	*queue.Problem
	Policy string        // the limit, as the field RateLimit names it
	After  time.Duration // until asking again makes sense
}

// Unwrap returns what a client is told.
func (l *Limited) Unwrap() error { return l.Problem }

// The names of the limits, as in the field RateLimit.
const (
	requestPolicy = "requests"
	jobPolicy     = "jobs"
	uploadPolicy  = "uploads"
)

// Request counts a request against its tenant's rate and tells in the header of its answer
// how much is left. The error is a *Limited.
func (l *Limiter) Request(ctx context.Context, header http.Header) error {
	a := l.of(ctx, Of(ctx).Tenant)
	a.mu.Lock()
	limits, requests := a.limits, a.requests
	a.mu.Unlock()
	if limits.Rate == 0 {
		return nil
	}
	now := time.Now()
	reserved := requests.ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait > 0 {
		reserved.CancelAt(now)
	}
	burst := limits.burst()
	left := max(0, requests.TokensAt(now))
	full := seconds(time.Duration((float64(burst) - left) / limits.Rate * float64(time.Second)))
	header.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", requestPolicy, burst, seconds(time.Duration(float64(burst)/limits.Rate*float64(time.Second)))))
	header.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", requestPolicy, int(left), full))
	header.Set("RateLimit-Limit", strconv.Itoa(burst))
	header.Set("RateLimit-Remaining", strconv.Itoa(int(left)))
	header.Set("RateLimit-Reset", strconv.Itoa(full))
	if wait == 0 {
		return nil
	}
	return &Limited{queue.Problemf("rate_limit_exceeded",
		"The limit on requests is reached: %g a second, after %d at once. Ask again in %d ms.", limits.Rate, burst, wait.Milliseconds()+1), requestPolicy, wait}
}

// seconds rounds up, as a client that waits so long is not to come too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

const (
	// jobPause is when to try again with a job that is one too many: nobody knows when
	// another ends.
	jobPause = time.Second
	// A quota that seems used up is looked at again for a moment before a job is refused:
	// counts of jobs are a moment old, and those that are being accepted are counted twice.
	roomPatience = 300 * time.Millisecond
	roomPoll     = 50 * time.Millisecond
)

// Job returns a *Limited if the caller's tenant has as many unfinished jobs as he may have,
// and else keeps room for one more. done must be called when it was submitted, or was not.
func (l *Limiter) Job(ctx context.Context, q *queue.Queue) (done func(), err error) {
	tenant := Of(ctx).Tenant
	a := l.of(ctx, tenant)
	a.mu.Lock()
	limit := a.limits.Jobs
	a.mu.Unlock()
	if limit == 0 {
		return func() {}, nil
	}
	for patience := time.Now().Add(roomPatience); ; {
		jobs, err := q.Unfinished(ctx, tenant)
		if err != nil {
			return nil, err
		}
		if a.accept(jobs, limit) {
			return a.accepted, nil
		}
		if time.Now().After(patience) {
			return nil, &Limited{queue.Problemf("quota_exceeded",
				"The limit on unfinished jobs is reached: %d. Submit again when one of them has ended.", limit), jobPolicy, jobPause}
		}
		select {
		case <-time.After(roomPoll):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// accept counts a job that is being accepted if there is room beside so many others.
func (a *allowance) accept(jobs, limit int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if jobs+a.accepting >= limit {
		return false
	}
	a.accepting++
	return true
}

// accepted ends what accept began.
func (a *allowance) accepted() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepting--
}

// maxDebt is how many days a tenant waits at most for having uploaded one file.
const maxDebt = 366

// Upload returns a *Limited if the caller's tenant has uploaded as much as he may for now,
// and else a function to call with the bytes of what he uploads. A file that is larger than what
// is left passes, and the next one has to wait until it is made up for.
func (l *Limiter) Upload(ctx context.Context) (spend func(bytes int64), err error) {
	a := l.of(ctx, Of(ctx).Tenant)
	a.mu.Lock()
	limit, uploads := a.limits.Uploads, a.uploads
	a.mu.Unlock()
	if limit == 0 {
		return func(int64) {}, nil
	}
	now := time.Now()
	if left := uploads.TokensAt(now); left < 1 {
		wait := time.Duration((1 - left) / float64(uploads.Limit()) * float64(time.Second))
		return nil, &Limited{queue.Problemf("quota_exceeded",
			"The limit on uploads is reached: %d bytes a day. There is room again in %v.", limit, max(wait, time.Second).Round(time.Second)), uploadPolicy, wait}
	}
	return func(bytes int64) {
		for range min((bytes+limit-1)/limit, maxDebt) { // one reservation may not be larger than the limit
			uploads.ReserveN(now, int(min(bytes, limit)))
			bytes -= limit
		}
	}, nil
}

// longestRetry is the longest pause after which clients should try again by themselves.
const longestRetry = time.Minute

// Tell writes when to ask again, and reports whether a client should do so by itself.
func (l *Limited) Tell(header http.Header) (again bool) {
	header.Set("Retry-After", strconv.Itoa(max(1, seconds(l.After))))
	header.Set("Retry-After-Ms", strconv.FormatInt(l.After.Milliseconds()+1, 10))
	if l.Policy != requestPolicy {
		header.Set("RateLimit", fmt.Sprintf("%q;r=0;t=%d", l.Policy, max(1, seconds(l.After))))
	}
	return l.After <= longestRetry
}
