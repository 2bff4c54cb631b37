package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sys/cpu"

	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/queue"
)

// doctorCmd looks at everything that serve would need.
type doctorCmd struct {
	queueFlags
	Addr   string       `help:"Address that would be listened on; ${default} unless given." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	Models string       `help:"Folder of model bundles; ${default} unless given." default:"${data}/models" placeholder:"DIR" type:"path"`
	CPU    tensor.Level `help:"Highest level of processor instructions to use: generic, avx2, avx512 or amx; the best unless given." name:"cpu" placeholder:"LEVEL"`
	JSON   bool         `help:"Print JSON." name:"json"`
}

// Validate refuses settings that mean nothing.
func (c *doctorCmd) Validate() error { return checkLevel(c.CPU) }

// finding is one thing the doctor looked at.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do if it is not OK, or could be better
}

// Run prints the findings. The status is 1 if something that serve needs is missing.
func (c *doctorCmd) Run(ctx context.Context, env *environment) error {
	findings := []finding{
		c.checkCPU(), checkMemory(), c.checkData(), c.checkDisk(), c.checkQueue(), c.checkModels(), c.checkAddress(ctx), checkFFmpeg(),
	}
	var failed []string
	for _, f := range findings {
		if !f.OK {
			failed = append(failed, f.Name)
		}
	}
	if c.JSON {
		if err := printJSON(env, findings); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			mark := "ok     "
			if !f.OK {
				mark = "missing"
			}
			fmt.Fprintf(env.stdout, "%s  %-8s %s\n", mark, f.Name, f.Found)
			if f.Advice != "" {
				fmt.Fprintf(env.stdout, "                  → %s\n", f.Advice)
			}
		}
	}
	if failed != nil {
		return &exitError{status: exitFailed, err: fmt.Errorf("helicon serve would not start here: %s", strings.Join(failed, ", "))}
	}
	return nil
}

func (c *doctorCmd) checkCPU() finding {
	var features []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"AVX2", cpu.X86.HasAVX2}, {"FMA", cpu.X86.HasFMA}, {"AVX-512", cpu.X86.HasAVX512F},
		{"VNNI", cpu.X86.HasAVX512VNNI}, {"BF16", cpu.X86.HasAVX512BF16}, {"NEON", cpu.ARM64.HasASIMD},
	} {
		if f.has {
			features = append(features, f.name)
		}
	}
	if features == nil {
		features = []string{"no vector instructions known"}
	}
	return finding{Name: "cpu", OK: true, Found: fmt.Sprintf("%d cores, %s/%s, %s; computing at level %v",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, strings.Join(features, " "), cmp.Or(c.CPU, tensor.BestLevel()))}
}

func checkMemory() finding {
	m, err := mem.VirtualMemory()
	if err != nil {
		return finding{Name: "memory", Found: err.Error(), Advice: "Set the memory for models with --mem."}
	}
	f := finding{Name: "memory", OK: true, Found: fmt.Sprintf("%s, %s free", humanize.IBytes(m.Total), humanize.IBytes(m.Available))}
	if m.Available < 1<<30 {
		f.Advice = "Less than 1 GiB is free: close other programs before you use larger models."
	}
	return f
}

func (c *doctorCmd) checkData() finding {
	f := finding{Name: "data", Found: c.Data}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		f.Found, f.Advice = err.Error(), "Choose a folder that you may write to with --data."
		return f
	}
	probe, err := os.CreateTemp(c.Data, ".doctor-*")
	if err != nil {
		f.Found, f.Advice = err.Error(), "Choose a folder that you may write to with --data."
		return f
	}
	probe.Close()
	os.Remove(probe.Name())
	f.OK = true
	return f
}

func (c *doctorCmd) checkDisk() finding {
	dir := c.Data
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	u, err := disk.Usage(dir)
	if err != nil {
		return finding{Name: "disk", OK: true, Found: "unknown: " + err.Error()}
	}
	f := finding{Name: "disk", OK: u.Free > 256<<20, Found: humanize.IBytes(u.Free) + " free"}
	if u.Free < 2<<30 {
		f.Advice = "Make room, or move the data with --data; jobs are refused when the disk is full."
	}
	return f
}

func (c *doctorCmd) checkQueue() finding {
	if len(c.Nats) == 0 {
		f := finding{Name: "queue", OK: true, Found: "embedded, in " + c.natsDir()}
		srv, err := queue.StartServer(queue.ServerConfig{Dir: c.natsDir(), MaxStore: int64(c.MaxStore)})
		switch {
		case errors.Is(err, queue.ErrInUse):
			f.Found += ", in use by a running server"
		case err != nil:
			f.OK, f.Found = false, err.Error()
		default:
			srv.Close()
		}
		return f
	}
	nc, err := queue.Connect(strings.Join(c.Nats, ","), c.token(), "helicon-doctor")
	if err != nil {
		return finding{Name: "queue", Found: err.Error(), Advice: "Start the NATS servers, or leave --nats out to use the embedded one."}
	}
	defer nc.Close()
	return finding{Name: "queue", OK: true, Found: fmt.Sprintf("NATS %s at %s", nc.ConnectedServerVersion(), nc.ConnectedUrlRedacted())}
}

func (c *doctorCmd) checkModels() finding {
	h, err := hub.Open(hub.Config{Dir: c.Models})
	if err != nil {
		return finding{Name: "models", Found: err.Error()}
	}
	var usable, broken []string
	painter := false // one makes pictures from prompts
	for _, b := range h.Bundles() {
		if err := checkModel(b); err != nil {
			broken = append(broken, fmt.Sprintf("%s (%v)", b.ID, err))
			continue
		}
		usable = append(usable, b.ID)
		painter = painter || strings.HasSuffix(b.Architectures[0], "Pipeline")
	}
	f := finding{Name: "models", OK: len(usable) > 0, Found: strings.Join(usable, ", ")}
	if broken != nil {
		f.Advice = "Unusable: " + strings.Join(broken, "; ")
	} else if !painter {
		f.Advice = "None makes pictures from prompts: put one into " + c.Models + ", as a folder of diffusers or one .safetensors or .gguf file."
	}
	return f
}

func (c *doctorCmd) checkAddress(ctx context.Context) finding {
	l, err := net.Listen("tcp", c.Addr)
	if err != nil {
		if (&client{base: "http://" + c.Addr, http: &http.Client{}}).alive(ctx) {
			return finding{Name: "address", OK: true, Found: c.Addr + ", where a server is running"}
		}
		return finding{Name: "address", Found: err.Error(), Advice: "Choose another address with --addr."}
	}
	l.Close()
	return finding{Name: "address", OK: true, Found: c.Addr + " is free"}
}

func checkFFmpeg() finding {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		return finding{Name: "ffmpeg", OK: true, Found: "not installed", Advice: "Not needed: install it to read and write more kinds of media."}
	}
	return finding{Name: "ffmpeg", OK: true, Found: path}
}
