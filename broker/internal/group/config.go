package group

import "time"

// Config are the settings of the group coordinator, by Kafka's names.
type Config struct {
	// MinSessionTimeout is group.min.session.timeout.ms.
	MinSessionTimeout time.Duration
	// MaxSessionTimeout is group.max.session.timeout.ms.
	MaxSessionTimeout time.Duration
	// InitialRebalanceDelay is group.initial.rebalance.delay.ms: how long an empty
	// group waits for more members after the first.
	InitialRebalanceDelay time.Duration
	// MaxSize is group.max.size, the most members of a group.
	MaxSize int
	// OffsetsRetention is offsets.retention.minutes.
	OffsetsRetention time.Duration
	// OffsetsRetentionCheck is offsets.retention.check.interval.ms.
	OffsetsRetentionCheck time.Duration
	// OffsetMetadataMaxSize is offset.metadata.max.bytes.
	OffsetMetadataMaxSize int
	// ConsumerSessionTimeout is group.consumer.session.timeout.ms.
	ConsumerSessionTimeout time.Duration
	// ConsumerHeartbeatInterval is group.consumer.heartbeat.interval.ms: how often members
	// of the consumer protocol are told to beat.
	ConsumerHeartbeatInterval time.Duration
	// ConsumerMaxSize is group.consumer.max.size, the most members of a group of the
	// consumer protocol.
	ConsumerMaxSize int
	// ConsumerAssignors is group.consumer.assignors: those that members may choose, the
	// first being that of members which do not.
	ConsumerAssignors []string
	// MigrationPolicy is group.consumer.migration.policy.
	MigrationPolicy MigrationPolicy
	// Topics returns the newest metadata that this node has.
	Topics func() Topics
	// TopicExists says whether a topic exists in the newest metadata that this node
	// has. A shard that was just loaded forgets the offsets of topics that do not: they
	// were deleted while nobody coordinated it. A commit for one is refused. nil says
	// that every topic exists.
	TopicExists func(topic string) bool
	// NewID returns a text that is unique: the tail of new member ids.
	NewID func() string
}

// DefaultConfig returns Kafka's defaults. NewID and Topics must be set.
func DefaultConfig() Config {
	return Config{
		MinSessionTimeout:     6 * time.Second,
		MaxSessionTimeout:     30 * time.Minute,
		InitialRebalanceDelay: 3 * time.Second,
		MaxSize:               1<<31 - 1,
		OffsetsRetention:      7 * 24 * time.Hour,
		OffsetsRetentionCheck: 10 * time.Minute,
		OffsetMetadataMaxSize: 4096,

		ConsumerSessionTimeout:    45 * time.Second,
		ConsumerHeartbeatInterval: 5 * time.Second,
		ConsumerMaxSize:           1<<31 - 1,
		ConsumerAssignors:         Assignors(),
		MigrationPolicy:           MigrateBoth,
	}
}

// newMemberJoinTimeout is how long a new member's join may take before it is
// given up, whatever its session timeout says.
const newMemberJoinTimeout = 5 * time.Minute

// PartitionFor returns the partition of `__consumer_offsets` that holds a group:
// Java's hash code of its id, modulo the number of partitions.
func PartitionFor(groupID string, partitions int32) int32 {
	var hash int32
	for _, r := range groupID {
		if r >= 0x10000 { // Java hashes UTF-16 units
			r -= 0x10000
			hash = 31*hash + 0xd800 + r>>10
			r = 0xdc00 + r&0x3ff
		}
		hash = 31*hash + r
	}
	if hash == -1<<31 {
		return 0
	}
	return max(hash, -hash) % partitions
}
