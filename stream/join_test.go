package stream_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// A stream is joined with a table over partitions, over a restart with the state that is
// on disk, and with state that is restored from the changelog.
func TestJoinOutlivesItsProcess(t *testing.T) {
	c := newCluster(t)
	users, clicks, seen, out := c.topic("users", 2), c.topic("clicks", 2), c.topic("seen", 2), c.topic("joined", 2)
	text := func(name string) topology.Topic[string, string] {
		return topology.NewTopic(name, serde.String, serde.String)
	}
	top := topology.New()
	table := topology.ToTable("users", topology.From(top, text(users)))
	topology.To(table.Stream(), text(seen))
	joined := topology.JoinTable(topology.From(top, text(clicks)), table, func(click, user string) string { return click + " by " + user })
	topology.To(joined.WithValueSerde(serde.String), text(out))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	record := func(key int, value string) plan.Record {
		return plan.Record{Key: fmt.Appendf(nil, "user-%d", key), Value: []byte(value), Timestamp: 1}
	}
	names, updates, results := make([]plan.Record, n), c.reader(seen), c.reader(out)
	for i := range n {
		names[i] = record(i, fmt.Sprint("name-", i))
	}
	dir := t.TempDir()
	for round, stateDir := range []string{dir, dir, t.TempDir()} {
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = stateDir })
		app.reach(stream.Running)
		if round == 0 {
			c.produce(users, names...)
			known := map[string]bool{}
			updates.until("the table", func(r plan.Record) bool {
				known[string(r.Key)] = true
				return len(known) == n
			})
		}
		var visits []plan.Record
		for i := range n + 5 { // the last ones are nobody's
			visits = append(visits, record(i, fmt.Sprint("click-", round)))
		}
		c.produce(clicks, visits...)
		got := map[string]string{}
		results.until("the results", func(r plan.Record) bool {
			got[string(r.Key)] = string(r.Value)
			return len(got) == n
		})
		for i := range n {
			if key := fmt.Sprint("user-", i); got[key] != fmt.Sprintf("click-%d by name-%d", round, i) {
				t.Errorf("round %d: %s is %q", round, key, got[key])
			}
		}
		app.stopped()
	}
}

// Two streams are joined over partitions; records that came before a restart are joined
// with those that come after it, with the state on disk and with state that is restored.
func TestStreamJoinOutlivesItsProcess(t *testing.T) {
	c := newCluster(t)
	shown, clicked, out := c.topic("shown", 2), c.topic("clicked", 2), c.topic("outcomes", 2)
	text := func(name string) topology.Topic[string, string] {
		return topology.NewTopic(name, serde.String, serde.String)
	}
	top := topology.New()
	joined := topology.LeftJoinStreams("join", topology.From(top, text(shown)), topology.From(top, text(clicked)), topology.Within(time.Minute),
		func(page, click string, found bool) string { return fmt.Sprint(page, click, found) })
	topology.To(joined.WithValueSerde(serde.String), text(out))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	records := func(value string, keys int, at time.Duration) (list []plan.Record) {
		for i := range keys {
			list = append(list, plan.Record{Key: fmt.Appendf(nil, "user-%d", i), Value: []byte(value), Timestamp: at.Milliseconds()})
		}
		return list
	}
	results, got := c.reader(out), map[string]string{}
	expect := func(what string, count int) {
		t.Helper()
		results.until(what, func(r plan.Record) bool {
			if text, twice := got[string(r.Key)]; twice {
				t.Errorf("%s: %q after %q", r.Key, r.Value, text)
			}
			got[string(r.Key)] = string(r.Value)
			return len(got) == count
		})
	}
	dir := t.TempDir()
	app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = dir })
	app.reach(stream.Running)
	c.produce(shown, records("page ", n, time.Hour)...)
	c.produce(clicked, records("click ", n/4, time.Hour+time.Second)...)
	expect("the first partners", n/4)
	app.stopped()
	app = c.start(p, func(cfg *stream.Config) { cfg.StateDir = dir })
	app.reach(stream.Running)
	clear(got)
	c.produce(clicked, records("click ", n/2, time.Hour+2*time.Second)...)
	expect("partners of what is on disk", n/2)
	app.stopped()
	app = c.start(p, func(cfg *stream.Config) { cfg.StateDir = t.TempDir() })
	app.reach(stream.Running)
	clear(got)
	// Both partitions must learn that the windows are over.
	c.produce(clicked, records("much later ", n, 2*time.Hour)...)
	expect("those without partners", n/2)
	for i := range n {
		want := "page false"
		if i < n/2 {
			want = ""
		}
		if key := fmt.Sprint("user-", i); got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	app.stopped()
}

// Tables of different numbers of partitions are joined by a foreign key, and their groups
// counted, over a restart and with state that is restored.
func TestForeignKeyJoinOutlivesItsProcess(t *testing.T) {
	c := newCluster(t)
	orders, customers, out, counts := c.topic("orders", 2), c.topic("customers", 3), c.topic("named", 2), c.topic("counts", 1)
	text := func(name string) topology.Topic[string, string] {
		return topology.NewTopic(name, serde.String, serde.String)
	}
	top := topology.New()
	table := topology.ToTable("orders", topology.From(top, text(orders), topology.Named("all-orders")))
	names := topology.ToTable("customers", topology.From(top, text(customers), topology.Named("all-customers")))
	of := func(_, customer string) string { return customer }
	joined := topology.JoinForeign("named", table, names, of, func(order, name string) string { return order + " is " + name })
	topology.To(joined.Stream().WithValueSerde(serde.String), text(out))
	grouped := topology.GroupTable("by-customer", table, serde.String, serde.String, func(order, customer string) (string, string) { return customer, order })
	topology.To(topology.CountTable("count", grouped).Stream(), topology.NewTopic(counts, serde.String, serde.Int64))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	const n, m = 30, 5
	results, perCustomer := c.reader(out), c.reader(counts)
	dir := t.TempDir()
	for round, stateDir := range []string{dir, dir, t.TempDir()} {
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = stateDir })
		app.reach(stream.Running)
		var changes []plan.Record
		want, wantCounts := map[string]string{}, map[string]string{}
		for i := range n { // every round each order goes to the next customer
			customer := (i + round) % m
			changes = append(changes, plan.Record{Key: fmt.Appendf(nil, "order-%d", i), Value: fmt.Appendf(nil, "customer-%d", customer), Timestamp: int64(round)})
			want[fmt.Sprint("order-", i)] = fmt.Sprintf("customer-%d is name-%d-%d", customer, customer, round)
			wantCounts[fmt.Sprint("customer-", customer)] = "\x00\x00\x00\x00\x00\x00\x00\x06"
		}
		c.produce(orders, changes...)
		changes = nil
		for i := range m {
			changes = append(changes, plan.Record{Key: fmt.Appendf(nil, "customer-%d", i), Value: fmt.Appendf(nil, "name-%d-%d", i, round), Timestamp: int64(round)})
		}
		c.produce(customers, changes...)
		got := map[string]string{}
		results.until("the results", func(r plan.Record) bool {
			got[string(r.Key)] = string(r.Value)
			return maps.Equal(got, want)
		})
		if round == 0 {
			got := map[string]string{}
			perCustomer.until("the counts", func(r plan.Record) bool {
				got[string(r.Key)] = string(r.Value)
				return maps.Equal(got, wantCounts)
			})
		}
		app.stopped()
	}
}

// A key may have more records within the time of a join than a record of the changelog can
// hold; they are all joined, also when the state is restored.
func TestStreamJoinOfAHotKey(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	shown, clicked, out := c.topic("shown", 1), c.topic("clicked", 1), c.topic("outcomes", 1)
	text := func(name string) topology.Topic[string, string] {
		return topology.NewTopic(name, serde.String, serde.String)
	}
	top := topology.New()
	joined := topology.JoinStreams("join", topology.From(top, text(shown)), topology.From(top, text(clicked)), topology.Within(10*time.Minute),
		func(shown, click string) string { return shown[:6] + click })
	topology.To(joined.WithValueSerde(serde.String), text(out))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	const n = 8000 // of 206 bytes that do not compress
	random := rand.New(rand.NewPCG(1, 1))
	records := make([]plan.Record, n)
	for i := range records {
		noise := make([]byte, 200)
		for j := range noise {
			noise[j] = byte(random.Uint32())
		}
		records[i] = plan.Record{Key: []byte("hot"), Value: fmt.Appendf(nil, "%06d%s", i, noise), Timestamp: int64(1000 + i)}
	}
	c.produce(shown, records...)
	r := c.reader(out)
	for round := range 2 {
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = t.TempDir() })
		app.reach(stream.Running)
		click := fmt.Sprint(" clicked ", round)
		c.produce(clicked, plan.Record{Key: []byte("hot"), Value: []byte(click), Timestamp: 1000 + n})
		seen := map[string]bool{}
		r.until("the results", func(rec plan.Record) bool {
			if strings.HasSuffix(string(rec.Value), click) {
				seen[string(rec.Value)] = true
			}
			return len(seen) == n
		})
		app.stopped()
	}
}
