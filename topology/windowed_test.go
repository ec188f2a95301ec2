package topology_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

const ms = time.Millisecond

func windowTopology(w topology.Windows, size time.Duration, opts ...topology.AggregateOption) *topology.Topology {
	top := topology.New()
	table := topology.Count("n", topology.From(top, in).GroupByKey().Window(w), opts...)
	topology.To(table.Stream(), topology.NewTopic("out", serde.Windowed(serde.String, size), serde.Int64))
	return top
}

// Updates come at commits; a record is late when stream time reached its
// window's end plus grace, not before.
func TestTumblingOnUpdate(t *testing.T) {
	d := newDriver(t, windowTopology(topology.Tumbling(10*ms).Grace(5*ms), 10*ms))
	d.send("in", rec("a", "", 3), rec("a", "", 12), rec("a", "", 9), rec("b", "", 14))
	d.commit()
	d.expect("out: a#0=#2 @9", "out: a#10=#1 @12", "out: b#10=#1 @14")
	d.send("in", rec("a", "", 9), rec("z", "", 15), rec("a", "", 8), rec("a", "", 10))
	d.commit()
	d.expect("out: a#0=#3 @9", "out: z#10=#1 @15", "out: a#10=#2 @12", "dropped by n: late")
	d.send("in", rec("a", "", 100))
	d.commit()
	d.expect("out: a#100=#1 @100")
	if rows := d.tasks[0].stores["n"].rows(); !slices.Equal(rows, []string{"100/a"}) {
		t.Errorf("rows %v", rows)
	}
}

// Each window once, when it closes, in the order of windows and then of keys.
func TestTumblingOnClose(t *testing.T) {
	d := newDriver(t, windowTopology(topology.Tumbling(10*ms).Grace(5*ms), 10*ms, topology.OnWindowClose()))
	d.send("in", rec("b", "", 12), rec("b", "", 3), rec("a", "", 9), rec("c", "", 14))
	d.commit()
	d.expect()
	d.send("in", rec("x", "", 15))
	d.expect("out: a#0=#1 @9", "out: b#0=#1 @3")
	d.send("in", rec("a", "", 5))
	d.expect("dropped by n: late")
	d.send("in", rec("x", "", 40))
	d.expect("out: b#10=#1 @12", "out: c#10=#1 @14", "out: x#10=#1 @15")
	d.commit()
	d.expect()
	if rows := d.tasks[0].stores["n"].rows(); !slices.Equal(rows, []string{"40/x"}) {
		t.Errorf("rows %v", rows)
	}
}

// A window that opens and closes between two commits never touches the store.
func TestClosedWindowsAreNotWritten(t *testing.T) {
	d := newDriver(t, windowTopology(topology.Tumbling(10*ms), 10*ms, topology.OnWindowClose()))
	d.send("in", rec("a", "", 1), rec("a", "", 11), rec("a", "", 21))
	d.commit()
	d.expect("out: a#0=#1 @1", "out: a#10=#1 @11")
	if s := d.tasks[0].stores["n"]; s.puts != 2 || s.gets != 1 {
		t.Errorf("%d puts and %d gets, want 2 (the open window, the mark) and 1 (the mark)", s.puts, s.gets)
	}
}

// After a restart, what was emitted is not emitted again, late
// records do not open a closed window, and open windows go on.
func TestOnCloseOverRestart(t *testing.T) {
	d := newDriver(t, windowTopology(topology.Tumbling(10*ms).Grace(5*ms), 10*ms, topology.OnWindowClose(), topology.Retention(time.Second)))
	d.send("in", rec("a", "", 3), rec("c", "", 14), rec("b", "", 12), rec("x", "", 17))
	d.expect("out: a#0=#1 @3")
	d.commit()
	d.restart()
	d.send("in", rec("a", "", 5))
	d.expect("dropped by n: late")
	d.send("in", rec("b", "", 16), rec("d", "", 20), rec("x", "", 30))
	d.expect("out: b#10=#2 @16", "out: c#10=#1 @14", "out: x#10=#1 @17")
	d.commit()
	d.restart()
	d.commit()
	d.expect()
	if rows := d.tasks[0].stores["n"].rows(); !slices.Equal(rows, []string{"0/a", "10/b", "10/c", "10/x", "20/d", "30/x"}) {
		t.Errorf("rows kept for the retention: %v", rows)
	}
	d.send("in", rec("y", "", 1015))
	d.commit()
	d.expect("out: d#20=#1 @20", "out: x#30=#1 @30")
	if rows := d.tasks[0].stores["n"].rows(); !slices.Equal(rows, []string{"20/d", "30/x", "1010/y"}) {
		t.Errorf("rows after the retention: %v", rows)
	}
}

// A commit that wrote the changelog and no more is done again: what closed in it is
// emitted once more, with records that would have been late for it.
func TestOnCloseOverBrokenCommit(t *testing.T) {
	d := newDriver(t, windowTopology(topology.Tumbling(10*ms), 10*ms, topology.OnWindowClose()))
	for range 3 {
		d.send("in", rec("a", "", 3), rec("x", "", 10))
		d.flush()
		d.expect("out: a#0=#1 @3")
		d.restart()
	}
	d.send("in", rec("a", "", 3), rec("x", "", 10))
	d.commit()
	d.expect("out: a#0=#1 @3")
	d.restart()
	d.send("in", rec("a", "", 3), rec("y", "", 20))
	d.flush()
	d.expect("out: x#10=#4 @10", "dropped by n: late")
	d.restart()
	d.send("in", rec("a", "", 3))
	d.expect("dropped by n: late")
}

func TestHopping(t *testing.T) {
	d := newDriver(t, windowTopology(topology.Hopping(10*ms, 4*ms), 10*ms))
	d.send("in", rec("a", "", 3), rec("a", "", 9), rec("a", "", 10))
	d.commit()
	d.expect("out: a#0=#2 @9", "out: a#4=#2 @10", "out: a#8=#2 @10")
	d.send("in", rec("a", "", 13), rec("a", "", 3), rec("a", "", 4))
	d.commit()
	d.expect("out: a#4=#4 @13", "out: a#8=#3 @13", "out: a#12=#1 @13", "dropped by n: late")
}

// A record that is left out because its user function failed is left out of all its
// windows, whether aggregates are changed in place or not.
func TestHoppingSkipsWholly(t *testing.T) {
	type list struct{ Values []string }
	top := topology.New(topology.OnError(topology.Skip()))
	records := topology.From(top, in).GroupByKey().Window(topology.Hopping(10*ms, 5*ms).Grace(20 * ms))
	// A record "3" fails in windows that begin with 3 values or more.
	add := func(have int, v string) error {
		if v == "3" && have >= 3 {
			return fmt.Errorf("%d values are there already", have)
		}
		return nil
	}
	inPlace := topology.AggregateRecord("place", records, serde.JSON[*list](), func(l *list, r *topology.Record[string, string]) (*list, error) {
		if err := add(len(l.Values), r.Value); err != nil {
			return l, err
		}
		l.Values = append(l.Values, r.Value)
		return l, nil
	}, topology.Initial(func() *list { return &list{} }))
	counted := topology.AggregateRecord("count", records, serde.Int64, func(n int64, r *topology.Record[string, string]) (int64, error) {
		return n + 1, add(int(n), r.Value)
	})
	topology.To(inPlace.Stream(), topology.NewTopic("lists", serde.Windowed(serde.String, 10*ms), serde.JSON[*list]()))
	topology.To(counted.Stream(), topology.NewTopic("counts", serde.Windowed(serde.String, 10*ms), serde.Int64))
	d := newDriver(t, top)
	// Window 0 has one value less than window 5, which comes second.
	d.send("in", rec("a", "x", 11), rec("a", "x", 12), rec("a", "x", 6))
	d.commit()
	d.expect(`lists: a#5={"Values":["x","x","x"]} @12`, `lists: a#10={"Values":["x","x"]} @12`, `lists: a#0={"Values":["x"]} @6`,
		"counts: a#5=#3 @12", "counts: a#10=#2 @12", "counts: a#0=#1 @6")
	d.send("in", rec("a", "3", 7))
	d.commit()
	d.expect("dropped by place: error: 3 values are there already", "dropped by count: error: 3 values are there already")
	d.send("in", rec("a", "y", 7))
	d.commit()
	d.expect(`lists: a#0={"Values":["x","y"]} @7`, `lists: a#5={"Values":["x","x","x","y"]} @12`, "counts: a#0=#2 @7", "counts: a#5=#4 @12")
}

// Overlapping windows on close, over restarts and with small caches, against a plain
// computation.
func TestHoppingAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 7))
		d := newDriver(t, windowTopology(topology.Hopping(10*ms, 3*ms).Grace(4*ms), 10*ms, topology.OnWindowClose()))
		model, late, streamTime := map[string]int{}, 0, int64(-1)
		for i := range 400 {
			r := rec(fmt.Sprintf("k%d", random.IntN(4)), "", int64(max(0, i/3-random.IntN(25))))
			streamTime = max(streamTime, r.Timestamp)
			taken := false
			for start := int64(0); start <= r.Timestamp; start += 3 {
				if r.Timestamp < start+10 && start+14 > streamTime {
					model[fmt.Sprintf("out: %s#%d", r.Key, start)]++
					taken = true
				}
			}
			if !taken {
				late++
			}
			d.send("in", r)
			switch random.IntN(20) {
			case 0:
				d.commit()
			case 1:
				d.commit()
				d.cacheBytes = []int{0, 600, 1 << 20}[random.IntN(3)]
				d.restart()
			}
		}
		d.send("in", rec("end", "", 10_000))
		if len(d.dropped) != late {
			t.Errorf("seed %d: %d late records, want %d", seed, len(d.dropped), late)
		}
		var want []string
		for window, count := range model {
			want = append(want, fmt.Sprintf("%s=#%d", window, count))
		}
		got := slices.Clone(d.output)
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], " @")
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: got\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A cache that holds only a part of the windows finds the rest in the store.
func TestOnCloseWithSmallCache(t *testing.T) {
	run := func(cacheBytes int) []string {
		d := newDriver(t, windowTopology(topology.Tumbling(100*ms).Grace(20*ms), 100*ms, topology.OnWindowClose()))
		d.cacheBytes = cacheBytes
		d.restart()
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 3000 {
			d.send("in", rec(fmt.Sprintf("k%02d", random.IntN(40)), "", int64(max(0, i/4-random.IntN(30)))))
			if random.IntN(50) == 0 {
				d.commit()
			}
			if random.IntN(200) == 0 {
				d.commit()
				d.restart()
			}
		}
		return append(d.output, d.dropped...)
	}
	want := run(1 << 20)
	for _, cacheBytes := range []int{0, 3000} {
		if got := run(cacheBytes); !slices.Equal(got, want) {
			t.Errorf("a cache of %d bytes: %d lines, want %d and equal", cacheBytes, len(got), len(want))
		}
	}
	if len(want) < 200 {
		t.Errorf("only %d results", len(want))
	}
}

// The results on close are those of a plain computation over the records that are
// not late, each window once.
func TestOnCloseAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		d := newDriver(t, windowTopology(topology.Tumbling(10*ms).Grace(5*ms), 10*ms, topology.OnWindowClose()))
		model, late, streamTime := map[string]int{}, 0, int64(-1)
		for i := range 500 {
			r := rec(fmt.Sprintf("k%d", random.IntN(5)), "", int64(max(0, i/3-random.IntN(25))))
			streamTime = max(streamTime, r.Timestamp)
			if start := r.Timestamp / 10 * 10; start+15 > streamTime {
				model[fmt.Sprintf("out: %s#%d", r.Key, start)]++
			} else {
				late++
			}
			d.send("in", r)
			switch random.IntN(20) {
			case 0:
				d.commit()
			case 1:
				d.commit()
				d.restart()
			}
		}
		d.send("in", rec("end", "", 10_000))
		if len(d.dropped) != late {
			t.Errorf("seed %d: %d late records, want %d", seed, len(d.dropped), late)
		}
		var want []string
		for window, count := range model {
			want = append(want, fmt.Sprintf("%s=#%d", window, count))
		}
		got := slices.Clone(d.output)
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], " @")
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: got\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Windows behind another aggregation go by the time of the updates that reached
// them, not by stream time, which is ahead.
func TestWindowsBehindAnAggregation(t *testing.T) {
	top := topology.New()
	updates := topology.Count("n", topology.From(top, in).GroupByKey()).Stream()
	table := topology.Count("updates", updates.GroupByKey().Window(topology.Tumbling(10*ms)), topology.OnWindowClose())
	topology.To(table.Stream(), topology.NewTopic("out", serde.Windowed(serde.String, 10*ms), serde.Int64))
	d := newDriver(t, top)
	d.send("in", rec("a", "", 3), rec("b", "", 500))
	d.commit()
	d.expect("out: a#0=#1 @3")
}

// A filter before the window does not hold its time back: the task's counts.
func TestFilteredRecordsMoveTime(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in).Filter(func(v string) bool { return v == "" })
	topology.To(topology.Count("n", s.GroupByKey().Window(topology.Tumbling(10*ms)), topology.OnWindowClose()).Stream(),
		topology.NewTopic("out", serde.Windowed(serde.String, 10*ms), serde.Int64))
	d := newDriver(t, top)
	d.send("in", rec("a", "", 3), rec("a", "filtered", 500))
	d.expect("out: a#0=#1 @3")
}

// A windowed aggregate that becomes nil is removed.
func TestWindowedRemoval(t *testing.T) {
	top := topology.New()
	table := topology.Aggregate("sums", topology.From(top, in).GroupByKey().Window(topology.Tumbling(10*ms)), serde.JSON[*sum](), (*sum).add,
		topology.Initial(func() *sum { return &sum{} }))
	topology.To(table.Stream(), topology.NewTopic("out", serde.Windowed(serde.String, 10*ms), serde.JSON[*sum]()))
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 1))
	d.commit()
	d.send("in", rec("a", "reset", 2))
	d.commit()
	d.expect(`out: a#0={"Values":["x"]} @1`, "out: a#0=null @2")
	if rows := d.tasks[0].stores["sums"].rows(); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
}
