package gateway_test

import (
	"bufio"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helicon/gateway"
	"helicon/gateway/catalog"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

// guarded is a gateway that requires keys, and the catalog that they are in.
type guarded struct {
	*harness.Harness
	catalog *catalog.Catalog
}

func guard(t testing.TB, config gateway.Config) *guarded {
	t.Helper()
	c, err := catalog.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	config.Catalog, config.RequireKeys = c, true
	return &guarded{harness.Start(t, config), c}
}

// key makes a key; without scopes, one that may do everything.
func (g *guarded) key(t testing.TB, tenant string, scopes ...string) string {
	t.Helper()
	if scopes == nil {
		scopes = []string{catalog.ScopeAdmin}
	}
	text, err := g.catalog.CreateKey(t.Context(), &catalog.Key{Tenant: tenant, Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// as sends a request with a key.
func (g *guarded) as(t testing.TB, key, method, path, body string, headers ...string) harness.Answer {
	t.Helper()
	return g.Do(t, method, path, body, append(headers, "Authorization", "Bearer "+key)...)
}

func TestKeyIsRequired(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{})
	good := g.key(t, "acme")
	end := time.Now().Add(time.Second)
	expiring, err := g.catalog.CreateKey(t.Context(), &catalog.Key{Tenant: "acme", Scopes: catalog.Scopes(), Expires: &end})
	if err != nil {
		t.Fatal(err)
	}
	for a := g.as(t, expiring, "GET", "/v1/tasks", ""); a.Status != 401; a = g.as(t, expiring, "GET", "/v1/tasks", "") {
		if a.Status != 200 || time.Now().After(end.Add(time.Second)) {
			t.Fatalf("%v before the key expires: %d %s", time.Until(end), a.Status, a.Body)
		}
	}
	for _, c := range []struct {
		name, header, code, challenge string
	}{
		{"none", "", "key_required", `Bearer realm="helicon"`},
		{"OpenAI's", "Bearer sk-proj-123", "key_invalid", `error="invalid_token"`},
		{"mistyped", "Bearer " + good[:len(good)-1] + "!", "key_invalid", `error="invalid_token"`},
		{"never made", "Bearer hk_00000000_00000000000000000000000000000000000000000000000000000000", "key_invalid", `error="invalid_token"`},
		{"another scheme", "Basic aGs6aGs=", "key_invalid", `error="invalid_token"`},
		{"expired", "Bearer " + expiring, "key_invalid", `error="invalid_token"`},
	} {
		var p problem
		answer := g.Do(t, "GET", "/v1/jobs", "", "Authorization", c.header)
		answer.JSON(t, 401, &p)
		if p.Code != c.code || !strings.Contains(answer.Header.Get("WWW-Authenticate"), c.challenge) {
			t.Errorf("%s: %s, WWW-Authenticate %q", c.name, answer.Body, answer.Header.Get("WWW-Authenticate"))
		}
		var told struct {
			Error struct{ Message, Code string }
		}
		answer = g.Do(t, "POST", "/v1/chat/completions", `{}`, "Authorization", c.header)
		answer.JSON(t, 401, &told)
		if told.Error.Message == "" || told.Error.Code != "invalid_api_key" || answer.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s, OpenAI: %s", c.name, answer.Body)
		}
	}
	if a := g.Do(t, "GET", "/v1/tasks", "", "Authorization", "bearer  "+good); a.Status != 200 {
		t.Errorf("a good key: %d %s", a.Status, a.Body)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{})
	g.Worker(t, "w1", echo)
	read, write := g.key(t, "acme", catalog.ScopeRead), g.key(t, "acme", catalog.ScopeWrite)
	metrics, hooks := g.key(t, "ops", catalog.ScopeMetrics), g.key(t, "acme", catalog.ScopeWebhooks)
	var job queue.Job
	g.as(t, write, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
	if job.Tenant != "acme" {
		t.Errorf("tenant %q", job.Tenant)
	}
	for _, c := range []struct {
		key, method, path, body string
		status                  int
	}{
		{read, "GET", "/v1/jobs/" + job.ID, "", 200},
		{read, "HEAD", "/v1/models", "", 200},
		{read, "POST", "/v1/jobs", hello, 403},
		{read, "POST", "/v1/chat/completions", `{}`, 403},
		{read, "DELETE", "/v1/jobs/" + job.ID, "", 403},
		{read, "GET", "/v1/webhooks", "", 403},
		{read, "GET", "/metrics", "", 403},
		{read, "GET", "/v1/backup", "", 403},
		{read, "GET", "/v1/nothing", "", 404},
		{write, "GET", "/v1/jobs/" + job.ID, "", 403},
		{write, "GET", "/v1/backup", "", 403},
		{write, "POST", "/v1/gc", "", 403},
		{hooks, "GET", "/v1/webhooks", "", 200},
		{hooks, "GET", "/v1/jobs", "", 403},
		{metrics, "GET", "/metrics", "", 200},
		{metrics, "GET", "/v1/models", "", 403},
		{metrics, "GET", "/v1/session", "", 200},
	} {
		a := g.as(t, c.key, c.method, c.path, c.body)
		if a.Status != c.status {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, a.Status, a.Body, c.status)
		}
		if a.Status == 403 && !strings.Contains(a.Header.Get("WWW-Authenticate"), "insufficient_scope") {
			t.Errorf("%s %s: WWW-Authenticate %q", c.method, c.path, a.Header.Get("WWW-Authenticate"))
		}
	}
}

// TestRevocation checks that a revoked key is refused within seconds, and that what is
// being sent to its holder ends.
func TestRevocation(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{})
	g.Worker(t, "w1", block)
	key := g.key(t, "acme")
	var job queue.Job
	g.as(t, key, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
	request, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/v1/jobs/"+job.ID+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	stream, err := g.Client.Do(request)
	if err != nil || stream.StatusCode != 200 {
		t.Fatal(stream, err)
	}
	defer stream.Body.Close()
	id, _, err := catalog.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.catalog.RevokeKey(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	for g.as(t, key, "GET", "/v1/models", "").Status != 401 {
		if time.Since(revoked) > 4*time.Second {
			t.Fatal("the key is good after 4 s")
		}
		time.Sleep(100 * time.Millisecond) // asks again, as a client would
	}
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
	}
	if took := time.Since(revoked); took > 10*time.Second {
		t.Errorf("the stream ended %v after the key", took)
	}
	if _, err := g.Queue.Cancel(t.Context(), job.ID); err != nil {
		t.Error(err)
	}
}

func TestKeyUseIsNoted(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{})
	key := g.key(t, "acme")
	id, _, err := catalog.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	g.as(t, key, "GET", "/v1/models", "")
	stored, err := g.catalog.Key(t.Context(), id)
	if err != nil || stored.Used == nil || time.Since(*stored.Used) > time.Minute {
		t.Errorf("%+v, %v", stored, err)
	}
}

// TestSession logs in as the studio does.
func TestSession(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{})
	key := g.key(t, "acme")
	if a := g.Do(t, "GET", "/v1/session", ""); a.Status != 401 {
		t.Errorf("without a key: %d %s", a.Status, a.Body)
	}
	if a := g.Do(t, "POST", "/v1/session", `{"key":"hk_x"}`); a.Status != 401 || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("false key: %d %s", a.Status, a.Body)
	}
	var session struct {
		Tenant      string
		KeyRequired bool `json:"key_required"`
	}
	answer := g.Do(t, "POST", "/v1/session", `{"key":"`+key+`"}`, "X-Forwarded-Proto", "https")
	answer.JSON(t, 200, &session)
	cookie, err := http.ParseSetCookie(answer.Header.Get("Set-Cookie"))
	if err != nil || !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteStrictMode || cookie.MaxAge < 1 || session.Tenant != "acme" || !session.KeyRequired {
		t.Fatalf("%+v %+v %v", session, answer.Header, err)
	}
	if strings.Contains(string(answer.Body), key) {
		t.Error("the answer tells the key")
	}
	sent := cookie.Name + "=" + cookie.Value
	for _, path := range []string{"/v1/session", "/v1/jobs"} {
		if a := g.Do(t, "GET", path, "", "Cookie", sent); a.Status != 200 {
			t.Errorf("%s with the cookie: %d %s", path, a.Status, a.Body)
		}
	}
	if a := g.Do(t, "POST", "/v1/jobs", hello, "Cookie", sent, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); a.Status != 403 {
		t.Errorf("another site's request with the cookie: %d %s", a.Status, a.Body)
	}
	if a := g.Do(t, "DELETE", "/v1/session", ""); a.Status != 204 || !strings.Contains(a.Header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logging out: %d %v", a.Status, a.Header)
	}
	open := harness.Start(t, gateway.Config{})
	open.Do(t, "GET", "/v1/session", "").JSON(t, 200, &session)
	if session.Tenant != queue.DefaultTenant || session.KeyRequired {
		t.Errorf("where no key is required: %+v", session)
	}
}

// TestFalseKeys checks that an address that sends many false keys is made to wait, and
// that whoever has a key already is not disturbed by it.
func TestFalseKeys(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{Proxies: []string{"127.0.0.1"}})
	good, other := g.key(t, "acme"), g.key(t, "other")
	if a := g.as(t, good, "GET", "/v1/models", "", "X-Forwarded-For", "192.0.2.1"); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	limited := false
	for _, key := range falseKeys(t, 50) {
		a := g.as(t, key, "GET", "/v1/models", "", "X-Forwarded-For", "192.0.2.1")
		if a.Status == 429 && a.Header.Get("Retry-After") != "" {
			limited = true
			break
		}
		if a.Status != 401 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	if !limited {
		t.Error("50 false keys were looked up")
	}
	if a := g.as(t, good, "GET", "/v1/models", "", "X-Forwarded-For", "192.0.2.1"); a.Status != 200 {
		t.Errorf("a key in use, from the same address: %d %s", a.Status, a.Body)
	}
	if a := g.as(t, other, "GET", "/v1/models", "", "X-Forwarded-For", "192.0.2.2"); a.Status != 200 {
		t.Errorf("a new key, from another address: %d %s", a.Status, a.Body)
	}
}

// falseKeys returns keys that another server has made.
func falseKeys(t *testing.T, n int) []string {
	t.Helper()
	c, err := catalog.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "other.db"), catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, n)
	for i := range keys {
		if keys[i], err = c.CreateKey(t.Context(), &catalog.Key{Tenant: "x", Scopes: catalog.Scopes()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestSecretsAreNotLogged runs requests that carry keys in every place and looks for them
// in the log.
func TestSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	g := guard(t, gateway.Config{Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	key := g.key(t, "acme")
	id, _, _ := catalog.ParseKey(key)
	g.as(t, key, "GET", "/v1/jobs", "")
	g.as(t, key+"x", "GET", "/v1/jobs", "")
	g.Do(t, "POST", "/v1/session", `{"key":"`+key+`"}`)
	g.Do(t, "GET", "/v1/models?key="+key, "", "Cookie", "helicon_key="+key)
	if err := g.Stop(); err != nil { // nothing is written after it
		t.Fatal(err)
	}
	if strings.Contains(log.String(), key[12:40]) {
		t.Errorf("the secret is in the log:\n%s", log.String())
	}
	if !strings.Contains(log.String(), `"tenant":"acme","key":"`+id+`"`) {
		t.Errorf("the log does not tell who called:\n%s", log.String())
	}
}
