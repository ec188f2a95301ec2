package handler

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func TestProduceVersions(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 2)
	for version := int16(3); version <= 13; version++ {
		r := b.send(produceRequest("orders", -1, 1, produced(fmt.Sprint(version))), version).result().(*kmsg.ProduceResponse)
		p := &r.Topics[0].Partitions[0]
		if want := int64(version - 3); p.ErrorCode != 0 || p.BaseOffset != want || p.Partition != 1 || p.LogAppendTime != -1 {
			t.Errorf("version %d: error %d, offset %d, want %d", version, p.ErrorCode, p.BaseOffset, want)
		}
		if version >= 5 && p.LogStartOffset != 0 {
			t.Errorf("version %d: log start %d", version, p.LogStartOffset)
		}
		if byName := version < 13; byName != (r.Topics[0].Topic == "orders") || byName == (r.Topics[0].TopicID == idOf("orders")) {
			t.Errorf("version %d: topic %q, id %x", version, r.Topics[0].Topic, r.Topics[0].TopicID)
		}
	}
	if got := b.all("orders", 1, 0); got != "3 4 5 6 7 8 9 10 11 12 13" {
		t.Errorf("stored: %s", got)
	}
}

func TestProduceRefusals(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 1)
	b.create(metadata.OffsetsTopic, 1)
	good := func() []byte { return produced("a") }
	changed := func(f func(record.Batch)) []byte {
		batch := record.Batch(good())
		f(batch)
		batch.SetCRC()
		return batch
	}
	control := record.NewBuilder(record.CodecNone)
	control.SetControl()
	control.Append(0, []byte{0, 0, 0, 0}, nil, nil)
	transactional := record.NewBuilder(record.CodecNone)
	transactional.SetTransactional()
	transactional.SetProducer(1, 0, 0)
	transactional.Append(0, nil, nil, nil)
	zstd := record.NewBuilder(record.CodecZstd)
	zstd.Append(time.Now().UnixMilli(), nil, []byte("z"), nil)
	flipped := good()
	flipped[len(flipped)-1] ^= 1
	old := good()
	old[16] = 1 // magic
	future := record.NewBuilder(record.CodecNone)
	future.Append(time.Now().Add(48*time.Hour).UnixMilli(), nil, nil, nil)

	for _, c := range []struct {
		name    string
		version int16
		acks    int16
		topic   string
		records []byte
		want    *kerr.Error
	}{
		{"acks=2", 13, 2, "orders", good(), kerr.InvalidRequiredAcks},
		{"acks=-2", 13, -2, "orders", good(), kerr.InvalidRequiredAcks},
		{"no records", 13, -1, "orders", nil, kerr.InvalidRecord},
		{"two batches", 13, -1, "orders", append(good(), good()...), kerr.InvalidRecord},
		{"magic 1", 13, -1, "orders", old, kerr.InvalidRecord},
		{"wrong CRC", 13, -1, "orders", flipped, kerr.CorruptMessage},
		{"truncated", 13, -1, "orders", good()[:65], kerr.InvalidRecord},
		{"short", 13, -1, "orders", good()[:10], kerr.InvalidRecord},
		{"base offset", 13, -1, "orders", changed(func(x record.Batch) { x.SetBaseOffset(5) }), kerr.InvalidRecord},
		{"no such codec", 13, -1, "orders", changed(func(x record.Batch) { x[22] |= 7 }), kerr.UnsupportedCompressionType},
		{"zstd in version 6", 6, -1, "orders", zstd.Build(nil), kerr.UnsupportedCompressionType},
		{"control batch", 13, -1, "orders", control.Build(nil), kerr.InvalidRecord},
		{"transaction", 13, -1, "orders", transactional.Build(nil), kerr.TransactionalIDAuthorizationFailed},
		{"sequence without epoch", 13, -1, "orders", sequenced(1, -1, 0, "a"), kerr.InvalidRecord},
		{"timestamp", 13, -1, "orders", future.Build(nil), kerr.InvalidTimestamp},
		{"unknown name", 12, -1, "nowhere", good(), kerr.UnknownTopicOrPartition},
		{"unknown id", 13, -1, "nowhere", good(), kerr.UnknownTopicID},
		{"internal topic", 13, -1, metadata.OffsetsTopic, good(), kerr.InvalidTopicException},
	} {
		r := b.send(produceRequest(c.topic, c.acks, 0, c.records), c.version).result().(*kmsg.ProduceResponse)
		p := &r.Topics[0].Partitions[0]
		if got := kerr.ErrorForCode(p.ErrorCode); !errors.Is(got, c.want) || p.BaseOffset != -1 {
			t.Errorf("%s: %v at %d, want %v", c.name, got, p.BaseOffset, c.want)
		}
	}
	if p := b.produce("orders", -1, 7, good()); p.ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("unknown partition: %d", p.ErrorCode)
	}
	if got := b.all("orders", 0, 0); got != "" {
		t.Errorf("stored: %q", got)
	}
	// One bad partition does not spoil the others.
	r := produceRequest("orders", 1, 0, good())
	r.Topics[0].Partitions = append(r.Topics[0].Partitions, kmsg.ProduceRequestTopicPartition{Partition: 1, Records: good()})
	answer := b.send(r, 9).result().(*kmsg.ProduceResponse).Topics[0].Partitions
	if answer[0].ErrorCode != 0 || answer[1].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("one good, one bad: %d, %d", answer[0].ErrorCode, answer[1].ErrorCode)
	}
}

func TestProduceWithoutAcknowledgement(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 1)
	c := b.send(produceRequest("orders", 0, 0, produced("a")), 13)
	if c.result() != nil || c.response.Close {
		t.Error("acks=0 must send nothing and keep the connection")
	}
	c = b.send(produceRequest("orders", 0, 3, produced("a")), 13)
	if c.result() != nil || !c.response.Close {
		t.Error("a failed acks=0 must close the connection")
	}
}

func TestProduceTellsTheLeader(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 1)
	b.apply(led("orders", 0, 2, 1, 1))
	r := b.send(produceRequest("orders", -1, 0, produced("a")), 13).result().(*kmsg.ProduceResponse)
	p := &r.Topics[0].Partitions[0]
	if p.ErrorCode != kerr.NotLeaderForPartition.Code || p.CurrentLeader.LeaderID != 2 || p.CurrentLeader.LeaderEpoch != 1 {
		t.Errorf("error %d, leader %+v", p.ErrorCode, p.CurrentLeader)
	}
	if len(r.Brokers) != 1 || r.Brokers[0].Host != "two" || r.Brokers[0].Port != 9093 {
		t.Errorf("brokers %+v", r.Brokers)
	}
}

func TestIdempotentProducer(t *testing.T) {
	fs := vfs.NewMem()
	b := startBroker(t, fs, nil)
	b.create("orders", 1)
	check := func(what string, p *kmsg.ProduceResponseTopicPartition, offset int64, want *kerr.Error) {
		t.Helper()
		if want == nil && (p.ErrorCode != 0 || p.BaseOffset != offset) || want != nil && p.ErrorCode != want.Code {
			t.Errorf("%s: error %d, offset %d, want %v at %d", what, p.ErrorCode, p.BaseOffset, want, offset)
		}
	}
	send := func(epoch int16, sequence int32, values ...string) *kmsg.ProduceResponseTopicPartition {
		t.Helper()
		return b.produce("orders", -1, 0, sequenced(9, epoch, sequence, values...))
	}
	for i := range int32(8) {
		check("in order", send(0, 2*i, "x", "y"), int64(2*i), nil)
	}
	check("repeated", send(0, 14, "x", "y"), 14, nil)
	check("repeated, fifth last", send(0, 6, "x", "y"), 6, nil)
	check("repeated too late", send(0, 4, "x", "y"), 0, kerr.OutOfOrderSequenceNumber)
	check("gap", send(0, 20, "x"), 0, kerr.OutOfOrderSequenceNumber)
	check("new epoch not from 0", send(1, 3, "x"), 0, kerr.OutOfOrderSequenceNumber)
	check("new epoch", send(1, 0, "x"), 16, nil)
	check("old epoch", send(0, 16, "x"), 0, kerr.InvalidProducerEpoch)
	check("another producer from the middle", b.produce("orders", -1, 0, sequenced(10, 0, 500, "z")), 17, nil)
	check("acks=1 repeated", b.produce("orders", 1, 0, sequenced(10, 0, 500, "z")), 17, nil)
	image := b.image.Load()
	crashed := fs.Crash(nil)
	b.stop()

	// After a restart, and after a crash, the broker still knows.
	for _, again := range []*vfs.Mem{crashed, fs} {
		b = startBroker(t, again, image)
		check("repeated after the restart", send(1, 0, "x"), 16, nil)
		check("gap after the restart", send(1, 5, "x"), 0, kerr.OutOfOrderSequenceNumber)
		check("next after the restart", send(1, 1, "y"), 18, nil)
		b.stop()
	}
}

func TestInitProducerID(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	for version := int16(0); version <= 5; version++ {
		r := kmsg.NewPtrInitProducerIDRequest()
		got := b.send(r, version).result().(*kmsg.InitProducerIDResponse)
		if got.ErrorCode != 0 || got.ProducerID != int64(version) || got.ProducerEpoch != 0 {
			t.Errorf("version %d: %+v", version, got)
		}
	}
	r := kmsg.NewPtrInitProducerIDRequest()
	r.TransactionalID = new(string)
	if got := b.send(r, 4).result().(*kmsg.InitProducerIDResponse); got.ErrorCode != kerr.InvalidRequest.Code || got.ProducerID != -1 {
		t.Errorf("an empty transactional id: %+v", got)
	}
}

// slowController answers when the test lets it.
type slowController struct {
	Controller
	asked []func(int64, int32, *kerr.Error)
}

func (c *slowController) AllocateProducerIDs(done func(int64, int32, *kerr.Error)) {
	c.asked = append(c.asked, done)
}

func TestProducerIDsComeInBlocks(t *testing.T) {
	var p ProducerIDs
	c := &slowController{}
	got := map[int64]int{}
	failed := 0
	ask := func(n int) {
		for range n {
			p.Next(c, func(id int64, err *kerr.Error) {
				if err != nil {
					failed++
				} else {
					got[id]++
				}
			})
		}
	}
	ask(5)
	if len(c.asked) != 1 {
		t.Fatalf("%d blocks asked for", len(c.asked))
	}
	c.asked[0](100, 3, nil) // too few for all that wait: another block is asked for
	if len(got) != 3 || len(c.asked) != 2 {
		t.Fatalf("got %v, %d blocks asked for", got, len(c.asked))
	}
	c.asked[1](200, 3, nil)
	ask(1)
	if len(got) != 6 || len(c.asked) != 2 {
		t.Fatalf("got %v, %d blocks asked for", got, len(c.asked))
	}
	ask(2)
	c.asked[2](0, 0, kerr.NotController)
	if failed != 2 || p.asked {
		t.Errorf("%d failed", failed)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("id %d was given %d times", id, n)
		}
	}
}

// TestParkedProduce: acks=all waits for the disk without holding up the
// connection, and no goroutine waits with it.
func TestParkedProduce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var slow atomic.Bool
		fs := vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
			if slow.Load() && o.Kind == vfs.KindSync {
				<-gate
			}
			return nil
		})
		b := startBroker(t, fs, nil)
		b.create("orders", 1)
		slow.Store(true)
		var calls []*pendingCall
		for i := range 20 {
			r := produceRequest("orders", -1, 0, produced(fmt.Sprint(i)))
			r.TimeoutMillis = int32(1000 * (i + 1))
			calls = append(calls, b.send(r, 13))
		}
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		for i, c := range calls {
			if c.pending() != (i >= 5) {
				t.Errorf("produce %d after 5.5 s: pending %t", i, c.pending())
			}
		}
		slow.Store(false)
		close(gate)
		synctest.Wait()
		for i, c := range calls {
			p := c.result().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			if timedOut := p.ErrorCode == kerr.RequestTimedOut.Code; timedOut != (i < 5) || !timedOut && p.BaseOffset != int64(i) {
				t.Errorf("produce %d: error %d, offset %d", i, p.ErrorCode, p.BaseOffset)
			}
		}
		b.stop()
	})
}
