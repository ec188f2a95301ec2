package txn

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ErrBadRecord says that a record of `__transaction_state` cannot be read.
var ErrBadRecord = errors.New("txn: record cannot be decoded")

// valueVersion is the version of the values written: the one with tagged fields,
// of Kafka 4 (KIP-915).
const valueVersion = 1

func recordKey(id string) []byte {
	key := kmsg.TxnMetadataKey{TransactionalID: id}
	return key.AppendTo(nil)
}

// record is the record of a transactional id as it is.
func (t *transaction) record() coordinator.Record {
	v := kmsg.NewTxnMetadataValue()
	v.Version = valueVersion
	v.ProducerID, v.ProducerEpoch = t.producerID, t.epoch
	v.PreviousProducerID, v.NextProducerID = t.previousID, t.nextID
	v.TimeoutMillis = int32(t.timeout.Milliseconds())
	v.State, v.ClientTransactionVersion = kmsg.TransactionState(t.state), t.version
	v.LastUpdateTimestamp, v.StartTimestamp = t.updated, t.started
	for _, p := range t.sorted() {
		if n := len(v.Topics); n == 0 || v.Topics[n-1].Topic != p.Topic {
			v.Topics = append(v.Topics, kmsg.TxnMetadataValueTopic{Topic: p.Topic})
		}
		last := &v.Topics[len(v.Topics)-1]
		last.Partitions = append(last.Partitions, p.Partition)
	}
	return coordinator.Record{Key: recordKey(t.id), Value: v.AppendTo(nil)}
}

// Replay implements coordinator.Shard.
func (s *Shard) Replay(r coordinator.Record, _ int64) error {
	if len(r.Key) < 2 {
		return fmt.Errorf("%w: a key of %d bytes", ErrBadRecord, len(r.Key))
	}
	if binary.BigEndian.Uint16(r.Key) != 0 {
		return nil // a kind that a later version writes
	}
	var key kmsg.TxnMetadataKey
	if err := key.ReadFrom(r.Key); err != nil {
		return fmt.Errorf("%w: key: %w", ErrBadRecord, err)
	}
	old := s.ids[key.TransactionalID]
	if old != nil && old.heapAt >= 0 {
		heap.Remove(&s.deadlines, old.heapAt)
	}
	if r.Value == nil {
		delete(s.ids, key.TransactionalID)
		return nil
	}
	if err := wire.TxnMetadataValue.Check(r.Value); err != nil {
		return fmt.Errorf("%w: transactional id %q: %w", ErrBadRecord, key.TransactionalID, err)
	}
	var v kmsg.TxnMetadataValue
	if err := v.ReadFrom(r.Value); err != nil {
		return fmt.Errorf("%w: transactional id %q: %w", ErrBadRecord, key.TransactionalID, err)
	}
	t, err := transactionOf(key.TransactionalID, &v)
	if err != nil {
		return err
	}
	if old != nil {
		t.lastEpoch = old.lastEpoch
	}
	s.ids[t.id] = t
	if t.state == Ongoing {
		t.deadline = t.started + t.timeout.Milliseconds()
		heap.Push(&s.deadlines, t)
	}
	return nil
}

func transactionOf(id string, v *kmsg.TxnMetadataValue) (*transaction, error) {
	t := &transaction{id: id, producerID: v.ProducerID, epoch: v.ProducerEpoch, previousID: v.PreviousProducerID, nextID: v.NextProducerID,
		timeout: time.Duration(v.TimeoutMillis) * time.Millisecond, state: State(v.State), version: v.ClientTransactionVersion,
		started: v.StartTimestamp, updated: v.LastUpdateTimestamp, partitions: map[TopicPartition]struct{}{}, lastEpoch: -1, heapAt: -1}
	if t.state < Empty || t.state > CompleteAbort {
		return nil, fmt.Errorf("%w: transactional id %q in state %d", ErrBadRecord, id, t.state)
	}
	for _, topic := range v.Topics {
		for _, p := range topic.Partitions {
			t.partitions[TopicPartition{topic.Topic, p}] = struct{}{}
		}
	}
	return t, nil
}
