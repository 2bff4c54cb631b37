package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"

	"helicon/models/bench"
	"helicon/models/tensor"
)

// benchCmd groups the measurements of speed.
type benchCmd struct {
	LM        benchLMCmd        `cmd:"" name:"lm" help:"Measure a language model."`
	GEMM      benchGEMMCmd      `cmd:"" name:"gemm" help:"Measure matrix products."`
	Attention benchAttentionCmd `cmd:"" help:"Measure attention."`
	Conv      benchConvCmd      `cmd:"" help:"Measure convolutions."`
	Image     benchImageCmd     `cmd:"" help:"Measure the networks of a diffusion model."`
	Submit    benchSubmitCmd    `cmd:"" help:"Measure how fast a gateway accepts jobs."`
}

// benchFlags say how to measure.
type benchFlags struct {
	Threads int           `help:"Cores to compute on; 0 means all." default:"0"`
	CPU     tensor.Level  `help:"Highest level of processor instructions to use: generic, avx2, avx512 or amx; the best unless given." name:"cpu" placeholder:"LEVEL"`
	Time    time.Duration `help:"How long each measurement is repeated." default:"500ms"`
	JSON    bool          `help:"Print JSON." name:"json"`
}

// Validate refuses numbers that mean nothing.
func (f benchFlags) Validate() error {
	if f.Threads < 0 || f.Time < 0 {
		return errors.New("--threads and --time: want at least 0")
	}
	return checkLevel(f.CPU)
}

// benchView is what the bench commands print as JSON.
type benchView struct {
	Machine machineView    `json:"machine"`
	Model   *bench.Model   `json:"model,omitempty"` // of helicon bench lm
	Results []bench.Result `json:"results"`
}

type machineView struct {
	CPU     string    `json:"cpu"`
	Level   string    `json:"level"` // of instructions, as --cpu names it
	Threads int       `json:"threads"`
	Peaks   peaksView `json:"peaks"`
}

// peaksView is the rates that the machine reaches, in units of 1e9 a second.
type peaksView struct {
	F32  float64 `json:"f32_gflops"`
	BF16 float64 `json:"bf16_gflops"` // 0 without instructions for it
	Int8 float64 `json:"int8_gops"`
	Read float64 `json:"read_gbs"`
}

// bencher measures and prints.
type bencher struct {
	*bench.Bench
	env  *environment
	json bool
	view benchView
}

// with measures the machine and then lets run do the rest.
func (f benchFlags) with(ctx context.Context, env *environment, run func(*bencher) error) error {
	pool := tensor.NewPool(tensor.Config{Threads: cmp.Or(f.Threads, runtime.NumCPU()), Level: f.CPU})
	defer pool.Close()
	engine, err := bench.New(ctx, pool, f.Time)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what the peaks were measured with
	peaks := engine.Peaks()
	b := &bencher{Bench: engine, env: env, json: f.JSON}
	b.view.Machine = machineView{
		CPU: cpuName(ctx), Level: pool.Level().String(), Threads: peaks.Threads,
		Peaks: peaksView{F32: peaks.F32, BF16: peaks.BF16, Int8: peaks.Int8, Read: peaks.Read},
	}
	if !b.json {
		b.head()
	}
	if err := run(b); err != nil {
		return err
	}
	if b.json {
		return printJSON(env, b.view)
	}
	return nil
}

// cpuName is how the processor calls itself.
func cpuName(ctx context.Context) string {
	info, err := cpu.InfoWithContext(ctx)
	if err != nil || len(info) == 0 || info[0].ModelName == "" {
		return runtime.GOARCH
	}
	return info[0].ModelName
}

// head prints the machine and the heading of the results.
func (b *bencher) head() {
	m := b.view.Machine
	fmt.Fprintf(b.env.stdout, "%s, %d threads, %s\n", m.CPU, m.Threads, m.Level)
	fmt.Fprintf(b.env.stdout, "peaks: f32 %.0f GFLOP/s, ", m.Peaks.F32)
	if m.Peaks.BF16 > 0 {
		fmt.Fprintf(b.env.stdout, "bf16 %.0f GFLOP/s, ", m.Peaks.BF16)
	}
	fmt.Fprintf(b.env.stdout, "int8 %.0f Gop/s, read %.1f GB/s\n\n", m.Peaks.Int8, m.Peaks.Read)
	fmt.Fprintf(b.env.stdout, "%-26s %-5s %11s %11s %11s %9s %9s  %s\n", "CASE", "TYPE", "BEST", "MEDIAN", "TOKENS/S", "GOP/S", "GB/S", "OF PEAK")
}

// add takes in a result and prints it unless it is to be JSON.
func (b *bencher) add(r bench.Result) {
	b.view.Results = append(b.view.Results, r)
	if b.json {
		return
	}
	rate := ""
	if r.Tokens > 0 {
		rate = fmt.Sprintf("%.1f", r.Rate)
	}
	fmt.Fprintf(b.env.stdout, "%-26s %-5s %8.3f ms %8.3f ms %11s %9.1f %9.2f %4.0f %% %s\n",
		r.Case, r.Type, r.Best, r.Median, rate, r.Gops, r.GBs, 100*r.Fraction, r.Peak)
}

// benchGEMMCmd measures matrix products.
type benchGEMMCmd struct {
	benchFlags
	Shape []gemmShape `help:"Sizes to measure, tokens x outputs x inputs; may be repeated." placeholder:"MxNxK"`
	Type  []string    `help:"Types of weights to measure: f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k; may be repeated; all that fit the sizes unless given." placeholder:"TYPE"`
}

// gemmShape is the size of a matrix product, written MxNxK.
type gemmShape struct{ m, n, k int }

// UnmarshalText reads MxNxK.
func (s *gemmShape) UnmarshalText(text []byte) error {
	var rest string
	n, _ := fmt.Sscanf(string(text)+" ", "%dx%dx%d%s", &s.m, &s.n, &s.k, &rest)
	if n != 3 || s.m < 1 || s.n < 1 || s.k < 1 {
		return fmt.Errorf("%q is not a size such as 1024x1024x1024", text)
	}
	return nil
}

// parseTypes returns the named types, or all for no names.
func parseTypes(names []string) ([]tensor.DType, error) {
	if len(names) == 0 {
		return bench.Types(), nil
	}
	var types []tensor.DType
	for _, name := range names {
		d, err := parseType(name)
		if err != nil {
			return nil, err
		}
		types = append(types, d)
	}
	return types, nil
}

func parseType(name string) (tensor.DType, error) {
	var known []string
	for _, d := range bench.Types() {
		if strings.EqualFold(d.String(), name) {
			return d, nil
		}
		known = append(known, strings.ToLower(d.String()))
	}
	return 0, fmt.Errorf("--type: %q is not one of %s", name, strings.Join(known, ", "))
}

func (c *benchGEMMCmd) products() ([]bench.GEMM, error) {
	types, err := parseTypes(c.Type)
	if err != nil || len(c.Shape) == 0 {
		return bench.GEMMs(types...), err
	}
	var list []bench.GEMM
	for _, s := range c.Shape {
		for _, d := range types {
			if block, _ := d.Block(); len(c.Type) == 0 && s.k%block != 0 {
				continue // nobody asked for this type
			}
			g := bench.GEMM{M: s.m, N: s.n, K: s.k, Type: d}
			if err := g.Validate(); err != nil {
				return nil, fmt.Errorf("--shape: %w", err)
			}
			list = append(list, g)
		}
	}
	return list, nil
}

// Validate refuses settings that mean nothing.
func (c *benchGEMMCmd) Validate() error {
	_, err := c.products()
	return cmp.Or(c.benchFlags.Validate(), err)
}

// Run measures the products one after the other.
func (c *benchGEMMCmd) Run(ctx context.Context, env *environment) error {
	products, err := c.products()
	if err != nil {
		return err
	}
	return c.with(ctx, env, func(b *bencher) error { return each(ctx, b, products, b.GEMM) })
}

// benchAttentionCmd measures attention.
type benchAttentionCmd struct{ benchFlags }

// Run measures the calls one after the other.
func (c *benchAttentionCmd) Run(ctx context.Context, env *environment) error {
	return c.with(ctx, env, func(b *bencher) error { return each(ctx, b, bench.Attentions(), b.Attention) })
}

// benchConvCmd measures convolutions.
type benchConvCmd struct{ benchFlags }

// Run measures the convolutions one after the other.
func (c *benchConvCmd) Run(ctx context.Context, env *environment) error {
	return c.with(ctx, env, func(b *bencher) error { return each(ctx, b, bench.Convs(), b.Conv) })
}

// each measures cases one after the other.
func each[T any](ctx context.Context, b *bencher, cases []T, measure func(context.Context, T) (bench.Result, error)) error {
	for _, c := range cases {
		r, err := measure(ctx, c)
		if err != nil {
			return err
		}
		b.add(r)
	}
	return nil
}
