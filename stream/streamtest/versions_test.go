package streamtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// What a versioned table knows comes back after restarts and crashes, in commits too, and so
// does what it does not know any more.
func TestVersionedTableOverRestartsAndCrashes(t *testing.T) {
	prices, orders := topology.NewTopic("prices", serde.String, serde.Int64), topology.NewTopic("orders", serde.String, serde.Int64)
	amounts := topology.NewTopic("amounts", serde.String, serde.Int64)
	top := topology.New()
	table := topology.ToVersionedTable("history", topology.From(top, prices), time.Minute)
	priced := topology.JoinTable(topology.From(top, orders), table, func(pieces, price int64) int64 { return pieces * price })
	topology.To(priced.WithValueSerde(serde.Int64), amounts)
	crashes := map[string]func(*streamtest.Driver){"restart": (*streamtest.Driver).Restart, "crash": (*streamtest.Driver).Crash, "crash in commit": (*streamtest.Driver).CrashInCommit}
	for name, crash := range crashes {
		for _, cache := range []int{0, 1 << 20} {
			d := streamtest.New(t, top, streamtest.Partitions(3), streamtest.ManualCommit(), streamtest.CacheBytes(cache))
			price, order, out := streamtest.NewInput(d, prices), streamtest.NewInput(d, orders), streamtest.NewOutput(d, amounts)
			store := streamtest.NewVersionedStore(d, "history", serde.String, serde.Int64)
			price.Send("tea", 30, at(30))
			price.Send("tea", 10, at(10))
			crash(d)
			price.Send("tea", 20, at(20))
			price.Send("oil", 1, at(10))
			d.Commit()
			crash(d)
			price.SendNull("tea", at(40))
			price.Send("oil", 2, at(80))
			crash(d)
			d.Commit()                   // else what is older and comes now is taken in first
			order.Send("tea", 1, at(19)) // before the history of one minute, for oil's partition
			order.Send("tea", 2, at(25))
			order.Send("oil", 3, at(100))
			d.Commit()
			crash(d)
			late := 0
			if client.PartitionOf([]byte("tea"), 3) == client.PartitionOf([]byte("oil"), 3) {
				late = 1
			}
			got := out.ReadStrings()
			expect(t, got, append([]string{"tea: 40 @ 2026-01-01T00:00:25Z", "oil: 6 @ 2026-01-01T00:01:40Z"},
				[]string{"tea: 10 @ 2026-01-01T00:00:19Z"}[late:]...)...)
			if v, found := store.GetAsOf("tea", at(25)); !found || v.Value != 20 || !v.From.Equal(at(20)) || !v.To.Equal(at(30)) {
				t.Errorf("%s: tea was %v, %v", name, v, found)
			}
			if v, found := store.Get("tea"); found {
				t.Errorf("%s: tea is %v", name, v)
			}
			if v, found := store.Get("oil"); !found || v.Value != 2 || !v.To.IsZero() {
				t.Errorf("%s: oil is %v, %v", name, v, found)
			}
			if v, found := store.GetAsOf("oil", at(19)); found {
				t.Errorf("%s: oil was %v before the history", name, v)
			}
			var all []string
			for _, e := range store.All() {
				to := "now"
				if !e.To.IsZero() {
					to = fmt.Sprint(e.To.Sub(epoch))
				}
				all = append(all, fmt.Sprint(e.Key, " ", e.Value, " ", e.From.Sub(epoch), " ", to))
			}
			if text := strings.Join(all, ", "); !strings.Contains(text, "tea 20 20s 30s, tea 30 30s 40s") || !strings.Contains(text, "oil 1 10s 1m20s, oil 2 1m20s now") {
				t.Errorf("%s: the store has %s", name, text)
			}
			price.Send("oil", 0, at(19))
			price.Send("oil", 0, at(20))
			d.Commit()
			if n := d.Dropped("history", plan.DropLate); n != 1 {
				t.Errorf("%s: %d were late", name, n)
			}
		}
	}
}
