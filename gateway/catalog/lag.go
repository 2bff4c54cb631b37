package catalog

import (
	"context"
	"time"

	"helicon/queue"
)

// Lag is how far the catalog is behind the queue.
type Lag struct {
	Events uint64        // that wait to be projected
	Age    time.Duration // for how long some have been waiting
}

// Lag returns how far the catalog was behind when it last heard of the queue.
func (c *Catalog) Lag() Lag {
	c.mu.Lock()
	defer c.mu.Unlock()
	lag := Lag{Events: c.pending}
	if !c.since.IsZero() {
		lag.Age = time.Since(c.since)
	}
	return lag
}

func (c *Catalog) setLeading(leading bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leading = leading
}

// reached takes notice of the position and of how many events wait behind it.
func (c *Catalog) reached(at position, pending uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.pending = at, pending
	switch {
	case pending == 0:
		c.since = time.Time{}
	case c.since.IsZero():
		c.since = time.Now()
	}
}

// Limits on waiting for the projection.
const (
	caughtUpWithin = time.Second
	caughtUpPoll   = 2 * time.Millisecond
	hopeless       = 5000 // events
)

// CatchUp waits until what the stream of events had is in the catalog, so that a list
// shows what was accepted before it was asked for: at most a second, and not at all where
// too many events wait for that.
func (c *Catalog) CatchUp(ctx context.Context, log queue.EventLog) {
	ctx, cancel := context.WithTimeout(ctx, caughtUpWithin)
	defer cancel()
	for {
		at, ok := c.whereabouts(ctx)
		if !ok || at.stream == log.ID && uint64(at.sequence) >= log.Last || uint64(at.sequence)+hopeless < log.Last || !pause(ctx, caughtUpPoll) {
			return
		}
	}
}

// whereabouts returns the position: from memory where this process projects, else from
// the database.
func (c *Catalog) whereabouts(ctx context.Context) (at position, ok bool) {
	c.mu.Lock()
	at, leading := c.at, c.leading
	c.mu.Unlock()
	if leading {
		return at, true
	}
	at, err := c.position(ctx)
	return at, err == nil
}
