package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// Every process has all of a global table before it processes a record, whatever the
// numbers of partitions are, and follows it from then on.
func TestGlobalTableOfTwoProcesses(t *testing.T) {
	c := newCluster(t)
	names, in, out := c.topic("names", 3), c.topic("in", 4), c.topic("out", 1)
	top := topology.New()
	table := topology.Global(top, topology.NewTopic(names, serde.String, serde.String))
	joined := topology.LeftJoinGlobal(topology.From(top, topology.NewTopic(in, serde.String, serde.String)), table,
		func(_, id string) string { return id },
		func(id, name string, found bool) string { return fmt.Sprint(id, "=", name, found) })
	topology.To(joined.WithValueSerde(serde.String), topology.NewTopic(out, serde.String, serde.String))
	p := must(top.Build())(t)

	record := func(key, value string) plan.Record { return plan.Record{Key: []byte(key), Value: []byte(value)} }
	var rows, asked []plan.Record
	want := map[string]bool{}
	for i := range 2000 { // more than a chunk of each partition
		id := fmt.Sprint("id", i%50)
		rows = append(rows, record(id, fmt.Sprint("name", i)))
	}
	for i := range 50 {
		id := fmt.Sprint("id", i)
		asked = append(asked, record(fmt.Sprint("k", i), id))
		want[fmt.Sprint(id, "=name", 1950+i, "true")] = true
	}
	c.produce(names, rows...)
	c.produce(in, asked...)
	r := c.reader(out)
	first := c.start(p, nil)
	r.until("all names", func(rec plan.Record) bool {
		if !want[string(rec.Value)] {
			t.Errorf("got %q", rec.Value)
		}
		delete(want, string(rec.Value))
		return len(want) == 0
	})
	second := c.start(p, nil)
	second.reach(stream.Running)

	// A change reaches both, each when it gets there: they are asked until they know.
	c.produce(names, record("id7", "new"))
	seen := map[string]bool{}
	eventually(t, func() error {
		for i := range 8 {
			c.produce(in, record(fmt.Sprint("again", i), "id7"))
		}
		answers := 0
		r.until("eight answers", func(rec plan.Record) bool {
			answers++
			if string(rec.Value) == "id7=newtrue" {
				seen[string(rec.Key)] = true
			}
			return answers >= 8
		})
		if len(seen) < 8 {
			return fmt.Errorf("only %d keys have the new name", len(seen))
		}
		return nil
	})
	first.stopped()
	second.stopped()
}

func TestGlobalTableWithoutItsTopic(t *testing.T) {
	c := newCluster(t)
	in := c.topic("in", 1)
	top := topology.New()
	table := topology.Global(top, topology.NewTopic(c.prefix+"nothing", serde.String, serde.String))
	topology.JoinGlobal(topology.From(top, topology.NewTopic(in, serde.String, serde.String)), table,
		func(_, id string) string { return id }, func(a, b string) string { return a + b })
	app := c.start(must(top.Build())(t), nil)
	if err := app.wait(); err == nil || !strings.Contains(err.Error(), "nothing\" of a global table does not exist") {
		t.Errorf("err = %v", err)
	}
	if app.State() != stream.Failed {
		t.Errorf("state %s", app.State())
	}
}
