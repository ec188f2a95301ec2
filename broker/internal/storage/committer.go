package storage

import (
	"fmt"
	"sync"
)

// syncAllFrom is the number of dirty logs from which one sync of the whole file
// system is cheaper than one of each log: 0.1-0.2 ms a log against 10-20 ms.
const syncAllFrom = 64

// Committer makes logs durable in groups: requests that come while a round of
// syncs runs are served together by the next. It is one goroutine.
type Committer struct {
	directory *Directory

	mu       sync.Mutex
	wake     sync.Cond
	requests []commitRequest
	closed   bool
	done     chan struct{}

	// Of the goroutine alone.
	round   []commitRequest
	dirty   []*Log
	targets []syncTarget
}

type commitRequest struct {
	log  *Log
	tell func(synced int64, err error)
}

// NewCommitter starts the committer of a directory. Close stops it.
func NewCommitter(d *Directory) *Committer {
	c := &Committer{directory: d, done: make(chan struct{})}
	c.wake.L = &c.mu
	go c.run()
	return c
}

// Request asks for a sync of all that has been appended to the log. tell is
// called once, on the committer's goroutine, with SyncedOffset or why the sync
// failed. It must not block, and may call Request.
func (c *Committer) Request(l *Log, tell func(synced int64, err error)) {
	c.mu.Lock()
	if !c.closed {
		c.requests = append(c.requests, commitRequest{l, tell})
		c.mu.Unlock()
		c.wake.Signal()
		return
	}
	c.mu.Unlock()
	tell(l.SyncedOffset(), fmt.Errorf("%w: the committer of %s", ErrClosed, c.directory.root))
}

// Close serves what has been requested and stops the committer.
func (c *Committer) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wake.Signal()
	<-c.done
}

func (c *Committer) run() {
	defer close(c.done)
	for {
		c.mu.Lock()
		for len(c.requests) == 0 && !c.closed {
			c.wake.Wait()
		}
		c.round, c.requests = c.requests, c.round[:0]
		c.mu.Unlock()
		if len(c.round) == 0 {
			return
		}
		c.commit()
		clear(c.round)
	}
}

// commit serves the requests of a round.
func (c *Committer) commit() {
	c.dirty = c.dirty[:0]
	for _, r := range c.round {
		if !r.log.inRound {
			r.log.inRound = true
			c.dirty = append(c.dirty, r.log)
		}
	}
	env := &c.directory.env
	begin := env.Now()
	together := len(c.dirty) >= syncAllFrom
	if together {
		c.syncAll()
	}
	for _, r := range c.round {
		l := r.log
		if l.inRound && !together {
			l.roundErr = l.Sync()
		}
		l.inRound = false
		r.tell(l.SyncedOffset(), l.roundErr)
	}
	if env.Synced != nil {
		env.Synced(env.Now().Sub(begin), len(c.dirty))
	}
	clear(c.dirty)
}

// syncAll makes all dirty logs durable with one sync of the file system.
func (c *Committer) syncAll() {
	c.targets = c.targets[:0]
	for _, l := range c.dirty {
		l.syncMu.Lock()
		var target syncTarget
		target, l.roundErr = l.beginSync(true)
		c.targets = append(c.targets, target)
	}
	failed := c.directory.env.FS.SyncAll(c.directory.root)
	for i, l := range c.dirty {
		if c.targets[i].file != nil {
			l.roundErr = l.endSync(c.targets[i], failed)
		}
		l.syncMu.Unlock()
	}
	clear(c.targets)
}
