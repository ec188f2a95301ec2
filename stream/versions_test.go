package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// A stream is joined with what was, over a restart with the state that is on disk, and with
// state that is restored from the changelog, whatever has come in between.
func TestVersionedJoinOutlivesItsProcess(t *testing.T) {
	c := newCluster(t)
	prices, orders, seen, out := c.topic("prices", 2), c.topic("orders", 2), c.topic("seen", 2), c.topic("priced", 2)
	text := func(name string) topology.Topic[string, string] {
		return topology.NewTopic(name, serde.String, serde.String)
	}
	top := topology.New()
	table := topology.ToVersionedTable("prices", topology.From(top, text(prices)), time.Hour)
	topology.To(table.Stream(), text(seen))
	priced := topology.LeftJoinTable(topology.From(top, text(orders)), table, func(order, price string, found bool) string {
		return fmt.Sprint(order, " at ", price, found)
	})
	topology.To(priced.WithValueSerde(serde.String), text(out))
	p := must(top.Build())(t)
	const n = 10
	each := func(second int, value string) (list []plan.Record) {
		for i := range n {
			list = append(list, valueFrom(int64(second), fmt.Sprint("share-", i), value))
		}
		return list
	}
	updates, results := c.reader(seen), c.reader(out)
	dir := t.TempDir()
	for round, stateDir := range []string{dir, dir, t.TempDir()} {
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = stateDir })
		app.reach(stream.Running)
		// The prices of this round, the last of which tells that all have come; two of each are
		// out of order, one a removal.
		at := 1000 * (round + 1)
		c.produce(prices, slices.Concat(each(at, fmt.Sprint("a", round)), each(at+200, fmt.Sprint("c", round)),
			each(at+100, fmt.Sprint("b", round)), each(at+150, "-"), each(at+300, fmt.Sprint("d", round)))...)
		known := map[string]bool{}
		updates.until("the prices", func(r plan.Record) bool {
			known[string(r.Key)] = known[string(r.Key)] || string(r.Value) == fmt.Sprint("d", round)
			return !slices.ContainsFunc(each(0, ""), func(r plan.Record) bool { return !known[string(r.Key)] })
		})
		var want []string
		for back := range round + 1 {
			at := 1000 * (back + 1)
			for second, price := range map[int]string{at - 1: fmt.Sprintf("d%dtrue", back-1), at + 99: fmt.Sprintf("a%dtrue", back),
				at + 149: fmt.Sprintf("b%dtrue", back), at + 199: "false", at + 299: fmt.Sprintf("c%dtrue", back), at + 301: fmt.Sprintf("d%dtrue", back)} {
				if second == 999 {
					price = "false"
				}
				order := fmt.Sprintf("%d in %d", second, round)
				c.produce(orders, each(second, order)...)
				for i := range n {
					want = append(want, fmt.Sprintf("share-%d: %s at %s", i, order, price))
				}
			}
		}
		var got []string
		results.until("the results", func(r plan.Record) bool {
			got = append(got, fmt.Sprintf("%s: %s", r.Key, r.Value))
			return len(got) == len(want)
		})
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("round %d: got\n%s\nwant\n%s", round, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		app.stopped()
	}
	for _, entry := range must(c.client.TopicConfig(t.Context(), plan.ChangelogTopic(c.prefix+"app", "prices")))(t) {
		if entry.Name == "cleanup.policy" && entry.Value != "compact" {
			t.Errorf("the changelog has cleanup.policy %q, by which versions would go that still count", entry.Value)
		}
	}
}
