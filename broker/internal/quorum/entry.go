package quorum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/leatlog/leat/broker/internal/record"
)

// Types of the control records in the metadata log: the second int16 of their
// key. Kafka's own is used where it has one.
const (
	controlLeaderChange = 2
	controlVoterChange  = 100
	controlConfState    = 101
)

var errBadEntry = errors.New("quorum: batch is not an entry of the metadata log")

// newEntryBatch builds the batch that a proposal puts into the log. Its offset
// and epoch are set when it is stored.
func newEntryBatch(value []byte, timestamp int64) []byte {
	b := record.NewBuilder(record.CodecNone)
	b.Append(timestamp, nil, value, nil)
	return b.Build(nil)
}

// newControlBatch builds a control batch of one record. Control batches carry
// timestamp 0, so that every replica stores the same bytes.
func newControlBatch(kind int16, value []byte) []byte {
	key := binary.BigEndian.AppendUint16(nil, 0)
	key = binary.BigEndian.AppendUint16(key, uint16(kind))
	b := record.NewBuilder(record.CodecNone)
	b.SetControl()
	b.Append(0, key, value, nil)
	return b.Build(nil)
}

// batchOf returns the bytes to store for a raft entry, its place set.
func batchOf(e *raftpb.Entry) record.Batch {
	var batch record.Batch
	switch {
	case e.GetType() != raftpb.EntryNormal:
		value := append([]byte{byte(e.GetType())}, e.GetData()...)
		batch = newControlBatch(controlVoterChange, value)
	case len(e.GetData()) == 0:
		batch = newControlBatch(controlLeaderChange, nil)
	default:
		// Raft's entries are shared with messages in flight: patch a copy.
		batch = append(record.Batch(nil), e.GetData()...)
	}
	batch.SetBaseOffset(int64(e.GetIndex()) - 1)
	batch.SetLeaderEpoch(int32(e.GetTerm()))
	return batch
}

// entryOf is the reverse of batchOf. The entry owns its data.
func entryOf(batch record.Batch) (*raftpb.Entry, error) {
	index, term := uint64(batch.BaseOffset())+1, uint64(batch.LeaderEpoch())
	if batch.Count() != 1 || batch.LeaderEpoch() < 0 {
		return nil, fmt.Errorf("%w: offset %d has %d records in epoch %d", errBadEntry, batch.BaseOffset(), batch.Count(), batch.LeaderEpoch())
	}
	kind := raftpb.EntryNormal
	if !batch.IsControl() {
		data := append([]byte(nil), batch...)
		return &raftpb.Entry{Index: &index, Term: &term, Type: &kind, Data: data}, nil
	}
	control, value, err := controlOf(batch)
	if err != nil {
		return nil, err
	}
	switch {
	case control == controlLeaderChange:
		return &raftpb.Entry{Index: &index, Term: &term, Type: &kind}, nil
	case control == controlVoterChange && len(value) > 0:
		kind = raftpb.EntryType(value[0])
		return &raftpb.Entry{Index: &index, Term: &term, Type: &kind, Data: value[1:]}, nil
	}
	return nil, fmt.Errorf("%w: offset %d has control type %d", errBadEntry, batch.BaseOffset(), control)
}

// controlOf returns type and value of a control batch's only record.
func controlOf(batch record.Batch) (kind int16, value []byte, err error) {
	r, err := onlyRecord(batch)
	if err != nil {
		return 0, nil, err
	}
	if !batch.IsControl() || len(r.Key) < 4 {
		return 0, nil, fmt.Errorf("%w: offset %d is no control batch", errBadEntry, batch.BaseOffset())
	}
	return int16(binary.BigEndian.Uint16(r.Key[2:])), r.Value, nil
}

// valueOf returns value and timestamp of the record a proposal put into an entry.
func valueOf(data []byte) (value []byte, timestamp int64, err error) {
	r, err := onlyRecord(record.Batch(data))
	if err != nil {
		return nil, 0, err
	}
	return r.Value, r.Timestamp, nil
}

// onlyRecord returns a copy of the record in a batch of one.
func onlyRecord(batch record.Batch) (record.Record, error) {
	it := record.NewIterator(batch, len(batch))
	defer it.Close()
	if batch.Count() != 1 || !it.Next() {
		return record.Record{}, errors.Join(fmt.Errorf("%w: offset %d: want one record, have %d", errBadEntry, batch.BaseOffset(), batch.Count()), it.Err())
	}
	r := *it.Record()
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	return r, nil
}
