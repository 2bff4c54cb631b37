// Command helicon is a multimodal generation platform: a gateway with a studio and
// an OpenAI-compatible API, a durable queue, and workers that run neural networks
// natively, in one process or in many.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/adrg/xdg"
	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// cli is the command line. Each setting is looked for in the flags, then in the
// environment (HELICON_…), then in helicon.yaml, and has a default that works.
type cli struct {
	Config    kong.ConfigFlag  `help:"Settings file (YAML)." placeholder:"FILE"`
	LogLevel  slog.Level       `help:"Least severe messages to log: debug, info, warn or error." default:"info"`
	LogFormat string           `help:"Form of the log: text or json." enum:"text,json" default:"text"`
	Version   kong.VersionFlag `help:"Print the version." env:"-"`

	Serve    serveCmd    `cmd:"" default:"withargs" help:"Run everything in one process: gateway, studio, queue and workers (default)."`
	Gateway  gatewayCmd  `cmd:"" help:"Run the gateway and the queue without workers."`
	Worker   workerCmd   `cmd:"" help:"Run workers that serve the queue of another process."`
	Generate generateCmd `cmd:"" help:"Make something, with a running server or without one."`
	Batch    batchCmd    `cmd:"" help:"Make something of every row of a file."`
	Bench    benchCmd    `cmd:"" help:"Measure how fast the engine is on this machine, beside the machine's own peaks."`
	Models   modelsCmd   `cmd:"" help:"Look at the models that are there."`
	Catalog  catalogCmd  `cmd:"" help:"Look after the record of jobs."`
	Keys     keysCmd     `cmd:"" help:"Make, list and revoke the keys that requests carry."`
	Tenants  tenantsCmd  `cmd:"" help:"Set what single tenants may do."`
	Backup   backupCmd   `cmd:"" help:"Copy everything that a server keeps into a file, while it runs or when it does not."`
	GC       gcCmd       `cmd:"" name:"gc" help:"Delete artifacts that no job, file or batch refers to any more."`
	Restore  restoreCmd  `cmd:"" help:"Make a data directory of a backup."`
	Health   healthCmd   `cmd:"" help:"Ask a running server or worker whether it is well."`
	Doctor   doctorCmd   `cmd:"" help:"Tell what this machine offers and what is missing."`
}

// environment is what commands share beside their flags.
type environment struct {
	log      *slog.Logger
	warnings *slog.Logger // the same, without what is only worth knowing of a server
	stdout   io.Writer
	stderr   io.Writer
	metrics  *prometheus.Registry // what this process counts
	tracer   trace.TracerProvider // nil: nothing is traced

	settings []string                   // files that settings may be in
	reread   func() (limitFlags, error) // reads those settings anew that may change while a server runs
}

// Exit statuses beside 0.
const (
	exitFailed      = 1   // the job or the command failed
	exitUnavailable = 3   // the server cannot be reached
	exitUsage       = 80  // the command line or the settings are wrong
	exitInterrupted = 130 // ended by Ctrl-C
)

func main() {
	var c cli
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the process the hard way.
	context.AfterFunc(ctx, stop)

	parser, err := newParser(ctx, &c)
	if err != nil { // the settings file cannot be read
		fmt.Fprintln(os.Stderr, "helicon: error:", err)
		os.Exit(exitUsage)
	}
	command, err := parser.Parse(os.Args[1:])
	if err != nil {
		parser.Stdout = os.Stderr // the standard output is for results
		parser.Exit = func(int) { os.Exit(exitUsage) }
		parser.FatalIfErrorf(err)
	}
	err = command.Run(&environment{
		log: newLogger(c, c.LogLevel), warnings: newLogger(c, max(c.LogLevel, slog.LevelWarn)), stdout: os.Stdout, stderr: os.Stderr,
		metrics:  newRegistry(),
		settings: append(settingsFiles(), string(c.Config)),
		reread: func() (limitFlags, error) {
			var again cli
			parser, err := newParser(ctx, &again)
			if err != nil {
				return limitFlags{}, err
			}
			command, err := parser.Parse(os.Args[1:])
			if err != nil {
				return limitFlags{}, err
			}
			if command.Selected().Name == "gateway" {
				return again.Gateway.limitFlags, nil
			}
			return again.Serve.limitFlags, nil
		},
	})
	if err == nil {
		return
	}
	var exit *exitError
	switch {
	case errors.As(err, &exit):
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		exit = &exitError{status: exitInterrupted}
	default:
		exit = &exitError{status: exitFailed, err: err}
	}
	if exit.err != nil {
		fmt.Fprintln(os.Stderr, "helicon:", exit.err)
	}
	stop()
	os.Exit(exit.status)
}

// settingsFiles are where settings are looked for beside the file that --config names.
func settingsFiles() []string {
	return []string{"helicon.yaml", filepath.Join(xdg.ConfigHome, "helicon", "helicon.yaml")}
}

// newParser returns the parser of the command line, the environment and the settings files.
func newParser(ctx context.Context, c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("helicon"),
		kong.Description("Text, images, sound and video from prompts, as durable jobs."),
		kong.DefaultEnvars("HELICON"),
		kong.Configuration(loadSettings, settingsFiles()...),
		kong.Vars{"version": version(), "data": filepath.Join(xdg.DataHome, "helicon")},
		keyVars(),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.ShortUsageOnError(),
	)
}

// exitError ends the process with a status of its own.
type exitError struct {
	status int
	err    error // printed unless nil
}

// Error implements error.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

// Unwrap returns the error that is printed.
func (e *exitError) Unwrap() error { return e.err }

func newLogger(c cli, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// version is the module's version or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// byteSize is a number of bytes that people may write as 512MB or 4GiB.
type byteSize int64

// UnmarshalText reads a size with or without a unit.
func (b *byteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a size such as 512MB or 4GiB", text)
	}
	*b = byteSize(n)
	return nil
}
