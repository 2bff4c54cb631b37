package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"helicon/gateway/access"
	"helicon/gateway/catalog"
)

// accessFlags say who may call the gateway, and how much.
type accessFlags struct {
	Auth           string   `help:"Whether requests need a key: required, off, or auto, which is off while the server listens on loopback alone." enum:"auto,required,off" default:"auto"`
	TrustedProxies []string `help:"Addresses or networks of proxies that are believed whom they forward for." placeholder:"CIDR"`
	limitFlags     `group:"Limits of each tenant that has none of its own (helicon tenants)"`
}

// limitFlags are what one tenant may do. They may be changed while the server runs.
type limitFlags struct {
	LimitRate    *float64  `help:"Requests a second; 0 is no limit. 1000 where keys are required, else no limit." placeholder:"N"`
	LimitBurst   *int      `help:"Requests at once before the rate holds; 0 is those of two seconds." placeholder:"N"`
	LimitJobs    *int      `help:"Jobs that have not ended; 0 is no limit. 100000 where keys are required, else no limit." placeholder:"N"`
	LimitUploads *byteSize `help:"Bytes of uploads a day; 0 is no limit, which is the default." placeholder:"SIZE"`
}

// Limits where keys are required: generous for people and programs, too small to drown
// the other tenants.
const (
	defaultRate = 1000
	defaultJobs = 100_000
)

// validate refuses limits that mean nothing.
func (f limitFlags) validate() error {
	l := f.limits(false)
	if !(l.Rate >= 0 && l.Rate <= access.MaxRate) || l.Burst < 0 || l.Jobs < 0 || l.Uploads < 0 {
		return fmt.Errorf("limits: want 0 or more, and a rate of at most %d", access.MaxRate)
	}
	return nil
}

// limits are the flags with their defaults.
func (f limitFlags) limits(keys bool) access.Limits {
	rate, jobs := 0.0, 0
	if keys {
		rate, jobs = defaultRate, defaultJobs
	}
	return access.Limits{
		Rate: given(f.LimitRate, rate), Burst: given(f.LimitBurst, 0), Jobs: given(f.LimitJobs, jobs), Uploads: int64(given(f.LimitUploads, 0)),
	}
}

// given is the value of a flag, or its default.
func given[T any](flag *T, otherwise T) T {
	if flag == nil {
		return otherwise
	}
	return *flag
}

// requireKeys decides whether requests need a key. A server that others can reach must
// have one.
func (f accessFlags) requireKeys(ctx context.Context, at net.Addr, c *catalog.Catalog, create string) (bool, error) {
	tcp, ok := at.(*net.TCPAddr)
	if f.Auth != "auto" || ok && tcp.IP.IsLoopback() {
		return f.Auth == "required", nil
	}
	found, err := c.HasKey(ctx)
	if err != nil || found {
		return true, err
	}
	return false, &exitError{status: exitUsage, err: fmt.Errorf(`%v can be reached by others, and there is no key yet. Make one:

    %s

or start with --auth required and make it later, or let everyone in with --auth off`, at, create)}
}

// createKey is the command that makes the first key for a data directory.
func (f databaseFlags) createKey(data string) string {
	if f.DB != "" {
		return "helicon keys create --db URL" // which may have a password in it
	}
	return fmt.Sprintf("helicon keys create --data %q", data)
}

// followLimits applies the limits of the settings again whenever a settings file changes
// or the process is sent SIGHUP, until ctx ends. Settings that cannot be read change nothing.
func followLimits(ctx context.Context, env *environment, keys bool, apply func(access.Limits) error) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	look := time.NewTicker(settingsPause)
	defer look.Stop()
	seen := versions(env.settings)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-look.C:
			now := versions(env.settings)
			if slices.Equal(now, seen) {
				continue
			}
			seen = now
		}
		f, err := env.reread()
		if err == nil {
			err = cmp.Or(f.validate(), apply(f.limits(keys)))
		}
		if err != nil {
			env.log.Error("the settings cannot be read again; the limits stay as they are", "err", err)
			continue
		}
		env.log.Info("the limits were read again", "limits", f.limits(keys))
	}
}

// settingsPause is the time between looks at the settings files.
const settingsPause = 2 * time.Second

// fileVersion tells one content of a file from the next.
type fileVersion struct {
	changed time.Time
	size    int64
}

// versions are those of files, in their order; of one that is not there, zero.
func versions(files []string) []fileVersion {
	found := make([]fileVersion, len(files))
	for i, name := range files {
		if about, err := os.Stat(name); err == nil {
			found[i] = fileVersion{about.ModTime(), about.Size()}
		}
	}
	return found
}
