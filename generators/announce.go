package generators

import (
	"context"
	"os"
	"time"

	"helicon/queue"
)

const (
	announceEvery = 5 * time.Second        // well within the queue's WorkerTTL
	announcePause = 250 * time.Millisecond // between two renewals, however much changes
	announceLimit = 2 * time.Second        // for one exchange with the message server
)

// announce makes the worker, its tasks and its models known until ctx ends, and then
// unknown. Tasks are defined again after an interruption: the message server that
// comes back may be a new one.
func (w *Worker) announce(ctx context.Context) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for defined, away := false, false; ; {
		err := w.introduce(ctx, defined)
		defined = err == nil
		if err != nil && !away && ctx.Err() == nil {
			w.log.Warn("the worker cannot make itself known", "err", err)
		}
		away = err != nil
		if pause(ctx, announcePause) {
			select {
			case <-tick.C:
				continue
			case <-w.changed:
				continue
			case <-ctx.Done():
			}
		}
		break
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceLimit/4)
	defer cancel()
	if err := w.queue.Withdraw(ctx, w.id); err != nil {
		w.log.Warn("the worker stays known until its entry expires", "err", err)
	}
}

func (w *Worker) introduce(ctx context.Context, defined bool) error {
	ctx, cancel := context.WithTimeout(ctx, announceLimit)
	defer cancel()
	self := w.describe()
	if !defined {
		if err := w.queue.Define(ctx, self.Tasks); err != nil {
			return err
		}
	}
	return w.queue.Advertise(ctx, self)
}

func (w *Worker) describe() queue.Worker {
	self := queue.Worker{
		ID: w.id, Host: w.host, PID: os.Getpid(), Version: w.version, Started: w.begun,
		Modalities: w.modalities(), Slots: w.slots(), Running: w.runningJobs(),
		Memory: w.memory.Total(), MemoryUsed: w.memory.Used(),
		Tasks: []queue.Task{}, Models: []queue.Model{},
	}
	for _, g := range w.distinct {
		self.Tasks = append(self.Tasks, g.Tasks()...)
		self.Models = append(self.Models, g.Models()...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	self.Draining = w.draining
	return self
}
