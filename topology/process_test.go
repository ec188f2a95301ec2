package topology_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// counting counts records by key, tells of every second one, of null values on an output of
// their own, and in timers of all there is.
func counting(opts ...topology.StreamOption) *topology.Topology {
	top := topology.New()
	counts := topology.NewKeyValueStore("counts", serde.String, serde.Int64)
	pairs, nulls := topology.NewOutput("pairs", serde.String, serde.String), topology.NewOutput("nulls", serde.String, serde.String)
	report := func(label string) func(*topology.ProcessorContext, time.Time) error {
		return func(c *topology.ProcessorContext, now time.Time) error {
			var all []string
			err := counts.Scan(c, func(key string, n int64) bool {
				all = append(all, fmt.Sprint(key, n))
				return true
			})
			if err != nil {
				return err
			}
			return pairs.Forward(c, label, strings.Join(all, " "))
		}
	}
	p := topology.Process(topology.From(top, in), topology.Processor[string, string]{
		Stores: []topology.ProcessorStore{counts}, Outputs: []topology.ProcessorOutput{pairs, nulls},
		Punctuations: []topology.Punctuation{
			topology.EveryStreamTime(10*time.Millisecond, report("stream")), topology.EveryWallTime(time.Second, report("wall")),
		},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, string]) error {
			if !r.HasKey() || !r.HasValue() {
				return nulls.ForwardNull(c, r.Key)
			}
			if r.Value == "bad" {
				return errors.New("bad value")
			}
			if r.Value == "drop" {
				return counts.Delete(c, r.Key)
			}
			n, _, err := counts.Get(c, r.Key)
			if err != nil {
				return err
			}
			if n%2 == 1 {
				if err := pairs.ForwardRecord(c, &topology.Record[string, string]{Key: r.Key, Value: fmt.Sprint(n + 1), Timestamp: r.Timestamp + 1}); err != nil {
					return err
				}
			}
			return counts.Put(c, r.Key, n+1)
		},
	}, append(opts, topology.Named("counter"))...)
	topology.To(pairs.Of(p), topology.NewTopic("pairs", serde.String, serde.String))
	topology.To(nulls.Of(p), topology.NewTopic("nulls", serde.String, serde.String))
	return top
}

// Stream timers run with the first record and at multiples of their interval, once for a
// leap, wall timers by the clock, both as far as the last commit says after a restart.
func TestProcess(t *testing.T) {
	for _, cache := range []int{0, 1 << 20} {
		d := newDriver(t, counting())
		d.cacheBytes = cache
		d.restart()
		d.send("in", rec("a", "x", 3), rec("b", "x", 4), rec("a", "x", 5))
		d.expect("pairs: stream=a1 @3", "pairs: a=2 @6")
		d.send("in", rec("a", "x", 12), rec("a", "x", 2), rec("b", "drop", 37))
		d.expect("pairs: stream=a3 b1 @12", "pairs: a=4 @3", "pairs: stream=a4 @37")
		d.commit()
		d.wallTime += 999
		d.send("in", rec("c", "x", 39))
		d.expect()
		d.wallTime++
		d.send("in", plan.Record{Key: []byte("c"), Timestamp: 38}, plan.Record{Value: []byte("x"), Timestamp: 38})
		d.expect("nulls: c=null @38", "nulls: =null @38", "pairs: wall=a4 c1 @1000")
		if !d.tasks[0].changed {
			t.Error("a timer that forwarded a record did not say so")
		}
		d.commit()
		d.restart() // the clock of timers begins again, stream time does not
		d.wallTime += 500
		d.send("in", rec("c", "x", 39))
		d.expect("pairs: c=2 @40")
		d.wallTime += 2600
		d.send("in", rec("a", "drop", 40))
		d.expect("pairs: stream=c2 @40", "pairs: wall=c2 @4100")
		d.send("in", rec("b", "y", 40))
		d.expect()
	}
}

func TestProcessErrors(t *testing.T) {
	d := newDriver(t, counting())
	if err := d.try("in", rec("a", "bad", 1)); err == nil || !strings.Contains(err.Error(), `operator "counter" failed on the record at in-0@0: bad value`) {
		t.Errorf("err = %v", err)
	}
	d = newDriver(t, counting(topology.OnError(topology.DeadLetter("dead"))))
	d.send("in", rec("a", "bad", 1))
	d.expect("dead: a=bad @1 leat.operator=counter leat.error=bad value leat.source.partition=0 leat.source.topic=in leat.source.offset=0",
		"pairs: stream= @1", "dropped by counter: dead-letter: bad value")
}

// What fails behind a processor, or in a timer, or is used without being declared, stops
// the task though the processor's policy is to skip and its code hides it.
func TestProcessDoesNotHideFailures(t *testing.T) {
	store, other := topology.NewKeyValueStore("known", serde.String, serde.String), topology.NewKeyValueStore("other", serde.String, serde.String)
	out, unknown := topology.NewOutput("out", serde.String, serde.String), topology.NewOutput("unknown", serde.String, serde.String)
	for what, f := range map[string]func(*topology.ProcessorContext) error{
		`operator "strict" failed`:                                     func(c *topology.ProcessorContext) error { return out.Forward(c, "k", "v") },
		`operator "code", partition 0: it uses the store "other"`:      func(c *topology.ProcessorContext) error { return other.Put(c, "k", "v") },
		`operator "code", partition 0: it uses the output "unknown" w`: func(c *topology.ProcessorContext) error { return unknown.Forward(c, "k", "v") },
	} {
		for _, timer := range []bool{false, true} {
			top := topology.New()
			p := topology.Processor[string, string]{
				Stores: []topology.ProcessorStore{store}, Outputs: []topology.ProcessorOutput{out},
				Process: func(c *topology.ProcessorContext, _ *topology.Record[string, string]) error {
					if !timer {
						_ = f(c)
					}
					return nil
				},
			}
			if timer {
				p.Punctuations = []topology.Punctuation{topology.EveryStreamTime(time.Second, func(c *topology.ProcessorContext, _ time.Time) error {
					_ = f(c)
					return nil
				})}
			}
			s := out.Of(topology.Process(topology.From(top, in), p, topology.Named("code"), topology.OnError(topology.Skip())))
			topology.To(s.PeekRecord(func(*topology.Record[string, string]) error { return errors.New("no") }, topology.Named("strict")), strings2("out"))
			if err := newDriver(t, top).try("in", rec("a", "x", 1)); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("timer %v: err = %v, want %s", timer, err, what)
			}
		}
	}
}

func strings2(topic string) topology.Topic[string, string] {
	return topology.NewTopic(topic, serde.String, serde.String)
}

// ProcessValues keeps keys, so that a grouping behind it needs no repartition; a store that
// two processors share is one, flushed behind both.
func TestProcessValuesAndSharedStore(t *testing.T) {
	top := topology.New()
	seen := topology.NewKeyValueStore("seen", serde.String, serde.String)
	first := topology.ProcessValues(topology.From(top, in), topology.ValuesProcessor[string, string, string]{
		Stores: []topology.ProcessorStore{seen},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, string], forward func(string) error) error {
			if !r.HasKey() {
				return nil
			}
			before, found, err := seen.Get(c, r.Key)
			if err != nil || found && before == r.Value {
				return err
			}
			for range 2 {
				if err := forward(before + ">" + r.Value); err != nil {
					return err
				}
			}
			return seen.Put(c, r.Key, r.Value)
		},
	}, topology.Named("changes"))
	counts := topology.Count("counts", first.GroupByKey())
	listed := topology.NewOutput("listed", serde.String, serde.String)
	p := topology.Process(counts.Stream(), topology.Processor[string, int64]{
		Stores: []topology.ProcessorStore{seen}, Outputs: []topology.ProcessorOutput{listed},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, int64]) error {
			err := seen.Range(c, "b", "c", func(key, value string) bool {
				return listed.Forward(c, key, fmt.Sprint(value, r.Value)) == nil
			})
			if err != nil {
				return err
			}
			return seen.Put(c, "cc", "late")
		},
	}, topology.Named("list"))
	topology.To(listed.Of(p), strings2("out"))
	if text, err := top.Describe(); err != nil || strings.Contains(text, "repartition") || !strings.Contains(text, "sub-topology 0") || strings.Contains(text, "sub-topology 1") {
		t.Errorf("%s, %v", text, err)
	}
	d := newDriver(t, top)
	d.send("in", rec("a", "1", 1), rec("b", "1", 2), rec("b", "1", 3), rec("c", "2", 4))
	d.commit()
	d.expect("out: b=12 @1", "out: c=22 @1", "out: b=12 @2", "out: c=22 @2", "out: b=12 @4", "out: c=22 @4")
	d.restart()
	if rows := strings.Join(d.tasks[0].stores["seen"].keys, " "); rows != "a b c cc" {
		t.Errorf("the store has %s", rows)
	}
	d.send("in", rec("b", "1", 5), rec("cc", "late", 5))
	d.commit()
	d.expect()
}

func TestScanOfManyRows(t *testing.T) {
	top := topology.New()
	store := topology.NewKeyValueStore("rows", serde.String, serde.String, topology.InMemory())
	out := topology.NewOutput("out", serde.String, serde.String)
	p := topology.Process(topology.From(top, in), topology.Processor[string, string]{
		Stores: []topology.ProcessorStore{store}, Outputs: []topology.ProcessorOutput{out},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, string]) error {
			if r.Value != "clear" {
				return store.Put(c, r.Key, r.Value)
			}
			n, last := 0, ""
			var failed error
			err := store.Scan(c, func(key, _ string) bool {
				if key <= last {
					failed = fmt.Errorf("%s comes after %s", key, last)
				}
				n, last = n+1, key
				if failed == nil {
					failed = store.Delete(c, key)
				}
				return failed == nil
			})
			return errors.Join(err, failed, out.Forward(c, "cleared", fmt.Sprint(n)))
		},
	})
	topology.To(out.Of(p), strings2("out"))
	for _, cache := range []int{0, 4 << 10, 1 << 20} {
		d := newDriver(t, top)
		d.cacheBytes = cache
		d.restart()
		for n := range 700 {
			d.send("in", rec(fmt.Sprintf("%04d", n*9%700), "v", int64(n)))
		}
		d.send("in", rec("", "clear", 700), rec("", "clear", 701))
		d.expect("out: cleared=700 @700", "out: cleared=0 @701")
		d.commit()
		if rows := d.tasks[0].stores["rows"].keys; len(rows) > 0 {
			t.Errorf("%d rows are left", len(rows))
		}
	}
}

func TestProcessDescribes(t *testing.T) {
	text, err := counting().Describe()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"store    counts", "store counts", "<- in, counts; stream time every 10ms, wall time every 1s", "counter.pairs", "counter.nulls"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func TestProcessMistakes(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	store, out := topology.NewKeyValueStore[string, string]("half", serde.String, nil), topology.NewOutput("out", serde.String, serde.String)
	same := topology.NewOutput("out", serde.String, serde.String)
	p := topology.Process(s, topology.Processor[string, string]{
		Stores: []topology.ProcessorStore{store, store}, Outputs: []topology.ProcessorOutput{out, same, nil},
		Punctuations: []topology.Punctuation{topology.EveryWallTime(time.Microsecond, nil)},
	}, topology.Named("code"))
	topology.NewOutput("stranger", serde.String, serde.String).Of(p)
	_, err := top.Build()
	if err == nil {
		t.Fatal("no mistake found")
	}
	for _, want := range []string{
		`operator "half": the store needs a serde for keys and one for values`, `operator "code": its store 1 is nil or declared twice`,
		`operator "code": its output 2 is nil or declared twice`, `two of its outputs are called "out"`, `a punctuation runs every 1µs`,
		`the function of this process is nil`, `it has no output "stranger"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
