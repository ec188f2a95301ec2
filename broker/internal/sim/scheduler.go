package sim

import (
	"container/heap"
	"context"
	"encoding/binary"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"time"
)

// epoch is the wall time at which virtual time begins.
var epoch = time.Unix(1_700_000_000, 0)

// scheduler runs events in virtual time, one at a time. An event may run a task: a
// goroutine of which, of all tasks, one at most is running while the others wait for
// the scheduler, so that code which blocks is as deterministic as code which does not.
type scheduler struct {
	random  *rand.Rand
	now     time.Duration
	order   int
	events  eventHeap
	current *task
	yielded chan struct{} // told when the running task waits or ends
	trace   hash.Hash64
	steps   int
	failed  func(format string, args ...any)
}

// event is something that happens at a time.
type event struct {
	at    time.Duration
	order int
	run   func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

func newScheduler(seed uint64, failed func(string, ...any)) *scheduler {
	return &scheduler{random: rand.New(rand.NewPCG(seed, 6)), yielded: make(chan struct{}), trace: fnv.New64a(), failed: failed}
}

// time is the wall time.
func (s *scheduler) time() time.Time { return epoch.Add(s.now) }

// between draws a duration of [low, high).
func (s *scheduler) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.random.Int64N(int64(high-low)))
}

// chance is true in n of 1,000 cases.
func (s *scheduler) chance(n int) bool { return s.random.IntN(1000) < n }

// after has run called after d.
func (s *scheduler) after(d time.Duration, run func()) {
	s.order++
	heap.Push(&s.events, event{s.now + max(d, 0), s.order, run})
}

// note takes something that happened into the trace.
func (s *scheduler) note(kind string, values ...int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(s.now))
	_, _ = s.trace.Write(b[:])
	_, _ = s.trace.Write([]byte(kind))
	for _, v := range values {
		binary.LittleEndian.PutUint64(b[:], uint64(v))
		_, _ = s.trace.Write(b[:])
	}
}

// run runs events until there are none before end, or done says so.
func (s *scheduler) run(end time.Duration, done func() bool) bool {
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		s.steps++
		s.guard(e.run)
		if done() {
			return true
		}
	}
	s.now = max(s.now, end)
	return false
}

// guard turns a panic of the code under test into a violation.
func (s *scheduler) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			s.failed("I10: panic: %v\n%s", v, debug.Stack())
		}
	}()
	f()
}

// life is what events and tasks belong to: one start of a process, from which nothing
// happens any more once it was killed.
type life struct {
	s      *scheduler
	dead   bool
	paused bool
	held   []func() // events that came while it was paused
	tasks  map[*task]struct{}
	order  []*task
}

func (s *scheduler) newLife() *life { return &life{s: s, tasks: map[*task]struct{}{}} }

// after has run called after d, unless the life ended.
func (l *life) after(d time.Duration, run func()) {
	l.s.after(d, func() { l.do(run) })
}

func (l *life) do(run func()) {
	switch {
	case l.dead:
	case l.paused:
		l.held = append(l.held, run)
	default:
		run()
	}
}

// pause stops the process, resume lets it run on with what it missed.
func (l *life) pause() { l.paused = true }

func (l *life) resume() {
	l.paused = false
	held := l.held
	l.held = nil
	for _, run := range held {
		l.after(0, run)
	}
}

// kill ends the life. Its tasks end where they wait.
func (l *life) kill() {
	l.dead = true
	l.held = nil
	for _, t := range l.order {
		if _, waiting := l.tasks[t]; waiting {
			t.resume()
		}
	}
	l.order = nil
}

// task is a goroutine that the scheduler drives.
type task struct {
	life   *life
	wake   chan struct{}
	parked bool
}

// Go starts a task, soon.
func (l *life) Go(f func()) {
	l.after(l.s.between(0, 20*time.Microsecond), func() {
		t := &task{life: l, wake: make(chan struct{})}
		l.tasks[t] = struct{}{}
		l.order = append(l.order, t)
		if len(l.order) > 64 && len(l.order) > 2*len(l.tasks) {
			l.compact()
		}
		go func() {
			<-t.wake
			defer func() {
				delete(l.tasks, t)
				l.s.yielded <- struct{}{}
			}()
			if !l.dead {
				l.s.guard(f)
			}
		}()
		t.resume()
	})
}

func (l *life) compact() {
	kept := l.order[:0]
	for _, t := range l.order {
		if _, ok := l.tasks[t]; ok {
			kept = append(kept, t)
		}
	}
	clear(l.order[len(kept):])
	l.order = kept
}

// resume runs the task until it waits or ends.
func (t *task) resume() {
	s := t.life.s
	before := s.current
	s.current = t
	t.parked = false
	t.wake <- struct{}{}
	<-s.yielded
	s.current = before
}

// park has the current task wait until the function that arm gets is called.
func (s *scheduler) park(arm func(wake func())) {
	t := s.current
	if t == nil {
		panic("sim: something blocks that must not: it runs on no task")
	}
	t.parked = true
	woken := false
	arm(func() {
		if woken {
			return
		}
		woken = true
		t.life.after(0, t.resume)
	})
	s.yielded <- struct{}{}
	<-t.wake
	if t.life.dead {
		runtime.Goexit()
	}
}

// sleep has the current task wait.
func (s *scheduler) sleep(d time.Duration) {
	s.park(func(wake func()) { s.after(d, wake) })
}

// Sleep is sleep for code that gives up when ctx ends, which no context of a
// simulation does but by the death of the process.
func (l *life) Sleep(_ context.Context, d time.Duration) { l.s.sleep(d) }

// AfterFunc calls f after d unless it is stopped before.
func (l *life) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	over := false
	l.after(d, func() {
		if !over {
			over = true
			f()
		}
	})
	return func() bool {
		was := over
		over = true
		return !was
	}
}

// bell implements replica.Bell for tasks.
type bell struct {
	s    *scheduler
	rung bool
	wake func()
}

func (b *bell) Ring() {
	b.rung = true
	if wake := b.wake; wake != nil {
		b.wake = nil
		wake()
	}
}

func (b *bell) Wait() {
	if !b.rung {
		b.s.park(func(wake func()) { b.wake = wake })
	}
	b.rung = false
}

// reader is a source of random bytes drawn from the seed.
type reader struct{ s *scheduler }

func (r reader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.s.random.Uint32())
	}
	return len(p), nil
}
