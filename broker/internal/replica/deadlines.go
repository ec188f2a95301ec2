package replica

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Clock is where a shell gets time from. Nil functions mean the machine's.
type Clock struct {
	Now func() time.Time
	// AfterFunc calls f after d on any goroutine, unless stop is called before.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
	// Sleep returns after d, or when ctx ends.
	Sleep func(ctx context.Context, d time.Duration)
}

func (c *Clock) fill() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.AfterFunc == nil {
		c.AfterFunc = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Deadline is an entry of Deadlines: embed one in what waits.
type Deadline struct {
	at     time.Time
	expire func()
	index  int // in the heap plus one, 0 when not in it
}

// Deadlines calls functions at set times, for any number of waiters with one
// heap and one timer. Safe for concurrent use.
type Deadlines struct {
	clock Clock

	mu     sync.Mutex
	heap   deadlineHeap
	armed  time.Time // what the timer is set to, zero when it is not
	stop   func() bool
	closed bool
}

// NewDeadlines returns an empty set that reads the clock.
func NewDeadlines(clock Clock) *Deadlines {
	clock.fill()
	return &Deadlines{clock: clock}
}

// Set has expire called at or soon after at, on the timer's goroutine; it must not
// block. An entry that is set already is moved.
func (d *Deadlines) Set(e *Deadline, at time.Time, expire func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	e.at, e.expire = at, expire
	if e.index > 0 {
		heap.Fix(&d.heap, e.index-1)
	} else {
		heap.Push(&d.heap, e)
	}
	d.arm()
}

// Cancel takes e out. It may still expire if it is doing so already.
func (d *Deadlines) Cancel(e *Deadline) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.index > 0 {
		heap.Remove(&d.heap, e.index-1)
		e.expire = nil
	}
}

// Len is the number of entries set.
func (d *Deadlines) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.heap)
}

// Close drops all entries and stops the timer.
func (d *Deadlines) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, e := range d.heap {
		e.index, e.expire = 0, nil
	}
	d.heap = nil
	if d.stop != nil {
		d.stop()
	}
}

// arm sets the timer for the first entry. A timer that is set for an earlier,
// cancelled entry is left: it fires, finds nothing and arms again.
func (d *Deadlines) arm() {
	if len(d.heap) == 0 || d.closed {
		return
	}
	first := d.heap[0].at
	if !d.armed.IsZero() && !first.Before(d.armed) {
		return
	}
	if d.stop != nil {
		d.stop()
	}
	d.armed = first
	d.stop = d.clock.AfterFunc(max(first.Sub(d.clock.Now()), 0), d.fire)
}

func (d *Deadlines) fire() {
	var due []func()
	d.mu.Lock()
	now := d.clock.Now()
	for len(d.heap) > 0 && !d.heap[0].at.After(now) {
		e := heap.Pop(&d.heap).(*Deadline)
		due = append(due, e.expire)
		e.expire = nil
	}
	d.armed = time.Time{}
	d.arm()
	d.mu.Unlock()
	for _, expire := range due {
		expire()
	}
}

type deadlineHeap []*Deadline

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

func (h *deadlineHeap) Push(x any) {
	e := x.(*Deadline)
	*h = append(*h, e)
	e.index = len(*h)
}

func (h *deadlineHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = 0
	return e
}
