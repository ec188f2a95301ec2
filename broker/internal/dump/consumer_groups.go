package dump

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kbin"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
)

// Kinds of the records of groups of the consumer protocol (KIP-848), by the version of
// their keys.
const (
	groupEpochKind       = 3
	memberKind           = 5
	targetEpochKind      = 6
	targetAssignmentKind = 7
	assignmentKind       = 8
	regexKind            = 16
)

// memberStates are the states of members by their number in a record.
var memberStates = []string{"stable", "to give partitions back", "waiting for partitions"}

// decodeConsumerGroup decodes a record of a group of the consumer protocol; what a later
// version adds in tagged fields is left out.
func decodeConsumerGroup(kind uint16, r *record.Record) ([]field, error) {
	key := kbin.Reader{Src: r.Key[2:]}
	fields := []field{{"consumer group", key.String()}}
	switch kind {
	case memberKind, targetAssignmentKind, assignmentKind:
		fields = append(fields, field{"member", key.String()})
	case regexKind:
		fields = append(fields, field{"regular expression", key.String()})
	}
	if err := key.Complete(); err != nil {
		return nil, fmt.Errorf("key of kind %d: %w", kind, err)
	}
	if r.Value == nil {
		return append(fields, field{"removed", true}), nil
	}
	v := kbin.Reader{Src: r.Value}
	if version := v.Int16(); version != 0 {
		return nil, fmt.Errorf("value of kind %d: version %d is not known", kind, version)
	}
	switch kind {
	case groupEpochKind:
		fields = append(fields, field{"epoch", v.Int32()})
	case memberKind:
		fields = append(fields, field{"instance", v.CompactNullableString()}, field{"rack", v.CompactNullableString()},
			field{"client", v.CompactString()}, field{"host", v.CompactString()}, field{"topics", texts(&v)},
			field{"subscribes to", v.CompactNullableString()}, field{"rebalance timeout ms", v.Int32()}, field{"assignor", v.CompactNullableString()})
	case targetEpochKind:
		fields = append(fields, field{"target assignment of epoch", v.Int32()})
	case targetAssignmentKind:
		fields = append(fields, field{"target", partitionsOf(&v)})
	case assignmentKind:
		fields = append(fields, field{"member epoch", v.Int32()}, field{"previous epoch", v.Int32()})
		state := "unknown"
		if n := int(v.Int8()); n >= 0 && n < len(memberStates) {
			state = memberStates[n]
		}
		fields = append(fields, field{"state", state}, field{"assigned", partitionsOf(&v)}, field{"to be given back", partitionsOf(&v)})
	case regexKind:
		fields = append(fields, field{"topics", texts(&v)}, field{"metadata offset", v.Int64()}, field{"at", timestamp(v.Int64())})
	}
	if !v.Ok() {
		return nil, fmt.Errorf("value of kind %d is cut off", kind)
	}
	return fields, nil
}

// texts reads an array of texts; nothing is set aside for what it claims to hold.
func texts(v *kbin.Reader) []string {
	list := []string{}
	for n := v.CompactArrayLen(); n > 0 && v.Ok(); n-- {
		list = append(list, v.CompactString())
	}
	return list
}

// partitionsOf reads an assignment: the partitions by topic id.
func partitionsOf(v *kbin.Reader) string {
	var list []string
	for n := v.CompactArrayLen(); n > 0 && v.Ok(); n-- {
		id := v.Uuid()
		partitions := []int32{}
		for m := v.CompactArrayLen(); m > 0 && v.Ok(); m-- {
			partitions = append(partitions, v.Int32())
		}
		for tags := v.Uvarint(); tags > 0 && v.Ok(); tags-- {
			v.Uvarint()
			v.Span(int(v.Uvarint()))
		}
		list = append(list, fmt.Sprintf("%s%v", metadata.UUID(id), partitions))
	}
	return strings.Join(list, " ")
}
