package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Layouts of the values that kmsg decodes, of the topics `__consumer_offsets` and
// `__transaction_state`.
var (
	OffsetCommitValue  = newLayout("offset int64, leader_epoch int32@3+, metadata string, commit_timestamp int64, expire_timestamp int64@1-1", 4, 4)
	GroupMetadataValue = newLayout("protocol_type string, generation int32, protocol string?, leader string?, current_state_timestamp int64@2+, "+
		"members []{member_id string, instance_id string?@3+, client_id string, client_host string, rebalance_timeout_millis int32@1+, "+
		"session_timeout_millis int32, subscription bytes, assignment bytes}", 4, 4)
	TxnMetadataValue = newLayout("producer_id int64, producer_epoch int16, timeout_millis int32, state int8, "+
		"topics []?{topic string, partitions []int32}, last_update_timestamp int64, start_timestamp int64", 1, 1)
)

// Layout tells how the value of a state record is laid out, so that it can be checked
// before kmsg decodes it.
type Layout struct {
	root     *field
	last     int16 // the newest version known
	flexible int16 // the first version with tagged fields
}

// newLayout compiles a schema, written as those of requests are. The value begins with its
// version, an int16 that the schema leaves out: 0 to last are known, and have tagged fields
// from flexible on. It panics when the schema is wrong, a mistake of the program.
func newLayout(schema string, last, flexible int16) *Layout {
	root, err := compile(schema)
	if err != nil {
		panic(err)
	}
	return &Layout{root: root, last: last, flexible: flexible}
}

// Check returns nil when kmsg can decode the value in time and memory that its size bounds,
// otherwise an error that wraps ErrMalformed or, for a version that is not known,
// ErrUnsupportedVersion. It does not allocate.
func (l *Layout) Check(value []byte) error {
	if len(value) < 2 {
		return fmt.Errorf("%w: the value %w", ErrMalformed, errShort)
	}
	version := int16(binary.BigEndian.Uint16(value))
	if version < 0 || version > l.last {
		return fmt.Errorf("%w: the value has version %d, known are 0 to %d", ErrUnsupportedVersion, version, l.last)
	}
	// A record is bounded by what a log takes; what it costs to answer does not count.
	g := guard{rest: value[2:], version: version, flexible: version >= l.flexible, memory: math.MinInt}
	if err := g.structure(l.root); err != nil {
		return fmt.Errorf("%w: the value %w", ErrMalformed, err)
	}
	return nil
}
