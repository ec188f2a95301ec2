package topology_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

func sessionTopology(w topology.Windows, opts ...topology.AggregateOption) *topology.Topology {
	top := topology.New()
	table := topology.Count("n", topology.From(top, in).GroupByKey().Window(w), opts...)
	topology.To(table.Stream(), topology.NewTopic("out", readable, serde.Int64))
	return top
}

// readable shows a session's key to people.
var readable topology.Serde[topology.WindowedKey[string]] = readableSerde{}

type readableSerde struct{}

func (readableSerde) Name() string { return "readable" }
func (readableSerde) Append(dst []byte, k topology.WindowedKey[string]) ([]byte, error) {
	return fmt.Appendf(dst, "%s[%d,%d]", k.Key, k.Start, k.End), nil
}
func (readableSerde) Decode([]byte) (topology.WindowedKey[string], error) {
	return topology.WindowedKey[string]{}, errors.New("only written")
}

// sessionRows shows a session store, without the mark.
func (s *fakeStore) sessionRows() []string {
	var rows []string
	for _, row := range s.keys {
		if start, end, key, _ := state.SplitSessionKey([]byte(row)); end >= 0 {
			rows = append(rows, fmt.Sprintf("%s[%d,%d]", key, start, end))
		}
	}
	return rows
}

// Sessions grow, whatever the order of the records, and a record between two makes one of
// them: then the old ones are removed, downstream too, but only if anybody knew them.
func TestSessionsOnUpdate(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms).Grace(100*ms)))
	d.send("in", rec("a", "", 100), rec("b", "", 103), rec("a", "", 105))
	d.commit()
	d.expect("out: a[100,105]=#2 @105", "out: b[103,103]=#1 @103")
	d.send("in", rec("a", "", 115)) // exactly the gap
	d.commit()
	d.expect("out: a[100,105]=null @105", "out: a[100,115]=#3 @115")
	d.send("in", rec("a", "", 126), rec("a", "", 90), rec("a", "", 102)) // too far; before it; within it
	d.commit()
	d.expect("out: a[126,126]=#1 @126", "out: a[100,115]=null @115", "out: a[90,115]=#5 @115")
	d.send("in", rec("a", "", 120), rec("c", "", 50), rec("c", "", 61), rec("c", "", 55))
	d.commit()
	d.expect("out: a[90,115]=null @115", "out: a[126,126]=null @126", "out: a[90,126]=#7 @126", "out: c[50,61]=#3 @61")
	d.send("in", rec("a", "", 100)) // bounds stay: an update, no removal
	d.commit()
	d.expect("out: a[90,126]=#8 @126")
	if rows := d.tasks[0].stores["n"].sessionRows(); !slices.Equal(rows, []string{"c[50,61]", "b[103,103]", "a[90,126]"}) {
		t.Errorf("rows %v", rows)
	}
}

// A record is late when its session, with all that it joins, is closed: when time has
// passed its end plus gap plus grace.
func TestLateSessions(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms).Grace(5*ms)))
	d.send("in", rec("a", "", 100), rec("x", "", 115))
	d.send("in", rec("a", "", 100)) // 100+10+5 is not passed
	d.commit()
	d.expect("out: a[100,100]=#2 @100", "out: x[115,115]=#1 @115")
	d.send("in", rec("x", "", 116), rec("a", "", 100)) // now it is
	d.send("in", rec("x", "", 105), rec("a", "", 101)) // 105 joins an open session; 101 would be open, but a closed one is left alone
	d.commit()
	d.expect("out: x[115,115]=null @115", "out: x[105,116]=#3 @116", "out: a[101,101]=#1 @101", "dropped by n: late")
	d.send("in", rec("x", "", 1000), rec("x", "", 900))
	d.commit()
	d.expect("out: x[1000,1000]=#1 @1000", "dropped by n: late")
	if rows := d.tasks[0].stores["n"].sessionRows(); !slices.Equal(rows, []string{"x[1000,1000]"}) {
		t.Errorf("rows %v", rows)
	}
}

// Each session once, when it is closed, by its end, its start and its key.
func TestSessionsOnClose(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms).Grace(5*ms), topology.OnWindowClose()))
	d.send("in", rec("b", "", 100), rec("c", "", 92), rec("a", "", 100), rec("c", "", 100), rec("z", "", 99))
	d.commit()
	d.expect()
	d.restart()
	d.send("in", rec("z", "", 101), rec("x", "", 115))
	d.expect()
	d.send("in", rec("x", "", 116))
	d.expect("out: c[92,100]=#2 @100", "out: a[100,100]=#1 @100", "out: b[100,100]=#1 @100")
	d.commit()
	d.restart()
	d.send("in", rec("a", "", 99), rec("x", "", 300))
	d.expect("out: z[99,101]=#2 @101", "out: x[115,116]=#2 @116", "dropped by n: late")
	d.commit()
	d.restart()
	d.commit()
	d.expect()
}

// Sessions that open and close between two commits never touch the store.
func TestClosedSessionsAreNotWritten(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms), topology.OnWindowClose()))
	d.send("in", rec("a", "", 1), rec("a", "", 21), rec("a", "", 41))
	d.commit()
	d.expect("out: a[1,1]=#1 @1", "out: a[21,21]=#1 @21")
	if s := d.tasks[0].stores["n"]; s.puts != 2 || s.gets != 1 {
		t.Errorf("%d puts and %d gets, want 2 (the open session, the mark) and 1 (the mark)", s.puts, s.gets)
	}
}

// A commit that wrote the changelog and no more is done again: what closed in it is emitted
// once more.
func TestSessionsOnCloseOverBrokenCommit(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms), topology.OnWindowClose()))
	for range 3 {
		d.send("in", rec("a", "", 3), rec("x", "", 14))
		d.flush()
		d.expect("out: a[3,3]=#1 @3")
		d.restart()
	}
	d.send("in", rec("a", "", 3), rec("x", "", 14))
	d.commit()
	d.expect("out: a[3,3]=#1 @3")
	d.restart()
	d.send("in", rec("y", "", 100))
	d.expect("out: x[14,14]=#4 @14")
}

// The retention keeps the rows of closed sessions, which count no more.
func TestSessionRetention(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms), topology.Retention(160*ms)))
	d.send("in", rec("a", "", 100), rec("b", "", 200))
	d.commit()
	d.restart()
	d.output = nil
	d.send("in", rec("a", "", 100))
	d.commit()
	d.expect("dropped by n: late")
	if rows := d.tasks[0].stores["n"].sessionRows(); !slices.Equal(rows, []string{"a[100,100]", "b[200,200]"}) {
		t.Errorf("rows %v", rows)
	}
	d.send("in", rec("c", "", 280))
	d.commit()
	if rows := d.tasks[0].stores["n"].sessionRows(); !slices.Equal(rows, []string{"b[200,200]", "c[280,280]"}) {
		t.Errorf("rows %v", rows)
	}
}

func TestSessionsOfNull(t *testing.T) {
	d := newDriver(t, sessionTopology(topology.Session(10*ms)))
	d.send("in", plan.Record{Value: []byte("v"), Timestamp: 1}, gone("k", 2))
	d.commit()
	d.expect("dropped by in.group-by-key: null-key", "dropped by in.group-by-key: null-value")
}

// Reduce merges with its function, the earlier session first; Aggregate with its Merger.
func TestSessionsReduceAndAggregate(t *testing.T) {
	top := topology.New()
	sessions := topology.From(top, in).GroupByKey().Window(topology.Session(10 * ms).Grace(time.Second))
	reduced := topology.Reduce("r", sessions, func(a, b string) string { return a + b })
	topology.To(reduced.Stream(), topology.NewTopic("reduced", readable, serde.String))
	lists := topology.Aggregate("l", sessions, serde.JSON[*sum](), (*sum).add, topology.Initial(func() *sum { return &sum{} }),
		topology.Merger(func(a, b *sum) *sum { return &sum{Values: slices.Concat(a.Values, b.Values)} }))
	topology.To(lists.Stream(), topology.NewTopic("lists", readable, serde.JSON[*sum]()))
	d := newDriver(t, top)
	d.cacheBytes = 0 // every update comes out, and every aggregate is read back
	d.restart()
	d.send("in", rec("k", "c", 30), rec("k", "a", 10))
	d.expect("reduced: k[30,30]=c @30", `lists: k[30,30]={"Values":["c"]} @30`, "reduced: k[10,10]=a @10", `lists: k[10,10]={"Values":["a"]} @10`)
	d.send("in", rec("k", "b", 20))
	d.expect("reduced: k[10,10]=null @10", "reduced: k[30,30]=null @30", "reduced: k[10,30]=acb @30",
		"lists: k[10,10]=null @10", "lists: k[30,30]=null @30", `lists: k[10,30]={"Values":["a","c","b"]} @30`)
	// A null aggregate removes the session; the next record begins another.
	d.send("in", rec("k", "reset", 20))
	d.commit()
	d.expect("reduced: k[10,30]=acbreset @30", "lists: k[10,30]=null @30")
	d.send("in", rec("k", "d", 25))
	d.expect("reduced: k[10,30]=acbresetd @30", `lists: k[25,25]={"Values":["d"]} @25`)
	if rows := d.tasks[0].stores["l"].sessionRows(); !slices.Equal(rows, []string{"k[25,25]"}) {
		t.Errorf("rows %v", rows)
	}
}

// A record that is left out because the function failed does not join sessions.
func TestFailedRecordsJoinNoSessions(t *testing.T) {
	top := topology.New()
	sessions := topology.From(top, in).GroupByKey().Window(topology.Session(10 * ms).Grace(time.Second))
	table := topology.AggregateRecord("s", sessions, serde.String, func(s string, r *topology.Record[string, string]) (string, error) {
		if r.Value == "bad" {
			return s, errors.New("bad value")
		}
		return s + r.Value, nil
	}, topology.Merger(func(a, b string) string { return a + "+" + b }), topology.OnError(topology.Skip()))
	topology.To(table.Stream(), topology.NewTopic("out", readable, serde.String))
	d := newDriver(t, top)
	d.send("in", rec("k", "a", 10), rec("k", "b", 30), rec("k", "bad", 20))
	d.commit()
	d.expect("out: k[10,10]=a @10", "out: k[30,30]=b @30", "dropped by s: error: bad value")
	d.send("in", rec("k", "c", 20))
	d.commit()
	d.expect("out: k[10,10]=null @10", "out: k[30,30]=null @30", "out: k[10,30]=a+bc @30")
}

func TestSessionMistakes(t *testing.T) {
	top := topology.New()
	grouped := topology.From(top, in).GroupByKey()
	sessions := grouped.Window(topology.Session(10 * ms))
	add := func(n int64, _ string) int64 { return n + 1 }
	topology.Aggregate("unmerged", sessions, serde.Int64, add)
	topology.Aggregate("typed", sessions, serde.Int64, add, topology.Merger(func(a, _ int32) int32 { return a }))
	topology.Aggregate("needless", grouped, serde.Int64, add, topology.Merger(func(a, b int64) int64 { return a + b }))
	topology.Count("counted", sessions, topology.Merger(func(a, b int64) int64 { return a + b }))
	topology.Count("short", sessions, topology.Retention(5*ms))
	topology.Count("gapless", grouped.Window(topology.Session(0)))
	topology.Count("graceless", grouped.Window(topology.Session(ms).Grace(-1)))
	_, err := top.Build()
	want := `topology: 7 mistakes in the program:
	operator "unmerged": a record between two sessions makes one of them: say with Merger how their aggregates, int64, are combined
	operator "typed": Merger has a func(int32, int32) int32, but the aggregates are int64: give it a func(int64, int64) int64 that is not nil
	operator "needless": Merger is for sessions: group with Window(Session(...)) first, or leave it out
	operator "counted": Merger is for Aggregate, this is a count, which combines sessions by itself: leave it out
	operator "short": the retention is 5ms: it must be at least gap plus grace, 10ms
	operator "gapless": the gap between sessions is 0s: it must be whole milliseconds, and at least one
	operator "graceless": the grace is -1ns: it must be whole milliseconds, and not negative`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// sessionModel keeps all records and makes sessions of those that counted.
type sessionModel struct {
	gap, grace, now int64
	open            map[string][]modelSession
	closed          []string
	late            int
}

type modelSession struct{ start, end, count int64 }

func (m *sessionModel) send(key string, at int64) {
	m.advance(at)
	s := modelSession{at, at, 1}
	var kept []modelSession
	for _, o := range m.open[key] {
		if o.start > at+m.gap || o.end < at-m.gap {
			kept = append(kept, o)
			continue
		}
		s = modelSession{min(s.start, o.start), max(s.end, o.end), s.count + o.count}
	}
	if s.end+m.gap+m.grace < m.now {
		m.late++
		return
	}
	m.open[key] = append(kept, s)
}

// advance closes sessions.
func (m *sessionModel) advance(at int64) {
	m.now = max(m.now, at)
	for key, list := range m.open {
		m.open[key] = slices.DeleteFunc(list, func(s modelSession) bool {
			if s.end+m.gap+m.grace >= m.now {
				return false
			}
			m.closed = append(m.closed, s.line(key))
			return true
		})
	}
}

func (s modelSession) line(key string) string {
	return fmt.Sprintf("out: %s[%d,%d]=#%d @%d", key, s.start, s.end, s.count, s.end)
}

// Random records, commits, restarts and cache sizes: on close each session of the model
// comes once; on update what comes adds up to them; and the store has the open ones.
func TestSessionsAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testSessionsAgainstModel(t, seed) })
	}
}

func testSessionsAgainstModel(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 3))
	grace := random.Int64N(20)
	windows := topology.Session(5 * ms).Grace(time.Duration(grace) * ms)
	m := &sessionModel{gap: 5, grace: grace, now: -1, open: map[string][]modelSession{}}
	onClose := newDriver(t, sessionTopology(windows, topology.OnWindowClose()))
	onUpdate := newDriver(t, sessionTopology(windows))
	for i := range 600 {
		key, at := fmt.Sprintf("k%d", random.IntN(4)), int64(max(0, i-random.IntN(30)))
		m.send(key, at)
		action, cacheBytes := random.IntN(24), []int{0, 700, 1 << 20}[random.IntN(3)]
		for _, d := range []*driver{onClose, onUpdate} {
			d.send("in", rec(key, "", at))
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
	var open []string
	for key, list := range m.open {
		for _, s := range list {
			open = append(open, strings.TrimPrefix(s.line(key), "out: "))
		}
	}
	onUpdate.commit()
	last := map[string]string{}
	for _, line := range onUpdate.output {
		key, rest, _ := strings.Cut(strings.TrimPrefix(line, "out: "), "=")
		if strings.HasPrefix(rest, "null") {
			if _, known := last[key]; !known {
				t.Errorf("%s is removed, and was not there", key)
			}
			delete(last, key)
		} else {
			last[key] = key + "=" + rest
		}
	}
	var updated []string
	for _, line := range last {
		updated = append(updated, line)
	}
	all := slices.Clone(open)
	for _, line := range m.closed {
		all = append(all, strings.TrimPrefix(line, "out: "))
	}
	mustEqualSorted(t, "on update", updated, all)
	m.advance(10_000)
	onClose.send("in", rec("end", "", 10_000))
	mustEqualSorted(t, "on close", onClose.output, m.closed)
	for _, d := range []*driver{onClose, onUpdate} {
		if len(d.dropped) != m.late {
			t.Errorf("%d late records, want %d", len(d.dropped), m.late)
		}
	}
	if m.late == 0 && m.grace < 5 || len(m.closed) < 20 {
		t.Errorf("%d late records and %d sessions: the test tests too little", m.late, len(m.closed))
	}
}

func mustEqualSorted(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Sessions go by the time of the updates that reach them when they are behind a store.
func TestSessionsBehindAnAggregation(t *testing.T) {
	top := topology.New()
	updates := topology.Count("n", topology.From(top, in).GroupByKey()).Stream()
	table := topology.Count("sessions", updates.GroupByKey().Window(topology.Session(10*ms)), topology.OnWindowClose())
	topology.To(table.Stream(), topology.NewTopic("out", readable, serde.Int64))
	d := newDriver(t, top)
	d.send("in", rec("a", "", 3), rec("b", "", 500))
	d.commit()
	d.expect("out: a[3,3]=#1 @3")
}
