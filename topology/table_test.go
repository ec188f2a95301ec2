package topology_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var (
	users  = topology.NewTopic("users", serde.String, serde.String)
	joined = topology.NewTopic("joined", serde.String, serde.String)
)

func joinTopology() *topology.Topology {
	top := topology.New()
	table := topology.ToTable("users-table", topology.From(top, users))
	clicks := topology.From(top, in)
	inner := topology.JoinTable(clicks, table, func(click, user string) string { return click + " by " + user })
	topology.To(inner.WithValueSerde(serde.String), joined)
	left := topology.LeftJoinTable(clicks, table, func(click, user string, found bool) string { return fmt.Sprint(click, " of ", user, " ", found) })
	topology.To(left.WithValueSerde(serde.String), topology.NewTopic("left", serde.String, serde.String))
	return top
}

// A stream sees what the table has at the moment, flushed or not, and over a restart.
func TestStreamTableJoin(t *testing.T) {
	d := newDriver(t, joinTopology())
	d.send("in", rec("a", "1", 10))
	d.expect("left: a=1 of  false @10")
	d.send("users", rec("a", "Ada", 11), rec("b", "Bob", 12))
	d.send("in", rec("a", "2", 5), rec("b", "3", 14))
	d.expect("joined: a=2 by Ada @5", "left: a=2 of Ada true @5", "joined: b=3 by Bob @14", "left: b=3 of Bob true @14")
	d.send("users", rec("a", "Eve", 3)) // later in the topic, though older
	d.send("in", rec("a", "4", 20))
	d.expect("joined: a=4 by Eve @20", "left: a=4 of Eve true @20")
	d.commit()
	d.restart()
	d.send("in", rec("b", "5", 21))
	d.expect("joined: b=5 by Bob @21", "left: b=5 of Bob true @21")
	d.send("users", plan.Record{Key: []byte("b"), Timestamp: 22})
	d.send("in", rec("b", "6", 23))
	d.expect("left: b=6 of  false @23")
	d.commit()
	if rows := d.tasks[0].stores["users-table"].rows(); fmt.Sprint(rows) != "[a]" {
		t.Errorf("rows %v", rows)
	}
	d.restart()
	d.send("in", rec("b", "7", 24))
	d.expect("left: b=7 of  false @24")
}

// Null: a stream record without a value is dropped; without a key it has no partner.
func TestStreamTableJoinOfNull(t *testing.T) {
	d := newDriver(t, joinTopology())
	d.send("users", plan.Record{Value: []byte("nobody"), Timestamp: 1})
	d.expect("dropped by users-table: null-key")
	d.send("in", plan.Record{Key: []byte("a"), Timestamp: 2})
	d.expect("dropped by in.join-table: null-value", "dropped by in.left-join-table: null-value")
	d.send("in", plan.Record{Value: []byte("x"), Timestamp: 3})
	d.expect("left: null=x of  false @3", "dropped by in.join-table: null-key")
}

// A table that was written and removed between two commits leaves no trace, and its
// stream tells each change once.
func TestTableStream(t *testing.T) {
	top := topology.New()
	topology.To(topology.ToTable("t", topology.From(top, in)).Stream(), joined)
	d := newDriver(t, top)
	d.send("in", rec("a", "1", 1), rec("a", "2", 2), rec("b", "1", 3), plan.Record{Key: []byte("b"), Timestamp: 4})
	d.commit()
	d.expect("joined: a=2 @2")
	d.send("in", plan.Record{Key: []byte("a"), Timestamp: 5})
	d.commit()
	d.expect("joined: a=null @5")
	if s := d.tasks[0].stores["t"]; len(s.keys) != 0 {
		t.Errorf("rows %v", s.rows())
	}
}

// An aggregation is a table too: of the very record that comes from the same topic,
// the join sees what came before it in the graph.
func TestJoinWithAggregation(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	n := topology.Count("n", s.GroupByKey())
	seen := topology.JoinTable(s, n, func(v string, n int64) string { return fmt.Sprint(v, " is number ", n) })
	topology.To(seen.WithValueSerde(serde.String), joined)
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 1), rec("a", "y", 2), rec("b", "z", 3))
	d.expect("joined: a=x is number 1 @1", "joined: a=y is number 2 @2", "joined: b=z is number 1 @3")
}

// Keys that are looked up and not there do not fill the memory.
func TestLookupsAreBounded(t *testing.T) {
	d := newDriver(t, joinTopology())
	d.commit()
	d.cacheBytes = 4 << 10
	d.restart()
	d.send("users", rec("known", "K", 1))
	for i := range 2000 {
		d.send("in", rec(fmt.Sprint("unknown-", i), "x", 1))
	}
	d.output = nil
	d.send("in", rec("known", "x", 1))
	d.expect("joined: known=x by K @1", "left: known=x of K true @1")
	if s := d.tasks[0].stores["users-table"]; s.gets < 1000 {
		t.Errorf("%d gets: what was looked up was not forgotten", s.gets)
	}
}

func TestTableMistakes(t *testing.T) {
	top, other := topology.New(), topology.New()
	s := topology.From(top, in)
	lengths := topology.SelectKey(s, func(v string) int64 { return int64(len(v)) }).WithKeySerde(serde.Int64)
	byLength := topology.ToTable("by-length", lengths)
	_ = topology.JoinTable(lengths, byLength, func(a, b string) string { return a + b }, topology.Named("scattered"))
	topology.ToTable("unwritable", topology.MapValues(s, func(string) int { return 0 }))
	topology.ToTable("early", s, topology.OnWindowClose())
	windows := topology.Count("w", s.GroupByKey().Window(topology.Tumbling(time.Minute)))
	_ = topology.JoinTable(windows.Stream(), windows, func(a, b int64) int64 { return a + b }, topology.Named("windowed"))
	_ = topology.JoinTable(s, topology.ToTable("elsewhere", topology.From(other, in)), func(a, b string) string { return a }, topology.Named("foreign"))
	_, err := top.Build()
	if err == nil {
		t.Fatal("it builds")
	}
	for _, want := range []string{
		`operator "by-length": it works by key, but "in.select-key" changed the keys, so a repartition topic is needed before it: Repartition("...")`,
		`operator "unwritable": there is no serde for its values, of type int, behind "in.map-values": call WithValueSerde on the stream first`,
		`operator "early": OnWindowClose, Retention, Initial and Merger are for aggregations, this is a table of a stream: leave them out`,
		`operator "windowed": it joins with "w", whose keys are windows`,
		`operator "foreign": it joins with a table of another topology: declare both in one`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// What meets in a join must have equally many partitions, and one sub-topology.
func TestJoinIsCopartitioned(t *testing.T) {
	p, err := joinTopology().Build()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.SubTopologies) != 1 || fmt.Sprint(p.SubTopologies[0].Copartitioned) != "[[0 1]]" {
		t.Errorf("%s", p.Describe())
	}
}
