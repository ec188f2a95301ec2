package topology_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// What every kind of window drops as late comes out as it was, at once, and what was late
// for one of several hopping windows only is not late.
func TestLate(t *testing.T) {
	for _, windows := range []topology.Windows{
		topology.Tumbling(10 * ms), topology.Hopping(10*ms, 5*ms), topology.Session(9 * ms), topology.Sliding(9 * ms).Grace(10 * ms),
	} {
		for _, option := range []topology.AggregateOption{topology.OnUpdate(), topology.OnWindowClose()} {
			top := topology.New()
			group := topology.From(top, in).GroupByKey().Window(windows)
			topology.To(topology.Late(group, topology.Count("n", group, option)), strings2("late"))
			d := newDriver(t, top)
			for range 2 {
				d.send("in", rec("a", "on time", 29), rec("a", "too late", 4), rec("b", "in time", 22), rec("c", "much too late", 5))
				d.expect("late: a=too late @4", "late: c=much too late @5", "dropped by n: late", "dropped by n: late")
				d.commit()
				d.expect()
				d.restart()
			}
		}
	}
}

// The late records of an aggregation behind a repartition are in its task, where they may be
// counted with longer windows.
func TestLateIsAggregatedAgain(t *testing.T) {
	top := topology.New()
	group := topology.GroupBy("by-value", topology.From(top, in), serde.String, func(v string) string { return v }).Window(topology.Tumbling(10 * ms))
	late := topology.Late(group, topology.Count("n", group))
	again := topology.Count("again", late.GroupByKey().Window(topology.Tumbling(10*ms).Grace(50*ms)))
	topology.To(again.Stream(), topology.NewTopic("out", serde.Windowed(serde.String, 10*ms), serde.Int64))
	d := newDriver(t, top)
	for n := range 8 {
		d.send("in", rec(fmt.Sprint(n), "x", int64(60-8*n)))
	}
	d.commit()
	d.expect("out: x#50=#1 @52", "out: x#40=#1 @44", "out: x#30=#1 @36", "out: x#20=#2 @28", "out: x#10=#1 @12",
		"dropped by n: late", "dropped by n: late", "dropped by n: late", "dropped by n: late", "dropped by n: late", "dropped by n: late", "dropped by n: late",
		"dropped by again: late")
}

func TestLateMistakes(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	group := s.GroupByKey().Window(topology.Tumbling(10 * ms))
	table := topology.Count("n", group)
	topology.Late(s.GroupByKey(topology.Named("other")).Window(topology.Tumbling(10*ms)), table)
	if _, err := top.Build(); err == nil || !strings.Contains(err.Error(), `operator "n": Late wants its late records by a group that it does not aggregate`) {
		t.Errorf("err = %v", err)
	}
}
