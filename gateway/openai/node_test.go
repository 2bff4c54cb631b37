package openai_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestNode runs sdktest/sdk.test.mjs: OpenAI's SDK for JavaScript, in the newest version that
// the registry has. Without node, npm or the registry it is skipped, unless
// HELICON_REQUIRE_NODE is set.
func TestNode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("installs a package")
	}
	missing := t.Skipf
	if os.Getenv("HELICON_REQUIRE_NODE") != "" {
		missing = t.Fatalf
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing("OpenAI's SDK for JavaScript is not tested: %v", err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "sdk.test.mjs"} {
		text, err := os.ReadFile(filepath.Join("sdktest", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := run(t, dir, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline", "--loglevel=error"); err != nil {
		missing("OpenAI's SDK for JavaScript is not tested: npm install: %v\n%s", err, said)
	}
	_, address := startFront(t)
	said, err := run(t, dir, "env", "HELICON_TEST_URL="+address, "node", "--test", "--test-reporter=spec", "sdk.test.mjs")
	if err != nil {
		t.Errorf("node --test: %v\n%s", err, said)
	}
}

// run runs a command in a folder and returns what it says.
func run(t *testing.T, dir, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	command.WaitDelay = time.Second
	return command.CombinedOutput()
}
