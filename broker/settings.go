package broker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// setting is one broker configuration by Kafka's name.
type setting struct {
	name string
	kind metadata.ConfigType
	doc  string
	set  func(c *Config, value string) error
	get  func(c *Config) string
}

// settings are the names Set knows besides those that set defaults of topic
// configurations. "flush" and "flush.interval.ms" are Leat's own.
var settings = []setting{
	text("log.dirs", "The directory of all the broker's files; one.", func(c *Config) *string { return &c.DataDir }),
	text("log.dir", "Another name of log.dirs.", func(c *Config) *string { return &c.DataDir }),
	text("broker.rack", "The node's rack or zone.", func(c *Config) *string { return &c.Rack }),
	number("node.id", "The node's id in its cluster; 0: that of the data directory, or one the cluster gives.", func(c *Config) *int32 { return &c.NodeID }),
	number("broker.id", "Another name of node.id.", func(c *Config) *int32 { return &c.NodeID }),
	{"replica.selector.class", metadata.StringConfig, "Where consumers that tell their rack read: " + leaderSelector + " or " + rackSelector + ", which sends them to an in-sync replica in it.",
		setSelector,
		func(c *Config) string {
			if c.RackAware {
				return rackSelector
			}
			return leaderSelector
		}},
	{"process.roles", metadata.ListConfig, "The node's roles: broker, controller.",
		func(c *Config, v string) error { c.Roles = metadata.SplitList(v); return nil },
		func(c *Config) string { return strings.Join(c.Roles, ",") }},
	text("cluster.name", "The name under which nodes find one another; others are not heard.", func(c *Config) *string { return &c.ClusterName }),
	text("inter.node.listener", "The address other nodes connect to, HOST:PORT; default: the host of listeners and a free port.", func(c *Config) *string { return &c.Internal }),
	{"gossip.encryption.key", metadata.StringConfig, "Keys of 16, 24 or 32 bytes in base64, with commas between them, that the nodes of a cluster share: the first encrypts gossip, and a node that knows none is refused.",
		func(c *Config, v string) error { c.GossipKeys = metadata.SplitList(v); return nil },
		func(c *Config) string { return "" }},
	toggle("controller.quorum.auto.join.enable", "Whether this controller becomes a voter of the metadata quorum by itself.", func(c *Config) *bool { return &c.AutoJoin }),
	{"listeners", metadata.ListConfig, "The address clients connect to: PLAINTEXT://HOST:PORT.",
		func(c *Config, v string) (err error) { c.Listen, err = plaintext(v); return err },
		func(c *Config) string { return "PLAINTEXT://" + c.Listen }},
	{"advertised.listeners", metadata.ListConfig, "The address clients are told: PLAINTEXT://HOST:PORT.",
		func(c *Config, v string) (err error) { c.Advertise, err = plaintext(v); return err },
		func(c *Config) string {
			if c.Advertise == "" {
				return ""
			}
			return "PLAINTEXT://" + c.Advertise
		}},
	{"flush", metadata.StringConfig, "When acknowledged means on disk: sync, interval or os.",
		func(c *Config, v string) error { c.Flush = FlushMode(v); return nil },
		func(c *Config) string { return string(c.Flush) }},
	millis("flush.interval.ms", "The time between two fsyncs with flush=interval.", func(c *Config) *time.Duration { return &c.FlushInterval }),
	number("disk.min.free.bytes", "What records leave free of the disk for what the cluster notes about itself; with less, appends are refused as on a full disk.", func(c *Config) *int64 { return &c.MinFree }),
	negated("auto.create.topics.enable", "Whether asking for a topic's metadata creates it.", func(c *Config) *bool { return &c.Topics.NoAutoCreate }),
	negated("delete.topic.enable", "Whether topics can be deleted.", func(c *Config) *bool { return &c.Topics.NoDelete }),
	number("num.partitions", "Partitions of a topic created without a number.", func(c *Config) *int32 { return &c.Topics.Partitions }),
	number("default.replication.factor", "Replicas of a topic created without a number.", func(c *Config) *int16 { return &c.Topics.Replication }),
	number("offsets.topic.replication.factor", "Replicas of __consumer_offsets when it is created; -1: 3, or as many as there are brokers then.", func(c *Config) *int16 { return &c.Topics.OffsetsReplication }),
	number("offsets.topic.num.partitions", "Partitions of __consumer_offsets when it is created.", func(c *Config) *int32 { return &c.Topics.OffsetsPartitions }),
	number("transaction.state.log.replication.factor", "Replicas of __transaction_state when it is created; -1: 3, or as many as there are brokers then.", func(c *Config) *int16 { return &c.Transactions.Replication }),
	number("transaction.state.log.num.partitions", "Partitions of __transaction_state when it is created.", func(c *Config) *int32 { return &c.Transactions.Partitions }),
	number("transaction.state.log.min.isr", "Replicas of __transaction_state that must be in sync, if it has so many.", func(c *Config) *int16 { return &c.Transactions.MinISR }),
	millis("transaction.max.timeout.ms", "The longest that a client may keep a transaction open.", func(c *Config) *time.Duration { return &c.Transactions.MaxTimeout }),
	millis("transactional.id.expiration.ms", "After how long without use a transactional id is forgotten.", func(c *Config) *time.Duration { return &c.Transactions.Expiration }),
	millis("log.retention.check.interval.ms", "The time between two looks for old segments.", func(c *Config) *time.Duration { return &c.Topics.RetentionCheck }),
	{"group.initial.rebalance.delay.ms", metadata.IntConfig, "How long an empty group's first member waits for others.",
		setRebalanceDelay,
		func(c *Config) string {
			return strconv.FormatInt(max(c.Groups.InitialRebalanceDelay, 0).Milliseconds(), 10)
		}},
	millis("group.min.session.timeout.ms", "The shortest session timeout of a group member.", func(c *Config) *time.Duration { return &c.Groups.MinSession }),
	millis("group.max.session.timeout.ms", "The longest session timeout of a group member.", func(c *Config) *time.Duration { return &c.Groups.MaxSession }),
	number("group.max.size", "The most members of a group.", func(c *Config) *int32 { return &c.Groups.MaxSize }),
	duration("offsets.retention.minutes", "How long offsets of a group without members are kept.", time.Minute, func(c *Config) *time.Duration { return &c.Groups.OffsetsRetention }),
	number("offset.metadata.max.bytes", "The longest text stored with an offset.", func(c *Config) *int32 { return &c.Groups.OffsetMetadataBytes }),
	millis("group.consumer.session.timeout.ms", "How long a member of the consumer protocol (KIP-848) may be silent.", func(c *Config) *time.Duration { return &c.Groups.Consumer.Session }),
	millis("group.consumer.heartbeat.interval.ms", "How often members of the consumer protocol are told to beat.", func(c *Config) *time.Duration { return &c.Groups.Consumer.Heartbeat }),
	number("group.consumer.max.size", "The most members of a group of the consumer protocol.", func(c *Config) *int32 { return &c.Groups.Consumer.MaxSize }),
	{"group.consumer.assignors", metadata.ListConfig, "The assignors of the consumer protocol, uniform and range; the first is the default.",
		func(c *Config, v string) error { c.Groups.Consumer.Assignors = metadata.SplitList(v); return nil },
		func(c *Config) string { return strings.Join(c.Groups.Consumer.Assignors, ",") }},
	{"group.consumer.migration.policy", metadata.StringConfig, "Which groups change between the classic and the consumer protocol while they have members: bidirectional, upgrade, downgrade or disabled.",
		func(c *Config, v string) error { c.Groups.Consumer.Migration = strings.ToLower(v); return nil },
		func(c *Config) string { return c.Groups.Consumer.Migration }},
	number("socket.request.max.bytes", "The largest request.", func(c *Config) *int32 { return &c.Limits.RequestBytes }),
	number("fetch.max.bytes", "The largest fetch response.", func(c *Config) *int32 { return &c.Limits.FetchBytes }),
	number("max.incremental.fetch.session.cache.slots", "The most incremental fetch sessions.", func(c *Config) *int32 { return &c.Limits.FetchSessions }),
	number("max.connections", "The most connections.", func(c *Config) *int32 { return &c.Limits.Connections }),
	millis("connections.max.idle.ms", "After how long a silent connection is closed.", func(c *Config) *time.Duration { return &c.Limits.ConnectionIdle }),
	negated("log.cleaner.enable", "Whether topics with cleanup.policy=compact are compacted.", func(c *Config) *bool { return &c.Cleaner.Off }),
	millis("log.cleaner.backoff.ms", "The time between two looks for logs to compact.", func(c *Config) *time.Duration { return &c.Cleaner.Interval }),
	number("log.cleaner.dedupe.buffer.size", "Memory for the keys of a pass of compaction, in bytes.", func(c *Config) *int64 { return &c.Cleaner.DedupeBytes }),
	{"log.cleaner.io.max.bytes.per.second", metadata.DoubleConfig, "What compaction may read and write in a second, in bytes; unlimited by default.",
		setCleanerRate,
		func(c *Config) string { return strconv.FormatFloat(c.Cleaner.rate(), 'g', -1, 64) }},
	negated("log.verify.enable", "Whether logs are read from time to time to find damage that no reader has met.", func(c *Config) *bool { return &c.Verify.Off }),
	millis("log.verify.interval.ms", "The time between two passes of that over all logs; the first begins within a minute of the start.", func(c *Config) *time.Duration { return &c.Verify.Interval }),
	number("log.verify.max.bytes.per.second", "What that may read in a second, in bytes.", func(c *Config) *int64 { return &c.Verify.BytesPerSecond }),
	millis("producer.id.expiration.ms", "How long an idle producer's state is kept.", func(c *Config) *time.Duration { return &c.Limits.ProducerIDExpiration }),
	millis("broker.heartbeat.interval.ms", "The time between two heartbeats of a broker.", func(c *Config) *time.Duration { return &c.Cluster.Heartbeat }),
	negated("auto.leader.rebalance.enable", "Whether leaders are moved back to the first of their replicas.", func(c *Config) *bool { return &c.Cluster.NoLeaderRebalance }),
	duration("leader.imbalance.check.interval.seconds", "The time between two looks for leaders to move back.", time.Second, func(c *Config) *time.Duration { return &c.Cluster.ImbalanceCheck }),
	number("leader.imbalance.per.broker.percentage", "The share of a broker's partitions that others may lead before leaders are moved back.", func(c *Config) *int32 { return &c.Cluster.ImbalancePercent }),
	toggle("auto.partition.rebalance.enable", "Whether the controller moves replicas by itself when brokers hold too different numbers of them, as after one was added.", func(c *Config) *bool { return &c.Cluster.PartitionRebalance }),
	duration("partition.imbalance.check.interval.seconds", "The time between two looks for replicas to move.", time.Second, func(c *Config) *time.Duration { return &c.Cluster.PartitionCheck }),
	number("partition.imbalance.per.broker.percentage", "The share of the average number of replicas by which brokers may differ before replicas are moved.", func(c *Config) *int32 { return &c.Cluster.PartitionPercent }),
	number("partition.rebalance.max.concurrent", "The most partitions that are moved by that at the same time.", func(c *Config) *int32 { return &c.Cluster.PartitionMoves }),
	millis("replica.lag.time.max.ms", "How long an in-sync replica may be behind its leader before it is in sync no more.", func(c *Config) *time.Duration { return &c.Cluster.ReplicaLag }),
	millis("broker.session.timeout.ms", "The silence after which a broker is fenced.", func(c *Config) *time.Duration { return &c.Cluster.Session }),
}

// ignoredSettings are names of Kafka that many configuration files hold and that
// mean nothing here. They are taken and named in the log at start.
var ignoredSettings = map[string]string{
	"num.network.threads":                              "connections have a goroutine each",
	"num.io.threads":                                   "there is no pool of request threads",
	"num.recovery.threads.per.data.dir":                "recovery reads one segment per partition",
	"num.replica.fetchers":                             "there is one fetcher for each leader",
	"socket.send.buffer.bytes":                         "the operating system sizes socket buffers",
	"socket.receive.buffer.bytes":                      "the operating system sizes socket buffers",
	"log.cleaner.threads":                              "one goroutine compacts",
	"log.cleaner.io.buffer.size":                       "the buffers of compaction have a fixed size",
	"share.coordinator.state.topic.replication.factor": "this version has no share groups",
	"share.coordinator.state.topic.min.isr":            "this version has no share groups",
	"controller.quorum.voters":                         "the first voters find one another: --bootstrap-expect",
	"controller.quorum.bootstrap.servers":              "nodes find one another by gossip: --join",
	"controller.listener.names":                        "controllers are reached at inter.node.listener",
	"inter.broker.listener.name":                       "brokers are reached at inter.node.listener",
	"listener.security.protocol.map":                   "this version serves PLAINTEXT only",
}

// Set changes a setting by Kafka's broker configuration name: node.id, listeners,
// log.retention.hours and so on; flush and flush.interval.ms are Leat's own. An
// unknown name and a value that cannot be read fail with ErrConfig; what is
// allowed together is checked by Start.
func (c *Config) Set(name, value string) error {
	value = strings.TrimSpace(value)
	if s := findSetting(name); s != nil {
		if err := s.set(c, value); err != nil {
			return invalid(name, value, err.Error())
		}
		return nil
	}
	topicName, topicValue, rank, ok, err := metadata.TopicDefault(name, value)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrConfig, err)
	case ok:
		c.setTopicDefault(topicName, topicValue, rank)
		return nil
	}
	if reason, ok := ignoredSettings[name]; ok {
		c.ignored = append(c.ignored, name+": "+reason)
		return nil
	}
	return invalid(name, value, "there is no such setting; the names are those of Kafka's brokers that docs/configuration.md lists")
}

// setTopicDefault keeps the value of the strongest synonym: log.retention.ms wins
// over log.retention.hours whichever comes first.
func (c *Config) setTopicDefault(name, value string, rank int) {
	if c.Topics.Defaults == nil {
		c.Topics.Defaults = map[string]string{}
	}
	if c.defaultRanks == nil {
		c.defaultRanks = map[string]int{}
	}
	if was, ok := c.defaultRanks[name]; ok && was < rank {
		return
	}
	c.Topics.Defaults[name], c.defaultRanks[name] = value, rank
}

func findSetting(name string) *setting {
	n := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if n < 0 {
		return nil
	}
	return &settings[n]
}

// SetFrom reads a file in the form of Kafka's server.properties: lines of
// name=value, blank lines, and comments that begin with # or !. The error names
// the line.
func (c *Config) SetFrom(file io.Reader) error {
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("%w: line %d: %.100q is not name=value", ErrConfig, n, line)
		}
		if err := c.Set(strings.TrimSpace(name), value); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return lines.Err()
}

func text(name, doc string, field func(*Config) *string) setting {
	return setting{name, metadata.StringConfig, doc,
		func(c *Config, v string) error { *field(c) = v; return nil },
		func(c *Config) string { return *field(c) }}
}

func number[T int16 | int32 | int64](name, doc string, field func(*Config) *T) setting {
	kind := metadata.IntConfig
	if _, long := any(T(0)).(int64); long {
		kind = metadata.LongConfig
	}
	return setting{name, kind, doc,
		func(c *Config, v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || int64(T(n)) != n {
				return errors.New("must be an integer")
			}
			// Zero stands for the default in Config, and no number here may be zero.
			if n == 0 {
				return errors.New("must not be 0")
			}
			*field(c) = T(n)
			return nil
		},
		func(c *Config) string { return strconv.FormatInt(int64(*field(c)), 10) }}
}

func setCleanerRate(c *Config, v string) error {
	rate, err := strconv.ParseFloat(v, 64)
	if err != nil || !(rate > 0) {
		return errors.New("must be a number above 0")
	}
	c.Cleaner.BytesPerSecond = rate
	return nil
}

func millis(name, doc string, field func(*Config) *time.Duration) setting {
	return duration(name, doc, time.Millisecond, field)
}

func duration(name, doc string, unit time.Duration, field func(*Config) *time.Duration) setting {
	return setting{name, metadata.LongConfig, doc,
		func(c *Config, v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 1 || n > math.MaxInt64/int64(unit) {
				return errors.New("must be an integer of 1 or more")
			}
			*field(c) = time.Duration(n) * unit
			return nil
		},
		func(c *Config) string { return strconv.FormatInt(int64(*field(c)/unit), 10) }}
}

func toggle(name, doc string, field func(*Config) *bool) setting {
	return setting{name, metadata.BooleanConfig, doc,
		func(c *Config, v string) error {
			on, err := strconv.ParseBool(strings.ToLower(v))
			if err != nil {
				return errors.New("must be true or false")
			}
			*field(c) = on
			return nil
		},
		func(c *Config) string { return strconv.FormatBool(*field(c)) }}
}

// negated is a switch that Kafka words the other way round than the field.
func negated(name, doc string, field func(*Config) *bool) setting {
	return setting{name, metadata.BooleanConfig, doc,
		func(c *Config, v string) error {
			switch strings.ToLower(v) {
			case "true":
				*field(c) = false
			case "false":
				*field(c) = true
			default:
				return errors.New("must be true or false")
			}
			return nil
		},
		func(c *Config) string { return strconv.FormatBool(!*field(c)) }}
}

// The values of replica.selector.class, as Kafka names them.
const (
	leaderSelector = "org.apache.kafka.common.replica.LeaderSelector"
	rackSelector   = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
)

func setSelector(c *Config, v string) error {
	switch v {
	case "", leaderSelector:
		c.RackAware = false
	case rackSelector:
		c.RackAware = true
	default:
		return errors.New("must be " + leaderSelector + " or " + rackSelector)
	}
	return nil
}

func setRebalanceDelay(c *Config, v string) error {
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil || n < 0 {
		return errors.New("must be an integer of 0 or more")
	}
	c.Groups.InitialRebalanceDelay = time.Duration(n) * time.Millisecond
	if n == 0 {
		c.Groups.InitialRebalanceDelay = -1
	}
	return nil
}

// plaintext reads PLAINTEXT://HOST:PORT.
func plaintext(v string) (string, error) {
	address, ok := strings.CutPrefix(v, "PLAINTEXT://")
	if !ok || strings.Contains(address, ",") {
		return "", errors.New("must be one listener, PLAINTEXT://HOST:PORT")
	}
	if _, _, err := splitAddress(address); err != nil {
		return "", err
	}
	return address, nil
}

// Setting is one broker configuration as it is in force.
type Setting struct {
	Name, Value, Default, Doc string
	Type                      metadata.ConfigType
}

// Settings lists the broker configurations by name, with those that set defaults
// of topic configurations.
func (c *Config) Settings() []Setting {
	var list []Setting
	d := DefaultConfig()
	for _, s := range settings {
		list = append(list, Setting{s.name, s.get(c), s.get(&d), s.doc, s.kind})
	}
	for _, k := range metadata.TopicKeys() {
		if len(k.Synonyms) == 0 {
			continue
		}
		value, ok := c.Topics.Defaults[k.Name]
		if !ok {
			value = k.Default
		}
		list = append(list, Setting{k.Synonyms[0].Name, value, k.Default, "The default of topics' " + k.Name + ". " + k.Doc, k.Type})
	}
	slices.SortFunc(list, func(a, b Setting) int { return strings.Compare(a.Name, b.Name) })
	return list
}
