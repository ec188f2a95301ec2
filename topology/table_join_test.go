package topology_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var (
	left  = topology.NewTopic("left", serde.String, serde.String)
	right = topology.NewTopic("right", serde.String, serde.String)
)

// tablesTopology joins two tables in each way, filters and maps.
func tablesTopology() *topology.Topology {
	top := topology.New()
	a := topology.ToTable("a", topology.From(top, left))
	b := topology.ToTable("b", topology.From(top, right))
	write := func(name string, table *topology.Table[string, string]) {
		topology.To(table.Stream().WithValueSerde(serde.String), topology.NewTopic(name, serde.String, serde.String))
	}
	inner := topology.JoinTables(a, b, func(a, b string) string { return a + b })
	write("inner", inner)
	write("left-join", topology.LeftJoinTables(a, b, func(a, b string, found bool) string { return fmt.Sprint(a, "+", b, found) }))
	write("outer", topology.OuterJoinTables(a, b, func(a string, hasA bool, b string, hasB bool) string { return fmt.Sprint(a, hasA, b, hasB) }))
	write("long", inner.Filter(func(_, v string) bool { return len(v) > 3 }, topology.Named("long")))
	// What is made of tables can be looked up.
	upper := topology.MapTable(inner, func(key, v string) string { return key + strings.ToUpper(v) })
	looked := topology.LeftJoinTable(topology.From(top, in), upper, func(v, of string, found bool) string { return fmt.Sprint(v, of, found) })
	topology.To(looked.WithValueSerde(serde.String), joined)
	return top
}

func gone(key string, at int64) plan.Record { return plan.Record{Key: []byte(key), Timestamp: at} }

func TestTableTableJoins(t *testing.T) {
	d := newDriver(t, tablesTopology())
	d.send("left", rec("k", "a", 1))
	d.commit()
	d.expect("left-join: k=a+false @1", "outer: k=atruefalse @1")
	d.send("right", rec("k", "b", 2), rec("other", "x", 3))
	d.commit()
	d.expect("inner: k=ab @2", "long: k=null @2", "left-join: k=a+btrue @2", "outer: k=atruebtrue @2", "outer: other=falsextrue @3")
	d.send("left", rec("k", "aaa", 4))
	d.send("in", rec("k", "?", 5), rec("other", "?", 5))
	d.expect("joined: k=?kAAABtrue @5", "joined: other=?false @5")
	d.commit()
	d.expect("inner: k=aaab @4", "long: k=aaab @4", "left-join: k=aaa+btrue @4", "outer: k=aaatruebtrue @4")
	d.restart()
	d.send("right", gone("k", 6))
	d.commit()
	d.expect("inner: k=null @6", "long: k=null @6", "left-join: k=aaa+false @6", "outer: k=aaatruefalse @6")
	d.send("left", gone("k", 7))
	d.commit()
	d.expect("inner: k=null @7", "long: k=null @7", "left-join: k=null @7", "outer: k=null @7")
	// Both at once: the key goes from all.
	d.send("left", rec("k", "a", 8))
	d.send("right", rec("k", "b", 8))
	d.commit()
	d.output = nil
	d.send("left", gone("k", 9))
	d.send("right", gone("k", 9))
	d.commit()
	for _, table := range []string{"inner", "left-join", "outer"} {
		if !strings.Contains(strings.Join(d.output, "\n"), table+": k=null @9") {
			t.Errorf("%s keeps a key that both sides lost: %v", table, d.output)
		}
	}
}

// Whatever comes in whatever order, with caches of any size and over restarts, the last
// update of each key is the join of the last values.
func TestTableJoinsAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 0))
		d := newDriver(t, tablesTopology())
		sides := map[string]map[string]string{"left": {}, "right": {}}
		results := map[string]map[string]string{"inner": {}, "left-join": {}, "outer": {}, "long": {}}
		collect := func() {
			for _, line := range d.output {
				table, rest, _ := strings.Cut(line, ": ")
				key, rest, _ := strings.Cut(rest, "=")
				value, _, _ := strings.Cut(rest, " @")
				if value == "null" {
					delete(results[table], key)
				} else if results[table] != nil {
					results[table][key] = value
				}
			}
			d.output = nil
		}
		for n := range 300 {
			side := []string{"left", "right"}[random.IntN(2)]
			key := fmt.Sprint("key", random.IntN(12))
			if random.IntN(3) == 0 {
				delete(sides[side], key)
				d.send(side, gone(key, int64(n)))
			} else {
				value := strings.Repeat("v", random.IntN(4)) + fmt.Sprint(n%10)
				sides[side][key] = value
				d.send(side, rec(key, value, int64(n)))
			}
			switch random.IntN(12) {
			case 0:
				d.commit()
			case 1:
				d.commit()
				d.cacheBytes = []int{200, 1000, 1 << 20}[random.IntN(3)]
				d.restart()
			}
			collect()
		}
		d.commit()
		collect()
		for i := range 12 {
			key := fmt.Sprint("key", i)
			a, hasA := sides["left"][key]
			b, hasB := sides["right"][key]
			check := func(table, want string, there bool) {
				if got, ok := results[table][key]; ok != there || there && got != want {
					t.Fatalf("seed %d: %s of %s is %q %v, want %q %v", seed, table, key, got, ok, want, there)
				}
			}
			check("inner", a+b, hasA && hasB)
			check("left-join", fmt.Sprint(a, "+", b, hasB), hasA)
			check("outer", fmt.Sprint(a, hasA, b, hasB), hasA || hasB)
			check("long", a+b, hasA && hasB && len(a+b) > 3)
		}
	}
}
