package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/record"
)

// memoryLog is a Log whose appends are committed when the test says so.
type memoryLog struct {
	mu        sync.Mutex
	batches   []record.Batch
	end       int64
	committed int64
	waiting   []func(error) // in the order of the appends that wait
	hold      bool
	failing   error
}

func (l *memoryLog) Append(batch []byte, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing != nil {
		done(l.failing)
		return
	}
	b := record.Batch(slices.Clone(batch))
	b.SetBaseOffset(l.end)
	l.end = b.NextOffset()
	l.batches = append(l.batches, b)
	if l.hold {
		l.waiting = append(l.waiting, done)
		return
	}
	l.committed = l.end
	done(nil)
}

// commit commits what is held back.
func (l *memoryLog) commit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = l.end
	for _, done := range l.waiting {
		done(nil)
	}
	l.waiting = nil
}

func (l *memoryLog) Read(dst []byte, offset int64, _ int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		if b.BaseOffset() >= offset && b.LastOffset() < l.committed {
			return append(dst, b...), nil // one at a time
		}
	}
	return dst, nil
}

func (l *memoryLog) Offsets() (start, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return 0, l.end
}

// register is a Shard: named numbers, of which "deadline" is one.
type register struct {
	values   map[string]int
	unloaded *int
}

func (s *register) Replay(r Record, _ int64) error {
	if string(r.Key) == "poison" {
		return errors.New("poison")
	}
	if r.Value == nil {
		delete(s.values, string(r.Key))
		return nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(r.Value)))
	s.values[string(r.Key)] = n
	return err
}

func (s *register) Loaded(time.Time) Result { return Result{} }
func (s *register) Unload()                 { *s.unloaded++ }

func (s *register) NextDeadline() (time.Time, bool) {
	at, ok := s.values["deadline"]
	return time.Unix(int64(at), 0), ok
}

func (s *register) Expire(now time.Time) Result {
	if at, ok := s.NextDeadline(); !ok || at.After(now) {
		return Result{}
	}
	return Result{Records: []Record{{Key: []byte("deadline")}, set("rang", int(now.Unix()))}}
}

func set(key string, n int) Record { return Record{[]byte(key), []byte(strconv.Itoa(n))} }

// bench runs a Runtime step by step.
type bench struct {
	t        *testing.T
	runtime  *Runtime
	log      *memoryLog
	now      time.Time
	queue    []func()
	timers   []*benchTimer
	unloaded int
}

type benchTimer struct {
	at time.Time
	f  func()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, log: &memoryLog{}, now: time.Unix(1000, 0)}
	b.runtime = NewRuntime(Config{
		Now: func() time.Time { return b.now },
		Go:  func(f func()) { b.queue = append(b.queue, f) },
		AfterFunc: func(d time.Duration, f func()) func() {
			timer := &benchTimer{b.now.Add(d), f}
			b.timers = append(b.timers, timer)
			return func() { b.timers = slices.DeleteFunc(b.timers, func(x *benchTimer) bool { return x == timer }) }
		},
		NewShard: func(int32) Shard { return &register{map[string]int{}, &b.unloaded} },
		MaxBatch: 2000, Logger: zerolog.Nop(),
	})
	return b
}

func (b *bench) lead(epoch int32) {
	b.runtime.Lead(3, epoch, b.log)
	b.drain()
}

// drain runs what runs on goroutines of its own.
func (b *bench) drain() {
	for len(b.queue) > 0 {
		f := b.queue[0]
		b.queue = b.queue[1:]
		f()
	}
}

func (b *bench) advance(d time.Duration) {
	b.now = b.now.Add(d)
	for {
		i := slices.IndexFunc(b.timers, func(x *benchTimer) bool { return !x.at.After(b.now) })
		if i < 0 {
			return
		}
		timer := b.timers[i]
		b.timers = slices.Delete(b.timers, i, i+1)
		timer.f()
		b.drain()
	}
}

// answer is the outcome of an event: "" while there is none.
type answer struct{ text string }

func (a *answer) done(text string) func(error) Result {
	return func(err error) Result {
		if a.text != "" {
			text = "twice: " + text
		}
		if a.text = text; err != nil {
			a.text = err.Error()
		}
		return Result{}
	}
}

func (b *bench) write(key string, n int) *answer {
	b.t.Helper()
	return b.do(func(*register) Result { return Result{Records: []Record{set(key, n)}} })
}

// read answers with the value.
func (b *bench) read(key string) *answer {
	b.t.Helper()
	a := &answer{}
	err := b.runtime.Do(3, func(s Shard, _ time.Time) Result {
		n, ok := s.(*register).values[key]
		return Result{Done: a.done(fmt.Sprint(n, " ", ok))}
	})
	if err != nil {
		a.text = err.Error()
	}
	b.drain()
	return a
}

func (b *bench) do(event func(*register) Result) *answer {
	b.t.Helper()
	a := &answer{}
	err := b.runtime.Do(3, func(s Shard, _ time.Time) Result {
		result := event(s.(*register))
		result.Done = a.done("ok")
		return result
	})
	if err != nil {
		a.text = err.Error()
	}
	b.drain()
	return a
}

func (b *bench) expect(what string, a *answer, want string) {
	b.t.Helper()
	if a.text != want && (want == "" || !strings.Contains(a.text, want)) {
		b.t.Fatalf("%s: %q, want %q", what, a.text, want)
	}
}

func TestOutcomesWaitForTheCommit(t *testing.T) {
	b := newBench(t)
	b.expect("before leading", b.read("x"), ErrNotCoordinator.Error())
	b.runtime.Lead(3, 1, b.log)
	if err := b.runtime.Do(3, nil); !errors.Is(err, ErrLoading) {
		t.Fatalf("while loading: %v", err)
	}
	b.drain()
	b.expect("empty log", b.read("x"), "0 false")

	b.log.hold = true
	first := b.write("x", 1)
	read := b.read("x")
	second := b.write("x", 2)
	b.expect("write", first, "")
	b.expect("read of what is not committed", read, "")
	b.log.commit()
	b.drain()
	b.expect("write", first, "ok")
	b.expect("read", read, "1 true")
	b.expect("second write", second, "ok")
	b.expect("read when all is committed", b.read("x"), "2 true")

	b.runtime.Resign(3)
	if b.unloaded != 1 {
		t.Fatalf("unloaded %d times", b.unloaded)
	}
	b.expect("after resigning", b.read("x"), ErrNotCoordinator.Error())
	b.lead(2)
	b.expect("loaded again", b.read("x"), "2 true")
	b.runtime.Lead(3, 2, b.log) // the same leadership
	b.expect("still loaded", b.read("x"), "2 true")
	b.runtime.Close()
	b.runtime.Lead(3, 3, b.log)
	b.expect("after closing", b.read("x"), ErrNotCoordinator.Error())
}

func TestAFailedAppendTakesTheStateBack(t *testing.T) {
	b := newBench(t)
	b.lead(1)
	b.expect("write", b.write("x", 1), "ok")
	b.log.hold = true
	pending := b.write("y", 5) // in the log, but not committed yet
	b.log.failing = errors.New("disk on fire")
	// All three are decided before the log's answer is heard of.
	a, c := &answer{}, &answer{}
	for _, event := range []func(Shard) Result{
		func(Shard) Result { return Result{Records: []Record{set("x", 2)}, Done: a.done("ok")} },
		func(s Shard) Result { return Result{Done: c.done(fmt.Sprint(s.(*register).values["x"]))} },
	} {
		if err := b.runtime.Do(3, func(s Shard, _ time.Time) Result { return event(s) }); err != nil {
			t.Fatal(err)
		}
	}
	b.drain()
	b.expect("the failed write waits for the one before it", a, "")
	b.log.failing = nil
	b.log.commit()
	b.drain()
	b.expect("write before the failure", pending, "ok")
	b.expect("failed write", a, "disk on fire")
	b.expect("read of what was lost", c, "disk on fire")
	b.expect("after loading again", b.read("x"), "1 true")
	b.expect("what was committed late", b.read("y"), "5 true")
	if b.unloaded != 1 {
		t.Fatalf("unloaded %d times", b.unloaded)
	}
}

func TestLoadingWaitsForTheTailToBeCommitted(t *testing.T) {
	b := newBench(t)
	b.lead(1)
	b.expect("write", b.write("x", 1), "ok")
	b.log.hold = true
	b.write("x", 2)
	b.lead(2) // the log's end is not committed
	b.expect("tail not committed", b.read("x"), ErrLoading.Error())
	b.advance(tailPoll)
	b.expect("tail still not committed", b.read("x"), ErrLoading.Error())
	b.log.commit()
	b.advance(tailPoll)
	b.expect("tail committed", b.read("x"), "2 true")
}

func TestBatchesKeepToTheLimit(t *testing.T) {
	b := newBench(t)
	b.lead(1)
	large := Record{[]byte("big"), []byte("1" + strings.Repeat(" ", 3000))}
	b.expect("too large", b.do(func(*register) Result { return Result{Records: []Record{large}} }), ErrTooLarge.Error())
	b.expect("nothing was done", b.read("big"), "0 false")
	many := make([]Record, 100)
	for i := range many {
		many[i] = set(fmt.Sprintf("key-%050d", i), i)
	}
	b.expect("as one", b.do(func(*register) Result { return Result{Records: many} }), ErrTooLarge.Error())
	if len(b.log.batches) != 0 {
		t.Fatalf("%d batches after refused ones", len(b.log.batches))
	}
	b.log.hold = true
	several := b.do(func(*register) Result { return Result{Records: many, Several: true} })
	b.expect("several, not committed", several, "")
	b.log.commit()
	b.drain()
	b.expect("several", several, "ok")
	for _, batch := range b.log.batches {
		if batch.Size() > 2000 {
			t.Fatalf("a batch of %d bytes", batch.Size())
		}
	}
	b.lead(2)
	b.expect("the last", b.read(string(many[99].Key)), "99 true")
	if b.unloaded != 1 {
		t.Fatalf("unloaded %d times: a refused batch must not end the shard", b.unloaded)
	}
}

func TestDeadlinesRing(t *testing.T) {
	b := newBench(t)
	b.lead(1)
	b.write("deadline", 1060)
	b.write("deadline", 1030) // the alarm is set earlier
	b.advance(29 * time.Second)
	b.expect("too early", b.read("rang"), "0 false")
	b.advance(time.Second)
	b.expect("on time", b.read("rang"), "1030 true")
	b.write("deadline", 1040)
	b.runtime.Resign(3)
	if len(b.timers) != 0 {
		t.Fatalf("%d timers left", len(b.timers))
	}
}

func TestARecordThatCannotBeReplayed(t *testing.T) {
	b := newBench(t)
	b.lead(1)
	b.write("x", 1)
	b.expect("own record", b.write("poison", 1), "poison")
	b.expect("loaded again", b.read("x"), "1 true")
	// In the log, it stops the loading: what follows may depend on it.
	builder := record.NewBuilder(record.CodecNone)
	builder.Append(0, []byte("poison"), nil, nil)
	b.log.Append(builder.Build(nil), func(error) {})
	b.lead(2)
	b.expect("damaged log", b.read("x"), ErrNotCoordinator.Error())
}

// TestConcurrentEvents counts from many goroutines while the leadership comes
// and goes: no increment that was answered is lost.
func TestConcurrentEvents(t *testing.T) {
	log := &memoryLog{}
	var unloaded int
	runtime := NewRuntime(Config{
		Now: time.Now, Go: func(f func()) { go f() },
		AfterFunc: func(d time.Duration, f func()) func() { timer := time.AfterFunc(d, f); return func() { timer.Stop() } },
		NewShard:  func(int32) Shard { return &register{map[string]int{}, &unloaded} }, Logger: zerolog.Nop(),
	})
	defer runtime.Close()
	runtime.Lead(3, 1, log)
	const workers, each = 4, 200
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for answered := 0; answered < each; {
				result := make(chan error, 1)
				if runtime.Do(3, func(s Shard, _ time.Time) Result {
					return Result{Records: []Record{set("n", s.(*register).values["n"]+1)}, Done: func(err error) Result { result <- err; return Result{} }}
				}) == nil && <-result == nil {
					answered++
				}
			}
		})
	}
	for epoch := int32(2); epoch < 12; epoch++ {
		runtime.Lead(3, epoch, log)
	}
	wait.Wait()
	total := make(chan int, 1)
	if err := runtime.Do(3, func(s Shard, _ time.Time) Result {
		return Result{Done: func(error) Result { total <- s.(*register).values["n"]; return Result{} }}
	}); err != nil {
		t.Fatal(err)
	}
	if n := <-total; n != workers*each {
		t.Fatalf("counted %d, want %d", n, workers*each)
	}
	if log.batches[len(log.batches)-1].Count() != 1 || len(log.batches) != workers*each {
		t.Fatalf("%d batches", len(log.batches))
	}
}
