package handler

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func TestFetchVersions(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 1)
	b.mustProduce("orders", 0, "a", "b")
	b.mustProduce("orders", 0, "c")
	for version := int16(4); version <= 18; version++ {
		r := b.fetch(fetchRequest(wanted{"orders", 0, 1}), version)
		p := &r.Topics[0].Partitions[0]
		// The batch that holds the offset comes as a whole.
		if p.ErrorCode != 0 || valuesOf(t, p.RecordBatches) != "a b c" {
			t.Errorf("version %d: error %d, %q", version, p.ErrorCode, valuesOf(t, p.RecordBatches))
		}
		if p.HighWatermark != 3 || p.LastStableOffset != 3 || version >= 5 && p.LogStartOffset != 0 || r.SessionID != 0 {
			t.Errorf("version %d: high watermark %d, stable %d, start %d, session %d", version, p.HighWatermark, p.LastStableOffset, p.LogStartOffset, r.SessionID)
		}
	}
}

func TestFetchErrors(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 2)
	b.apply(led("orders", 0, 1, 5, 1), led("orders", 1, 2, 5, 1))
	b.mustProduce("orders", 0, "a", "b", "c")
	with := func(change func(*kmsg.FetchRequestTopicPartition), want wanted) *kmsg.FetchRequest {
		r := fetchRequest(want)
		r.MaxWaitMillis = 60_000 // errors do not wait
		if change != nil {
			change(&r.Topics[0].Partitions[0])
		}
		return r
	}
	epoch := func(e int32) func(*kmsg.FetchRequestTopicPartition) {
		return func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = e }
	}
	for _, c := range []struct {
		name    string
		version int16
		request *kmsg.FetchRequest
		want    *kerr.Error
	}{
		{"above the end", 16, with(nil, wanted{"orders", 0, 4}), kerr.OffsetOutOfRange},
		{"below the start", 16, with(nil, wanted{"orders", 0, -1}), kerr.OffsetOutOfRange},
		{"unknown topic", 12, with(nil, wanted{"nowhere", 0, 0}), kerr.UnknownTopicOrPartition},
		{"unknown topic id", 13, with(nil, wanted{"nowhere", 0, 0}), kerr.UnknownTopicID},
		{"unknown partition", 13, with(nil, wanted{"orders", 9, 0}), kerr.UnknownTopicOrPartition},
		{"old epoch", 16, with(epoch(4), wanted{"orders", 0, 0}), kerr.FencedLeaderEpoch},
		{"future epoch", 16, with(epoch(6), wanted{"orders", 0, 0}), kerr.UnknownLeaderEpoch},
		// Followers serve consumers that may know it (KIP-392).
		{"not the leader", 10, with(epoch(5), wanted{"orders", 1, 0}), kerr.NotLeaderForPartition},
		{"the leader has moved", 16, with(epoch(4), wanted{"orders", 1, 0}), kerr.FencedLeaderEpoch},
	} {
		r := b.fetch(c.request, c.version)
		p := &r.Topics[0].Partitions[0]
		if got := kerr.ErrorForCode(p.ErrorCode); !errors.Is(got, c.want) || p.HighWatermark != -1 || len(p.RecordBatches) > 0 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if c.name == "the leader has moved" && (p.CurrentLeader.LeaderID != 2 || len(r.Brokers) != 1 || r.Brokers[0].Port != 9093) {
			t.Errorf("%s: leader %+v, brokers %+v", c.name, p.CurrentLeader, r.Brokers)
		}
	}
	// The reader's last epoch ended earlier here: it has diverged.
	b.apply(led("orders", 0, 1, 8, 2))
	b.mustProduce("orders", 0, "d")
	r := b.fetch(with(func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 7 }, wanted{"orders", 0, 4}), 16)
	if p := &r.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.DivergingEpoch.Epoch != 5 || p.DivergingEpoch.EndOffset != 3 || len(p.RecordBatches) > 0 {
		t.Errorf("diverging: error %d, %+v", p.ErrorCode, p.DivergingEpoch)
	}
	r = b.fetch(with(func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 5 }, wanted{"orders", 0, 3}), 16)
	if p := &r.Topics[0].Partitions[0]; p.DivergingEpoch.Epoch != -1 || valuesOf(t, p.RecordBatches) != "d" {
		t.Errorf("not diverging: %+v, %q", p.DivergingEpoch, valuesOf(t, p.RecordBatches))
	}
	// Nobody may pretend to be a replica.
	for _, version := range []int16{12, 16} {
		request := with(nil, wanted{"orders", 0, 0})
		request.ReplicaID, request.ReplicaState.ID = 2, 2
		if p := &b.fetch(request, version).Topics[0].Partitions[0]; p.ErrorCode != kerr.ClusterAuthorizationFailed.Code || len(p.RecordBatches) > 0 {
			t.Errorf("pretended replica in version %d: %d", version, p.ErrorCode)
		}
	}
}

func TestFetchLimits(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 3)
	value := strings.Repeat("x", 1000)
	for p := range int32(3) {
		for range 3 {
			b.mustProduce("orders", p, value)
		}
	}
	size := int32(len(produced(value)))
	counts := func(maxBytes, partitionMax int32) (list [3]int) {
		r := fetchRequest(wanted{"orders", 0, 0}, wanted{"orders", 1, 0}, wanted{"orders", 2, 0})
		r.MaxBytes = maxBytes
		for i := range r.Topics {
			r.Topics[i].Partitions[0].PartitionMaxBytes = partitionMax
		}
		for _, topic := range b.fetch(r, 16).Topics {
			for _, p := range topic.Partitions {
				list[p.Partition] = len(strings.Fields(valuesOf(t, p.RecordBatches)))
			}
		}
		return list
	}
	for _, c := range []struct {
		max, partitionMax int32
		want              [3]int
	}{
		{10 * size, 10 * size, [3]int{3, 3, 3}},
		{10 * size, size, [3]int{1, 1, 1}},
		{4 * size, 10 * size, [3]int{3, 1, 0}},
		{10 * size, size - 1, [3]int{1, 0, 0}}, // at least one batch of the first
		{0, 0, [3]int{1, 0, 0}},
		{-5, -5, [3]int{1, 0, 0}},
	} {
		if got := counts(c.max, c.partitionMax); got != c.want {
			t.Errorf("max %d, partition max %d: %v batches, want %v", c.max, c.partitionMax, got, c.want)
		}
	}
}

func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBroker(t, vfs.NewMem(), nil)
		defer b.stop()
		b.create("orders", 2)
		b.create("other", 1)
		poll := func(minBytes int32, want ...wanted) *pendingCall {
			r := fetchRequest(want...)
			r.MaxWaitMillis, r.MinBytes = 5000, minBytes
			return b.send(r, 16)
		}
		check := func(what string, c *pendingCall, pending bool, values string) {
			t.Helper()
			synctest.Wait()
			if c.pending() != pending {
				t.Fatalf("%s: pending %t", what, c.pending())
			}
			if pending {
				return
			}
			var got []string
			for _, topic := range c.result().(*kmsg.FetchResponse).Topics {
				for _, p := range topic.Partitions {
					got = append(got, valuesOf(t, p.RecordBatches))
				}
			}
			if strings.Join(got, "|") != values {
				t.Errorf("%s: %q, want %q", what, strings.Join(got, "|"), values)
			}
		}
		both := []wanted{{"orders", 0, 0}, {"orders", 1, 0}}

		c := poll(1, both...)
		check("nothing there", c, true, "")
		b.mustProduce("other", 0, "o")
		check("something elsewhere", c, true, "")
		b.mustProduce("orders", 1, "a")
		check("something there", c, false, "|a")

		c = poll(1, wanted{"orders", 0, 0})
		time.Sleep(4999 * time.Millisecond)
		check("before the deadline", c, true, "")
		time.Sleep(time.Millisecond)
		check("at the deadline", c, false, "")

		// min.bytes counts what all its partitions get together, and what is there.
		size := int32(len(produced("a")))
		c = poll(3*size, both...)
		b.mustProduce("orders", 0, "b")
		check("two of three", c, true, "")
		b.mustProduce("orders", 1, "c")
		check("three of three", c, false, "b|a c")
		check("enough is there", poll(4*size-size, both...), false, "b|a c")

		// A change of the leadership answers, the deletion of the topic too.
		c = poll(1, wanted{"orders", 0, 1})
		check("waiting", c, true, "")
		b.apply(led("orders", 0, 2, 1, 1))
		synctest.Wait()
		if p := &c.result().(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
			t.Errorf("leadership lost: %d, %d bytes", p.ErrorCode, len(p.RecordBatches))
		}
		c = poll(1, wanted{"other", 0, 1})
		check("waiting", c, true, "")
		b.apply(&metadata.TopicRemovedChange{ID: idOf("other")})
		synctest.Wait()
		if p := &c.result().(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != kerr.UnknownTopicID.Code {
			t.Errorf("topic deleted: %d", p.ErrorCode)
		}

		// A closed connection lets go at once.
		ctx, cancel := context.WithCancel(context.Background())
		b.ctx = ctx
		c = poll(1, wanted{"orders", 1, 2})
		check("waiting", c, true, "")
		cancel()
		check("connection closed", c, false, "")
		if n := b.manager.Deadlines().Len(); n > 3 {
			t.Errorf("%d deadlines left", n)
		}
	})
}

// TestWaitersCostNoGoroutine parks many polls over several partitions and wakes
// them with one record.
func TestWaitersCostNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBroker(t, vfs.NewMem(), nil)
		defer b.stop()
		b.create("orders", 4)
		before := runtime.NumGoroutine()
		var calls []*pendingCall
		for i := range 2000 {
			r := fetchRequest(wanted{"orders", 0, 0}, wanted{"orders", 1, 0}, wanted{"orders", 2, 0}, wanted{"orders", 3, 0})
			r.MaxWaitMillis = int32(60_000 + i)
			calls = append(calls, b.send(r, 16))
		}
		synctest.Wait()
		if grown := runtime.NumGoroutine() - before; grown > 5 {
			t.Errorf("%d goroutines more for %d waiters", grown, len(calls))
		}
		b.mustProduce("orders", 2, "a")
		synctest.Wait()
		for i, c := range calls {
			if c.pending() {
				t.Fatalf("poll %d was not woken", i)
			}
		}
		if n := b.manager.Deadlines().Len(); n > 4 {
			t.Errorf("%d deadlines left", n)
		}
	})
}

func TestFetchWithSession(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 3)
	fetch := func(id, epoch int32, want ...wanted) *kmsg.FetchResponse {
		r := fetchRequest(want...)
		r.SessionID, r.SessionEpoch = id, epoch
		return b.fetch(r, 16)
	}
	shown := func(r *kmsg.FetchResponse) string {
		var list []string
		for _, topic := range r.Topics {
			for _, p := range topic.Partitions {
				list = append(list, fmt.Sprintf("%d:%s", p.Partition, valuesOf(t, p.RecordBatches)))
			}
		}
		return strings.Join(list, " ")
	}
	r := fetch(0, 0, wanted{"orders", 0, 0}, wanted{"orders", 1, 0}, wanted{"orders", 2, 0})
	id := r.SessionID
	if got := shown(r); id == 0 || got != "0: 1: 2:" {
		t.Fatalf("full fetch: session %d, %q", id, got)
	}
	if got := shown(fetch(id, 1)); got != "" {
		t.Errorf("no news: %q", got)
	}
	b.mustProduce("orders", 1, "a")
	if got := shown(fetch(id, 2)); got != "1:a" {
		t.Errorf("news: %q", got)
	}
	if got := shown(fetch(id, 3, wanted{"orders", 1, 1})); got != "" {
		t.Errorf("offset moved: %q", got)
	}
	if r := fetch(id, 3); r.ErrorCode != kerr.InvalidFetchSessionEpoch.Code || r.SessionID != 0 {
		t.Errorf("epoch again: error %d, session %d", r.ErrorCode, r.SessionID)
	}
	if r := fetch(id+1, 1); r.ErrorCode != kerr.FetchSessionIDNotFound.Code {
		t.Errorf("unknown session: error %d", r.ErrorCode)
	}
}

func TestOtherOffsetAPIs(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 1)
	b.mustProduce("orders", 0, "a", "b")
	b.apply(led("orders", 0, 1, 3, 1))
	b.mustProduce("orders", 0, "c")

	for version := int16(1); version <= 11; version++ {
		for timestamp, want := range map[int64]struct {
			offset int64
			since  int16
			epoch  int32
		}{-1: {3, 1, 3}, -2: {0, 1, 0}, -3: {0, 7, 0}, -4: {0, 8, 0}, -5: {-1, 9, -1}, -6: {-1, 11, -1}, 1: {0, 1, 0}, -7: {0, 99, 0}} {
			r := kmsg.NewPtrListOffsetsRequest()
			topic := kmsg.NewListOffsetsRequestTopic()
			topic.Topic = "orders"
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Timestamp = timestamp
			topic.Partitions = append(topic.Partitions, p)
			r.Topics = append(r.Topics, topic)
			got := b.send(r, version).result().(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
			if version < want.since {
				if got.ErrorCode != kerr.UnsupportedVersion.Code {
					t.Errorf("version %d, timestamp %d: error %d", version, timestamp, got.ErrorCode)
				}
				continue
			}
			if timestamp == -3 { // three records of about the same time
				want.offset, want.epoch = got.Offset, got.LeaderEpoch
			}
			if got.ErrorCode != 0 || got.Offset != want.offset || version >= 4 && got.LeaderEpoch != want.epoch {
				t.Errorf("version %d, timestamp %d: error %d, offset %d, epoch %d, want %+v", version, timestamp, got.ErrorCode, got.Offset, got.LeaderEpoch, want)
			}
		}
	}
	for version := int16(2); version <= 4; version++ {
		r := kmsg.NewPtrOffsetForLeaderEpochRequest()
		topic := kmsg.NewOffsetForLeaderEpochRequestTopic()
		topic.Topic = "orders"
		for _, epoch := range []int32{0, 2, 3, 9} {
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.LeaderEpoch = epoch
			topic.Partitions = append(topic.Partitions, p)
		}
		r.Topics = append(r.Topics, topic)
		var got []string
		for _, p := range b.send(r, version).result().(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions {
			got = append(got, fmt.Sprintf("%d@%d", p.LeaderEpoch, p.EndOffset))
		}
		if strings.Join(got, " ") != "0@2 0@2 3@3 -1@-1" {
			t.Errorf("version %d: epochs end %v", version, got)
		}
	}
	remove := func(topic string, offset int64) (int64, error) {
		r := kmsg.NewPtrDeleteRecordsRequest()
		r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: offset}}}}
		p := b.send(r, 2).result().(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
		return p.LowWatermark, kerr.ErrorForCode(p.ErrorCode)
	}
	if low, err := remove("orders", 1); low != 1 || err != nil {
		t.Errorf("delete before 1: %d, %v", low, err)
	}
	if low, err := remove("orders", -1); low != 3 || err != nil {
		t.Errorf("delete all: %d, %v", low, err)
	}
	if _, err := remove("orders", 4); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("delete above the end: %v", err)
	}
	policy := "compact"
	b.apply(&metadata.ConfigChange{Resource: metadata.TopicResource, Name: "orders", Key: "cleanup.policy", Value: &policy})
	if _, err := remove("orders", 1); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("delete from a compacted topic: %v", err)
	}
	if _, err := remove(metadata.OffsetsTopic, 1); err == nil {
		t.Error("delete from an internal topic succeeded")
	}
}

// TestFetchFromTheFile: many records are sent as a range of the log's file, few
// through a buffer, on a real disk.
func TestFetchFromTheFile(t *testing.T) {
	t.Chdir(t.TempDir())
	b := startBroker(t, vfs.OS{}, nil)
	defer b.stop()
	b.create("orders", 2)
	var want []string
	for i := range 100 {
		value := fmt.Sprintf("%d-%s", i, strings.Repeat("x", 2000))
		want = append(want, value)
		b.mustProduce("orders", 0, value)
	}
	b.mustProduce("orders", 1, "small")
	c := b.send(fetchRequest(wanted{"orders", 0, 0}, wanted{"orders", 1, 0}), 16)
	<-c.answered
	files := 0
	for i := range c.response.Chunks {
		if c.response.Chunks[i].File != nil {
			files++
		}
	}
	topics := c.result().(*kmsg.FetchResponse).Topics
	if files != 1 || valuesOf(t, topics[0].Partitions[0].RecordBatches) != strings.Join(want, " ") ||
		valuesOf(t, topics[0].Partitions[1].RecordBatches) != "small" {
		t.Errorf("%d ranges of files", files)
	}
}
