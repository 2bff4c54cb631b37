package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"helicon/gateway/catalog"
	"helicon/gateway/catalog/pgtest"
	"helicon/gateway/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// local admits the receivers of the tests.
func local() webhook.Policy {
	return webhook.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// soon is a schedule for tests: five attempts, at once.
func soon() []time.Duration { return make([]time.Duration, 5) }

func open(t *testing.T, url string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), url, catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func openFile(t *testing.T) *catalog.Catalog {
	return open(t, "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"))
}

// run delivers until the test ends or stop is called.
func run(t *testing.T, c webhook.Config) (stop func()) {
	t.Helper()
	d, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// message is what a receiver was sent.
type message struct {
	id     string
	header http.Header
	body   []byte
}

// receive starts a receiver that passes on what it is sent and answers as told.
func receive(t *testing.T, answer http.HandlerFunc) (url string, received chan message) {
	t.Helper()
	received = make(chan message, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender was stopped
		}
		received <- message{r.Header.Get("webhook-id"), r.Header, body}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}

func endpoint(t *testing.T, c *catalog.Catalog, url string) (*catalog.Endpoint, string) {
	t.Helper()
	e, secret := &catalog.Endpoint{Tenant: "a", URL: url, Events: catalog.FinalEvents(), Enabled: true}, webhook.NewSecret()
	if err := c.CreateEndpoint(t.Context(), e, secret); err != nil {
		t.Fatal(err)
	}
	return e, secret
}

// send adds a delivery to an endpoint.
func send(t *testing.T, c *catalog.Catalog, to *catalog.Endpoint) *catalog.Delivery {
	t.Helper()
	d, err := c.TestDelivery(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// await returns the delivery when it is as wanted.
func await(t *testing.T, c *catalog.Catalog, d *catalog.Delivery, wanted func(*catalog.Delivery) bool) *catalog.Delivery {
	t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-poll.C {
		got, err := c.Delivery(t.Context(), d.Tenant, d.Endpoint, d.ID)
		if err != nil {
			t.Fatal(err)
		}
		if wanted(got) {
			return got
		}
	}
	t.Fatalf("delivery %s did not come to what was wanted", d.ID)
	return nil
}

func ended(d *catalog.Delivery) bool { return d.State != catalog.Pending }

func TestDelivered(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	url, received := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "thanks\x00\xff"+strings.Repeat("!", 1<<20))
	})
	to, old := endpoint(t, c, url)
	fresh := webhook.NewSecret()
	if _, err := c.RotateSecret(t.Context(), "a", to.ID, fresh, time.Hour); err != nil {
		t.Fatal(err)
	}
	run(t, webhook.Config{Catalog: c, Policy: local()})
	d := send(t, c, to)
	got := <-received
	for _, secret := range []string{old, fresh} {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(got.body, got.header); err != nil {
			t.Error(err)
		}
	}
	var body struct {
		Type      string
		Timestamp time.Time
		Data      struct{ Endpoint string }
	}
	if err := json.Unmarshal(got.body, &body); err != nil || body.Type != "webhook.test" || body.Data.Endpoint != to.ID || time.Since(body.Timestamp) > time.Minute {
		t.Errorf("%s: %v", got.body, err)
	}
	if got.id != d.ID || got.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(got.header.Get("User-Agent"), "Helicon") {
		t.Errorf("%v", got.header)
	}
	d = await(t, c, d, ended)
	if d.State != catalog.Delivered || len(d.Attempts) != 1 || d.Attempts[0].Status != http.StatusAccepted {
		t.Errorf("%+v", d)
	}
	if a := d.Attempts[0].Answer; !strings.HasPrefix(a, "thanks!!!") || len(a) > 1<<10 {
		t.Errorf("the answer is kept as %q", a)
	}
}

// What is no success is tried again under the same id; redirects are not followed.
func TestRetries(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	var strayed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	t.Cleanup(elsewhere.Close)
	answers := []int{500, 302, 307, 404, 204}
	var turn atomic.Int32
	url, received := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(answers[turn.Add(1)-1])
	})
	to, _ := endpoint(t, c, url)
	run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: soon()})
	d := send(t, c, to)
	for range answers {
		if got := <-received; got.id != d.ID {
			t.Errorf("id %s, want %s", got.id, d.ID)
		}
	}
	d = await(t, c, d, ended)
	var statuses []int
	for _, a := range d.Attempts {
		statuses = append(statuses, a.Status)
	}
	if d.State != catalog.Delivered || !slices.Equal(statuses, answers) || strayed.Load() != 0 {
		t.Errorf("%s after %v; %d requests went elsewhere", d.State, statuses, strayed.Load())
	}
}

func TestGivenUpAndRedelivered(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	var well atomic.Bool
	url, received := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	to, _ := endpoint(t, c, url)
	run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: soon()})
	d := await(t, c, send(t, c, to), ended)
	if d.State != catalog.Undelivered || len(d.Attempts) != len(soon()) {
		t.Errorf("%+v", d)
	}
	if e, err := c.Endpoint(t.Context(), "a", to.ID); err != nil || e.FailingSince == nil || !e.Enabled {
		t.Errorf("%+v, %v", e, err)
	}
	well.Store(true)
	if _, err := c.Redeliver(t.Context(), "a", to.ID, d.ID); err != nil {
		t.Fatal(err)
	}
	again := await(t, c, d, func(d *catalog.Delivery) bool { return d.State == catalog.Delivered })
	if len(again.Attempts) != len(soon())+1 {
		t.Errorf("%+v", again.Attempts)
	}
	for range again.Attempts {
		if got := <-received; got.id != d.ID {
			t.Errorf("id %s, want %s", got.id, d.ID)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	url, _ := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	to, _ := endpoint(t, c, url)
	run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: soon()})
	d := await(t, c, send(t, c, to), func(d *catalog.Delivery) bool { return len(d.Attempts) == 1 })
	if wait := time.Until(d.Due); wait < 59*time.Minute || wait > time.Hour {
		t.Errorf("tried again in %v", wait)
	}
}

func TestDisabled(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	url, received := receive(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(map[string]int{"/gone": http.StatusGone}[r.URL.Path] + map[string]int{"/broken": http.StatusInternalServerError}[r.URL.Path])
	})
	gone, _ := endpoint(t, c, url+"/gone")
	broken, _ := endpoint(t, c, url+"/broken")
	run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: []time.Duration{0, time.Millisecond, time.Hour}, DisableAfter: time.Nanosecond})
	if d := await(t, c, send(t, c, gone), ended); d.State != catalog.Undelivered || len(d.Attempts) != 1 {
		t.Errorf("%+v", d)
	}
	await(t, c, send(t, c, broken), func(d *catalog.Delivery) bool { return len(d.Attempts) == 2 })
	for id, reason := range map[string]string{gone.ID: "410", broken.ID: "every attempt since"} {
		e, err := c.Endpoint(t.Context(), "a", id)
		if err != nil || e.Enabled || !strings.Contains(e.Disabled, reason) {
			t.Errorf("%+v, %v", e, err)
		}
	}
	for range 3 {
		<-received
	}
	// What becomes due later is not sent.
	if d := await(t, c, send(t, c, gone), ended); d.State != catalog.Undelivered || d.Attempts[0].Error != "the endpoint is disabled" {
		t.Errorf("%+v", d)
	}
	if len(received) != 0 {
		t.Error("a disabled endpoint was sent something")
	}
}

// Without being allowed to, nothing reaches a local address, whatever name it has.
func TestRefusedAddresses(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	plain, received := receive(t, func(http.ResponseWriter, *http.Request) {})
	secure := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }))
	t.Cleanup(secure.Close)
	run(t, webhook.Config{Catalog: c, Pauses: soon()[:1]})
	named := strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)
	for url, reason := range map[string]string{plain: "use https", secure.URL: "not a public one", named: "not a public one"} {
		to, _ := endpoint(t, c, url)
		d := await(t, c, send(t, c, to), ended)
		if a := d.Attempts[0]; a.Status != 0 || !strings.Contains(a.Error, reason) || strings.Contains(a.Error, "127.0.0.1") {
			t.Errorf("%s: %+v", url, a)
		}
	}
	if len(received) != 0 {
		t.Error("the request arrived")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	to, _ := endpoint(t, c, server.URL)
	stop := run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: soon()[:1]})
	if d := await(t, c, send(t, c, to), ended); d.State != catalog.Undelivered || !strings.Contains(d.Attempts[0].Error, "certificate") {
		t.Errorf("a certificate that nobody vouches for: %+v", d)
	}
	stop()
	run(t, webhook.Config{Catalog: c, Policy: local(), TLS: server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()})
	if d := await(t, c, send(t, c, to), ended); d.State != catalog.Delivered {
		t.Errorf("%+v", d)
	}
}

// A receiver that does not answer delays no other, and the end of the process little.
func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	c := openFile(t)
	release := make(chan struct{})
	var most, now atomic.Int32
	slow, waiting := receive(t, func(_ http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	fast, received := receive(t, func(http.ResponseWriter, *http.Request) {})
	toSlow, _ := endpoint(t, c, slow)
	toFast, _ := endpoint(t, c, fast)
	stop := run(t, webhook.Config{Catalog: c, Policy: local()})
	var stuck []*catalog.Delivery
	for range 20 {
		stuck = append(stuck, send(t, c, toSlow))
	}
	for range 4 {
		<-waiting
	}
	for range 50 {
		send(t, c, toFast)
	}
	for range 50 {
		<-received
	}
	if most.Load() != 4 {
		t.Errorf("%d requests at once", most.Load())
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("the end took %v", took)
	}
	// What was cut off is due again at once, without a failure to its name.
	for _, d := range stuck {
		got, err := c.Delivery(t.Context(), "a", toSlow.ID, d.ID)
		if err != nil || got.State != catalog.Pending || len(got.Attempts) != 0 || time.Until(got.Due) > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// A process that dies loses nothing: not what waits, not what it was about to send.
func TestRestart(t *testing.T) {
	t.Parallel()
	url := "sqlite:" + filepath.Join(t.TempDir(), "catalog.db")
	c, err := catalog.Open(t.Context(), url, catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	var well atomic.Bool
	receiver, received := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	to, _ := endpoint(t, c, receiver)
	stop := run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: []time.Duration{0, 300 * time.Millisecond}})
	failed := await(t, c, send(t, c, to), func(d *catalog.Delivery) bool { return len(d.Attempts) == 1 })
	stop()
	claimed := send(t, c, to)
	if some, err := c.Claim(t.Context(), claimed.Lane, 1, 200*time.Millisecond); err != nil || len(some) != 1 || some[0].ID != claimed.ID {
		t.Fatalf("%v, %v", some, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	well.Store(true)
	c = open(t, url)
	if d, err := c.Delivery(t.Context(), "a", to.ID, failed.ID); err != nil || !d.Due.Equal(failed.Due) {
		t.Errorf("due %v, was %v, %v", d.Due, failed.Due, err)
	}
	run(t, webhook.Config{Catalog: c, Policy: local(), Pauses: []time.Duration{0, 300 * time.Millisecond}})
	for _, d := range []*catalog.Delivery{failed, claimed} {
		if got := await(t, c, d, ended); got.State != catalog.Delivered {
			t.Errorf("%+v", got)
		}
	}
	count := map[string]int{}
	for len(received) > 0 {
		count[(<-received).id]++
	}
	if count[failed.ID] != 2 || count[claimed.ID] != 1 {
		t.Errorf("received %v", count)
	}
}

// Two processes on one database share the work.
func TestTwoOnPostgreSQL(t *testing.T) {
	t.Parallel()
	server, err := pgtest.New()
	if errors.Is(err, pgtest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	first, second := open(t, server.URL("")), open(t, server.URL(""))
	url, received := receive(t, func(http.ResponseWriter, *http.Request) {})
	const endpoints, each = 5, 40
	var sent []*catalog.Delivery
	for range endpoints {
		to, _ := endpoint(t, first, url)
		for range each {
			sent = append(sent, send(t, first, to))
		}
	}
	run(t, webhook.Config{Catalog: first, Policy: local()})
	run(t, webhook.Config{Catalog: second, Policy: local()})
	for _, d := range sent {
		if got := await(t, second, d, ended); got.State != catalog.Delivered || len(got.Attempts) != 1 {
			t.Errorf("%+v", got)
		}
	}
	count := map[string]int{}
	for len(received) > 0 {
		count[(<-received).id]++
	}
	for id, times := range count {
		if times != 1 {
			t.Errorf("%s was received %d times", id, times)
		}
	}
	if len(count) != endpoints*each {
		t.Errorf("%d of %d were received", len(count), endpoints*each)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []webhook.Config{{}, {Catalog: new(catalog.Catalog), Timeout: -1}} {
		if _, err := webhook.New(c); err == nil {
			t.Errorf("%+v is taken", fmt.Sprint(c.Timeout))
		}
	}
}
