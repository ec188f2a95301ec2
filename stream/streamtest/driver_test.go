package streamtest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var (
	lines  = topology.NewTopic("lines", serde.String, serde.String)
	counts = topology.NewTopic("counts", serde.String, serde.Int64)
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// at is so many seconds after the epoch of the tests.
func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

// wordCount counts words through a repartition topic.
func wordCount(options ...topology.AggregateOption) *topology.Topology {
	t := topology.New()
	words := topology.FlatMapValues(topology.From(t, lines), strings.Fields).WithValueSerde(serde.String)
	byWord := topology.GroupBy("by-word", words, serde.String, strings.ToLower)
	topology.To(topology.Count("word-counts", byWord, options...).Stream(), counts)
	return t
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestWordCountOverPartitions(t *testing.T) {
	d := streamtest.New(t, wordCount(), streamtest.Partitions(4))
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, counts)
	in.Send("a", "to be or not", at(1))
	expect(t, out.ReadStrings(), "to: 1 @ 2026-01-01T00:00:01Z", "be: 1 @ 2026-01-01T00:00:01Z",
		"or: 1 @ 2026-01-01T00:00:01Z", "not: 1 @ 2026-01-01T00:00:01Z")
	in.Send("b", "To be", at(2))
	expect(t, out.ReadStrings(), "to: 2 @ 2026-01-01T00:00:02Z", "be: 2 @ 2026-01-01T00:00:02Z")

	store := streamtest.NewStore(d, "word-counts", serde.String, serde.Int64)
	if n, ok := store.Get("be"); !ok || n != 2 {
		t.Errorf("be = %d, %v", n, ok)
	}
	if _, ok := store.Get("question"); ok {
		t.Error("question is counted")
	}
	if all := store.All(); len(all) != 4 {
		t.Errorf("store has %v", all)
	}
}

func TestRestartRestoresFromTheChangelog(t *testing.T) {
	d := streamtest.New(t, wordCount(), streamtest.Partitions(3))
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, counts)
	in.Send("a", "x y x", at(1))
	out.Read()
	d.Restart()
	if got := out.Read(); len(got) != 0 {
		t.Errorf("a restart wrote %v", got)
	}
	in.Send("a", "x", at(2))
	expect(t, out.ReadStrings(), "x: 3 @ 2026-01-01T00:00:02Z")
}

func TestCrashDropsWhatIsNotCommitted(t *testing.T) {
	d := streamtest.New(t, wordCount(), streamtest.ManualCommit())
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, counts)
	in.Send("a", "x", at(1))
	d.Commit()
	expect(t, out.ReadStrings(), "x: 1 @ 2026-01-01T00:00:01Z")
	in.Send("a", "x", at(2))
	in.Send("a", "x", at(3))
	if got := out.Read(); len(got) != 0 {
		t.Errorf("before the commit came %v", got)
	}
	d.Crash()
	d.Commit()
	// The records run again, once; the cache combines their updates.
	expect(t, out.ReadStrings(), "x: 3 @ 2026-01-01T00:00:03Z")
}

func TestCrashInCommitRepeatsRecords(t *testing.T) {
	d := streamtest.New(t, wordCount(), streamtest.ManualCommit())
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, counts)
	in.Send("a", "x", at(1))
	d.CrashInCommit() // the word is in the repartition topic, its line is not committed
	d.Commit()
	expect(t, out.ReadStrings(), "x: 1 @ 2026-01-01T00:00:01Z", "x: 2 @ 2026-01-01T00:00:01Z")
}

// perMinute counts lines by key and minute, and reports each minute once.
func perMinute() (*topology.Topology, topology.Topic[topology.WindowedKey[string], int64]) {
	results := topology.NewTopic("per-minute", serde.Windowed(serde.String, time.Minute), serde.Int64)
	t := topology.New()
	byKey := topology.From(t, lines).GroupByKey()
	table := topology.Count("minutes", byKey.Window(topology.Tumbling(time.Minute).Grace(10*time.Second)), topology.OnWindowClose())
	topology.To(table.Stream(), results)
	return t, results
}

func TestWindowsCloseOnceOverARestart(t *testing.T) {
	top, results := perMinute()
	d := streamtest.New(t, top)
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, results)
	in.Send("a", "1", at(5))
	in.Send("a", "2", at(50))
	in.Send("a", "3", at(65))
	store := streamtest.NewWindowStore(d, "minutes", serde.String, serde.Int64)
	if n, ok := store.Get("a", at(0)); !ok || n != 2 {
		t.Errorf("open window holds %d, %v", n, ok)
	}
	if got := out.Read(); len(got) != 0 {
		t.Errorf("before its end the window gave %v", got)
	}
	in.Send("b", "4", at(71)) // past the grace of the first minute
	got := out.Read()
	if len(got) != 1 || got[0].Key.Key != "a" || got[0].Value != 2 {
		t.Fatalf("closed windows: %v", got)
	}
	d.Restart()
	if got := out.Read(); len(got) != 0 {
		t.Errorf("after a restart the window closed again: %v", got)
	}
	in.Send("a", "late", at(30))
	if n := d.Dropped("minutes", plan.DropLate); n != 1 {
		t.Errorf("%d late records were dropped, want 1", n)
	}
	in.Send("b", "5", at(200))
	if got := out.Read(); len(got) != 2 { // the second minute of a and of b
		t.Errorf("closed windows: %v", got)
	}
}

func TestErrorsStopTheTopologyUntilCrash(t *testing.T) {
	top := topology.New()
	fails := true
	mapped := topology.MapValuesRecord(topology.From(top, lines), func(r *topology.Record[string, string]) (int64, error) {
		if r.Value == "bad" && fails {
			return 0, errors.New("no number")
		}
		return int64(len(r.Value)), nil
	}, topology.Named("parse"))
	topology.To(mapped, counts)
	d := streamtest.New(t, top)
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, counts)
	in.Send("a", "four", at(1))
	err := in.TrySend("a", "bad", at(2))
	var operator *plan.OperatorError
	if !errors.As(err, &operator) || operator.Operator != "parse" || operator.Topic != "lines" || operator.Offset != 1 {
		t.Fatalf("err = %v", err)
	}
	if err := in.TrySend("a", "more", at(3)); err == nil || !strings.Contains(err.Error(), "call Crash") {
		t.Fatalf("err = %v", err)
	}
	fails = false
	d.Crash()
	expect(t, out.ReadStrings(), "a: 4 @ 2026-01-01T00:00:01Z", "a: 3 @ 2026-01-01T00:00:02Z", "a: 4 @ 2026-01-01T00:00:03Z")
}

// Restarts and crashes at random moments change no result.
func TestCrashesChangeNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	type input struct {
		key, line string
		at        int
	}
	var inputs []input
	for i := range 300 {
		inputs = append(inputs, input{fmt.Sprint("k", rng.IntN(9)), fmt.Sprintf("w%d w%d", rng.IntN(20), rng.IntN(20)), i + rng.IntN(30)})
	}
	run := func(disturb bool) []string {
		d := streamtest.New(t, wordCount(), streamtest.Partitions(3), streamtest.ManualCommit())
		in := streamtest.NewInput(d, lines)
		for _, i := range inputs {
			in.Send(i.key, i.line, at(i.at))
			switch n := rng.IntN(30); {
			case n < 5:
				d.Commit()
			case disturb && n == 6:
				d.Crash()
			case disturb && n == 7:
				d.Restart()
			}
		}
		d.Commit()
		var all []string
		for _, e := range streamtest.NewStore(d, "word-counts", serde.String, serde.Int64).All() {
			all = append(all, fmt.Sprint(e.Key, "=", e.Value))
		}
		return all
	}
	if calm, disturbed := run(false), run(true); !slices.Equal(calm, disturbed) {
		t.Errorf("calm %v\ndisturbed %v", calm, disturbed)
	}
}
