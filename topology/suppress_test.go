package topology_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// finals counts by key and window, each window once.
func finals(w topology.Windows, s topology.Suppression, opts ...topology.SuppressOption) *topology.Topology {
	top := topology.New()
	table := topology.Count("n", topology.From(top, in).GroupByKey().Window(w))
	topology.To(table.Suppress("final", s, opts...).Stream(), topology.NewTopic("out", readable, serde.Int64))
	return top
}

// limited keeps the latest value of each key and holds updates back.
func limited(s topology.Suppression) *topology.Topology {
	top := topology.New()
	table := topology.ToTable("t", topology.From(top, in))
	topology.To(table.Suppress("s", s).Stream(), out)
	return top
}

// held counts the rows of updates that are held back, or that left in the last commit.
func (s *fakeStore) held() int {
	n := 0
	for _, key := range s.keys {
		if key[0] == 1 {
			n++
		}
	}
	return n
}

func TestSuppressUntilWindowCloses(t *testing.T) {
	d := newDriver(t, finals(topology.Tumbling(10*ms).Grace(5*ms), topology.UntilWindowCloses()))
	d.send("in", rec("a", "", 3), rec("b", "", 12), rec("a", "", 4))
	d.commit()
	d.send("in", rec("a", "", 14))
	d.commit()
	d.restart()
	d.expect()
	// The record that closes the window comes, and with it, before the flush, one that the
	// window still takes: the table tells of the first one first.
	d.send("in", rec("b", "", 9), rec("x", "", 15))
	d.commit()
	d.expect("out: a[0,10]=#2 @4", "out: b[0,10]=#1 @9")
	d.send("in", rec("x", "", 26), rec("a", "", 11))
	d.commit()
	d.expect("out: a[10,20]=#1 @14", "out: b[10,20]=#1 @12", "out: x[10,20]=#1 @15", "dropped by n: late")
	d.commit()
	d.restart()
	d.commit()
	d.expect()
	if n := d.tasks[0].stores["final"].held(); n != 1 {
		t.Errorf("%d rows, want that of x[20,30]", n)
	}
}

// Sessions that merged away have no result.
func TestSuppressSessions(t *testing.T) {
	d := newDriver(t, finals(topology.Session(10*ms).Grace(10*ms), topology.UntilWindowCloses()))
	d.send("in", rec("a", "", 100), rec("a", "", 115))
	d.commit()
	d.send("in", rec("a", "", 107))
	d.commit()
	d.restart()
	d.send("in", rec("x", "", 135))
	d.commit()
	d.expect() // 115 + 10 + 10 is not passed
	d.send("in", rec("x", "", 136))
	d.commit()
	d.expect("out: a[100,115]=#3 @115")
	if n := d.tasks[0].stores["final"].held(); n != 2 { // a left in this commit, x is held
		t.Errorf("%d rows", n)
	}
	d.send("in", rec("x", "", 137))
	d.commit()
	if n := d.tasks[0].stores["final"].held(); n != 1 {
		t.Errorf("%d rows, want that of x", n)
	}
}

// What is held back is what OnWindowClose would give, whatever the windows, the order of
// the records, commits, restarts and caches.
func TestSuppressEqualsOnWindowClose(t *testing.T) {
	for n, windows := range []topology.Windows{
		topology.Tumbling(10 * ms).Grace(7 * ms), topology.Hopping(10*ms, 4*ms).Grace(3 * ms), topology.Session(4 * ms).Grace(12 * ms), topology.Sliding(8 * ms).Grace(9 * ms),
	} {
		for seed := range uint64(15) {
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			top := topology.New()
			onClose := topology.Count("n", topology.From(top, in).GroupByKey().Window(windows), topology.OnWindowClose())
			topology.To(onClose.Stream(), topology.NewTopic("out", readable, serde.Int64))
			drivers := []*driver{newDriver(t, top), newDriver(t, finals(windows, topology.UntilWindowCloses()))}
			for i := range 300 {
				r := rec(fmt.Sprintf("k%d", random.IntN(4)), "", int64(max(0, i/2-random.IntN(25))))
				action, cacheBytes := random.IntN(15), []int{0, 700, 1 << 20}[random.IntN(3)]
				for _, d := range drivers {
					d.send("in", r)
					switch action {
					case 0, 1:
						d.commit()
					case 2:
						d.commit()
						d.cacheBytes = cacheBytes
						d.restart()
					}
				}
			}
			for _, d := range drivers {
				d.send("in", rec("end", "", 10_000))
				d.commit()
			}
			mustEqualSorted(t, fmt.Sprintf("%v, seed %d", windows, seed), drivers[1].output, drivers[0].output)
			if len(drivers[0].output) < 30 {
				t.Errorf("%v, seed %d: only %d results", windows, seed, len(drivers[0].output))
			}
		}
	}
}

// An update leaves when the limit has passed since the first one that was held back for
// its key, whatever came since.
func TestSuppressUntilTimeLimit(t *testing.T) {
	d := newDriver(t, limited(topology.UntilTimeLimit(10*ms)))
	step := func(key, value string, at int64) {
		d.send("in", rec(key, value, at))
		d.commit()
	}
	step("a", "1", 0)
	step("a", "2", 5)
	step("b", "3", 7)
	d.restart()
	d.expect()
	step("c", "4", 10)
	d.expect("out: a=2 @5")
	step("a", "5", 12) // held back anew
	d.expect()
	step("b", "6", 17) // due since it came, and lets this one through
	d.expect("out: b=6 @17")
	d.send("in", gone("a", 21)) // a removal is an update, and is not due
	d.commit()
	d.expect("out: c=4 @10")
	d.restart()
	step("x", "7", 3) // out of order, and held back for too long already
	d.expect("out: x=7 @3")
	step("y", "8", 22)
	d.expect("out: a=null @21")
	step("z", "9", 40)
	d.expect("out: y=8 @22")
}

func TestSuppressWithoutLimit(t *testing.T) {
	d := newDriver(t, limited(topology.UntilTimeLimit(0)))
	d.send("in", rec("a", "1", 5), rec("b", "2", 3), gone("c", 4))
	d.commit()
	d.expect("out: a=1 @5", "out: b=2 @3")
	d.send("in", gone("a", 4))
	d.commit()
	d.expect("out: a=null @4")
}

func TestSuppressEmitsEarly(t *testing.T) {
	d := newDriver(t, limited(topology.UntilTimeLimit(time.Hour).MaxRecords(2).EmitEarly()))
	d.send("in", rec("a", "1", 5), rec("b", "2", 3), rec("c", "3", 4))
	d.commit()
	d.expect("out: b=2 @3")
	d.restart()
	d.send("in", rec("a", "4", 9)) // no more than before
	d.commit()
	d.expect()
	d.send("in", rec("d", "5", 2)) // the oldest is the one that comes
	d.commit()
	d.expect("out: d=5 @2")
	d = newDriver(t, limited(topology.UntilTimeLimit(time.Hour).MaxBytes(10).EmitEarly()))
	d.send("in", rec("a", "1234", 5), rec("b", "1234", 6))
	d.commit()
	d.expect()
	d.send("in", rec("b", "12345", 7))
	d.commit()
	d.expect("out: a=1234 @5")
	d.send("in", rec("c", "1234567890", 8)) // more than there may be by itself
	d.commit()
	d.expect("out: b=12345 @7", "out: c=1234567890 @8")
}

func TestSuppressStopsWhenFull(t *testing.T) {
	d := newDriver(t, finals(topology.Tumbling(10*ms), topology.UntilWindowCloses().MaxRecords(2)))
	d.send("in", rec("a", "", 1), rec("b", "", 2))
	d.commit()
	// Three for a moment, but two of them are closed.
	d.send("in", rec("c", "", 11))
	d.commit()
	d.expect("out: a[0,10]=#1 @1", "out: b[0,10]=#1 @2")
	d.send("in", rec("a", "", 12), rec("b", "", 13))
	err := d.tasks[0].processor.Flush()
	if !errors.Is(err, topology.ErrSuppressionFull) || !strings.Contains(err.Error(), `operator "final"`) {
		t.Errorf("error %v", err)
	}
}

// A commit that broke off is done again: what left in it leaves once more, also what was
// held back since an earlier commit. A commit that came to its end is not.
func TestSuppressOverBrokenCommit(t *testing.T) {
	d := newDriver(t, limited(topology.UntilTimeLimit(10*ms)))
	d.send("in", rec("a", "1", 0))
	d.commit()
	for range 3 {
		d.send("in", rec("b", "2", 10))
		d.flush()
		d.expect("out: a=1 @0")
		d.restart()
	}
	d.send("in", rec("b", "2", 10))
	d.commit()
	d.expect("out: a=1 @0")
	for range 2 {
		d.restart()
		d.commit()
		d.expect()
	}
	if n := d.tasks[0].stores["s"].held(); n != 1 {
		t.Errorf("%d rows, want that of b", n)
	}
}

// What does not fit into the cache comes from the store.
func TestSuppressWithSmallCache(t *testing.T) {
	run := func(cacheBytes int) []string {
		d := newDriver(t, limited(topology.UntilTimeLimit(50*ms)))
		d.cacheBytes = cacheBytes
		d.restart()
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 2000 {
			key := fmt.Sprintf("k%02d", random.IntN(60))
			if random.IntN(10) == 0 {
				d.send("in", gone(key, int64(i/4)))
			} else {
				d.send("in", rec(key, fmt.Sprint("value ", i), int64(max(0, i/4-random.IntN(20)))))
			}
			d.commit() // the table in front combines updates by its own cache
			if random.IntN(100) == 0 {
				d.restart()
			}
		}
		return d.output
	}
	want := run(1 << 20)
	for _, cacheBytes := range []int{0, 1000} {
		if got := run(cacheBytes); !slices.Equal(got, want) {
			t.Errorf("a cache of %d bytes: %d lines, want %d and equal", cacheBytes, len(got), len(want))
		}
	}
	if len(want) < 400 {
		t.Errorf("only %d results", len(want))
	}
}

// What is made of a suppressed table is held back, too; a table that is computed needs a
// serde to be suppressed.
func TestSuppressComputedTables(t *testing.T) {
	top := topology.New()
	table := topology.Count("n", topology.From(top, in).GroupByKey().Window(topology.Tumbling(10*ms))).
		Filter(func(_ topology.WindowedKey[string], n int64) bool { return n > 1 })
	doubled := topology.MapTable(table, func(_ topology.WindowedKey[string], n int64) int64 { return 2 * n }).WithValueSerde(serde.Int64)
	final := doubled.Suppress("final", topology.UntilWindowCloses()).Filter(func(k topology.WindowedKey[string], _ int64) bool { return k.Key != "hidden" })
	topology.To(final.Stream(), topology.NewTopic("out", readable, serde.Int64))
	d := newDriver(t, top)
	d.send("in", rec("a", "", 1), rec("b", "", 2), rec("a", "", 3), rec("x", "", 14), rec("x", "", 15))
	d.commit()
	d.expect("out: a[0,10]=#4 @3")
}

func TestSuppressMistakes(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	table := topology.ToTable("t", s)
	windows := topology.Count("w", s.GroupByKey().Window(topology.Tumbling(10*ms)))
	table.Suppress("unwindowed", topology.UntilWindowCloses())
	windows.Suppress("hasty", topology.UntilWindowCloses().MaxRecords(5).EmitEarly())
	table.Suppress("boundless", topology.UntilTimeLimit(ms).EmitEarly())
	table.Suppress("none", topology.UntilTimeLimit(ms).MaxRecords(0))
	table.Suppress("odd", topology.UntilTimeLimit(time.Microsecond))
	table.Suppress("closing", topology.UntilTimeLimit(ms), topology.OnWindowClose())
	topology.MapTable(table, func(_, v string) int { return len(v) }).Suppress("unwritten", topology.UntilTimeLimit(ms))
	topology.JoinTable(s, table.Suppress("held", topology.UntilTimeLimit(ms)), func(a, b string) string { return a + b }, topology.Named("j"))
	_, err := top.Build()
	want := `topology: 8 mistakes in the program:
	operator "unwindowed": it waits until windows close, and the keys of "t" are no windows: use UntilTimeLimit, or group with Window first
	operator "hasty": EmitEarly is for UntilTimeLimit: until a window closes nothing can go early
	operator "boundless": EmitEarly needs MaxRecords or MaxBytes
	operator "none": MaxRecords and MaxBytes must be at least 1: leave them out for no bound
	operator "odd": the time limit is 1µs: it must be whole milliseconds, and not negative
	operator "closing": OnWindowClose, Retention, Initial and Merger are for aggregations, this is a suppression: leave them out
	operator "unwritten": there is no serde for its values, of type int, behind "t.map-table": call WithValueSerde on the stream first
	operator "j": it joins with "held", which holds updates back: join first, and suppress what comes of it`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
