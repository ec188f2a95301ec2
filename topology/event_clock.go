package topology

import (
	"github.com/leatlog/leat/state"
)

// eventClock is an operator's event time, which it keeps over restarts with a mark in
// its store; see markStart.
type eventClock struct {
	i     *instance
	store state.Store
	// lags says that the task's stream time is ahead of the operator's.
	lags bool
	// observed is the time as far as the operator knows it by itself: the greatest
	// timestamp it saw, when it lags, and the mark's.
	observed int64
	// mark is the time of the last flush.
	mark int64
	key  []byte
}

func newEventClock(i *instance, store state.Store, lags bool, markKey []byte) eventClock {
	return eventClock{i: i, store: store, lags: lags, observed: -1, mark: -1, key: markKey}
}

// open reads the mark.
func (c *eventClock) open() error {
	value, found, err := c.store.Get(nil, c.key)
	if err != nil || !found {
		return err
	}
	if c.mark, err = decodeMark(value, c.i.ctx.StreamTime()); err != nil {
		return err
	}
	c.observed = c.mark
	return nil
}

// observe is called with the timestamp of each record.
func (c *eventClock) observe(timestamp int64) {
	if c.lags {
		c.observed = max(c.observed, timestamp)
	}
}

// now is the operator's time.
func (c *eventClock) now() int64 {
	if c.lags {
		return c.observed
	}
	return max(c.observed, c.i.ctx.StreamTime())
}

// flush writes the mark.
func (c *eventClock) flush() error {
	now := c.now()
	if now <= c.mark {
		return nil
	}
	value := appendMark(nil, now, c.i.ctx.StreamTime(), c.mark)
	c.mark = now
	return c.store.Put(c.key, value, now)
}
