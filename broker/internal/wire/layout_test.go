package wire

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// stateValue is what kmsg's values of state records have in common.
type stateValue interface {
	AppendTo([]byte) []byte
	ReadFrom([]byte) error
}

// stateValues are values with something in every field, of the given version.
var stateValues = []struct {
	layout *Layout
	value  func(version int16) stateValue
}{
	{OffsetCommitValue, func(version int16) stateValue {
		v := kmsg.NewOffsetCommitValue()
		v.Version, v.Offset, v.LeaderEpoch, v.Metadata, v.CommitTimestamp, v.ExpireTimestamp = version, 1, 2, "m", 3, 4
		v.TopicID = [16]byte{1}
		return &v
	}},
	{GroupMetadataValue, func(version int16) stateValue {
		v := kmsg.NewGroupMetadataValue()
		name := "a"
		v.Version, v.ProtocolType, v.Generation, v.Protocol, v.Leader, v.CurrentStateTimestamp = version, "consumer", 1, &name, &name, 2
		m := kmsg.NewGroupMetadataValueMember()
		m.MemberID, m.InstanceID, m.ClientID, m.ClientHost, m.Subscription, m.Assignment = "m", &name, "c", "h", []byte{1}, []byte{2, 3}
		v.Members = append(v.Members, m, kmsg.NewGroupMetadataValueMember())
		return &v
	}},
	{TxnMetadataValue, func(version int16) stateValue {
		v := kmsg.NewTxnMetadataValue()
		v.Version, v.ProducerID, v.ProducerEpoch, v.NextProducerID, v.State = version, 1, 2, 3, 4
		v.Topics = []kmsg.TxnMetadataValueTopic{{Topic: "t", Partitions: []int32{1, 2}}, {}}
		return &v
	}},
}

// TestLayoutsMatchKmsg: what kmsg encodes is accepted, and nothing that ends earlier.
func TestLayoutsMatchKmsg(t *testing.T) {
	for _, s := range stateValues {
		for version := range s.layout.last + 1 {
			b := s.value(version).AppendTo(nil)
			if err := s.layout.Check(b); err != nil {
				t.Errorf("%T version %d: %v", s.value(0), version, err)
			}
			for n := range b {
				if err := s.layout.Check(b[:n]); !errors.Is(err, ErrMalformed) {
					t.Errorf("%T version %d, %d of %d bytes: %v", s.value(0), version, n, len(b), err)
				}
			}
		}
		b := s.value(s.layout.last + 1).AppendTo(nil)
		if err := s.layout.Check(b); !errors.Is(err, ErrUnsupportedVersion) {
			t.Errorf("%T of a later version: %v", s.value(0), err)
		}
	}
}

// TestLayoutsAllowWhatALogTakes: no state that was written is too much to be read again.
func TestLayoutsAllowWhatALogTakes(t *testing.T) {
	v := kmsg.NewTxnMetadataValue()
	v.Version = 1
	for i := range 200_000 {
		v.Topics = append(v.Topics, kmsg.TxnMetadataValueTopic{Topic: fmt.Sprint(i), Partitions: []int32{0}})
	}
	if err := TxnMetadataValue.Check(v.AppendTo(nil)); err != nil {
		t.Error(err)
	}
}

// FuzzLayouts: what a layout accepts kmsg reads or refuses at once.
func FuzzLayouts(f *testing.F) {
	for i, s := range stateValues {
		for version := range s.layout.last + 1 {
			f.Add(uint8(i), s.value(version).AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		s := stateValues[int(which)%len(stateValues)]
		if s.layout.Check(b) == nil {
			_ = s.value(0).ReadFrom(b)
		}
	})
}
