package stream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// Sessions and sliding windows grow over restarts, with the state on disk and with state
// that is restored, and what is suppressed until they close comes once.
func TestWindowsOutliveTheirProcess(t *testing.T) {
	c := newCluster(t)
	visits, updates, out, slid := c.topic("visits", 2), c.topic("updates", 2), c.topic("sessions", 2), c.topic("slid", 2)
	top := topology.New()
	byUser := topology.From(top, topology.NewTopic(visits, serde.String, serde.String)).GroupByKey()
	sessions := topology.Count("sessions", byUser.Window(topology.Session(30*time.Second)))
	topology.To(sessions.Stream(), topology.NewTopic(updates, serde.Session(serde.String), serde.Int64))
	topology.To(sessions.Suppress("final", topology.UntilWindowCloses()).Stream(), topology.NewTopic(out, serde.Session(serde.String), serde.Int64))
	sliding := topology.Count("sliding", byUser.Window(topology.Sliding(30*time.Second)), topology.OnWindowClose())
	topology.To(sliding.Stream(), topology.NewTopic(slid, serde.Windowed(serde.String, 30*time.Second), serde.Int64))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	const n = 10
	dir := t.TempDir()
	readers := map[string]func(string, func(plan.Record) bool){}
	for _, topic := range []string{updates, out, slid} {
		readers[topic] = c.reader(topic).until
	}
	for round, stateDir := range []string{dir, dir, t.TempDir()} {
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = stateDir })
		app.reach(stream.Running)
		at := time.Hour + time.Duration(round)*10*time.Second
		if round == 2 {
			at = 2 * time.Hour // everything is closed
		}
		var records []plan.Record
		for i := range n {
			records = append(records, plan.Record{Key: fmt.Appendf(nil, "user-%d", i), Value: []byte("v"), Timestamp: at.Milliseconds()})
		}
		c.produce(visits, records...)
		begun := map[string]bool{}
		readers[updates]("the updates", func(r plan.Record) bool {
			if r.Timestamp == at.Milliseconds() && r.Value != nil {
				begun[string(r.Key)] = true
			}
			return len(begun) == n
		})
		if round == 2 {
			mustCome(t, readers[out], "finals", n, func(r plan.Record) string { return text(t, serde.Session(serde.String), r) },
				"user-%d 3600 to 3610: 2")
			mustCome(t, readers[slid], "sliding windows", 3*n, func(r plan.Record) string { return text(t, serde.Windowed(serde.String, 30*time.Second), r) },
				"user-%d 3570 to 3600: 1", "user-%d 3580 to 3610: 2", "user-%d 3600 to 3630: 1")
		}
		app.stopped()
	}
}

// text tells a result; bounds are in seconds.
func text(t *testing.T, key topology.Serde[topology.WindowedKey[string]], r plan.Record) string {
	t.Helper()
	k, err := key.Decode(r.Key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := serde.Int64.Decode(r.Value)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %d to %d: %d", k.Key, k.Start/1000, k.End/1000, v)
}

// mustCome waits for count results and checks that they are those of n users, each once.
func mustCome(t *testing.T, until func(string, func(plan.Record) bool), what string, count int, tell func(plan.Record) string, of ...string) {
	t.Helper()
	got := map[string]int{}
	total := 0
	until(what, func(r plan.Record) bool {
		got[tell(r)]++
		total++
		return total == count
	})
	for i := range count / len(of) {
		for _, format := range of {
			if want := fmt.Sprintf(format, i); got[want] != 1 {
				t.Errorf("%s: %q came %d times; all: %v", what, want, got[want], got)
			}
		}
	}
}
