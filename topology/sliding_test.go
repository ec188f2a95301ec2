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
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// texts joins the values of each window, in the order of arrival.
func texts(w topology.Windows, opts ...topology.AggregateOption) *topology.Topology {
	top := topology.New()
	table := topology.Reduce("t", topology.From(top, in).GroupByKey().Window(w), func(a, b string) string { return a + b }, opts...)
	topology.To(table.Stream(), topology.NewTopic("out", readable, serde.String))
	return top
}

// The example of KIP-450: records at 8000, 9200 and 12400 ms, 5 s apart at most.
func TestSlidingWindows(t *testing.T) {
	d := newDriver(t, texts(topology.Sliding(5*time.Second).Grace(time.Minute)))
	d.send("in", rec("k", "a", 8000))
	d.commit()
	d.expect("out: k[3000,8000]=a @8000")
	d.send("in", rec("k", "b", 9200))
	d.commit()
	d.expect("out: k[8001,13001]=b @9200", "out: k[4200,9200]=ab @9200")
	d.restart()
	d.send("in", rec("k", "c", 12400))
	d.commit()
	d.expect("out: k[8001,13001]=bc @12400", "out: k[9201,14201]=c @12400", "out: k[7400,12400]=abc @12400")
	// Out of order: d is between a and b, and has a right window of its own.
	d.send("in", rec("k", "d", 9000))
	d.commit()
	d.expect("out: k[9001,14001]=bc @12400", "out: k[8001,13001]=bcd @12400", "out: k[7400,12400]=abcd @12400",
		"out: k[4200,9200]=abd @9200", "out: k[4000,9000]=ad @9000")
	// Once more at a time that has been: no new windows.
	d.send("in", rec("k", "e", 9200))
	d.commit()
	d.expect("out: k[9001,14001]=bce @12400", "out: k[8001,13001]=bcde @12400", "out: k[7400,12400]=abcde @12400", "out: k[4200,9200]=abde @9200")
}

// Windows do not begin before 0: the early records share [0, difference].
func TestEarlySlidingWindows(t *testing.T) {
	d := newDriver(t, texts(topology.Sliding(10*ms).Grace(time.Minute)))
	d.send("in", rec("k", "a", 4), rec("k", "b", 2))
	d.commit()
	d.expect("out: k[0,10]=ab @4", "out: k[3,13]=a @4")
	d.send("in", rec("k", "c", 10))
	d.commit()
	d.expect("out: k[3,13]=ac @10", "out: k[0,10]=abc @10", "out: k[5,15]=c @10")
	d.send("in", rec("k", "d", 0))
	d.commit()
	d.expect("out: k[1,11]=abc @10", "out: k[0,10]=abcd @10")
}

// A window is closed when time has passed its end plus grace; a record is late when all
// that could hold it are.
func TestLateInSlidingWindows(t *testing.T) {
	d := newDriver(t, texts(topology.Sliding(10*ms).Grace(5*ms)))
	d.send("in", rec("k", "a", 100), rec("x", "x", 105))
	d.commit()
	d.expect("out: k[90,100]=a @100", "out: x[95,105]=x @105")
	d.send("in", rec("k", "b", 100)) // 100+5 is not passed
	d.send("in", rec("x", "y", 106))
	d.send("in", rec("k", "c", 100)) // now it is, and there is no other window that holds it
	d.commit()
	d.expect("out: k[90,100]=ab @100", "out: x[106,116]=y @106", "out: x[96,106]=xy @106", "dropped by t: late")
	d.send("in", rec("k", "d", 102)) // behind a's left window, which is closed, and in a's right one
	d.send("in", rec("x", "z", 116))
	d.send("in", rec("k", "e", 101)) // in a's right window, and its own right window has d
	d.commit()
	d.expect("out: k[101,111]=de @102", "out: k[92,102]=abd @102",
		"out: x[106,116]=yz @116", "out: x[107,117]=z @116", "out: k[102,112]=d @102")
	d.send("in", rec("x", "x", 117), rec("k", "f", 101))
	d.commit()
	d.output = nil
	d.expect("dropped by t: late")
}

// Each window once, when it is closed, by end and key.
func TestSlidingOnClose(t *testing.T) {
	d := newDriver(t, texts(topology.Sliding(10*ms).Grace(5*ms), topology.OnWindowClose()))
	d.send("in", rec("b", "1", 100), rec("a", "2", 100), rec("a", "3", 104), rec("x", "", 105))
	d.commit()
	d.expect()
	d.restart()
	d.send("in", rec("x", "", 106))
	d.expect("out: a[90,100]=2 @100", "out: b[90,100]=1 @100")
	d.commit()
	d.restart()
	d.send("in", rec("x", "", 115))
	d.expect("out: a[94,104]=23 @104", "out: x[95,105]= @105", "out: x[96,106]= @106")
	// The windows that are closed still tell what new ones hold.
	d.send("in", rec("a", "4", 111))
	d.commit()
	d.restart()
	d.send("in", rec("x", "", 200))
	d.expect("out: a[101,111]=34 @111", "out: a[105,115]=4 @111", "out: x[105,115]= @115", "out: x[106,116]= @115", "out: x[107,117]= @115")
}

func TestSlidingOfNull(t *testing.T) {
	d := newDriver(t, texts(topology.Sliding(10*ms)))
	d.send("in", plan.Record{Value: []byte("v"), Timestamp: 1}, gone("k", 2))
	d.commit()
	d.expect("dropped by in.group-by-key: null-key", "dropped by in.group-by-key: null-value")
}

// An aggregate that is changed in place is another one in each window; one that becomes
// null takes its window away.
func TestSlidingAggregatesInPlace(t *testing.T) {
	top := topology.New()
	windows := topology.From(top, in).GroupByKey().Window(topology.Sliding(10 * ms).Grace(time.Second))
	table := topology.Aggregate("s", windows, serde.JSON[*sum](), (*sum).add, topology.Initial(func() *sum { return &sum{} }))
	topology.To(table.Stream(), topology.NewTopic("out", readable, serde.JSON[*sum]()))
	d := newDriver(t, top)
	d.send("in", rec("k", "a", 20), rec("k", "b", 25), rec("k", "c", 22))
	d.commit()
	d.expect(`out: k[10,20]={"Values":["a"]} @20`, `out: k[21,31]={"Values":["b","c"]} @25`, `out: k[15,25]={"Values":["a","b","c"]} @25`,
		`out: k[23,33]={"Values":["b"]} @25`, `out: k[12,22]={"Values":["a","c"]} @22`)
	d.send("in", rec("k", "reset", 25))
	d.commit()
	d.expect("out: k[23,33]=null @25", "out: k[21,31]=null @25", "out: k[15,25]=null @25")
	if rows := d.tasks[0].stores["s"].rows(); !slices.Equal(rows, []string{"10/k", "12/k"}) {
		t.Errorf("rows %v", rows)
	}
}

// A record that is left out because the function failed is left out of all its windows.
func TestSlidingSkipsWholly(t *testing.T) {
	top := topology.New()
	windows := topology.From(top, in).GroupByKey().Window(topology.Sliding(10 * ms).Grace(time.Second))
	table := topology.AggregateRecord("s", windows, serde.JSON[*sum](), func(s *sum, r *topology.Record[string, string]) (*sum, error) {
		if r.Value == "bad" && len(s.Values) == 1 {
			return s, errors.New("bad value")
		}
		return s.add(r.Value), nil
	}, topology.Initial(func() *sum { return &sum{} }), topology.OnError(topology.Skip()))
	topology.To(table.Stream(), topology.NewTopic("out", readable, serde.JSON[*sum]()))
	d := newDriver(t, top)
	d.send("in", rec("k", "a", 20), rec("k", "b", 25))
	d.commit()
	d.output = nil
	d.send("in", rec("k", "bad", 22))
	d.commit()
	d.expect("dropped by s: error: bad value")
	d.send("in", rec("k", "c", 25))
	d.commit()
	d.expect(`out: k[21,31]={"Values":["b","c"]} @25`, `out: k[15,25]={"Values":["a","b","c"]} @25`)
}

func TestSlidingMistakes(t *testing.T) {
	top := topology.New()
	grouped := topology.From(top, in).GroupByKey()
	topology.Count("none", grouped.Window(topology.Sliding(0)))
	topology.Count("short", grouped.Window(topology.Sliding(10*ms).Grace(5*ms)), topology.Retention(20*ms))
	_, err := top.Build()
	want := `topology: 2 mistakes in the program:
	operator "none": the time difference is 0s: it must be whole milliseconds, and at least one
	operator "short": the retention is 20ms: it must be at least twice the time difference plus grace plus 1ms, 26ms`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// slidingModel computes the windows of all records at once: for each record the one that
// ends with it and the one behind it.
func slidingModel(records []plan.Record, difference int64) []string {
	var lines []string
	seen := map[string]bool{}
	add := func(key string, start int64) {
		window := fmt.Sprintf("%s[%d,%d]", key, start, start+difference)
		if seen[window] {
			return
		}
		seen[window] = true
		var values []string
		last := int64(-1)
		for _, r := range records {
			if string(r.Key) == key && r.Timestamp >= start && r.Timestamp <= start+difference {
				values = append(values, string(r.Value))
				last = max(last, r.Timestamp)
			}
		}
		if len(values) > 0 {
			slices.Sort(values)
			lines = append(lines, fmt.Sprintf("out: %s=%s @%d", window, strings.Join(values, ""), last))
		}
	}
	for _, r := range records {
		add(string(r.Key), max(0, r.Timestamp-difference))
		add(string(r.Key), r.Timestamp+1)
	}
	return lines
}

// Random records, none late, with commits, restarts and small caches: the windows are
// those of a computation over all records at once, on update and on close.
func TestSlidingAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 5))
		windows := topology.Sliding(10 * ms).Grace(40 * ms)
		onUpdate, onClose := newDriver(t, texts(windows)), newDriver(t, texts(windows, topology.OnWindowClose()))
		var all []plan.Record
		for i := range 150 {
			r := rec(fmt.Sprintf("k%d", random.IntN(3)), string(rune('a'+random.IntN(26))), int64(max(0, i-random.IntN(30))))
			all = append(all, r)
			action, cacheBytes := random.IntN(12), []int{0, 900, 1 << 20}[random.IntN(3)]
			for _, d := range []*driver{onUpdate, onClose} {
				d.send("in", r)
				switch action {
				case 0:
					d.commit()
				case 1:
					d.commit()
					d.cacheBytes = cacheBytes
					d.restart()
				}
			}
		}
		onUpdate.commit()
		last := map[string]string{}
		for _, line := range onUpdate.output {
			window, _, _ := strings.Cut(line, "=")
			last[window] = line
		}
		var updated []string
		for _, line := range last {
			updated = append(updated, line)
		}
		onClose.send("in", rec("end", "", 10_000))
		want := slidingModel(all, 10)
		mustEqualSorted(t, fmt.Sprintf("seed %d, on update", seed), sortedValues(updated), want)
		mustEqualSorted(t, fmt.Sprintf("seed %d, on close", seed), sortedValues(onClose.output), want)
		if len(onUpdate.dropped)+len(onClose.dropped) > 0 {
			t.Errorf("seed %d: dropped %v %v", seed, onUpdate.dropped, onClose.dropped)
		}
	}
}

// sortedValues sorts the letters of each result: a window that was copied has them in
// another order.
func sortedValues(lines []string) []string {
	lines = slices.Clone(lines)
	for i, line := range lines {
		window, rest, _ := strings.Cut(line, "=")
		value, at, _ := strings.Cut(rest, " ")
		letters := strings.Split(value, "")
		slices.Sort(letters)
		lines[i] = window + "=" + strings.Join(letters, "") + " " + at
	}
	return lines
}
