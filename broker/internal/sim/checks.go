package sim

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/wire"
)

// checks knows what clients were told and what was seen committed, and compares.
type checks struct {
	c           *Cluster
	entries     map[int64]entrySeen
	controllers map[int32]int32 // by epoch of the metadata log
	leaders     map[leadership]int32
	partitions  map[topicPartition]*partitionSeen
	ids         map[int64]place // of producers
	topics      map[string]bool // whose creation (true) or deletion (false) was acknowledged
}

type entrySeen struct {
	epoch int32
	hash  uint64
}

// leadership is an epoch of a partition.
type leadership struct {
	topicPartition
	epoch int32
}

type partitionSeen struct {
	acked     map[int64]string    // by offset
	committed map[int64]batchSeen // by base offset
	end       int64               // of what is in committed
}

// batchSeen is a batch, and where and when it was first seen committed.
type batchSeen struct {
	record.Batch
	node int32
	at   time.Duration
}

// checkedKey names a replica's log of one process.
type checkedKey = topicPartition

func newChecks(c *Cluster) *checks {
	return &checks{c: c, entries: map[int64]entrySeen{}, controllers: map[int32]int32{}, leaders: map[leadership]int32{},
		partitions: map[topicPartition]*partitionSeen{}, ids: map[int64]place{}, topics: map[string]bool{}}
}

func (k *checks) partition(tp topicPartition) *partitionSeen {
	p := k.partitions[tp]
	if p == nil {
		p = &partitionSeen{acked: map[int64]string{}, committed: map[int64]batchSeen{}}
		k.partitions[tp] = p
	}
	return p
}

// entry checks that all nodes apply the same metadata at an offset (I8).
func (k *checks) entry(node int32, offset int64, epoch int32, hash uint64) {
	seen, ok := k.entries[offset]
	if !ok {
		k.c.stats.MetadataEntries++
		k.entries[offset] = entrySeen{epoch, hash}
	} else if seen != (entrySeen{epoch, hash}) {
		k.c.fail("I8: node %d applies other metadata at offset %d in epoch %d than was applied in epoch %d", node, offset, epoch, seen.epoch)
	}
}

// controller checks that an epoch of the metadata log has one leader (I8).
func (k *checks) controller(node, epoch int32) {
	if was, ok := k.controllers[epoch]; ok && was != node {
		k.c.fail("I8: nodes %d and %d lead the metadata log in epoch %d", was, node, epoch)
	}
	k.controllers[epoch] = node
}

// producerID checks that no two producers have an id.
func (k *checks) producerID(id int64, x place) {
	if was, ok := k.ids[id]; ok {
		k.c.fail("I3: clients %d and %d got the producer id %d", was, x, id)
	}
	k.ids[id] = x
}

// acknowledged notes what a client was told.
func (k *checks) acknowledged(tp topicPartition, base int64, values []string) {
	p := k.partition(tp)
	for n, value := range values {
		offset := base + int64(n)
		if was, ok := p.acked[offset]; ok && was != value {
			k.c.fail("I2: %.30q and %.30q were acknowledged at %v %d", was, value, tp, offset)
		}
		p.acked[offset] = value
	}
	k.c.stats.AckedOffsets += len(values)
}

// answered looks at what a node tells a client.
func (c *Cluster) answered(n *node, request *wire.Request, r *wire.Response) {
	response, ok := r.Body.(*kmsg.ProduceResponse)
	if !ok || request.Conn.Peer >= 0 {
		return
	}
	for _, t := range response.Topics {
		known, ok := n.log.published.Topic(t.Topic)
		if !ok {
			continue
		}
		for _, p := range t.Partitions {
			if here, err := n.manager.Replica(known.ID, p.Partition); err == nil && p.ErrorCode == 0 {
				_, epoch := here.Leader()
				c.checks.leads(n.id, leadership{topicPartition{t.Topic, p.Partition}, epoch})
				c.struck(n)
			}
		}
	}
}

// leads checks that one broker acknowledges in a leader epoch (I8).
func (k *checks) leads(node int32, l leadership) {
	was, ok := k.leaders[l]
	if !ok {
		k.c.stats.LeaderChanges++
	} else if was != node {
		k.c.fail("I8: nodes %d and %d acknowledge in epoch %d of %v", was, node, l.epoch, l.topicPartition)
	}
	k.leaders[l] = node
}

// committedBatch checks that what is committed, or was seen by a consumer, does not
// change (I2), and that what was acknowledged at its offsets is what is there (I1).
func (k *checks) committedBatch(node int32, tp topicPartition, batch record.Batch) {
	p := k.partition(tp)
	base := batch.BaseOffset()
	seen, ok := p.committed[base]
	k.c.stats.ComparedBatches++
	if mutant.Is(mutant.ComparisonDropped) && k.c.stats.ComparedBatches%10 == 0 {
		return
	}
	if !ok {
		if base < p.end {
			k.c.fail("I2: node %d has a batch at %v %d that nobody had when it was committed up to %d", node, tp, base, p.end)
		}
		p.committed[base] = batchSeen{bytes.Clone(batch), node, k.c.s.now}
		p.end = max(p.end, batch.NextOffset())
		k.matches(node, tp, batch)
	} else if !bytes.Equal(seen.Batch, batch) {
		k.c.fail("I2: node %d has %s at %v %d, which was %s on node %d at %v", node, show(batch), tp, base, show(seen.Batch), seen.node, seen.at)
	}
}

// matches checks a batch against what was acknowledged (I1).
func (k *checks) matches(node int32, tp topicPartition, batch record.Batch) {
	p := k.partition(tp)
	offset := batch.BaseOffset()
	_ = batch.Iterate(func(r *record.Record) error {
		if want, ok := p.acked[offset]; ok && want != string(r.Value) {
			k.c.fail("I1: %.30q was acknowledged at %v %d, node %d has %.30q", want, tp, offset, node, r.Value)
		}
		offset++
		return nil
	})
}

func show(batch record.Batch) string {
	first := ""
	_ = batch.Iterate(func(r *record.Record) error {
		if first == "" {
			first = string(r.Value)
		}
		return nil
	})
	return fmt.Sprintf("%d records of epoch %d from producer %d (%.30q)", batch.Count(), batch.LeaderEpoch(), batch.ProducerID(), first)
}

// compareEvery is the time between two looks at what is committed.
const compareEvery = 100 * time.Millisecond

// compareSome looks at what became committed on each node since the last look.
func (c *Cluster) compareSome() {
	for id := int32(1); id <= nodeCount; id++ {
		n := c.nodes[id]
		if n.process == nil || n.life.paused {
			continue
		}
		n.manager.Each(func(r *replica.Replica) {
			if r.Log() == nil || r.Failure() != nil || r.Role() == replica.Offline || strings.HasPrefix(r.Topic(), "__") {
				return
			}
			key := topicPartition{r.Topic(), r.Index()}
			from, known := n.checked[key]
			high := min(r.HighWatermark(), r.Log().EndOffset())
			if !known { // a process that began: not all of it each time, but all that nobody saw yet
				from = max(r.Log().StartOffset(), min(high, c.checks.partition(key).end)-int64(c.s.random.IntN(200)))
			}
			n.checked[key] = max(from, c.checks.compare(n.id, r, from, high))
		})
	}
	c.outside.after(compareEvery, c.compareSome)
}

// compare reads the log of a replica from an offset up to high, and returns where it ended.
func (k *checks) compare(node int32, r *replica.Replica, from, high int64) int64 {
	tp := topicPartition{r.Topic(), r.Index()}
	for from < high {
		data, err := r.Log().Read(nil, from, high, 1<<20, true)
		if errors.Is(err, errSick) {
			return from // its time will come
		}
		if err != nil {
			k.c.fail("I1: node %d cannot read %v at %d: %v", node, tp, from, err)
			return high
		}
		if len(data) == 0 {
			return from
		}
		for len(data) > 0 {
			batch, rest, err := record.Parse(data)
			if err != nil {
				k.c.fail("I2: node %d has no batch at %v %d: %v", node, tp, from, err)
				return high
			}
			k.committedBatch(node, tp, batch)
			from, data = batch.NextOffset(), rest
		}
	}
	return from
}

// settled says that all replicas of a partition have all of it committed.
func (c *Cluster) settled(t *metadata.Topic, m *metadata.Partition) bool {
	end := int64(-1)
	for _, id := range m.Replicas {
		r, err := c.nodes[id].manager.Replica(t.ID, m.ID)
		if err != nil || r.Log() == nil || r.Failure() != nil {
			return false
		}
		if end < 0 {
			end = r.Log().EndOffset()
		}
		if r.Log().EndOffset() != end || r.HighWatermark() != end || r.Log().SyncedOffset() != end {
			return false
		}
	}
	return true
}

// compareAll reads everything from every node in the end.
func (k *checks) compareAll() {
	k.topicsAreAs()
	c := k.c
	for _, t := range c.nodes[1].log.published.Topics() {
		for i := range t.Partitions {
			m := &t.Partitions[i]
			tp := topicPartition{t.Name, m.ID}
			for _, id := range m.Replicas {
				r, err := c.nodes[id].manager.Replica(t.ID, m.ID)
				if err != nil {
					c.fail("I1: node %d has no replica of %v: %v", id, tp, err)
					continue
				}
				k.compare(id, r, r.Log().StartOffset(), r.Log().EndOffset())
				k.acked(id, tp, r)
			}
			k.sequences(tp)
		}
	}
}

// acked checks that a replica has all that was acknowledged (I1).
func (k *checks) acked(node int32, tp topicPartition, r *replica.Replica) {
	p := k.partition(tp)
	end := r.Log().EndOffset()
	for offset, value := range p.acked {
		if offset >= end {
			k.c.fail("I1: %.30q was acknowledged at %v %d, node %d ends at %d", value, tp, offset, node, end)
			return
		}
	}
}

// sequences checks that each producer's records are there once and in order (I3), and
// with what was acknowledged at their offsets (I1).
func (k *checks) sequences(tp topicPartition) {
	p := k.partition(tp)
	next := map[int64]int32{}
	for offset := int64(0); offset < p.end; {
		batch := p.committed[offset].Batch
		if batch == nil {
			k.c.fail("I2: nothing is known of %v at %d", tp, offset)
			return
		}
		k.matches(0, tp, batch)
		_ = batch.Iterate(func(r *record.Record) error {
			want := fmt.Sprintf("%d:%d:", batch.ProducerID(), next[batch.ProducerID()])
			if !strings.HasPrefix(string(r.Value), want) {
				k.c.fail("I3: %v has %.30q at %d, the producer's next is %q", tp, r.Value, offset, want)
			}
			next[batch.ProducerID()]++
			offset++
			return nil
		})
		offset = batch.NextOffset()
	}
}
