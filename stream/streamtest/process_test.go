package streamtest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// delayed holds records back for a minute of the clock.
func delayed() (*topology.Topology, topology.Topic[string, string], topology.Topic[string, string]) {
	top := topology.New()
	in, out := topology.NewTopic("in", serde.String, serde.String), topology.NewTopic("out", serde.String, serde.String)
	held := topology.NewKeyValueStore("held", serde.String, serde.String)
	since := topology.NewKeyValueStore("since", serde.String, serde.Int64)
	released := topology.NewOutput("released", serde.String, serde.String)
	p := topology.Process(topology.From(top, in), topology.Processor[string, string]{
		Stores: []topology.ProcessorStore{held, since}, Outputs: []topology.ProcessorOutput{released},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, string]) error {
			return held.Put(c, r.Key, r.Value)
		},
		Punctuations: []topology.Punctuation{topology.EveryWallTime(10*time.Second, func(c *topology.ProcessorContext, now time.Time) error {
			var failed error
			err := held.Scan(c, func(key, value string) bool {
				begin, found, err := since.Get(c, key)
				switch {
				case err != nil:
				case !found:
					err = since.Put(c, key, now.UnixMilli())
				case now.UnixMilli()-begin >= 50_000:
					if err = released.Forward(c, key, value); err == nil {
						err = held.Delete(c, key)
					}
				}
				failed = err
				return err == nil
			})
			if err != nil {
				return err
			}
			return failed
		})},
	})
	topology.To(released.Of(p), out)
	return top, in, out
}

// What only timers change is committed, and comes back after restarts and crashes; with a
// crash in the commit, which is not exactly-once, it comes at least once.
func TestTimersOverRestartsAndCrashes(t *testing.T) {
	for _, cache := range []int{0, 1 << 20} {
		top, in, out := delayed()
		d := streamtest.New(t, top, streamtest.Partitions(3), streamtest.CacheBytes(cache))
		input, output := streamtest.NewInput(d, in), streamtest.NewOutput(d, out)
		for _, key := range []string{"a", "b", "c", "d"} {
			input.Send(key, "of "+key, d.Now())
		}
		d.Advance(10 * time.Second) // notes since when
		d.Crash()
		d.Advance(20 * time.Second)
		d.Restart()
		if got := output.Read(); len(got) > 0 {
			t.Fatalf("too early: %v", got)
		}
		d.Advance(30 * time.Second)
		d.Crash()
		d.Advance(10 * time.Second)
		var keys []string
		for _, r := range output.Read() {
			if r.Value != "of "+r.Key || !r.Time.Equal(d.Now().Add(-10*time.Second)) {
				t.Errorf("released %v", r)
			}
			keys = append(keys, r.Key)
		}
		slices.Sort(keys)
		if !slices.Equal(keys, []string{"a", "b", "c", "d"}) {
			t.Errorf("released %v", keys)
		}
	}
}

// What a timer did in a commit that broke off is done again.
func TestTimersThatRanInABrokenCommit(t *testing.T) {
	top, in, out := delayed()
	d := streamtest.New(t, top, streamtest.ManualCommit())
	input, output := streamtest.NewInput(d, in), streamtest.NewOutput(d, out)
	input.Send("a", "1", d.Now())
	d.Advance(10 * time.Second)
	d.Commit()
	d.Advance(50 * time.Second)
	d.Crash() // before the commit: nothing was released
	d.Advance(0)
	d.Commit()
	if got := output.Read(); len(got) > 0 {
		t.Fatalf("released without a commit: %v", got)
	}
	d.Advance(10 * time.Second)
	d.CrashInCommit()
	d.Advance(10 * time.Second)
	d.Commit()
	if got := output.Read(); len(got) != 1 || got[0].Value != "1" {
		t.Errorf("released %v", got)
	}
}
