package topology

import (
	"math"
	"strings"
	"time"

	"github.com/leatlog/leat/topology/plan"
)

// Punctuation is a timer of a Processor: EveryStreamTime or EveryWallTime.
type Punctuation struct {
	wall     bool
	interval time.Duration
	f        func(*ProcessorContext, time.Time) error
}

// EveryStreamTime runs f when event time reaches the next multiple of interval since
// 1970, and with the first record of all. It is told the stream time; when that leaps
// over several multiples f runs once. Restarts do not shift it. An error stops the task.
func EveryStreamTime(interval time.Duration, f func(*ProcessorContext, time.Time) error) Punctuation {
	return Punctuation{interval: interval, f: f}
}

// EveryWallTime runs f every interval of the clock, the first time an interval after the
// task has started, and once when it is late for several. It is told the time. The clock
// is looked at between runs of records and once a second, so an interval below that is
// not kept when there is nothing to do. An error stops the task.
func EveryWallTime(interval time.Duration, f func(*ProcessorContext, time.Time) error) Punctuation {
	return Punctuation{wall: true, interval: interval, f: f}
}

// String is as in "stream time every 1s".
func (p Punctuation) String() string {
	if p.wall {
		return "wall time every " + p.interval.String()
	}
	return "stream time every " + p.interval.String()
}

func punctuationText(punctuations []Punctuation) string {
	texts := make([]string, len(punctuations))
	for i, p := range punctuations {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}

// timers are the punctuations of a processor in a task.
type timers struct {
	of []Punctuation
	// due is when each runs next, in ms; nextStream is the first one of stream time.
	due        []int64
	nextStream int64
}

func newTimers(ctx plan.Context, of []Punctuation) timers {
	t := timers{of: of, due: make([]int64, len(of))}
	for j, p := range of {
		switch now := ctx.StreamTime(); {
		case p.wall:
			t.due[j] = ctx.WallTime() + p.interval.Milliseconds()
		case now >= 0:
			t.due[j] = after(now, p.interval)
		}
	}
	t.plan()
	return t
}

// after is the next multiple of an interval behind now.
func after(now int64, interval time.Duration) int64 {
	return (now/interval.Milliseconds() + 1) * interval.Milliseconds()
}

func (t *timers) plan() {
	t.nextStream = math.MaxInt64
	for j, p := range t.of {
		if !p.wall {
			t.nextStream = min(t.nextStream, t.due[j])
		}
	}
}

// run runs what is due; wall says that the clock is to be looked at, too.
func (t *timers) run(c *ProcessorContext, wall bool) error {
	streamTime := c.i.ctx.StreamTime()
	if !wall && streamTime < t.nextStream {
		return nil
	}
	for j, p := range t.of {
		now := streamTime
		if p.wall {
			if !wall {
				continue
			}
			now = c.i.ctx.WallTime()
		}
		if now < t.due[j] {
			continue
		}
		t.due[j] = after(now, p.interval)
		if p.wall {
			t.due[j] = now + p.interval.Milliseconds()
		}
		if err := c.punctuate(p, now); err != nil {
			return err
		}
	}
	t.plan()
	return nil
}

// punctuate runs a timer.
func (c *ProcessorContext) punctuate(p Punctuation, now int64) error {
	c.now, c.headers, c.changed = now, nil, false
	err := p.f(c, time.UnixMilli(now).UTC())
	switch {
	case c.failed != nil:
		return c.failed
	case err != nil:
		return broken(c.i, c.operator, err)
	case c.changed:
		c.i.ctx.Changed()
	}
	return nil
}

func (p *processing[K, V]) open() error      { return nil }
func (p *processing[K, V]) punctuate() error { return p.timers.run(&p.c, true) }
func (p *processing[K, V]) flush() error     { return nil }
