package topology_test

import (
	"errors"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// cartTopology folds what is put into carts, and how often they are looked at.
func cartTopology() *topology.Topology {
	top := topology.New()
	put := topology.From(top, left).GroupByKey()
	looks := topology.GroupByRecord("looks-by-key", topology.From(top, topology.NewTopic("looks", serde.String, serde.Int64)), serde.String,
		func(r *topology.Record[string, int64]) (string, error) { return r.Key, nil })
	carts := topology.Cogroup(
		topology.Into(put, func(cart, item string) string { return cart + item }),
		topology.IntoRecord(looks, func(cart string, r *topology.Record[string, int64]) (string, error) {
			if r.Value < 0 {
				return "", errors.New("a negative look")
			}
			return cart + "!", nil
		}))
	topology.To(topology.AggregateCogroup("carts", carts, serde.String, topology.OnError(topology.Skip())).Stream(), topology.NewTopic("carts", serde.String, serde.String))
	windows := carts.Window(topology.Tumbling(10 * ms))
	topology.To(topology.AggregateCogroup("windows", windows, serde.String, topology.Initial(func() string { return ":" }), topology.OnError(topology.Skip())).Stream(),
		topology.NewTopic("windows", serde.Windowed(serde.String, 10*ms), serde.String))
	return top
}

func number(key string, n byte, at int64) plan.Record {
	return plan.Record{Key: []byte(key), Value: []byte{n, 0, 0, 0, 0, 0, 0, 1}, Timestamp: at}
}

func TestCogroup(t *testing.T) {
	d := newDriver(t, cartTopology())
	d.send("left", rec("ann", "a", 1), rec("bob", "b", 2))
	d.send("looks", number("ann", 0, 3))
	d.commit()
	d.expect("carts: ann=a! @3", "carts: bob=b @2", "windows: ann#0=:a! @3", "windows: bob#0=:b @2")
	d.restart()
	d.send("looks", number("bob", 0, 11), number("ann", 0xff, 12))
	d.send("left", rec("bob", "c", 13), gone("bob", 14))
	d.commit()
	d.expect("carts: bob=b!c @13", "windows: bob#10=:!c @13",
		"dropped by carts: error: a negative look", "dropped by windows: error: a negative look", "dropped by left.group-by-key: null-value")
}

func TestMistakesOfCogroups(t *testing.T) {
	top := topology.New()
	a := topology.From(top, left).GroupByKey()
	one := topology.Into[string, string, string](a, nil)
	topology.AggregateCogroup("untold", topology.Cogroup(one), nil)
	other := topology.Into(topology.From(topology.New(), right).GroupByKey(), func(a, b string) string { return a + b })
	topology.AggregateCogroup("afar", topology.Cogroup(one, other), serde.String)
	rekeyed := topology.SelectKey(topology.From(top, right), func(v string) string { return v }).WithKeySerde(serde.String).GroupByKey()
	topology.AggregateCogroup("scattered", topology.Cogroup(topology.Into(rekeyed, func(a, b string) string { return a + b })), serde.String)
	_, err := top.Build()
	golden(t, "mistakes-cogroups.txt", err.Error()+"\n")
}
