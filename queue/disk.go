package queue

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
)

// The embedded server refuses new jobs while less than diskReserve is free, so that
// running jobs can still write their events, and takes them again from diskResume on.
const (
	diskReserve = 64 << 20
	diskResume  = 96 << 20
	diskPoll    = time.Second
)

// diskGuard watches the free space of the embedded server's disk. JetStream gives up
// a stream for good when one write to it fails, so when a full disk has room again
// the guard starts the server anew on its files.
type diskGuard struct {
	full  atomic.Bool
	stop  chan struct{}
	ended chan struct{}
	once  sync.Once
}

func guardDisk(s *Server) *diskGuard {
	g := &diskGuard{stop: make(chan struct{}), ended: make(chan struct{})}
	free := s.config.free
	if free == nil {
		free = freeSpace
	}
	go func() {
		defer close(g.ended)
		poll := time.NewTicker(diskPoll)
		defer poll.Stop()
		for {
			if bytes, err := free(s.config.Dir); err == nil {
				g.look(s, bytes)
			}
			select {
			case <-poll.C:
			case <-g.stop:
				return
			}
		}
	}()
	return g
}

func (g *diskGuard) look(s *Server, free uint64) {
	switch full := g.full.Load(); {
	case !full && free < diskReserve:
		g.full.Store(true)
		s.config.Log.Error("the disk is full: no jobs are accepted until there is room", "dir", s.config.Dir, "free", free, "needed", diskResume)
	case full && free >= diskResume:
		if err := s.restart(); err != nil {
			s.config.Log.Error("the queue cannot be started again; trying once more", "err", err)
			return
		}
		g.full.Store(false)
		s.config.Log.Info("the disk has room again: jobs are accepted", "free", free)
	}
}

func (g *diskGuard) close() {
	g.once.Do(func() { close(g.stop) })
	<-g.ended
}

func freeSpace(dir string) (uint64, error) {
	usage, err := disk.Usage(dir)
	if err != nil {
		return 0, err
	}
	return usage.Free, nil
}
