package topology_test

import (
	"errors"
	"fmt"
	"maps"
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

// versionedTopology has a versioned table of users, its updates, and what clicks find in it:
// as it is, filtered and mapped.
func versionedTopology(history time.Duration, opts ...topology.TableOption) *topology.Topology {
	top := topology.New()
	table := topology.ToVersionedTable("users-table", topology.From(top, users), history, opts...)
	topology.To(table.Stream(), strings2("updates"))
	clicks := topology.From(top, in)
	write := func(name string, s *topology.Stream[string, string]) {
		topology.To(s.WithValueSerde(serde.String), strings2(name))
	}
	write("joined", topology.JoinTable(clicks, table, func(click, user string) string { return click + " by " + user }))
	short := topology.MapTable(table.Filter(func(_, v string) bool { return len(v) < 4 }), func(k, v string) string { return k + strings.ToUpper(v) })
	write("short", topology.LeftJoinTable(clicks, short, func(click, user string, found bool) string { return fmt.Sprint(click, " of ", user, " ", found) }))
	return top
}

// click sends a record that looks the key up as of a time, and expects what it finds in the
// table; "" is nothing.
func (d *driver) click(key string, at int64, want string) {
	d.t.Helper()
	d.send("in", rec(key, "x", at))
	lines := []string{fmt.Sprintf("short: %s=x of  false @%d", key, at)}
	if want != "" {
		found := fmt.Sprintf("joined: %s=x by %s @%d", key, want, at)
		if len(want) < 4 {
			lines[0] = fmt.Sprintf("short: %s=x of %s%s true @%d", key, key, strings.ToUpper(want), at)
		}
		lines = append([]string{found}, lines...)
	}
	d.expect(lines...)
}

// A stream meets what its key was at the time of its record, whatever has come since, in
// whatever order it came, over restarts and with caches of any size.
func TestVersionedJoinIsAsOfTheRecordsTime(t *testing.T) {
	for _, cache := range []int{0, 1 << 20} {
		d := newDriver(t, versionedTopology(100*ms))
		d.cacheBytes = cache
		d.restart()
		d.send("users", rec("a", "Ada", 100), rec("a", "Adele", 120), rec("a", "Ann", 110), rec("b", "Bob", 130))
		check := func() {
			t.Helper()
			d.click("a", 99, "")
			d.click("a", 100, "Ada")
			d.click("a", 109, "Ada")
			d.click("a", 110, "Ann")
			d.click("a", 119, "Ann")
			d.click("a", 120, "Adele")
			d.click("a", 1000, "Adele")
			d.click("b", 129, "")
			d.click("b", 130, "Bob")
			d.click("c", 130, "")
		}
		d.commit()
		d.output = nil // of the caches' size depends when it leaves
		check()
		d.restart()
		check()
		d.send("users", gone("a", 115))
		d.click("a", 114, "Ann")
		d.click("a", 115, "")
		d.click("a", 120, "Adele")
		d.send("users", gone("a", 140))
		d.commit()
		d.expect("updates: a=null @140")
		d.click("a", 139, "Adele")
		d.click("a", 140, "")
		d.restart()
		d.click("a", 139, "Adele")
		d.click("a", 1000, "")
	}
}

// Updates are the latest values, once a commit: who is out of order changes what was, and is
// told to nobody.
func TestVersionedTableEmitsLatestValues(t *testing.T) {
	d := newDriver(t, versionedTopology(time.Minute))
	d.send("users", rec("a", "1", 10), rec("a", "2", 20), rec("a", "0", 5), rec("b", "1", 20), gone("b", 30))
	d.commit()
	d.expect("updates: a=2 @20")
	d.send("users", rec("a", "1.5", 15), gone("a", 19))
	d.commit()
	d.expect()
	d.send("users", gone("a", 25), rec("b", "0", 25))
	d.commit()
	d.expect("updates: a=null @25")
	for n := range int64(2) { // of what is not there any more
		d.send("users", gone("a", 25+n))
		d.commit()
		d.expect()
		d.restart()
	}
	d.send("users", gone("a", 26), rec("a", "again", 27), rec("c", "brief", 27), gone("c", 28))
	d.commit()
	d.expect("updates: a=again @27")
}

// A removal is a version: what comes later and is older lies in front of it.
func TestRemovalOfAVersionAndWhatIsOlder(t *testing.T) {
	d := newDriver(t, versionedTopology(time.Minute))
	d.send("users", gone("a", 20), rec("a", "old", 10))
	d.click("a", 9, "")
	d.click("a", 15, "old")
	d.click("a", 20, "")
	d.commit()
	d.expect()
	d.restart()
	d.click("a", 15, "old")
	d.click("a", 25, "")
}

// Of equal timestamps the last counts, whether it is the latest or not.
func TestVersionsOfTheSameTime(t *testing.T) {
	d := newDriver(t, versionedTopology(time.Minute))
	d.send("users", rec("a", "1", 10), rec("a", "2", 10), rec("b", "x", 10), rec("b", "y", 20), rec("b", "z", 10), rec("c", "1", 10), gone("c", 10))
	d.commit()
	d.expect("updates: a=2 @10", "updates: b=y @20")
	d.click("a", 10, "2")
	d.click("b", 10, "z")
	d.click("c", 10, "")
	d.send("users", gone("b", 10))
	d.click("b", 15, "")
	if rows := len(d.tasks[0].stores["users-table"].keys); rows != 5 {
		t.Errorf("%d rows, want a version of a, two of b, one of c and the mark", rows)
	}
}

// What is older than the history is dropped and counted; a look back further finds the latest
// value, if it is as old, or nothing. The time is that of the table's own records.
func TestVersionsBeyondTheHistory(t *testing.T) {
	d := newDriver(t, versionedTopology(100*ms))
	d.send("users", rec("a", "old", 50), rec("b", "1", 50), rec("b", "2", 60))
	d.click("late", 900, "")
	d.send("users", rec("c", "kept", 0), rec("b", "3", 200), rec("d", "late", 99), rec("d", "in", 100), gone("a", 99))
	d.expect("dropped by users-table: late", "dropped by users-table: late")
	d.commit()
	d.expect("updates: a=old @50", "updates: b=3 @200", "updates: c=kept @0", "updates: d=in @100")
	for range 2 {
		d.click("a", 50, "old")
		d.click("a", 49, "")
		d.click("b", 100, "2")
		d.click("b", 99, "")
		d.click("b", 60, "")
		d.click("b", 200, "3")
		d.click("c", 0, "kept")
		d.click("d", 99, "")
		d.restart()
	}
}

// Null keys are dropped; an inner join drops null values, and keys that are null.
func TestVersionedTableOfNull(t *testing.T) {
	d := newDriver(t, versionedTopology(time.Minute))
	d.send("users", plan.Record{Value: []byte("nobody"), Timestamp: 1})
	d.expect("dropped by users-table: null-key")
	d.send("in", plan.Record{Key: []byte("a"), Timestamp: 2})
	d.expect("dropped by in.join-table: null-value", "dropped by in.left-join-table: null-value")
	d.send("in", plan.Record{Value: []byte("x"), Timestamp: 3})
	d.expect("short: null=x of  false @3", "dropped by in.join-table: null-key")
}

// What is made of a versioned table but for its filters has latest values: joins of tables and
// groups take no notice of what is out of order.
func TestVersionedTablesInTables(t *testing.T) {
	top := topology.New()
	a := topology.ToVersionedTable("a", topology.From(top, left), time.Minute)
	b := topology.ToVersionedTable("b", topology.From(top, right), time.Minute)
	topology.To(topology.JoinTables(a, b, func(a, b string) string { return a + b }).Stream().WithValueSerde(serde.String), strings2("both"))
	foreign := topology.JoinForeign("foreign", a, b, func(_, v string) string { return v }, func(a, b string) string { return a + "->" + b })
	topology.To(foreign.Stream().WithValueSerde(serde.String), strings2("foreign"))
	groups := topology.GroupTable("by-value", a, serde.String, serde.String, func(k, v string) (string, string) { return v, k })
	topology.To(topology.CountTable("n", groups).Stream(), counts)
	d := newDriver(t, top)
	commit := func() []string {
		for range 3 { // through the internal topics
			d.commit()
		}
		lines := d.output
		d.output = nil
		slices.Sort(lines)
		return lines
	}
	expect := func(want ...string) {
		t.Helper()
		if got := commit(); !slices.Equal(got, want) {
			t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	d.send("left", rec("k", "v", 10))
	d.send("right", rec("k", "w", 20), rec("v", "V", 20))
	commit()
	d.send("left", rec("k", "older", 5))
	d.send("right", rec("k", "older", 15), gone("k", 19), rec("v", "older", 5))
	expect()
	d.send("left", rec("k", "u", 11))
	expect("both: k=uw @11", "counts: u=#1 @11", "counts: v=#0 @11", "foreign: k=null @11")
}

// An aggregation is made versioned by way of its stream.
func TestVersionedAggregation(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	n := topology.Count("n", s.GroupByKey())
	versioned := topology.ToVersionedTable("n-versions", n.Stream(), time.Minute)
	seen := topology.LeftJoinTable(topology.From(top, users), versioned, func(v string, n int64, found bool) string { return fmt.Sprint(v, n, found) })
	topology.To(seen.WithValueSerde(serde.String), joined)
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 10))
	d.commit()
	d.send("in", rec("a", "x", 20))
	d.commit()
	d.send("users", rec("a", "?", 9), rec("a", "?", 10), rec("a", "?", 19), rec("a", "?", 20))
	d.expect("joined: a=?0 false @9", "joined: a=?1 true @10", "joined: a=?1 true @19", "joined: a=?2 true @20")
}

// The policy decides about what cannot be written, which leaves no trace.
func TestVersionedTableErrors(t *testing.T) {
	refusing := refusing{serde.String}
	build := func(opts ...topology.TableOption) *topology.Topology {
		top := topology.New()
		table := topology.ToVersionedTable("t", topology.From(top, in).WithValueSerde(refusing), time.Minute, opts...)
		topology.To(table.Stream().WithValueSerde(serde.String), strings2("out"))
		return top
	}
	err := newDriver(t, build()).try("in", rec("a", "bad", 1))
	if err == nil || !strings.Contains(err.Error(), `operator "t" failed on the record at in-0@0: value: it is bad`) {
		t.Errorf("err = %v", err)
	}
	d := newDriver(t, build(topology.OnError(topology.Skip())))
	d.send("in", rec("a", "fine", 1), rec("a", "bad", 100_000), rec("a", "too", 2))
	d.commit()
	d.expect("out: a=too @2", "dropped by t: error: value: it is bad")
}

// refusing refuses to write one value.
type refusing struct{ topology.Serde[string] }

func (p refusing) Append(dst []byte, v string) ([]byte, error) {
	if v == "bad" {
		return nil, errors.New("it is bad")
	}
	return p.Serde.Append(dst, v)
}

func TestVersionedMistakes(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	table := topology.ToVersionedTable("t", s, time.Minute)
	table.Filter(func(_, _ string) bool { return true }).WithValueSerde(serde.String).Suppress("held", topology.UntilTimeLimit(time.Second))
	topology.ToVersionedTable("none", s, 0)
	topology.ToVersionedTable("fraction", s, 1500*time.Microsecond)
	topology.ToVersionedTable("early", s, time.Minute, topology.OnWindowClose())
	topology.ToVersionedTable("unwritable", topology.MapValues(s, func(string) int { return 0 }), time.Minute)
	topology.Process(s, topology.Processor[string, string]{
		Stores:  []topology.ProcessorStore{topology.NewVersionedStore[string, string]("half", serde.String, nil, -time.Second)},
		Process: func(*topology.ProcessorContext, *topology.Record[string, string]) error { return nil },
	})
	_, err := top.Build()
	if err == nil {
		t.Fatal("it builds")
	}
	for _, want := range []string{
		`operator "held": it holds updates of "t.filter-table" back, whose versions could not be looked up any more`,
		`operator "none": the history is 0s: it must be whole milliseconds, at least one`,
		`operator "fraction": the history is 1.5ms: it must be whole`,
		`operator "early": OnWindowClose, Retention, Initial and Merger are for aggregations`,
		`operator "unwritable": there is no serde for its values, of type int`,
		`operator "half": the history is -1s: it must be whole milliseconds, at least one`,
		`operator "half": the store needs a serde for keys and one for values`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// A store says what it is in the plan.
func TestVersionedStoresInThePlan(t *testing.T) {
	p, err := versionedTopology(time.Hour, topology.InMemory(), topology.Formerly("people")).Build()
	if err != nil {
		t.Fatal(err)
	}
	want := state.Spec{Name: "people", Kind: state.Versioned, Retention: time.Hour, InMemory: true, KeyFormat: "string", ValueFormat: "string"}
	if stores := p.SubTopologies[0].Stores; len(stores) != 1 || stores[0] != want {
		t.Errorf("stores %+v", stores)
	}
	m := p.Manifest("app", nil)
	if s := m.Stores[0]; s.Kind != "versioned" || s.OperatorKind != "to-versioned-table" || s.RetentionMS != time.Hour.Milliseconds() {
		t.Errorf("manifest %+v", s)
	}
	q, err := versionedTopology(2*time.Hour, topology.InMemory(), topology.Formerly("people")).Build()
	if err != nil {
		t.Fatal(err)
	}
	if d := plan.Compare(m, q.Manifest("app", nil)); len(d) != 1 || d[0].Class != plan.Safe || !strings.Contains(d[0].What, "the history was 3600000 ms and is 7200000 ms") {
		t.Errorf("differences %v", d)
	}
}

// versionModel is what a versioned table is to do.
type versionModel struct {
	history  int64
	observed int64
	keys     map[string]map[int64]string // "" is a removal
	late     int
}

func (m *versionModel) put(key, value string, at int64) {
	if at < m.observed-m.history {
		m.late++
		return
	}
	m.observed = max(m.observed, at)
	if m.keys[key] == nil {
		m.keys[key] = map[int64]string{}
	}
	m.keys[key][at] = value
}

func (m *versionModel) asOf(key string, at int64) string {
	found, latest := int64(-1), int64(-1)
	for from := range m.keys[key] {
		latest = max(latest, from)
		if from <= at {
			found = max(found, from)
		}
	}
	if found < 0 || found < latest && at < m.observed-m.history {
		return ""
	}
	return m.keys[key][found]
}

func (m *versionModel) clone() *versionModel {
	c := *m
	c.keys = map[string]map[int64]string{}
	for key, versions := range m.keys {
		c.keys[key] = maps.Clone(versions)
	}
	return &c
}

// Whatever comes in whatever order, with caches of any size, over restarts and over commits
// that broke off after they had written, the table has what the model has, at all times that
// can be asked for, and the last update of each key is its latest value.
func TestVersionedTableAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 7))
		d := newDriver(t, versionedTopology(40*ms))
		m := &versionModel{history: 40, observed: -1, keys: map[string]map[int64]string{}}
		told := map[string]string{}
		settled, pending := m.clone(), [][]plan.Record(nil)
		now := int64(0)
		collect := func() {
			for _, line := range d.output {
				if rest, ok := strings.CutPrefix(line, "updates: "); ok {
					key, rest, _ := strings.Cut(rest, "=")
					told[key], _, _ = strings.Cut(rest, " @")
				}
			}
			d.output = nil
		}
		commit := func() {
			d.commit()
			collect()
			settled, pending = m.clone(), nil
			for key := range m.keys {
				if want := m.asOf(key, 1<<40); told[key] != want && !(want == "" && told[key] == "null") {
					t.Fatalf("seed %d: the last update of %s is %q, its value is %q", seed, key, told[key], want)
				}
			}
		}
		for n := range 600 {
			now += int64(random.IntN(4))
			key, at := fmt.Sprint("k", random.IntN(6), strings.Repeat("\x00", random.IntN(2))), max(0, now-int64(random.IntN(60)))
			switch random.IntN(3) {
			case 0: // look up, in any order and before any history
				d.output = slices.DeleteFunc(d.output, func(line string) bool { return !strings.HasPrefix(line, "updates") })
				collect()
				d.send("in", rec(key, "x", at))
				got := ""
				for _, line := range d.output {
					if rest, ok := strings.CutPrefix(line, "joined: "+key+"=x by "); ok {
						got, _, _ = strings.Cut(rest, " @")
					}
				}
				if want := m.asOf(key, at); got != want {
					t.Fatalf("seed %d: %q as of %d is %q, want %q", seed, key, at, got, want)
				}
				collect()
				pending = append(pending, []plan.Record{rec(key, "x", at)})
			case 1:
				value := fmt.Sprint("v", n)
				record := rec(key, value, at)
				if random.IntN(4) == 0 {
					value, record = "", gone(key, at)
				}
				m.put(key, value, at)
				d.send("users", record)
				pending = append(pending, []plan.Record{{}, record})
			case 2:
				switch random.IntN(8) {
				case 0:
					commit()
				case 1:
					commit()
					d.cacheBytes = []int{0, 600, 1 << 20}[random.IntN(3)]
					d.restart()
				case 2: // a commit that does not get to its end
					if d.tasks[0].streamTime == d.tasks[0].committed {
						continue // by which alone an operator can tell
					}
					d.flush()
					collect()
					d.restart()
					again := settled.clone()
					for _, records := range pending {
						if len(records) == 1 {
							d.send("in", records[0])
							continue
						}
						again.put(string(records[1].Key), string(records[1].Value), records[1].Timestamp)
						d.send("users", records[1])
					}
					if again.observed != m.observed {
						t.Fatalf("seed %d: time is %d, and was %d", seed, again.observed, m.observed)
					}
					m.late += again.late - settled.late
					collect()
				}
			}
		}
		commit()
		if late := len(d.dropped); late != m.late || late == 0 {
			t.Errorf("seed %d: %d were dropped, want %d", seed, late, m.late)
		}
	}
}

// The same keys, updated and removed for long, take no more rows than the history needs.
func TestVersionsAreSwept(t *testing.T) {
	const keys, history = 20, 100
	d := newDriver(t, versionedTopology(history*ms))
	store := d.tasks[0].stores["users-table"]
	most := 0
	for n := range int64(20_000) {
		key := fmt.Sprint("key", n*7%keys)
		if n%5 == 0 {
			d.send("users", gone(key, n))
		} else {
			d.send("users", rec(key, "v", n))
		}
		if n%17 == 0 {
			d.commit()
		}
		if n%1000 == 0 {
			d.restart()
		}
		most = max(most, len(store.keys))
	}
	if most > 2*(keys+history) {
		t.Errorf("%d rows for %d keys and a history of %d versions", most, keys, history)
	}
	// A key with many versions in one commit, and many keys that were removed.
	for n := range int64(5000) {
		d.send("users", rec("many", "v", 20_000+n/50), gone(fmt.Sprint("gone", n), 20_000+n/50))
	}
	d.commit()
	for n := range int64(2000) {
		d.send("users", rec("last", "v", 30_000+n))
		if n%10 == 0 {
			d.commit()
		}
	}
	d.commit()
	if rows := len(store.keys); rows > 2*(keys+history) {
		t.Errorf("%d rows are left", rows)
	}
	d.output = nil
	d.click("many", 1<<40, "v")
	d.click("gone7", 1<<40, "")
}
