package topology_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var people = topology.NewTopic("people", serde.Bytes, serde.String)

// customerOf finds the first word of an order, null when there is none.
func customerOf(_, order string) []byte {
	name, _, _ := strings.Cut(order, " ")
	if name == "" {
		return nil
	}
	return []byte(name)
}

// ordersTopology joins orders, "customer item", with customers.
func ordersTopology() *topology.Topology {
	top := topology.New()
	orders := topology.ToTable("orders", topology.From(top, left))
	customers := topology.ToTable("customers", topology.From(top, people))
	write := func(name string, table *topology.Table[string, string]) {
		topology.To(table.Stream().WithValueSerde(serde.String), topology.NewTopic(name, serde.String, serde.String))
	}
	inner := topology.JoinForeign("inner", orders, customers, customerOf, func(order, customer string) string { return order + " for " + customer })
	write("inner", inner)
	write("left-join", topology.LeftJoinForeign("all", orders, customers, customerOf, func(order, customer string, found bool) string {
		return fmt.Sprint(order, " for ", customer, found)
	}))
	looked := topology.LeftJoinTable(topology.From(top, in), inner, func(v, of string, found bool) string { return fmt.Sprint(v, of, found) })
	topology.To(looked.WithValueSerde(serde.String), joined)
	return top
}

// commitAll commits until what came back from another sub-topology is on disk: records of
// internal topics are not kept for a restart here.
func (d *driver) commitAll() {
	for range 2 {
		d.commit()
	}
}

func TestForeignKeyJoin(t *testing.T) {
	d := newDriver(t, ordersTopology())
	d.send("left", rec("1", "ann apples", 1), rec("2", "bob pears", 2), rec("3", "ann plums", 3), rec("4", " nothing", 4))
	d.commitAll()
	d.expect("left-join: 4= nothing for false @4", "left-join: 1=ann apples for false @1", "left-join: 2=bob pears for false @2", "left-join: 3=ann plums for false @3")
	d.send("people", rec("ann", "Ann", 5))
	d.commitAll()
	d.expect("inner: 1=ann apples for Ann @5", "inner: 3=ann plums for Ann @5", "left-join: 1=ann apples for Anntrue @5", "left-join: 3=ann plums for Anntrue @5")
	d.restart()
	// The same customer: no answer is needed.
	d.send("left", rec("1", "ann cherries", 6))
	d.commit()
	d.expect("inner: 1=ann cherries for Ann @6", "left-join: 1=ann cherries for Anntrue @6")
	d.send("in", rec("1", "?", 6), rec("2", "?", 6), rec("9", "?", 6))
	d.expect("joined: 1=?ann cherries for Anntrue @6", "joined: 2=?false @6", "joined: 9=?false @6")
	// Another one, without and with a row.
	d.send("left", rec("1", "bob cherries", 7))
	d.commitAll()
	d.expect("inner: 1=null @7", "left-join: 1=bob cherries for false @7")
	d.send("left", rec("2", "ann pears", 8))
	d.commitAll()
	d.expect("inner: 2=ann pears for Ann @8", "left-join: 2=ann pears for Anntrue @8")
	// None, and gone.
	d.send("left", rec("3", " plums", 9), gone("2", 10), gone("5", 11))
	d.commitAll()
	d.expect("inner: 3=null @9", "left-join: 3= plums for false @9", "inner: 2=null @10", "left-join: 2=null @10")
	d.send("people", rec("ann", "Anna", 12))
	d.commitAll()
	d.expect()
	d.send("people", rec("bob", "Bob", 13))
	d.commitAll()
	d.expect("inner: 1=bob cherries for Bob @13", "left-join: 1=bob cherries for Bobtrue @13")
	d.send("people", gone("bob", 14))
	d.commitAll()
	d.expect("inner: 1=null @14", "left-join: 1=bob cherries for false @14")
}

// A table may be joined with itself: then one task reads what it wrote.
func TestForeignKeySelfJoin(t *testing.T) {
	top := topology.New()
	staff := topology.ToTable("everybody", topology.From(top, topology.NewTopic("staff", serde.Bytes, serde.String)))
	managed := topology.JoinForeign("managed", staff, staff, func(_ []byte, v string) []byte { return customerOf("", v) },
		func(one, manager string) string { return one + " under " + manager })
	topology.To(managed.Stream().WithValueSerde(serde.String), topology.NewTopic("managed", serde.Bytes, serde.String))
	d := newDriver(t, top)
	d.send("staff", rec("ann", " Ann", 1), rec("bob", "ann Bob", 2))
	d.commitAll()
	d.expect("managed: bob=ann Bob under  Ann @2")
	d.send("staff", rec("ann", " Anna", 3))
	d.commitAll()
	d.expect("managed: bob=ann Bob under  Anna @3")
}

// Whatever changes on either side, with caches of any size and over restarts, the last
// update of each row is the join of what there is.
func TestForeignKeyJoinAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 0))
		d := newDriver(t, ordersTopology())
		d.cacheBytes = 1 << (4 + random.IntN(14))
		d.restart()
		orders, customers := map[string]string{}, map[string]string{}
		for n := range 300 {
			topic, rows, key, text := "left", orders, fmt.Sprint("o", random.IntN(6)), fmt.Sprintf("c%d item-%d", random.IntN(4), n)
			switch random.IntN(8) {
			case 0, 1, 2:
				topic, rows, key, text = "people", customers, fmt.Sprint("c", random.IntN(4)), fmt.Sprint("C", n)
			case 3:
				text = fmt.Sprint(" item-", n)
			}
			r := rec(key, text, int64(n))
			rows[key] = text
			if random.IntN(4) == 0 {
				r = plan.Record{Key: []byte(key), Timestamp: int64(n)}
				delete(rows, key)
			}
			d.send(topic, r)
			switch random.IntN(12) {
			case 0:
				d.commit()
			case 1:
				d.commitAll()
				d.restart()
			}
		}
		d.commitAll()
		last := map[string]string{}
		for _, line := range d.output {
			line, _, _ = strings.Cut(line, " @")
			name, value, _ := strings.Cut(line, "=")
			last[name] = value
		}
		for name := range last {
			if last[name] == "null" {
				delete(last, name)
			}
		}
		want := map[string]string{}
		for key, order := range orders {
			name, _, _ := strings.Cut(order, " ")
			customer, found := customers[name]
			want["left-join: "+key] = fmt.Sprint(order, " for ", customer, found)
			if found {
				want["inner: "+key] = order + " for " + customer
			}
		}
		if !maps.Equal(last, want) {
			for _, key := range slices.Sorted(maps.Keys(want)) {
				if last[key] != want[key] {
					t.Errorf("seed %d: %s is %q, want %q", seed, key, last[key], want[key])
				}
			}
			t.Fatalf("seed %d: got %v, want %v", seed, last, want)
		}
	}
}

func TestMistakesOfForeignKeyJoins(t *testing.T) {
	top := topology.New()
	orders := topology.ToTable("orders", topology.From(top, left))
	customers := topology.ToTable("customers", topology.From(top, people))
	f := func(a, b string) string { return a + b }
	topology.JoinForeign[string, string, []byte, string, string]("nothing", orders, customers, nil, f)
	topology.JoinForeign("odd", orders, customers, customerOf, f, topology.Partitions(3))
	topology.JoinForeign("computed", orders, topology.MapTable(customers, func(_ []byte, v string) string { return v }), customerOf, f)
	topology.JoinForeign("windows", orders, topology.Count("counts", topology.From(top, in).GroupByKey().Window(topology.Tumbling(ms))),
		func(k, v string) topology.WindowedKey[string] { return topology.WindowedKey[string]{} }, func(a string, n int64) string { return a })
	topology.JoinForeign("afar", orders, topology.ToTable("others", topology.From(topology.New(), people)), customerOf, f)
	_, err := top.Build()
	golden(t, "mistakes-foreign-key-joins.txt", err.Error()+"\n")
}
