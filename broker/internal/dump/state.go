package dump

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/wire"
)

// state says how the records of a topic are decoded.
type state int

const (
	noState       state = iota // the records are some client's
	offsetsState               // __consumer_offsets
	transactState              // __transaction_state
	metadataState              // __cluster_metadata
)

// stateOf tells from the name of a partition's folder.
func stateOf(folder string) state {
	i := strings.LastIndexByte(folder, '-')
	if i < 0 {
		return noState
	}
	switch folder[:i] {
	case "__consumer_offsets":
		return offsetsState
	case "__transaction_state":
		return transactState
	case "__cluster_metadata":
		return metadataState
	}
	return noState
}

// decode returns what a state record says; nil when it is none.
func (s state) decode(r *record.Record) ([]field, error) {
	switch s {
	case offsetsState:
		return decodeOffsets(r)
	case transactState:
		return decodeTransaction(r)
	case metadataState:
		if !json.Valid(r.Value) {
			return nil, fmt.Errorf("metadata of %d bytes is no JSON", len(r.Value))
		}
		return []field{{"metadata", json.RawMessage(append([]byte(nil), r.Value...))}}, nil
	}
	return nil, nil
}

func decodeOffsets(r *record.Record) ([]field, error) {
	if len(r.Key) < 2 {
		return nil, fmt.Errorf("key of %d bytes", len(r.Key))
	}
	switch version := binary.BigEndian.Uint16(r.Key); version {
	case 0, 1:
		return decodeOffset(r)
	case 2:
		return decodeGroup(r)
	case groupEpochKind, memberKind, targetEpochKind, targetAssignmentKind, assignmentKind, regexKind:
		return decodeConsumerGroup(version, r)
	default:
		return nil, fmt.Errorf("key version %d is not known", version)
	}
}

func decodeOffset(r *record.Record) ([]field, error) {
	var key kmsg.OffsetCommitKey
	if err := key.ReadFrom(r.Key); err != nil {
		return nil, fmt.Errorf("key of an offset: %w", err)
	}
	fields := []field{{"group", key.Group}, {"topic", key.Topic}, {"partition", key.Partition}}
	if r.Value == nil {
		return append(fields, field{"removed", true}), nil
	}
	value := kmsg.NewOffsetCommitValue()
	if err := decode(wire.OffsetCommitValue, &value, r.Value); err != nil {
		return nil, fmt.Errorf("value of an offset: %w", err)
	}
	fields = append(fields, field{"committed", value.Offset}, field{"committed at", timestamp(value.CommitTimestamp)})
	if value.Version >= 3 {
		fields = append(fields, field{"leader epoch", value.LeaderEpoch})
	}
	return append(fields, field{"metadata", value.Metadata}), nil
}

// decode lets kmsg decode a value that it can read to its end.
func decode(l *wire.Layout, v interface{ ReadFrom([]byte) error }, value []byte) error {
	if err := l.Check(value); err != nil {
		return err
	}
	return v.ReadFrom(value)
}

func decodeGroup(r *record.Record) ([]field, error) {
	var key kmsg.GroupMetadataKey
	if err := key.ReadFrom(r.Key); err != nil {
		return nil, fmt.Errorf("key of a group: %w", err)
	}
	fields := []field{{"group", key.Group}}
	if r.Value == nil {
		return append(fields, field{"removed", true}), nil
	}
	value := kmsg.NewGroupMetadataValue()
	if err := decode(wire.GroupMetadataValue, &value, r.Value); err != nil {
		return nil, fmt.Errorf("value of a group: %w", err)
	}
	members := make([]string, len(value.Members))
	for i := range value.Members {
		members[i] = value.Members[i].MemberID
	}
	return append(fields, field{"generation", value.Generation}, field{"protocol type", value.ProtocolType}, field{"protocol", value.Protocol},
		field{"leader", value.Leader}, field{"members", members}), nil
}

// transactionStates are the states by their number in a record.
var transactionStates = []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

func decodeTransaction(r *record.Record) ([]field, error) {
	var key kmsg.TxnMetadataKey
	if err := key.ReadFrom(r.Key); err != nil {
		return nil, fmt.Errorf("key of a transaction: %w", err)
	}
	fields := []field{{"transactional id", key.TransactionalID}}
	if r.Value == nil {
		return append(fields, field{"removed", true}), nil
	}
	var value kmsg.TxnMetadataValue
	if err := decode(wire.TxnMetadataValue, &value, r.Value); err != nil {
		return nil, fmt.Errorf("value of transaction %q: %w", key.TransactionalID, err)
	}
	name := fmt.Sprint(int8(value.State))
	if i := int(value.State); i >= 0 && i < len(transactionStates) {
		name = transactionStates[i]
	}
	partitions := []string{}
	for i := range value.Topics {
		for _, p := range value.Topics[i].Partitions {
			partitions = append(partitions, fmt.Sprintf("%s-%d", value.Topics[i].Topic, p))
		}
	}
	return append(fields, field{"state", word(name)}, field{"producer id", value.ProducerID}, field{"producer epoch", value.ProducerEpoch},
		field{"timeout ms", value.TimeoutMillis}, field{"partitions", partitions},
		field{"updated", timestamp(value.LastUpdateTimestamp)}, field{"started", timestamp(value.StartTimestamp)}), nil
}
