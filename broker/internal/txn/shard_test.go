package txn

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// bench drives a shard as the runtime does, with a log that a test can load anew.
type bench struct {
	t        *testing.T
	shard    *Shard
	log      []coordinator.Record
	now      time.Time
	prepared []Prepared
	fresh    int64
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: time.UnixMilli(1_000_000), fresh: 100}
	b.load()
	return b
}

// load has another shard take over from the log.
func (b *bench) load() {
	cfg := DefaultConfig()
	cfg.Prepared = func(_ int32, p Prepared) { b.prepared = append(b.prepared, p) }
	b.shard = NewShard(0, cfg)
	for _, r := range b.log {
		if err := b.shard.Replay(r, 0); err != nil {
			b.t.Fatal(err)
		}
	}
	b.prepared = nil
	b.take(b.shard.Loaded(b.now))
}

func (b *bench) take(r coordinator.Result) {
	b.t.Helper()
	for _, record := range r.Records {
		b.log = append(b.log, record)
		if err := b.shard.Replay(record, 0); err != nil {
			b.t.Fatal(err)
		}
	}
	if r.Done != nil {
		b.take(r.Done(nil))
	}
}

func name(err *kerr.Error) string {
	if err == nil {
		return "ok"
	}
	return err.Message
}

// init asks for a producer; without one before when id is -1.
func (b *bench) init(id int64, epoch int16) string {
	b.t.Helper()
	var got InitAnswer
	r := &InitRequest{TransactionalID: "app", Timeout: time.Minute, ProducerID: id, Epoch: epoch, Fresh: -1}
	b.take(b.shard.InitProducerID(r, b.now, func(a InitAnswer) { got = a }))
	if got.Err == errNeedsID {
		r.Fresh = b.fresh
		b.fresh++
		b.take(b.shard.InitProducerID(r, b.now, func(a InitAnswer) { got = a }))
	}
	if got.Err != nil {
		return got.Err.Message
	}
	return fmt.Sprintf("%d/%d", got.ProducerID, got.Epoch)
}

func (b *bench) add(id int64, epoch, version int16, partitions ...int32) string {
	b.t.Helper()
	r := &AddRequest{TransactionalID: "app", ProducerID: id, Epoch: epoch, Version: version}
	for _, p := range partitions {
		r.Partitions = append(r.Partitions, TopicPartition{"t", p})
	}
	var got *kerr.Error
	b.take(b.shard.AddPartitions(r, b.now, func(err *kerr.Error) { got = err }))
	return name(got)
}

func (b *bench) verify(id int64, epoch int16, partition int32) string {
	b.t.Helper()
	r := &AddRequest{TransactionalID: "app", ProducerID: id, Epoch: epoch, Partitions: []TopicPartition{{"t", partition}}}
	var got string
	b.take(b.shard.VerifyPartitions(r, func(err *kerr.Error, each []*kerr.Error) {
		if got = name(err); err == nil {
			got = name(each[0])
		}
	}))
	return got
}

func (b *bench) end(id int64, epoch, version int16, commit bool) string {
	b.t.Helper()
	r := &EndRequest{TransactionalID: "app", ProducerID: id, Epoch: epoch, Version: version, Commit: commit, Fresh: -1}
	var got EndAnswer
	b.take(b.shard.End(r, b.now, func(a EndAnswer) { got = a }))
	if got.Err == errNeedsID {
		r.Fresh = b.fresh
		b.fresh++
		b.take(b.shard.End(r, b.now, func(a EndAnswer) { got = a }))
	}
	if got.Err != nil {
		return got.Err.Message
	}
	return fmt.Sprintf("%d/%d", got.ProducerID, got.Epoch)
}

// complete carries out what was prepared.
func (b *bench) complete() {
	b.t.Helper()
	for _, p := range b.prepared {
		b.take(b.shard.Complete(&p, b.now, func() {}))
		b.take(b.shard.Complete(&p, b.now, func() {})) // again does nothing
	}
	b.prepared = nil
}

func (b *bench) state() string { return b.shard.Describe("app").State.String() }

// step is something done, and what it gives.
type step struct {
	got, want string
}

func (b *bench) check(steps ...step) {
	b.t.Helper()
	for i, s := range steps {
		if s.got != s.want {
			b.t.Errorf("step %d: got %s, want %s", i, s.got, s.want)
		}
	}
}

const (
	commit = true
	abort  = false
)

func TestFirstProtocol(t *testing.T) {
	b := newBench(t)
	b.check(
		step{b.add(100, 0, V1, 0), "INVALID_PRODUCER_ID_MAPPING"},
		step{b.init(-1, -1), "100/0"},
		step{b.end(100, 0, V1, commit), "INVALID_TXN_STATE"},
		step{b.verify(100, 0, 1), "TRANSACTION_ABORTABLE"},
		step{b.add(100, 0, V1, 1, 2), "ok"},
		step{b.add(100, 0, V1, 2), "ok"},
		step{b.add(99, 0, V1, 2), "INVALID_PRODUCER_ID_MAPPING"},
		step{b.add(100, 1, V1, 2), "PRODUCER_FENCED"},
		step{b.verify(100, 0, 1), "ok"},
		step{b.verify(100, 0, 3), "TRANSACTION_ABORTABLE"},
		step{b.end(100, 1, V1, commit), "PRODUCER_FENCED"},
		step{b.end(99, 0, V1, commit), "INVALID_PRODUCER_ID_MAPPING"},
		step{b.end(100, 0, V1, commit), "100/0"},
		step{b.state(), "PrepareCommit"},
		step{b.end(100, 0, V1, commit), "CONCURRENT_TRANSACTIONS"},
		step{b.end(100, 0, V1, abort), "CONCURRENT_TRANSACTIONS"},
		step{b.add(100, 0, V1, 1), "CONCURRENT_TRANSACTIONS"},
		step{b.init(-1, -1), "CONCURRENT_TRANSACTIONS"},
		step{fmt.Sprint(b.prepared), "[{app 100 0 true false [{t 1} {t 2}]}]"},
	)
	b.complete()
	b.check(
		step{b.state(), "CompleteCommit"},
		step{b.end(100, 0, V1, commit), "100/0"},
		step{b.end(100, 0, V1, abort), "INVALID_TXN_STATE"},
		step{b.verify(100, 0, 1), "TRANSACTION_ABORTABLE"},
		step{b.add(100, 0, V1, 7), "ok"},
		step{b.end(100, 0, V1, abort), "100/0"},
		step{fmt.Sprint(b.prepared), "[{app 100 0 false false [{t 7}]}]"},
	)
}

// With the second protocol an end raises the epoch, so that what is repeated or late
// is told from what is new.
func TestSecondProtocol(t *testing.T) {
	b := newBench(t)
	b.check(
		step{b.init(-1, -1), "100/0"},
		step{b.end(100, 0, V2, commit), "INVALID_TXN_STATE"},
		step{b.add(100, 0, V2, 1), "ok"},
		step{b.end(100, 0, V2, commit), "100/1"},
		step{fmt.Sprint(b.prepared), "[{app 100 1 true true [{t 1}]}]"},
		step{b.end(100, 0, V2, commit), "CONCURRENT_TRANSACTIONS"},
		step{b.end(100, 0, V2, abort), "CONCURRENT_TRANSACTIONS"},
		step{b.end(100, 5, V2, abort), "CONCURRENT_TRANSACTIONS"},
		step{b.end(101, 0, V2, commit), "INVALID_PRODUCER_ID_MAPPING"},
		step{b.add(100, 0, V2, 1), "PRODUCER_FENCED"},
		step{b.add(100, 1, V2, 1), "CONCURRENT_TRANSACTIONS"},
		step{b.end(100, 1, V2, abort), "CONCURRENT_TRANSACTIONS"},
	)
	b.complete()
	b.check(
		step{b.end(100, 0, V2, commit), "100/1"}, // repeated
		step{b.end(100, 0, V2, abort), "INVALID_TXN_STATE"},
		step{b.end(100, 1, V2, commit), "INVALID_TXN_STATE"},
		step{b.add(100, 1, V2, 3), "ok"},
		// The end of the first transaction, late, does not end the second.
		step{b.end(100, 0, V2, commit), "PRODUCER_FENCED"},
		step{b.state(), "Ongoing"},
		step{b.end(100, 1, V2, abort), "100/2"},
	)
	b.complete()
	b.check(
		step{b.end(100, 1, V2, abort), "100/2"},
		step{b.end(100, 2, V2, abort), "100/3"}, // an empty one
		step{fmt.Sprint(b.prepared), "[{app 100 3 false true []}]"},
	)
	b.complete()
	b.check(step{b.state(), "CompleteAbort"})
}

func TestInitFences(t *testing.T) {
	b := newBench(t)
	b.check(
		step{b.init(-1, -1), "100/0"},
		step{b.init(-1, -1), "100/1"},
		step{b.init(100, 1), "100/2"}, // KIP-360
		step{b.init(100, 1), "100/2"}, // repeated
		step{b.init(100, 0), "PRODUCER_FENCED"},
		step{b.init(77, 2), "PRODUCER_FENCED"},
		step{b.add(100, 2, V1, 1), "ok"},
		step{b.init(-1, -1), "CONCURRENT_TRANSACTIONS"},
		step{b.state(), "PrepareAbort"},
		step{fmt.Sprint(b.prepared), "[{app 100 3 false true [{t 1}]}]"},
		step{b.add(100, 2, V1, 1), "PRODUCER_FENCED"},
	)
	b.complete()
	b.check(
		step{b.init(-1, -1), "100/4"},
		step{b.end(100, 2, V1, commit), "PRODUCER_FENCED"},
		step{b.init(100, 2), "PRODUCER_FENCED"},
	)
}

// When the epochs of a producer id run out, another id goes on.
func TestEpochsRunOut(t *testing.T) {
	b := newBench(t)
	b.init(-1, -1)
	spend := func() {
		last := *b.shard.ids["app"]
		last.epoch = lastUsableEpoch
		b.take(record(last, func(*kerr.Error) {}))
	}
	spend()
	b.check(
		step{b.init(100, lastUsableEpoch), "101/0"},
		step{b.init(100, lastUsableEpoch), "101/0"}, // repeated
		step{b.init(100, lastUsableEpoch-1), "PRODUCER_FENCED"},
	)
	spend()
	b.check(
		step{b.add(101, lastUsableEpoch, V2, 1), "ok"},
		step{b.end(101, lastUsableEpoch, V2, commit), "102/0"},
		step{fmt.Sprint(b.prepared), fmt.Sprintf("[{app 101 %d true true [{t 1}]}]", math.MaxInt16)},
	)
	b.load() // which tells its markers by the coordinator's epoch
	b.check(step{fmt.Sprint(b.prepared), fmt.Sprintf("[{app 101 %d true false [{t 1}]}]", math.MaxInt16)})
	b.complete()
	b.check(
		step{b.end(101, lastUsableEpoch, V2, commit), "102/0"}, // repeated
		step{b.add(102, 0, V2, 1), "ok"},
	)
}

func TestTimeouts(t *testing.T) {
	b := newBench(t)
	b.init(-1, -1)
	b.add(100, 0, V1, 1)
	if at, ok := b.shard.NextDeadline(); !ok || !at.Equal(b.now.Add(time.Minute)) {
		t.Fatalf("deadline %v", at)
	}
	b.take(b.shard.Expire(b.now))
	b.check(step{b.state(), "Ongoing"})
	b.now = b.now.Add(time.Minute)
	b.load()
	b.take(b.shard.Expire(b.now))
	b.check(
		step{b.state(), "PrepareAbort"},
		step{fmt.Sprint(b.prepared), "[{app 100 1 false true [{t 1}]}]"},
		step{b.end(100, 0, V1, commit), "PRODUCER_FENCED"},
	)
	b.complete()
	b.now = b.now.Add(8 * 24 * time.Hour)
	b.take(b.shard.Expire(b.now))
	if d := b.shard.Describe("app"); d.Err != kerr.TransactionalIDNotFound {
		t.Errorf("an id without use is kept: %+v", d)
	}
	b.load()
	if len(b.shard.ids) != 0 {
		t.Error("a forgotten id came back")
	}
}

func TestInvalidTimeouts(t *testing.T) {
	b := newBench(t)
	for _, timeout := range []time.Duration{-1, 0, 16 * time.Minute} {
		var got InitAnswer
		b.take(b.shard.InitProducerID(&InitRequest{TransactionalID: "app", Timeout: timeout, ProducerID: -1, Fresh: 1}, b.now, func(a InitAnswer) { got = a }))
		if got.Err != kerr.InvalidTransactionTimeout {
			t.Errorf("%v: %v", timeout, got.Err)
		}
	}
}

// A shard that is loaded from the log goes on where the other was, whatever happened.
func TestLoadedShardGoesOn(t *testing.T) {
	for seed := range uint64(50) {
		b := newBench(t)
		random := rand.New(rand.NewPCG(seed, 1))
		for range 60 {
			d := b.shard.Describe("app")
			version := []int16{V1, V2}[random.IntN(2)]
			switch random.IntN(6) {
			case 0:
				b.init(-1, -1)
			case 1, 2:
				b.add(d.ProducerID, d.Epoch, version, random.Int32N(4))
			case 3:
				b.end(d.ProducerID, d.Epoch, version, random.IntN(2) == 0)
			case 4:
				b.complete()
			case 5:
				b.now = b.now.Add(time.Duration(random.IntN(40)) * time.Second)
				b.take(b.shard.Expire(b.now))
			}
			before, deadline := b.shard.List(), len(b.shard.deadlines)
			pending := map[preparedKey]bool{}
			for _, p := range b.prepared {
				pending[key(p)] = true
			}
			b.load()
			if after := b.shard.List(); fmt.Sprint(before) != fmt.Sprint(after) || deadline != len(b.shard.deadlines) {
				t.Fatalf("seed %d: %v became %v", seed, before, after)
			}
			for _, p := range b.prepared {
				delete(pending, key(p))
			}
			if len(pending) > 0 {
				t.Fatalf("seed %d: forgotten: %v", seed, slices.Collect(maps.Keys(pending)))
			}
		}
	}
}

// preparedKey is what tells one Prepared from another.
type preparedKey struct {
	id    int64
	epoch int16
}

func key(p Prepared) preparedKey { return preparedKey{p.ProducerID, p.Epoch} }

func TestBadRecords(t *testing.T) {
	s := NewShard(0, DefaultConfig())
	good := transaction{id: "x", producerID: 1, previousID: -1, nextID: -1}
	broken := good.record()
	broken.Value = broken.Value[:5]
	strange := good
	strange.state = 9
	for i, r := range []coordinator.Record{{Key: []byte{0}}, {Key: []byte{0, 0, 9}, Value: []byte{1}}, broken, strange.record()} {
		if err := s.Replay(r, 0); !errors.Is(err, ErrBadRecord) {
			t.Errorf("record %d: %v", i, err)
		}
	}
	if err := s.Replay(coordinator.Record{Key: []byte{0, 7}}, 0); err != nil {
		t.Errorf("a record of a later version: %v", err)
	}
}

// The record is Kafka's, with the tagged fields of KIP-890.
func TestRecordIsKafkas(t *testing.T) {
	x := transaction{id: "app", producerID: 7, epoch: 3, previousID: 6, nextID: 8, timeout: time.Minute, state: PrepareCommit, version: V2,
		partitions: map[TopicPartition]struct{}{{"b", 1}: {}, {"a", 2}: {}, {"a", 0}: {}}, started: 11, updated: 12}
	r := x.record()
	var v kmsg.TxnMetadataValue
	if err := v.ReadFrom(r.Value); err != nil {
		t.Fatal(err)
	}
	if v.Version != 1 || v.ProducerID != 7 || v.ProducerEpoch != 3 || v.PreviousProducerID != 6 || v.NextProducerID != 8 || v.TimeoutMillis != 60_000 ||
		v.State != 2 || v.ClientTransactionVersion != 2 || v.StartTimestamp != 11 || v.LastUpdateTimestamp != 12 || len(v.Topics) != 2 ||
		v.Topics[0].Topic != "a" || !slices.Equal(v.Topics[0].Partitions, []int32{0, 2}) {
		t.Errorf("%+v", v)
	}
	back, err := transactionOf("app", &v)
	if err != nil || fmt.Sprint(back.describe()) != fmt.Sprint(x.describe()) {
		t.Errorf("%v became %v, %v", x.describe(), back, err)
	}
}

// FuzzReplay replays any record: no panic, an error that says so, and a shard that can be
// used afterwards.
func FuzzReplay(f *testing.F) {
	b := &transaction{id: "t", producerID: 1, state: Ongoing, started: 5, timeout: time.Second,
		partitions: map[TopicPartition]struct{}{{"a", 1}: {}, {"b", 2}: {}}}
	r := b.record()
	f.Add(r.Key, r.Value)
	f.Add(r.Key, []byte(nil))
	// It claims 4 billion tagged fields.
	f.Add(r.Key, append(r.Value[:len(r.Value)-1:len(r.Value)-1], 0xff, 0xff, 0xff, 0xff, 0x0f))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		cfg := DefaultConfig()
		cfg.Prepared = func(int32, Prepared) {}
		s := NewShard(0, cfg)
		for range 2 { // the second replaces the first
			if err := s.Replay(coordinator.Record{Key: key, Value: value}, 0); err != nil && !errors.Is(err, ErrBadRecord) {
				t.Fatalf("error %v", err)
			}
		}
		s.Loaded(time.UnixMilli(10))
		for range 100 {
			at, ok := s.NextDeadline()
			if !ok {
				break
			}
			s.Expire(at)
		}
	})
}
