package topology

import (
	"fmt"
	"time"

	"github.com/leatlog/leat/topology/plan"
)

// windowKind is what the bounds of windows come from.
type windowKind uint8

const (
	// timeWindows are cut by time alone: tumbling and hopping ones.
	timeWindows windowKind = iota
	// sessionWindows and slidingWindows have the bounds that each key's records give them.
	sessionWindows
	slidingWindows
)

// Windows says how event time is cut into windows. The zero value is not valid:
// begin with Tumbling, Hopping, Sliding or Session.
type Windows struct {
	kind windowKind
	// size is a session's gap, and of sliding windows the time difference.
	size, advance, grace time.Duration
}

// Tumbling windows have a size and follow each other without gap or overlap.
// They begin at multiples of size since the Unix epoch, as in Kafka Streams.
func Tumbling(size time.Duration) Windows { return Windows{size: size, advance: size} }

// Hopping windows have a size and begin at multiples of advance, so that each
// record is in size/advance of them. The first ones begin at 0, not before.
func Hopping(size, advance time.Duration) Windows { return Windows{size: size, advance: advance} }

// Session windows are as long as a key is active: records that are at most gap apart
// belong to one session, from the time of its first record to that of its last one,
// both included. A record between two sessions makes one of them. Aggregate needs a Merger
// for that. Results on update say when a session is gone, with a null value for its
// bounds, before they tell what took its place.
func Session(gap time.Duration) Windows { return Windows{kind: sessionWindows, size: gap} }

// Sliding windows hold records of a key that are at most difference apart (KIP-450). There
// is a window for each combination of records that such a span of time can hold: one that
// ends with each record, and one that begins behind it. Both bounds of a window belong to
// it, End is Start plus difference. The first ones begin at 0, not before.
func Sliding(difference time.Duration) Windows {
	return Windows{kind: slidingWindows, size: difference}
}

// Grace is how long after its end, in event time, a window still takes late
// records; 0 by default. Records later than that are dropped and counted. A session
// ends in this sense when the gap after its last record has passed.
func (w Windows) Grace(grace time.Duration) Windows {
	w.grace = grace
	return w
}

// closing is how long after its End a session or sliding window takes records.
func (w Windows) closing() time.Duration {
	if w.kind == sessionWindows {
		return w.size + w.grace
	}
	return w.grace
}

// keep is how long after its End a session or sliding window is of use for others.
func (w Windows) keep() time.Duration {
	if w.kind == slidingWindows {
		// The earliest record that is not late may be in the right window of one that is
		// 1 ms and the time difference before it, and learns of it from its left window.
		return w.grace + w.size + time.Millisecond
	}
	return w.closing()
}

// closesAt is the event time at which a window is closed.
func (w Windows) closesAt(window Window) int64 {
	if w.kind == timeWindows {
		return window.End + w.grace.Milliseconds()
	}
	return window.End + w.closing().Milliseconds() + 1
}

// retention is how long, at least, rows are kept: after the start of a window, after the
// end of a session.
func (w Windows) retention() time.Duration {
	if w.kind == slidingWindows {
		return w.keep() + w.size
	}
	return w.size + w.grace
}

func (w Windows) retentionText() string {
	if w.kind == sessionWindows {
		return fmt.Sprintf("gap plus grace, %v", w.retention())
	}
	if w.kind == slidingWindows {
		return fmt.Sprintf("twice the time difference plus grace plus 1ms, %v", w.retention())
	}
	return fmt.Sprintf("size plus grace, %v", w.retention())
}

// String describes the windows, as in "tumbling 1m0s, grace 10s".
func (w Windows) String() string {
	switch {
	case w.kind == sessionWindows:
		return fmt.Sprintf("session gap %v, grace %v", w.size, w.grace)
	case w.kind == slidingWindows:
		return fmt.Sprintf("sliding %v, grace %v", w.size, w.grace)
	case w.size == w.advance:
		return fmt.Sprintf("tumbling %v, grace %v", w.size, w.grace)
	}
	return fmt.Sprintf("hopping %v every %v, grace %v", w.size, w.advance, w.grace)
}

// plan tells about the windows of an operator.
func (w Windows) plan(onClose bool) *plan.Windows {
	p := &plan.Windows{Size: w.size, Grace: w.grace, OnClose: onClose}
	switch {
	case w.kind == sessionWindows:
		p.Kind, p.Size, p.Gap = "session", 0, w.size
	case w.kind == slidingWindows:
		p.Kind = "sliding"
	case w.size == w.advance:
		p.Kind, p.Advance = "tumbling", w.advance
	default:
		p.Kind, p.Advance = "hopping", w.advance
	}
	return p
}

// complaint says what is wrong with the windows, "" when nothing is.
func (w Windows) complaint() string {
	whole := func(d time.Duration) bool { return d%time.Millisecond == 0 }
	switch {
	case w.kind == sessionWindows && (w.size < time.Millisecond || !whole(w.size)):
		return fmt.Sprintf("the gap between sessions is %v: it must be whole milliseconds, and at least one", w.size)
	case w.kind == slidingWindows && (w.size < time.Millisecond || !whole(w.size)):
		return fmt.Sprintf("the time difference is %v: it must be whole milliseconds, and at least one", w.size)
	case w.size < time.Millisecond || !whole(w.size):
		return fmt.Sprintf("the window size is %v: it must be whole milliseconds, and at least one", w.size)
	case w.kind == timeWindows && (w.advance < time.Millisecond || w.advance > w.size || !whole(w.advance)):
		return fmt.Sprintf("the windows advance by %v: it must be whole milliseconds, from 1ms to the size, %v", w.advance, w.size)
	case w.grace < 0 || !whole(w.grace):
		return fmt.Sprintf("the grace is %v: it must be whole milliseconds, and not negative", w.grace)
	}
	return ""
}
