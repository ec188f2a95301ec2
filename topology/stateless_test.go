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

var (
	in  = topology.NewTopic("in", serde.String, serde.String)
	out = topology.NewTopic("out", serde.String, serde.String)
)

type stream = topology.Stream[string, string]

// stateless runs records through one operator.
func stateless(t *testing.T, operator func(*stream) *stream, records ...plan.Record) *driver {
	t.Helper()
	top := topology.New()
	topology.To(operator(topology.From(top, in)), out)
	d := newDriver(t, top)
	d.send("in", records...)
	return d
}

func TestFilter(t *testing.T) {
	d := stateless(t, func(s *stream) *stream {
		return s.Filter(func(v string) bool { return len(v) > 1 })
	}, rec("a", "x", 1), rec("b", "xx", 2), plan.Record{Key: []byte("c"), Timestamp: 3})
	d.expect("out: b=xx @2", "out: c=null @3")

	d = stateless(t, func(s *stream) *stream {
		return s.FilterRecord(func(r *topology.Record[string, string]) (bool, error) {
			return r.Key == "a" && r.Time().Equal(time.UnixMilli(1)) && r.HasKey(), nil
		})
	}, rec("a", "x", 1), rec("b", "x", 1), rec("a", "x", 2))
	d.expect("out: a=x @1")
}

func TestPeek(t *testing.T) {
	var seen []string
	d := stateless(t, func(s *stream) *stream {
		return s.Peek(func(k, v string) { seen = append(seen, k+v) })
	}, rec("a", "x", 1), plan.Record{Key: []byte("b"), Timestamp: 2})
	d.expect("out: a=x @1", "out: b=null @2")
	if fmt.Sprint(seen) != "[ax]" {
		t.Errorf("peeked at %v", seen)
	}
}

func TestMapAndSelectKey(t *testing.T) {
	d := stateless(t, func(s *stream) *stream {
		return topology.Map(s, func(k, v string) (string, string) { return v, k })
	}, rec("a", "x", 1), plan.Record{Value: []byte("y"), Timestamp: 2}, plan.Record{Key: []byte("b"), Timestamp: 3})
	d.expect("out: x=a @1", "out: y= @2", "dropped by in.map: null-value")

	d = stateless(t, func(s *stream) *stream {
		return topology.SelectKey(s, func(v string) string { return v[:1] })
	}, rec("a", "xyz", 1))
	d.expect("out: x=xyz @1")
}

func TestMapValues(t *testing.T) {
	d := stateless(t, func(s *stream) *stream {
		return topology.MapValues(topology.MapValues(s, func(v string) int { return len(v) }), func(n int) string { return fmt.Sprint(n) })
	}, rec("a", "xyz", 1), plan.Record{Key: []byte("b"), Timestamp: 2}, plan.Record{Value: []byte("no key"), Timestamp: 3})
	d.expect("out: a=3 @1", "out: b=null @2", "out: null=6 @3")
}

func TestFlatMap(t *testing.T) {
	d := stateless(t, func(s *stream) *stream {
		return topology.FlatMap(s, func(k, v string) []topology.KeyValue[string, string] {
			var pairs []topology.KeyValue[string, string]
			for word := range strings.FieldsSeq(v) {
				pairs = append(pairs, topology.KeyValue[string, string]{Key: word, Value: k})
			}
			return pairs
		})
	}, rec("a", "x y", 1), rec("b", "", 2))
	d.expect("out: x=a @1", "out: y=a @1")

	d = stateless(t, func(s *stream) *stream {
		return topology.FlatMapValues(s, strings.Fields)
	}, rec("a", "x y", 1), plan.Record{Key: []byte("b"), Timestamp: 2})
	d.expect("out: a=x @1", "out: a=y @1", "dropped by in.flat-map-values: null-value")
}

func TestMergeAndBranch(t *testing.T) {
	top := topology.New()
	a := topology.From(top, in)
	b := topology.From(top, topology.NewTopic("in2", serde.String, serde.String))
	branches := a.Merge(b).Branch(
		func(v string) bool { return strings.Contains(v, "x") },
		func(v string) bool { return strings.Contains(v, "y") })
	for i, branch := range branches {
		topology.To(branch, topology.NewTopic(fmt.Sprintf("out%d", i), serde.String, serde.String))
	}
	topology.To(branches[0], topology.NewTopic("twice", serde.String, serde.String))
	d := newDriver(t, top)
	d.send("in", rec("a", "xy", 1), rec("b", "y", 2))
	d.send("in2", rec("c", "z", 3), plan.Record{Key: []byte("d"), Timestamp: 4})
	d.expect("out0: a=xy @1", "twice: a=xy @1", "out1: b=y @2", "out2: c=z @3", "dropped by in.merge.split: null-value")
}

func TestHeadersPassStatelessOperators(t *testing.T) {
	r := rec("a", "x", 1)
	r.Headers = []topology.Header{{Key: "trace", Value: []byte("42")}}
	d := stateless(t, func(s *stream) *stream {
		s = topology.Map(s, func(k, v string) (string, string) { return k, v })
		return topology.FlatMapValues(topology.MapValues(s, strings.ToUpper), strings.Fields).
			WithValueSerde(serde.String).WithKeySerde(serde.String).Repartition("spread")
	}, r)
	d.expect("out: a=X @1 trace=42")
}

// Pointers and byte slices say null with nil; functions see it.
func TestNullAsNil(t *testing.T) {
	top := topology.New()
	pointers := topology.From(top, topology.NewTopic("in", serde.Bytes, serde.Pointer(serde.String)))
	topology.To(topology.MapValues(pointers, func(v *string) *string {
		if v == nil {
			v = new(string)
			*v = "was null"
			return v
		}
		return nil
	}), topology.NewTopic("out", serde.Bytes, serde.Pointer(serde.String)))
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 1), plan.Record{Timestamp: 2}, plan.Record{Key: []byte{}, Timestamp: 3})
	d.expect("out: a=null @1", "out: null=was null @2", "out: =was null @3")
}

func TestEventTime(t *testing.T) {
	top := topology.New(topology.OnError(topology.Skip()))
	s := topology.From(top, in, topology.EventTime(func(v string) time.Time {
		when, _ := time.Parse(time.RFC3339, v)
		return when
	}))
	topology.To(s, out)
	d := newDriver(t, top)
	d.send("in", rec("a", "1970-01-01T00:00:05Z", 1), rec("a", "nonsense", 1), plan.Record{Key: []byte("a"), Timestamp: 7}, rec("a", "1970-01-01T00:00:03Z", 1))
	d.expect("out: a=1970-01-01T00:00:05Z @5000", "out: a=null @7", "out: a=1970-01-01T00:00:03Z @3000",
		"dropped by in: error: event time -62135596800000 ms is before 1970: the record has none, or EventTime found a wrong one")
	if got := d.tasks[0].streamTime; got != 5000 {
		t.Errorf("stream time %d", got)
	}
}

func TestErrorPolicies(t *testing.T) {
	errOdd := errors.New("odd length")
	even := func(policy topology.ErrorPolicy) func(s *stream) *stream {
		return func(s *stream) *stream {
			return topology.MapValuesRecord(s, func(r *topology.Record[string, string]) (string, error) {
				if len(r.Value)%2 == 1 {
					return "", errOdd
				}
				return r.Value, nil
			}, topology.Named("even"), topology.OnError(policy))
		}
	}
	d := stateless(t, even(topology.Skip()), rec("a", "x", 1), rec("b", "xx", 2))
	d.expect("out: b=xx @2", "dropped by even: error: odd length")

	d = stateless(t, even(topology.DeadLetter("dead")), rec("a", "x", 1), rec("b", "xx", 2))
	d.expect("dead: a=x @1 leat.operator=even leat.error=odd length leat.source.partition=0 leat.source.topic=in leat.source.offset=0",
		"out: b=xx @2", "dropped by even: dead-letter: odd length")

	d = stateless(t, even(topology.Fail()), rec("b", "xx", 1))
	err := d.try("in", rec("b", "xx", 1), rec("a", "x", 2))
	var failed *plan.OperatorError
	if !errors.As(err, &failed) || !errors.Is(err, errOdd) || failed.Operator != "even" || failed.Offset != 2 {
		t.Errorf("error %v", err)
	}
	if want := `topology: operator "even" failed on the record at in-0@2: odd length`; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestUndecodableRecords(t *testing.T) {
	top := topology.New()
	numbers := topology.From(top, topology.NewTopic("in", serde.String, serde.Int64), topology.OnError(topology.DeadLetter("dead")))
	topology.To(numbers, topology.NewTopic("out", serde.String, serde.Int64))
	d := newDriver(t, top)
	d.send("in", rec("a", "short", 1), rec("b", "\x00\x00\x00\x00\x00\x00\x00\x05", 2))
	d.expect("dead: a=short @1 leat.operator=in leat.error=value: serde: bytes do not hold a value of this type: int64: got 5 bytes, want 8 "+
		"leat.source.partition=0 leat.source.topic=in leat.source.offset=0", "out: b=#5 @2",
		"dropped by in: dead-letter: value: serde: bytes do not hold a value of this type: int64: got 5 bytes, want 8")
}

// What cannot be encoded is the sink's failure.
func TestUnencodableRecords(t *testing.T) {
	top := topology.New(topology.OnError(topology.Skip()))
	topology.To(topology.From(top, in), topology.NewTopic("out", serde.String, serde.FromCodec[string]("picky", picky{})))
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 1), rec("a", "bad", 2))
	d.expect("out: a=x @1", "dropped by in.to.out: error: value: serde: codec picky: will not encode")
}

type picky struct{}

func (picky) Decode(data []byte) (any, error) { return string(data), nil }

func (picky) Encode(v any) ([]byte, error) {
	if v == "bad" {
		return nil, errors.New("will not encode")
	}
	return []byte(v.(string)), nil
}
