// Package webhook sends the deliveries of the catalog to their receivers by the
// Standard Webhooks specification 1.0.0: signed, at least once and under ids that stay
// the same, tried again over days, and never to an address that the server's settings
// do not allow. What is to be sent, and what became of it, is in the catalog; several
// processes on one catalog share the work.
package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"helicon/gateway/catalog"
)

// Config is what a Deliverer is made from. Catalog is required; the zero values of the
// rest are usable.
type Config struct {
	Catalog *catalog.Catalog
	Policy  Policy
	Log     *slog.Logger // nil: nothing is logged

	Pauses       []time.Duration // before each attempt, the first included; default those of the specification, over three days
	Timeout      time.Duration   // of one attempt; default 15 s
	DisableAfter time.Duration   // an endpoint that fails for so long, without a success, is disabled; default 5 days
	Keep         time.Duration   // how long the log is kept; default 30 days
	TLS          *tls.Config     // nil: the system's roots

	// Attempted is told how a delivery stands after an attempt; nil: nobody is told.
	Attempted func(catalog.DeliveryState)
}

// pauses are the specification's: each begins with the failure of the attempt before.
func pauses() []time.Duration {
	return []time.Duration{
		0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour,
		5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

const (
	maxAtOnce  = 64               // attempts of this process
	maxPerLane = 4                // attempts of this process at one receiver
	idle       = 2 * time.Second  // pause after which the catalog is asked for work of other processes
	grace      = 4 * time.Second  // that running attempts are given at the end
	spare      = 30 * time.Second // of a lease beyond the timeout of the attempt that it is for
	pruneEvery = 5 * time.Minute
)

// Deliverer sends deliveries as they become due.
type Deliverer struct {
	config  Config
	secure  *http.Client
	plain   *http.Client
	ended   chan string    // lanes of attempts that have ended
	running map[string]int // attempts by lane; Run's alone
	total   int            // of them; Run's alone
}

// New returns a Deliverer on the catalog.
func New(config Config) (*Deliverer, error) {
	if config.Catalog == nil {
		return nil, errors.New("webhook: config: no catalog")
	}
	if config.Timeout < 0 || config.DisableAfter < 0 || config.Keep < 0 {
		return nil, errors.New("webhook: config: times must not be negative")
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Attempted == nil {
		config.Attempted = func(catalog.DeliveryState) {}
	}
	if len(config.Pauses) == 0 {
		config.Pauses = pauses()
	}
	config.Timeout = cmp.Or(config.Timeout, 15*time.Second)
	config.DisableAfter = cmp.Or(config.DisableAfter, 5*24*time.Hour)
	config.Keep = cmp.Or(config.Keep, 30*24*time.Hour)
	return &Deliverer{
		config: config,
		secure: config.client(false),
		plain:  config.client(true),
		ended:  make(chan string, maxAtOnce),
	}, nil
}

// client returns a client for https, or for plain http, that connects to admitted
// addresses alone, follows no redirect and uses no proxy.
func (c Config) client(plain bool) *http.Client {
	dialer := net.Dialer{Timeout: 5 * time.Second, Control: c.Policy.control(plain)}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        c.TLS,
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConns:           maxAtOnce,
			MaxIdleConnsPerHost:    maxPerLane,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 32 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Run delivers until ctx ends; attempts that run then are given a moment.
func (d *Deliverer) Run(ctx context.Context) error {
	attempts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer d.secure.CloseIdleConnections()
	defer d.plain.CloseIdleConnections()
	d.running, d.total = map[string]int{}, 0
	var all sync.WaitGroup
	var pruned time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			cut := time.AfterFunc(grace, stop)
			defer cut.Stop()
			all.Wait()
			d.collect(nil)
			return nil
		case lane := <-d.ended:
			d.collect(&lane)
		case <-d.config.Catalog.Outbox():
		case <-timer.C:
		}
		if now := time.Now(); now.Sub(pruned) >= pruneEvery {
			pruned = now
			d.prune(ctx)
		}
		timer.Reset(d.start(ctx, func(one *catalog.Delivery) {
			all.Go(func() {
				defer func() { d.ended <- one.Lane }()
				d.deliver(attempts, one)
			})
		}))
	}
}

// collect counts attempts that have ended: the given one and those behind it.
func (d *Deliverer) collect(lane *string) {
	for {
		if lane != nil {
			d.total--
			if d.running[*lane]--; d.running[*lane] == 0 {
				delete(d.running, *lane)
			}
		}
		select {
		case next := <-d.ended:
			lane = &next
		default:
			return
		}
	}
}

// start begins what is due, as far as there is room, and returns how long to wait
// before the next look.
func (d *Deliverer) start(ctx context.Context, begin func(*catalog.Delivery)) time.Duration {
	lanes, err := d.config.Catalog.Lanes(ctx)
	if err != nil {
		d.complain(ctx, "deliveries cannot be listed", err)
		return idle
	}
	slices.SortFunc(lanes, func(a, b catalog.Lane) int { return a.Due.Compare(b.Due) })
	pause := idle
	now := time.Now()
	for _, lane := range lanes {
		if wait := lane.Due.Sub(now); wait > 0 {
			return min(pause, wait)
		}
		free := min(maxPerLane-d.running[lane.Name], maxAtOnce-d.total)
		if free <= 0 {
			continue // its end is the next look's reason
		}
		claimed, err := d.config.Catalog.Claim(ctx, lane.Name, free, d.config.Timeout+spare)
		if err != nil {
			d.complain(ctx, "deliveries cannot be claimed", err)
			return idle
		}
		for _, one := range claimed {
			d.running[lane.Name]++
			d.total++
			begin(one)
		}
	}
	return pause
}

func (d *Deliverer) prune(ctx context.Context) {
	if err := d.config.Catalog.PruneDeliveries(ctx, time.Now().Add(-d.config.Keep)); err != nil {
		d.complain(ctx, "the log of deliveries cannot be pruned", err)
	}
}

func (d *Deliverer) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		d.config.Log.Error(what, "err", err)
	}
}

// deliver makes one attempt and records what came of it. Should that fail, the lease
// runs out and the delivery is attempted once more.
func (d *Deliverer) deliver(ctx context.Context, one *catalog.Delivery) {
	to, err := d.config.Catalog.Endpoint(ctx, one.Tenant, one.Endpoint)
	if errors.Is(err, catalog.ErrNoEndpoint) {
		return // deleted, and its deliveries with it
	}
	if err == nil {
		verdict := d.judge(one, to, d.attempt(ctx, one, to))
		if ctx.Err() != nil && verdict.State != catalog.Delivered {
			// Cut off at the end of the process: not the receiver's failure.
			verdict = catalog.Verdict{State: catalog.Pending, Tries: one.Tries, Next: time.Now()}
		}
		err = d.config.Catalog.Settle(context.WithoutCancel(ctx), one, verdict)
		d.config.Attempted(verdict.State)
		if verdict.Disable != "" {
			d.config.Log.Warn("webhook endpoint disabled", "tenant", one.Tenant, "endpoint", one.Endpoint, "reason", verdict.Disable)
		}
	}
	if err != nil {
		d.config.Log.Error("a webhook's delivery cannot be recorded", "delivery", one.ID, "err", err)
	}
}

// maxAnswer is how much of a receiver's answer is read and kept, in bytes.
const maxAnswer = 1 << 10

// attempt sends the message once.
func (d *Deliverer) attempt(ctx context.Context, one *catalog.Delivery, to *catalog.Endpoint) (result outcome) {
	start := time.Now()
	result.Time = start.UTC().Truncate(time.Millisecond)
	defer func() { result.Milliseconds = time.Since(start).Milliseconds() }()
	if !to.Enabled {
		result.Error = "the endpoint is disabled"
		result.final = true
		return result
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	request, err := d.request(ctx, one, to, start)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	client := d.secure
	if request.URL.Scheme == "http" {
		client = d.plain
	}
	response, err := client.Do(request)
	if err != nil {
		result.Error = reason(ctx, err)
		return result
	}
	defer response.Body.Close()
	result.Status = response.StatusCode
	result.retryAfter = retryAfter(response.Header.Get("Retry-After"), start)
	// What was answered counts, whether or not its body can be read to the end.
	answer, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	result.Answer = printable(answer)
	return result
}

// request makes the signed request of an attempt.
func (d *Deliverer) request(ctx context.Context, one *catalog.Delivery, to *catalog.Endpoint, now time.Time) (*http.Request, error) {
	signature, err := sign(to.Secrets(now), one.ID, now, one.Body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, cmp.Or(one.URL, to.URL), strings.NewReader(one.Body))
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "Helicon-Webhooks/1")
	request.Header.Set("webhook-id", one.ID)
	request.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	request.Header.Set("webhook-signature", signature)
	return request, nil
}

// outcome is an attempt and what it means for the next.
type outcome struct {
	catalog.Attempt
	retryAfter time.Duration
	final      bool
}

// judge decides what follows from an attempt.
func (d *Deliverer) judge(one *catalog.Delivery, to *catalog.Endpoint, result outcome) catalog.Verdict {
	v := catalog.Verdict{Attempt: &result.Attempt, State: catalog.Pending, Tries: one.Tries + 1}
	now := time.Now()
	switch {
	case result.Status/100 == 2:
		v.State = catalog.Delivered
		return v
	case result.final:
		v.State = catalog.Undelivered
		return v
	case result.Status == http.StatusGone:
		v.State = catalog.Undelivered
		v.Disable = "it answered 410 Gone"
	case v.Tries >= len(d.config.Pauses):
		v.State = catalog.Undelivered
	default:
		v.Next = now.Add(max(jitter(d.config.Pauses[v.Tries]), result.retryAfter))
	}
	if since := to.FailingSince; since != nil && now.Sub(*since) > d.config.DisableAfter {
		v.Disable = cmp.Or(v.Disable, fmt.Sprintf("every attempt since %s failed", since.Format(time.RFC3339)))
	}
	if to.ID == catalog.JobsEndpoint {
		v.Disable = "" // the receivers of other jobs have not failed
	}
	return v
}

// jitter lengthens a pause by up to a tenth, so that receivers that were down are not
// met by everything at once.
func jitter(pause time.Duration) time.Duration {
	return pause + time.Duration(rand.Float64()*float64(pause)/10)
}

// maxRetryAfter bounds how long a receiver can put an attempt off.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// reason says why there was no answer.
func reason(ctx context.Context, err error) string {
	var dial *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, errPrivate):
		return errPrivate.Error()
	case errors.Is(err, errPlain):
		return errPlain.Error()
	case errors.As(err, &dial):
		err = dial.Err // without the address that a name has
	default:
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the URL, which the reader knows
		}
	}
	return printable([]byte(err.Error()))
}

// printable makes foreign bytes text that JSON and every database can hold.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r == 0 || r == '\uFFFD' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(text), ""))
}
