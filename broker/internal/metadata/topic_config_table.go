package metadata

// ConfigType is the type of a configuration value, as DescribeConfigs reports it
// (KIP-569).
type ConfigType int8

// The types, by Kafka's numbers.
const (
	BooleanConfig ConfigType = 1
	StringConfig  ConfigType = 2
	IntConfig     ConfigType = 3
	LongConfig    ConfigType = 5
	DoubleConfig  ConfigType = 6
	ListConfig    ConfigType = 7
)

// TopicKey describes one topic configuration.
type TopicKey struct {
	Name    string
	Type    ConfigType
	Default string
	// Synonyms are the broker configurations that set the default for topics that
	// do not set the value, the strongest first.
	Synonyms []Synonym
	// Unused says why setting the value changes nothing in this version; empty
	// when it is honoured. Unused values are validated, stored and described, since
	// clients set them when they create topics.
	Unused string
	Doc    string

	min, max float64                     // bounds of numbers
	oneOf    []string                    // allowed strings or list items
	check    func(items []string) string // says what is wrong with a list; nil for no more
}

// Synonym is a broker configuration in which a topic configuration's default may
// be written; its value times Factor is the topic's.
type Synonym struct {
	Name   string
	Factor int64
}

const (
	notFlushed = "the broker's flush setting decides when records are made durable"
	maxInt64   = "9223372036854775807"
	hour       = 3_600_000 // milliseconds
)

func same(name string) []Synonym { return []Synonym{{name, 1}} }

// topicKeys is sorted by name. Defaults are those of Kafka 4.
var topicKeys = []TopicKey{
	{Name: "cleanup.policy", Type: ListConfig, Default: "delete", Synonyms: same("log.cleanup.policy"),
		oneOf: []string{"delete", "compact"},
		Doc:   "What happens to old segments: delete removes them by retention.ms and retention.bytes; compact keeps the last record of each key."},
	{Name: "compression.type", Type: StringConfig, Default: "producer", Synonyms: same("compression.type"),
		oneOf: []string{"uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"},
		Doc:   "The codec of the stored batches, into which the leader converts them; producer keeps the producer's, and costs nothing."},
	{Name: "delete.retention.ms", Type: LongConfig, Default: "86400000", Synonyms: same("log.cleaner.delete.retention.ms"),
		max: 1 << 63,
		Doc: "How long compaction keeps tombstones, in milliseconds."},
	{Name: "file.delete.delay.ms", Type: LongConfig, Default: "60000", Synonyms: same("log.segment.delete.delay.ms"),
		max: 1 << 63, Unused: "files are removed at once",
		Doc: "How long a file stays on disk after it left the log, in milliseconds."},
	{Name: "flush.messages", Type: LongConfig, Default: maxInt64, Synonyms: same("log.flush.interval.messages"),
		min: 1, max: 1 << 63, Unused: notFlushed,
		Doc: "Records after which the log is flushed."},
	{Name: "flush.ms", Type: LongConfig, Default: maxInt64, Synonyms: same("log.flush.interval.ms"),
		max: 1 << 63, Unused: notFlushed,
		Doc: "Milliseconds after which the log is flushed."},
	{Name: "follower.replication.throttled.replicas", Type: ListConfig, Default: "",
		check: checkThrottled,
		Doc:   "Replicas whose replication is throttled on the follower: *, or partition:broker each."},
	{Name: "index.interval.bytes", Type: IntConfig, Default: "4096", Synonyms: same("log.index.interval.bytes"),
		max: 1<<31 - 1,
		Doc: "Bytes of log between two entries of the offset index."},
	{Name: "leader.replication.throttled.replicas", Type: ListConfig, Default: "",
		check: checkThrottled,
		Doc:   "Replicas whose replication is throttled on the leader: *, or partition:broker each."},
	{Name: "max.compaction.lag.ms", Type: LongConfig, Default: maxInt64, Synonyms: same("log.cleaner.max.compaction.lag.ms"),
		min: 1, max: 1 << 63,
		Doc: "The longest a record stays uncompacted, in milliseconds."},
	{Name: "max.message.bytes", Type: IntConfig, Default: "1048588", Synonyms: same("message.max.bytes"),
		max: 1<<31 - 1,
		Doc: "The largest record batch accepted, in bytes, its header included."},
	{Name: "message.timestamp.after.max.ms", Type: LongConfig, Default: "3600000", Synonyms: same("log.message.timestamp.after.max.ms"),
		max: 1 << 63,
		Doc: "How far a record's timestamp may be ahead of the broker's clock, in milliseconds (KIP-937)."},
	{Name: "message.timestamp.before.max.ms", Type: LongConfig, Default: maxInt64, Synonyms: same("log.message.timestamp.before.max.ms"),
		max: 1 << 63,
		Doc: "How far a record's timestamp may be behind the broker's clock, in milliseconds (KIP-937)."},
	{Name: "message.timestamp.type", Type: StringConfig, Default: "CreateTime", Synonyms: same("log.message.timestamp.type"),
		oneOf: []string{"CreateTime", "LogAppendTime"},
		Doc:   "Whether records keep the producer's timestamp or get the time of the append."},
	{Name: "min.cleanable.dirty.ratio", Type: DoubleConfig, Default: "0.5", Synonyms: same("log.cleaner.min.cleanable.ratio"),
		max: 1,
		Doc: "The share of uncompacted bytes from which a log is compacted."},
	{Name: "min.compaction.lag.ms", Type: LongConfig, Default: "0", Synonyms: same("log.cleaner.min.compaction.lag.ms"),
		max: 1 << 63,
		Doc: "The shortest a record stays uncompacted, in milliseconds."},
	{Name: "min.insync.replicas", Type: IntConfig, Default: "1", Synonyms: same("min.insync.replicas"),
		min: 1, max: 1<<31 - 1,
		Doc: "In-sync replicas that must hold a record before acks=all is answered; with fewer in sync, it is refused."},
	{Name: "preallocate", Type: BooleanConfig, Default: "false", Synonyms: same("log.preallocate"),
		Unused: "active segments are always preallocated",
		Doc:    "Whether disk space of a new segment is reserved at once."},
	{Name: "retention.bytes", Type: LongConfig, Default: "-1", Synonyms: same("log.retention.bytes"),
		min: -1, max: 1 << 63,
		Doc: "The size to which a partition's old segments are removed, in bytes; -1: no limit."},
	{Name: "retention.ms", Type: LongConfig, Default: "604800000",
		Synonyms: []Synonym{{"log.retention.ms", 1}, {"log.retention.minutes", 60_000}, {"log.retention.hours", hour}},
		min:      -1, max: 1 << 63,
		Doc: "How long records are kept at least, in milliseconds; -1: for ever."},
	{Name: "segment.bytes", Type: IntConfig, Default: "1073741824", Synonyms: same("log.segment.bytes"),
		min: 1024, max: 1<<31 - 1,
		Doc: "The size at which a new segment file is begun, in bytes."},
	{Name: "segment.index.bytes", Type: IntConfig, Default: "10485760", Synonyms: same("log.index.size.max.bytes"),
		min: 4, max: 1<<31 - 1,
		Doc: "The size of an offset index at which a new segment is begun, in bytes."},
	{Name: "segment.jitter.ms", Type: LongConfig, Default: "0",
		Synonyms: []Synonym{{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hour}},
		max:      1 << 63, Unused: "segments are rolled at segment.ms exactly",
		Doc: "The most that is randomly taken off segment.ms, in milliseconds."},
	{Name: "segment.ms", Type: LongConfig, Default: "604800000",
		Synonyms: []Synonym{{"log.roll.ms", 1}, {"log.roll.hours", hour}},
		min:      1, max: 1 << 63,
		Doc: "The age at which a new segment file is begun, in milliseconds."},
	{Name: "unclean.leader.election.enable", Type: BooleanConfig, Default: "false", Synonyms: same("unclean.leader.election.enable"),
		Doc: "Whether a replica that is not in sync may lead when no other can, losing records."},
}
