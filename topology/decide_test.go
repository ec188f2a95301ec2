package topology_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// account is a balance, and its commands are "+5", "-3", "-3@2" (expects version 2), "5x2"
// (two deposits) and "boom".
var account = topology.Decider[int64, string, int64]{
	Initial: func() int64 { return 100 },
	Decide: func(balance int64, command string) ([]int64, error) {
		command, _, _ = strings.Cut(command, "@")
		amount, times, _ := strings.Cut(command, "x")
		n, err := strconv.ParseInt(amount, 10, 64)
		switch {
		case err != nil:
			return nil, errors.New("not a command")
		case balance+n < 0:
			return nil, topology.Reject("%d is more than the balance of %d", -n, balance)
		case times == "2":
			return []int64{n, n}, nil
		case n == 0:
			return nil, nil
		}
		return []int64{n}, nil
	},
	Evolve: func(balance, change int64) int64 { return balance + change },
	Expects: func(command string) (int64, bool) {
		_, version, ok := strings.Cut(command, "@")
		n, _ := strconv.ParseInt(version, 10, 64)
		return n, ok
	},
}

func bank(opts ...topology.TableOption) *topology.Topology {
	top := topology.New()
	d := topology.Decide("accounts", topology.From(top, in), serde.Int64, account, opts...)
	topology.To(topology.MapValues(d.Events, func(n int64) string { return fmt.Sprintf("%+d", n) }).WithValueSerde(serde.String),
		topology.NewTopic("events", serde.String, serde.String))
	refused := topology.MapValues(d.Rejections, func(r topology.Rejection[string]) string {
		return fmt.Sprintf("%s at %d: %s", r.Command, r.Version, r.Reason)
	})
	topology.To(refused.WithValueSerde(serde.String), topology.NewTopic("refused", serde.String, serde.String))
	balances := topology.MapTable(d.State, func(_ string, s topology.Versioned[int64]) string { return fmt.Sprintf("%d at %d", s.State, s.Version) })
	topology.To(balances.Stream().WithValueSerde(serde.String), topology.NewTopic("balances", serde.String, serde.String))
	return top
}

// Commands lead to events and rejections, in order, and the state is what the events made
// of it, over a restart.
func TestDecide(t *testing.T) {
	d := newDriver(t, bank())
	d.send("in", rec("ada", "-30", 1), rec("ada", "-80", 2), rec("bob", "5x2", 3), rec("ada", "0", 4))
	d.expect("events: ada=-30 @1", "refused: ada=-80 at 1: 80 is more than the balance of 70 @2", "events: bob=+5 @3", "events: bob=+5 @3")
	d.commit()
	d.expect("balances: ada=70 at 1 @1", "balances: bob=110 at 2 @3")
	d.restart()
	d.send("in", rec("bob", "1@2", 5), rec("bob", "1@2", 6), rec("ada", "-70", 7), rec("ada", "-1", 8))
	d.expect("events: bob=+1 @5", "refused: bob=1@2 at 3: the state has another version than the command expects @6",
		"events: ada=-70 @7", "refused: ada=-1 at 2: 1 is more than the balance of 0 @8")
	d.commit()
	d.expect("balances: bob=111 at 3 @5", "balances: ada=0 at 2 @7")
	d.send("in", plan.Record{Value: []byte("1"), Timestamp: 9}, plan.Record{Key: []byte("ada"), Timestamp: 9})
	d.expect("dropped by accounts: null-key", "dropped by accounts: null-value")
}

// A failure is not a rejection: the operator's policy says what to do, and the state stays.
func TestDecideFails(t *testing.T) {
	d := newDriver(t, bank())
	if err := d.try("in", rec("ada", "boom", 1)); err == nil || !strings.Contains(err.Error(), "not a command") {
		t.Errorf("err = %v", err)
	}
	d = newDriver(t, bank(topology.OnError(topology.Skip())))
	d.send("in", rec("ada", "boom", 1), rec("ada", "5", 2))
	d.expect("events: ada=+5 @2", "dropped by accounts: error: not a command")
	d.commit()
	d.expect("balances: ada=105 at 1 @2")
}

// The state is what folding the events gives, whatever the size of the cache.
func TestDecideIsAFold(t *testing.T) {
	for _, cache := range []int{100, 1 << 20} {
		d := newDriver(t, bank())
		d.cacheBytes = cache
		d.restart()
		balances := map[string]int64{}
		for n := range 500 {
			d.send("in", rec(fmt.Sprint("k", n%7), strconv.Itoa(n%50-30), int64(n)))
			if n%60 == 59 {
				d.commit()
				d.restart()
			}
		}
		d.commit()
		last := map[string]string{}
		for _, line := range d.output {
			topic, rest, _ := strings.Cut(line, ": ")
			key, value, _ := strings.Cut(rest, "=")
			value, _, _ = strings.Cut(value, " @")
			switch topic {
			case "events":
				n, err := strconv.ParseInt(value, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				balances[key] += n
			case "balances":
				last[key], _, _ = strings.Cut(value, " at")
			}
		}
		for key, sum := range balances {
			if last[key] != fmt.Sprint(100+sum) {
				t.Errorf("cache %d: %s has %s, its events sum up to %d", cache, key, last[key], 100+sum)
			}
		}
		if len(balances) != 7 {
			t.Errorf("balances %v", balances)
		}
	}
}

func TestDecideMistakes(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	topology.Decide("empty", s, serde.Int64, topology.Decider[int64, string, int64]{})
	topology.Decide("stateless", s, nil, account)
	topology.Decide("closing", s, serde.Int64, account, topology.OnWindowClose())
	topology.Decide("scattered", topology.SelectKey(s, strings.ToUpper).WithKeySerde(serde.String), serde.Int64, account)
	_, err := top.Build()
	if err == nil {
		t.Fatal("it builds")
	}
	for _, want := range []string{
		`operator "empty": the decider needs Decide and Evolve`,
		`operator "stateless": the serde of the states is nil`,
		`operator "closing": OnWindowClose, Retention, Initial and Merger are for aggregations, this is a decider: leave them out`,
		`operator "scattered": it works by key, but "in.select-key" changed the keys, so a repartition topic is needed before it: Repartition("...")`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
