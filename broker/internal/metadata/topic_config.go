package metadata

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrConfig says that a configuration name or value is not allowed; the message
// says which and why.
var ErrConfig = errors.New("invalid configuration")

// TopicKeys returns the topic configurations by name. The slice is shared.
func TopicKeys() []TopicKey { return topicKeys }

// LookupTopicKey returns the description of a topic configuration.
func LookupTopicKey(name string) (*TopicKey, bool) {
	n, ok := slices.BinarySearchFunc(topicKeys, name, func(k TopicKey, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return nil, false
	}
	return &topicKeys[n], true
}

// Validate checks a value for the configuration, as Kafka does.
func (k *TopicKey) Validate(value string) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: Invalid value %.100s for configuration %s: %s", ErrConfig, value, k.Name, fmt.Sprintf(format, args...))
	}
	switch k.Type {
	case BooleanConfig:
		if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
			return invalid("Expected value to be either true or false")
		}
	case IntConfig, LongConfig:
		bits, name := 64, "LONG"
		if k.Type == IntConfig {
			bits, name = 32, "INT"
		}
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, bits)
		if err != nil {
			return invalid("Not a number of type %s", name)
		}
		if float64(n) < k.min {
			return invalid("Value must be at least %v", k.min)
		}
	case DoubleConfig:
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || math.IsNaN(n) {
			return invalid("Not a number of type DOUBLE")
		}
		if n < k.min || n > k.max {
			return invalid("Value must be between %v and %v", k.min, k.max)
		}
	case StringConfig:
		if k.oneOf != nil && !slices.Contains(k.oneOf, value) {
			return invalid("String must be one of: %s", strings.Join(k.oneOf, ", "))
		}
	case ListConfig:
		items := SplitList(value)
		for _, item := range items {
			if k.oneOf != nil && !slices.Contains(k.oneOf, item) {
				return invalid("String must be one of: %s", strings.Join(k.oneOf, ", "))
			}
		}
		if k.oneOf != nil && len(items) == 0 {
			return invalid("at least one of %s is needed", strings.Join(k.oneOf, ", "))
		}
		if k.check != nil {
			if complaint := k.check(items); complaint != "" {
				return invalid("%s", complaint)
			}
		}
	}
	return nil
}

// SplitList splits the value of a list configuration at its commas.
func SplitList(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// ValidateTopicConfig checks one name and value.
func ValidateTopicConfig(name, value string) error {
	k, ok := LookupTopicKey(name)
	if !ok {
		return fmt.Errorf("%w: Unknown topic config name: %.100s", ErrConfig, name)
	}
	return k.Validate(value)
}

// TopicConfig is a topic's configuration with all defaults filled in. Times are
// in milliseconds; see Duration.
type TopicConfig struct {
	Delete, Compact       bool // cleanup.policy
	CompressionType       string
	RetentionMs           int64 // -1: for ever
	RetentionBytes        int64 // -1: no limit
	SegmentBytes          int32
	SegmentMs             int64
	SegmentIndexBytes     int32
	IndexIntervalBytes    int32
	MaxMessageBytes       int32
	LogAppendTime         bool // message.timestamp.type
	TimestampBeforeMaxMs  int64
	TimestampAfterMaxMs   int64
	MinInSyncReplicas     int32
	DeleteRetentionMs     int64
	MinCleanableRatio     float64
	MinCompactionLagMs    int64
	MaxCompactionLagMs    int64
	FileDeleteDelayMs     int64
	UncleanLeaderElection bool
	LeaderThrottled       ThrottledReplicas
	FollowerThrottled     ThrottledReplicas
}

// ParseTopicConfig resolves layers of topic configuration: what is set in a later
// layer wins over an earlier one, and over Kafka's default. Usually the layers are
// the broker's defaults and what is set on the topic. Unknown names and invalid
// values fail with ErrConfig.
func ParseTopicConfig(layers ...map[string]string) (TopicConfig, error) {
	for _, layer := range layers {
		for _, name := range ConfigNames(layer) {
			if err := ValidateTopicConfig(name, layer[name]); err != nil {
				return TopicConfig{}, err
			}
		}
	}
	v := values(layers)
	c := TopicConfig{
		CompressionType: v.text("compression.type"),
		RetentionMs:     v.number("retention.ms"), RetentionBytes: v.number("retention.bytes"),
		SegmentBytes: int32(v.number("segment.bytes")), SegmentMs: v.number("segment.ms"),
		SegmentIndexBytes: int32(v.number("segment.index.bytes")), IndexIntervalBytes: int32(v.number("index.interval.bytes")),
		MaxMessageBytes:      int32(v.number("max.message.bytes")),
		LogAppendTime:        v.text("message.timestamp.type") == "LogAppendTime",
		TimestampBeforeMaxMs: v.number("message.timestamp.before.max.ms"),
		TimestampAfterMaxMs:  v.number("message.timestamp.after.max.ms"),
		MinInSyncReplicas:    int32(v.number("min.insync.replicas")),
		DeleteRetentionMs:    v.number("delete.retention.ms"),
		MinCompactionLagMs:   v.number("min.compaction.lag.ms"), MaxCompactionLagMs: v.number("max.compaction.lag.ms"),
		FileDeleteDelayMs:     v.number("file.delete.delay.ms"),
		UncleanLeaderElection: strings.EqualFold(v.text("unclean.leader.election.enable"), "true"),
	}
	c.MinCleanableRatio, _ = strconv.ParseFloat(strings.TrimSpace(v.text("min.cleanable.dirty.ratio")), 64)
	c.LeaderThrottled, c.FollowerThrottled = SplitList(v.text(LeaderThrottledReplicas)), SplitList(v.text(FollowerThrottleReplicas))
	policies := SplitList(v.text("cleanup.policy"))
	c.Delete, c.Compact = slices.Contains(policies, "delete"), slices.Contains(policies, "compact")
	if c.MinCompactionLagMs > c.MaxCompactionLagMs {
		return TopicConfig{}, fmt.Errorf("%w: min.compaction.lag.ms %d is larger than max.compaction.lag.ms %d",
			ErrConfig, c.MinCompactionLagMs, c.MaxCompactionLagMs)
	}
	return c, nil
}

// values looks a validated value up, the last layer first.
type values []map[string]string

func (v values) text(name string) string {
	for n := len(v) - 1; n >= 0; n-- {
		if value, ok := v[n][name]; ok {
			return value
		}
	}
	k, _ := LookupTopicKey(name)
	return k.Default
}

func (v values) number(name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(v.text(name)), 10, 64)
	return n
}

// Duration turns milliseconds into a duration; what exceeds one becomes the
// longest, about 292 years. Negative values, Kafka's "no limit", stay negative.
func Duration(ms int64) time.Duration {
	if ms > math.MaxInt64/int64(time.Millisecond) {
		return math.MaxInt64
	}
	return time.Duration(ms) * time.Millisecond
}

// TopicDefault translates a broker configuration to the topic configuration whose
// default it sets: log.retention.hours=1 to retention.ms=3600000. rank orders the
// synonyms of one topic configuration: when several are given, the lowest wins. ok
// is false when name sets no topic default.
func TopicDefault(name, value string) (topicName, topicValue string, rank int, ok bool, err error) {
	for n := range topicKeys {
		k := &topicKeys[n]
		for rank, s := range k.Synonyms {
			if s.Name != name {
				continue
			}
			if s.Factor != 1 {
				number, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				if err != nil || number > math.MaxInt64/s.Factor || number < -1 {
					return "", "", 0, true, fmt.Errorf("%w: Invalid value %.100s for configuration %s: Not a number of type INT", ErrConfig, value, name)
				}
				if number >= 0 {
					number *= s.Factor
				}
				value = strconv.FormatInt(number, 10)
			}
			if err := k.Validate(value); err != nil {
				return "", "", 0, true, fmt.Errorf("%s: %w", name, err)
			}
			return k.Name, value, rank, true, nil
		}
	}
	return "", "", 0, false, nil
}

// ConfigSource says where a value comes from, by the numbers DescribeConfigs uses.
type ConfigSource int8

// The sources (KIP-226).
const (
	TopicSource          ConfigSource = 1 // set on the topic
	DynamicBrokerSource  ConfigSource = 2 // set on the broker at run time
	DynamicClusterSource ConfigSource = 3 // set at run time for all brokers
	StaticSource         ConfigSource = 4 // the broker's configuration file or command line
	DefaultSource        ConfigSource = 5 // Kafka's default
)

// ConfigEntry is one topic configuration as DescribeConfigs shows it.
type ConfigEntry struct {
	Key      *TopicKey
	Value    string
	Source   ConfigSource
	Synonyms []ConfigSynonym // all the places that give a value, the one in force first
}

// ConfigSynonym is one place that gives a value.
type ConfigSynonym struct {
	Name   string
	Value  string
	Source ConfigSource
}

// ConfigLayers are the places that give topic configurations, the strongest first.
type ConfigLayers struct {
	Topic   map[string]string // set on the topic
	Broker  map[string]string // set on the broker at run time, by broker configurations
	Cluster map[string]string // set for all brokers at run time, by broker configurations
	Static  map[string]string // set at the broker's start, by the topic configuration's name (see TopicDefault)
}

// TopicLayers returns the layers for a topic's configuration as broker sees it; -1 for
// no broker.
func (i *Image) TopicLayers(topic map[string]string, broker int32, static map[string]string) ConfigLayers {
	l := ConfigLayers{Topic: topic, Cluster: i.brokerConfigs[-1], Static: static}
	if broker >= 0 {
		l.Broker = i.brokerConfigs[broker]
	}
	return l
}

// DescribeTopicConfig lists all topic configurations by name.
func DescribeTopicConfig(layers ConfigLayers) []ConfigEntry {
	entries := make([]ConfigEntry, 0, len(topicKeys))
	for n := range topicKeys {
		k := &topicKeys[n]
		brokerName := k.Name
		if len(k.Synonyms) > 0 {
			brokerName = k.Synonyms[0].Name
		}
		e := ConfigEntry{Key: k}
		if v, ok := layers.Topic[k.Name]; ok {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{k.Name, v, TopicSource})
		}
		if v, ok := k.defaultIn(layers.Broker); ok {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{brokerName, v, DynamicBrokerSource})
		}
		if v, ok := k.defaultIn(layers.Cluster); ok {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{brokerName, v, DynamicClusterSource})
		}
		if v, ok := layers.Static[k.Name]; ok {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{brokerName, v, StaticSource})
		}
		e.Synonyms = append(e.Synonyms, ConfigSynonym{brokerName, k.Default, DefaultSource})
		e.Value, e.Source = e.Synonyms[0].Value, e.Synonyms[0].Source
		entries = append(entries, e)
	}
	return entries
}
