package streamtest_test

import (
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// A test of a topology that counts visits per page: no broker, three partitions,
// a restart in the middle.
func Example() {
	var t *testing.T // the argument of the test function

	visits := topology.NewTopic("visits", serde.String, serde.String) // visitor: page
	pages := topology.NewTopic("pages", serde.String, serde.Int64)
	top := topology.New()
	byPage := topology.GroupBy("by-page", topology.From(top, visits), serde.String, func(page string) string { return page })
	topology.To(topology.Count("page-visits", byPage).Stream(), pages)

	d := streamtest.New(t, top, streamtest.Partitions(3))
	in, out := streamtest.NewInput(d, visits), streamtest.NewOutput(d, pages)
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	in.Send("ann", "/home", noon)
	d.Restart()
	in.Send("ben", "/home", noon.Add(time.Second))
	if got := out.Read(); len(got) != 2 || got[1].Key != "/home" || got[1].Value != 2 {
		t.Errorf("pages: %v", got)
	}
}
