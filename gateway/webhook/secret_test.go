package webhook

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The example of the specification, as its libraries test it.
func TestSignatureOfTheSpecification(t *testing.T) {
	t.Parallel()
	got, err := sign([]string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), `{"test": 2432232314}`)
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestEverySecretVerifies(t *testing.T) {
	t.Parallel()
	secrets := []string{NewSecret(), NewSecret()}
	now := time.Now()
	signature, err := sign(secrets, "msg_1", now, "{}")
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	header.Set("webhook-id", "msg_1")
	header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	header.Set("webhook-signature", signature)
	for _, secret := range secrets {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify([]byte("{}"), header); err != nil {
			t.Error(err)
		}
		if err := verifier.Verify([]byte("{ }"), header); err == nil {
			t.Error("another body verifies")
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	spell := func(n int) string { return secretPrefix + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for secret, complaint := range map[string]string{
		NewSecret(): "", spell(24): "", spell(64): "",
		spell(23): "24 to 64 bytes", spell(65): "24 to 64 bytes", "": "begins with whsec_", "whsec_": "24 to 64 bytes",
		"whsec_$$$": "base64", "WHSEC_" + spell(32)[6:]: "begins with", "whsk_" + spell(32): "begins with",
	} {
		err := CheckSecret(secret)
		if complaint == "" && err != nil || complaint != "" && (err == nil || !strings.Contains(err.Error(), complaint)) {
			t.Errorf("%q: %v, want %q", secret, err, complaint)
		}
	}
}

func FuzzCheckSecret(f *testing.F) {
	f.Add(NewSecret())
	f.Add("whsec_====")
	f.Fuzz(func(t *testing.T, secret string) {
		_, err := sign([]string{secret}, "msg_1", time.Unix(0, 0), "{}")
		if (CheckSecret(secret) == nil) != (err == nil) {
			t.Error(err)
		}
	})
}
