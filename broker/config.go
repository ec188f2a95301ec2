package broker

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/group"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// ErrConfig says that a setting is not allowed. The message is one line that
// names the setting, its value and what is allowed.
var ErrConfig = errors.New("invalid setting")

// FlushMode says when an acknowledged record is on disk.
type FlushMode string

// The flush modes. The laxer ones are logged at start and shown by DescribeConfigs.
const (
	// FlushSync answers acks=all after the records were fsynced. The default.
	FlushSync FlushMode = "sync"
	// FlushInterval fsyncs every Config.FlushInterval and does not wait for it: a
	// crash of the machine loses what was acknowledged since.
	FlushInterval FlushMode = "interval"
	// FlushOS never fsyncs what it appends, as Apache Kafka does by default: a crash
	// of the machine loses what the operating system had not written.
	FlushOS FlushMode = "os"
)

// The roles of a node.
const (
	BrokerRole     = "broker"
	ControllerRole = "controller"
)

// DefaultGossip is where a node that is to have others gossips, unless told otherwise.
const DefaultGossip = "127.0.0.1:7946"

// Config configures a Broker. Start from DefaultConfig; zero fields of a literal
// take the same defaults. Set changes a field by Kafka's configuration name.
type Config struct {
	// NodeID is the node's id in its cluster, 1 or more; it is kept in the data
	// directory, which no other id can open. Default: that of the directory, or one that
	// the cluster gives.
	NodeID int32
	// DataDir is the directory of all the broker's files; created when missing.
	// Required unless Environment.FS is in memory.
	DataDir string
	// Listen is the address clients connect to, host:port; port 0 takes a free one.
	// Default 127.0.0.1:9092. Ignored when Listener is set.
	Listen string
	// Listener, when set, is served instead of Listen and closed with the broker. It
	// need not be a TCP listener.
	Listener net.Listener
	// Advertise is the host:port that clients are told to connect to. Default: where
	// the listener is bound; required when that is all interfaces (0.0.0.0, ::).
	Advertise string
	// Admin is the address of /healthz, /readyz and /metrics, host:port. Default:
	// none. They have no authentication: keep it on loopback.
	Admin string
	// Gossip is the address other nodes find this one at, host:port, UDP and TCP; port 0
	// takes a free one. Default: none, and no other node can join; with Join or
	// BootstrapExpect 127.0.0.1:7946.
	Gossip string
	// Join are gossip addresses of other nodes, of which one is enough.
	Join []string
	// BootstrapExpect is the number of controllers that form a new cluster: when as many
	// have found one another, they do, once. Default 1: this node alone, or with Join
	// none, the node joins a cluster that is there. It means nothing in a directory that
	// is in a cluster already.
	BootstrapExpect int
	// ClusterName is the name under which nodes find one another: those of another name
	// are not heard. Default "leat".
	ClusterName string
	// GossipKeys are keys of 16, 24 or 32 bytes, in base64, that the nodes of a cluster
	// share: gossip is encrypted with the first, and nodes that do not know one of them
	// are refused. Default: none, every node that reaches this one can join.
	GossipKeys []string
	// Internal is the address that the other nodes connect to, host:port. Default: the
	// host of Listen and a free port, which stays the same over restarts while it is
	// free.
	Internal string
	// AutoJoin makes this node a voter of the metadata quorum once it has caught up, if
	// it is a controller; also in place of what it was before it lost its disk. Default:
	// it observes.
	AutoJoin bool
	// Roles are the node's: BrokerRole and ControllerRole, which is the default. A
	// broker without ControllerRole never votes; a controller without BrokerRole has no
	// partitions.
	Roles []string
	// Rack is the node's rack or zone, shown to clients (broker.rack).
	Rack string
	// RackAware sends consumers that tell their rack (client.rack) to a replica in it, if
	// that is in sync. Default: they read from the leader (replica.selector.class).
	RackAware bool
	// Flush is when acknowledged means on disk. Default FlushSync.
	Flush FlushMode
	// FlushInterval is the time between two fsyncs in mode FlushInterval. Default 1 s.
	FlushInterval time.Duration
	// MinFree is how many bytes of the disk records leave free for what the cluster notes
	// about itself; with fewer, appends are refused as on a full disk. Default 64 MiB
	// (disk.min.free.bytes).
	MinFree int64

	// Topics are what topics get that do not say otherwise.
	Topics TopicSettings
	// Groups bound consumer groups.
	Groups       GroupSettings
	Transactions TransactionSettings
	Cleaner      CleanerSettings
	Verify       VerifySettings
	// Limits bound what clients may ask for.
	Limits LimitSettings
	// Cluster times the metadata quorum and the liveness of brokers.
	Cluster ClusterSettings
	// Environment is the world the broker runs in; zero is the real one.
	Environment Environment

	ignored      []string       // settings of Kafka that were given and mean nothing here
	defaultRanks map[string]int // which synonym set a default of Topics.Defaults
}

// TopicSettings are what topics get that do not say otherwise.
type TopicSettings struct {
	// NoAutoCreate refuses to create a topic because a client asked for its metadata
	// (auto.create.topics.enable=false).
	NoAutoCreate bool
	// NoDelete refuses DeleteTopics (delete.topic.enable=false).
	NoDelete bool
	// Partitions of a topic created without a number. Default 1 (num.partitions).
	Partitions int32
	// Replication is the replication factor of a topic created without one. Default 1.
	Replication int16
	// OffsetsReplication is the replication factor of __consumer_offsets when it is created
	// (offsets.topic.replication.factor). Default -1: 3, or as many as there are brokers
	// then.
	OffsetsReplication int16
	// OffsetsPartitions is the number of partitions of __consumer_offsets, fixed when
	// it is created. Default 50.
	OffsetsPartitions int32
	// Defaults of topic configurations, by Kafka's topic configuration names. What
	// is not in it has Kafka's default.
	Defaults map[string]string
	// RetentionCheck is the time between two looks for old segments. Default 5 min
	// (log.retention.check.interval.ms).
	RetentionCheck time.Duration
}

// VerifySettings are those of the search for damage in logs.
type VerifySettings struct {
	// Off reads nothing but what clients ask for (log.verify.enable).
	Off bool
	// Interval is the time between two passes over all logs; the first begins within a
	// minute. Default 7 days (log.verify.interval.ms).
	Interval time.Duration
	// BytesPerSecond bounds what is read. Default 16 MiB
	// (log.verify.max.bytes.per.second).
	BytesPerSecond int64
}

// CleanerSettings are those of compaction.
type CleanerSettings struct {
	// Off keeps all records of topics with cleanup.policy=compact (log.cleaner.enable).
	Off bool
	// Interval is the time between two looks for logs to compact. Default 15 s
	// (log.cleaner.backoff.ms).
	Interval time.Duration
	// DedupeBytes bounds the memory for the keys of a pass. Default 128 MiB
	// (log.cleaner.dedupe.buffer.size).
	DedupeBytes int64
	// BytesPerSecond bounds what is read and written. Default no limit
	// (log.cleaner.io.max.bytes.per.second).
	BytesPerSecond float64
}

// rate is the limit as Kafka writes it.
func (c *CleanerSettings) rate() float64 {
	if c.BytesPerSecond <= 0 {
		return math.MaxFloat64
	}
	return c.BytesPerSecond
}

// TransactionSettings are those of transactions.
type TransactionSettings struct {
	// Partitions is the number of partitions of __transaction_state, fixed when it is
	// created. Default 50 (transaction.state.log.num.partitions).
	Partitions int32
	// Replication is the replication factor of __transaction_state when it is created.
	// Default -1: 3, or as many as there are brokers then.
	Replication int16
	// MinISR is its min.insync.replicas, or all its replicas if they are fewer. Default 2
	// (transaction.state.log.min.isr).
	MinISR int16
	// MaxTimeout is the longest that a client may keep a transaction open. Default 15 min
	// (transaction.max.timeout.ms).
	MaxTimeout time.Duration
	// Expiration is after how long without use a transactional id is forgotten. Default 7
	// days (transactional.id.expiration.ms).
	Expiration time.Duration
}

// GroupSettings bound consumer groups.
type GroupSettings struct {
	// InitialRebalanceDelay is how long the first member of an empty group waits for
	// others. Default 3 s, as Kafka; negative means none.
	InitialRebalanceDelay time.Duration
	// MinSession and MaxSession bound a member's session timeout. Default 6 s, 30 min.
	MinSession, MaxSession time.Duration
	// MaxSize is the most members of a group. Default 2^31-1.
	MaxSize int32
	// OffsetsRetention is how long the offsets of a group without members are kept.
	// Default 7 days (offsets.retention.minutes).
	OffsetsRetention time.Duration
	// OffsetMetadataBytes bounds the text stored with an offset. Default 4096.
	OffsetMetadataBytes int32
	// Consumer is about groups of the consumer protocol (KIP-848).
	Consumer ConsumerGroupSettings
}

// ConsumerGroupSettings are those of groups of the consumer protocol, in which the
// broker assigns the partitions.
type ConsumerGroupSettings struct {
	// Session is how long a member may be silent. Default 45 s.
	Session time.Duration
	// Heartbeat is how often members are told to beat. Default 5 s.
	Heartbeat time.Duration
	// MaxSize is the most members of a group. Default 2^31-1.
	MaxSize int32
	// Assignors are those that members may choose, "uniform" and "range"; the first is that of
	// members which do not choose. Default both, in this order.
	Assignors []string
	// Migration says which groups change their protocol while they have members:
	// "bidirectional", "upgrade", "downgrade" or "disabled". Default bidirectional.
	Migration string
}

// LimitSettings bound what clients may ask for.
type LimitSettings struct {
	// RequestBytes is the largest request. Default 100 MiB (socket.request.max.bytes).
	RequestBytes int32
	// FetchBytes is the largest fetch response. Default 55 MiB (fetch.max.bytes).
	FetchBytes int32
	// FetchSessions is the most incremental fetch sessions. Default 1000.
	FetchSessions int32
	// Connections is the most connections. Default 10,000 (max.connections).
	Connections int32
	// ConnectionIdle is after how long a silent connection is closed. Default 10 min.
	ConnectionIdle time.Duration
	// ProducerIDExpiration is how long an idle producer's state is kept. Default 1 day.
	ProducerIDExpiration time.Duration
}

// ClusterSettings time the metadata quorum and the liveness of brokers.
type ClusterSettings struct {
	// Tick is that of raft's clock; ten without a leader make an election. Default 50 ms.
	Tick time.Duration
	// Heartbeat is the time between two of a broker's heartbeats. Default 2 s.
	Heartbeat time.Duration
	// Session is the silence after which a broker is fenced. Default 9 s.
	Session time.Duration
	// ReplicaLag is how long an in-sync replica may be behind its leader before it is in
	// sync no more. Default 30 s (replica.lag.time.max.ms).
	ReplicaLag time.Duration
	// NoLeaderRebalance leaves leaders where elections put them
	// (auto.leader.rebalance.enable=false).
	NoLeaderRebalance bool
	// ImbalanceCheck is the time between two looks for leaders that are not the first
	// of their replicas. Default 5 min (leader.imbalance.check.interval.seconds).
	ImbalanceCheck time.Duration
	// ImbalancePercent is the share of the partitions that a broker should lead which
	// others may lead before leaders are moved. Default 10
	// (leader.imbalance.per.broker.percentage).
	ImbalancePercent int32
	// PartitionRebalance has the active controller move replicas by itself when brokers
	// hold too different numbers of them, as after one was added
	// (auto.partition.rebalance.enable).
	PartitionRebalance bool
	// PartitionCheck is the time between two looks for that. Default 1 min
	// (partition.imbalance.check.interval.seconds).
	PartitionCheck time.Duration
	// PartitionPercent is the share of the average number of replicas by which brokers may
	// differ. Default 10 (partition.imbalance.per.broker.percentage).
	PartitionPercent int32
	// PartitionMoves is the most partitions that are moved so at the same time. Default 20
	// (partition.rebalance.max.concurrent).
	PartitionMoves int32
}

// spread is what the controller is told of moving replicas.
func (c *ClusterSettings) spread() controller.Spread {
	if !c.PartitionRebalance {
		return controller.Spread{}
	}
	return controller.Spread{Check: c.PartitionCheck, Percent: c.PartitionPercent, AtOnce: int(c.PartitionMoves)}
}

// imbalance is what the controller is told of it.
func (c *ClusterSettings) imbalance() controller.Imbalance {
	if c.NoLeaderRebalance {
		return controller.Imbalance{}
	}
	return controller.Imbalance{Check: c.ImbalanceCheck, Percent: c.ImbalancePercent}
}

// Environment is the world a broker runs in.
type Environment struct {
	// FS stores the files. Default: the operating system's.
	FS vfs.FS
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Random gives the bits of ids. Default: crypto/rand.
	Random io.Reader
	// Logger gets what happens. Default: nothing is logged.
	Logger *zerolog.Logger
}

// DefaultConfig returns the defaults; DataDir is empty.
func DefaultConfig() Config {
	var c Config
	c.setDefaults()
	return c
}

func (c *Config) setDefaults() {
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:9092")
	c.BootstrapExpect = cmp.Or(c.BootstrapExpect, 1)
	if c.Gossip == "" && (len(c.Join) > 0 || c.BootstrapExpect > 1) {
		c.Gossip = DefaultGossip
	}
	c.ClusterName = cmp.Or(c.ClusterName, "leat")
	if len(c.Roles) == 0 {
		c.Roles = []string{BrokerRole, ControllerRole}
	}
	c.Flush = cmp.Or(c.Flush, FlushSync)
	c.FlushInterval = cmp.Or(c.FlushInterval, time.Second)
	c.MinFree = cmp.Or(c.MinFree, 64<<20)

	t, g, l, k := &c.Topics, &c.Groups, &c.Limits, &c.Cluster
	t.Partitions = cmp.Or(t.Partitions, 1)
	t.Replication = cmp.Or(t.Replication, 1)
	t.OffsetsReplication = cmp.Or(t.OffsetsReplication, -1)
	t.OffsetsPartitions = cmp.Or(t.OffsetsPartitions, 50)
	t.RetentionCheck = cmp.Or(t.RetentionCheck, 5*time.Minute)
	c.Cleaner.Interval, c.Cleaner.DedupeBytes = cmp.Or(c.Cleaner.Interval, 15*time.Second), cmp.Or(c.Cleaner.DedupeBytes, 128<<20)
	c.Verify.Interval = cmp.Or(c.Verify.Interval, replica.DefaultVerifyInterval)
	c.Verify.BytesPerSecond = cmp.Or(c.Verify.BytesPerSecond, replica.DefaultVerifyBytesPerSecond)
	x := &c.Transactions
	x.Partitions, x.Replication, x.MinISR = cmp.Or(x.Partitions, 50), cmp.Or(x.Replication, -1), cmp.Or(x.MinISR, 2)
	x.MaxTimeout, x.Expiration = cmp.Or(x.MaxTimeout, 15*time.Minute), cmp.Or(x.Expiration, 7*24*time.Hour)
	g.InitialRebalanceDelay = cmp.Or(g.InitialRebalanceDelay, 3*time.Second)
	g.MinSession = cmp.Or(g.MinSession, 6*time.Second)
	g.MaxSession = cmp.Or(g.MaxSession, 30*time.Minute)
	g.MaxSize = cmp.Or(g.MaxSize, 1<<31-1)
	g.OffsetsRetention = cmp.Or(g.OffsetsRetention, 7*24*time.Hour)
	g.OffsetMetadataBytes = cmp.Or(g.OffsetMetadataBytes, 4096)
	g.Consumer.Session = cmp.Or(g.Consumer.Session, 45*time.Second)
	g.Consumer.Heartbeat = cmp.Or(g.Consumer.Heartbeat, 5*time.Second)
	g.Consumer.MaxSize = cmp.Or(g.Consumer.MaxSize, 1<<31-1)
	if len(g.Consumer.Assignors) == 0 {
		g.Consumer.Assignors = group.Assignors()
	}
	g.Consumer.Migration = cmp.Or(g.Consumer.Migration, string(group.MigrateBoth))
	l.RequestBytes = cmp.Or(l.RequestBytes, 100<<20)
	l.FetchBytes = cmp.Or(l.FetchBytes, 55<<20)
	l.FetchSessions = cmp.Or(l.FetchSessions, 1000)
	l.Connections = cmp.Or(l.Connections, 10_000)
	l.ConnectionIdle = cmp.Or(l.ConnectionIdle, 10*time.Minute)
	l.ProducerIDExpiration = cmp.Or(l.ProducerIDExpiration, 24*time.Hour)
	k.Tick = cmp.Or(k.Tick, 50*time.Millisecond)
	k.Heartbeat = cmp.Or(k.Heartbeat, 2*time.Second)
	k.Session = cmp.Or(k.Session, 9*time.Second)
	k.ReplicaLag = cmp.Or(k.ReplicaLag, 30*time.Second)
	k.ImbalanceCheck = cmp.Or(k.ImbalanceCheck, 5*time.Minute)
	k.ImbalancePercent = cmp.Or(k.ImbalancePercent, 10)
	k.PartitionCheck = cmp.Or(k.PartitionCheck, time.Minute)
	k.PartitionPercent = cmp.Or(k.PartitionPercent, 10)
	k.PartitionMoves = cmp.Or(k.PartitionMoves, 20)
}

// validate fills the defaults in and checks every setting. Its errors are one
// line each and wrap ErrConfig.
func (c *Config) validate() error {
	c.setDefaults()
	if c.DataDir == "" {
		return invalid("data-dir", "", "a directory for the broker's files is needed")
	}
	if c.NodeID < 0 {
		return invalid("node-id", strconv.Itoa(int(c.NodeID)), "must be 1 or more")
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	if err := c.validateCluster(); err != nil {
		return err
	}
	switch c.Flush {
	case FlushSync, FlushInterval, FlushOS:
	default:
		return invalid("flush", string(c.Flush), "must be one of sync, interval, os")
	}
	if _, err := metadata.ParseTopicConfig(c.Topics.Defaults); err != nil {
		return fmt.Errorf("%w: topic defaults: %w", ErrConfig, err)
	}
	return c.validateNumbers()
}

func (c *Config) validateAddresses() error {
	for _, a := range []struct {
		name, value string
		optional    bool
	}{
		{"listen", c.Listen, c.Listener != nil}, {"gossip", c.Gossip, true}, {"inter.node.listener", c.Internal, true},
		{"advertise", c.Advertise, true}, {"admin", c.Admin, true},
	} {
		if a.value == "" && a.optional {
			continue
		}
		if _, _, err := splitAddress(a.value); err != nil {
			return invalid(a.name, a.value, err.Error())
		}
	}
	if host, _, err := splitAddress(c.Listen); err == nil && c.Listener == nil && c.Advertise == "" && isAnyHost(host) {
		return invalid("listen", c.Listen, "listens on all interfaces: set advertise to the HOST:PORT that clients reach this node at")
	}
	for _, a := range c.Join {
		if _, _, err := splitAddress(a); err != nil {
			return invalid("join", a, err.Error())
		}
	}
	return nil
}

func (c *Config) validateCluster() error {
	for _, role := range c.Roles {
		if role != BrokerRole && role != ControllerRole {
			return invalid("roles", strings.Join(c.Roles, ","), "must be of broker, controller")
		}
	}
	controls := slices.Contains(c.Roles, ControllerRole)
	switch expect := strconv.Itoa(c.BootstrapExpect); {
	case c.BootstrapExpect < 1 || c.BootstrapExpect > maxVoters:
		return invalid("bootstrap-expect", expect, fmt.Sprintf("must be between 1 and %d", maxVoters))
	case !controls && len(c.Join) == 0:
		return invalid("roles", strings.Join(c.Roles, ","), "a node that is no controller has to join others: set join")
	case len(c.ClusterName) > 255:
		return invalid("cluster.name", c.ClusterName, "must be of at most 255 bytes")
	case len(c.Rack) > 200:
		return invalid("broker.rack", c.Rack, "must be of at most 200 bytes")
	}
	for _, name := range c.Groups.Consumer.Assignors {
		if !slices.Contains(group.Assignors(), name) {
			return invalid("group.consumer.assignors", name, "must be among "+strings.Join(group.Assignors(), ", "))
		}
	}
	if !slices.Contains(group.MigrationPolicies(), group.MigrationPolicy(c.Groups.Consumer.Migration)) {
		return invalid("group.consumer.migration.policy", c.Groups.Consumer.Migration, "must be bidirectional, upgrade, downgrade or disabled")
	}
	if _, err := c.keys(); err != nil {
		return err
	}
	return nil
}

// maxVoters bounds the controllers that form a cluster; an odd number of three to seven
// is what makes sense.
const maxVoters = 15

func (c *Config) validateNumbers() error {
	for _, n := range []struct {
		name            string
		value, min, max int64
	}{
		{"num.partitions", int64(c.Topics.Partitions), 1, maxPartitions},
		{"default.replication.factor", int64(c.Topics.Replication), 1, 1<<15 - 1},
		{"offsets.topic.replication.factor", int64(c.Topics.OffsetsReplication), -1, 1<<15 - 1},
		{"log.cleaner.backoff.ms", c.Cleaner.Interval.Milliseconds(), 1, 1<<63 - 1},
		{"log.verify.interval.ms", c.Verify.Interval.Milliseconds(), 1, 1<<63 - 1},
		{"log.verify.max.bytes.per.second", c.Verify.BytesPerSecond, 1, 1<<63 - 1},
		{"log.cleaner.dedupe.buffer.size", c.Cleaner.DedupeBytes, 1 << 20, 1 << 40},
		{"transaction.state.log.num.partitions", int64(c.Transactions.Partitions), 1, maxPartitions},
		{"transaction.state.log.replication.factor", int64(c.Transactions.Replication), -1, 1<<15 - 1},
		{"transaction.state.log.min.isr", int64(c.Transactions.MinISR), 1, 1<<15 - 1},
		{"transaction.max.timeout.ms", c.Transactions.MaxTimeout.Milliseconds(), 1, 1<<31 - 1},
		{"transactional.id.expiration.ms", c.Transactions.Expiration.Milliseconds(), 1, 1<<63 - 1},
		{"offsets.topic.num.partitions", int64(c.Topics.OffsetsPartitions), 1, maxPartitions},
		{"log.retention.check.interval.ms", c.Topics.RetentionCheck.Milliseconds(), 1, 1<<63 - 1},
		{"disk.min.free.bytes", c.MinFree, 1, 1<<63 - 1},
		{"flush.interval.ms", c.FlushInterval.Milliseconds(), 1, 1<<63 - 1},
		{"group.min.session.timeout.ms", c.Groups.MinSession.Milliseconds(), 1, c.Groups.MaxSession.Milliseconds()},
		{"group.max.size", int64(c.Groups.MaxSize), 1, 1<<31 - 1},
		{"offsets.retention.minutes", int64(c.Groups.OffsetsRetention / time.Minute), 1, 1<<63 - 1},
		{"offset.metadata.max.bytes", int64(c.Groups.OffsetMetadataBytes), 0, 1<<31 - 1},
		{"group.consumer.session.timeout.ms", c.Groups.Consumer.Session.Milliseconds(), 1, 1<<31 - 1},
		{"group.consumer.heartbeat.interval.ms", c.Groups.Consumer.Heartbeat.Milliseconds(), 1, c.Groups.Consumer.Session.Milliseconds()},
		{"group.consumer.max.size", int64(c.Groups.Consumer.MaxSize), 1, 1<<31 - 1},
		{"socket.request.max.bytes", int64(c.Limits.RequestBytes), 1024, 1<<31 - 1},
		{"fetch.max.bytes", int64(c.Limits.FetchBytes), 1024, 1<<31 - 1},
		{"max.incremental.fetch.session.cache.slots", int64(c.Limits.FetchSessions), 0, 1<<31 - 1},
		{"max.connections", int64(c.Limits.Connections), 1, 1<<31 - 1},
		{"connections.max.idle.ms", c.Limits.ConnectionIdle.Milliseconds(), 1, 1<<63 - 1},
		{"producer.id.expiration.ms", c.Limits.ProducerIDExpiration.Milliseconds(), 1, 1<<63 - 1},
		{"raft tick in ms", c.Cluster.Tick.Milliseconds(), 1, 10_000},
		{"broker.heartbeat.interval.ms", c.Cluster.Heartbeat.Milliseconds(), 1, c.Cluster.Session.Milliseconds()},
		{"broker.session.timeout.ms", c.Cluster.Session.Milliseconds(), 1, 1<<63 - 1},
		{"replica.lag.time.max.ms", c.Cluster.ReplicaLag.Milliseconds(), 1, 1<<63 - 1},
		{"leader.imbalance.check.interval.seconds", int64(c.Cluster.ImbalanceCheck / time.Second), 1, 1<<63 - 1},
		{"leader.imbalance.per.broker.percentage", int64(c.Cluster.ImbalancePercent), 1, 100},
		{"partition.imbalance.check.interval.seconds", int64(c.Cluster.PartitionCheck / time.Second), 1, 1<<63 - 1},
		{"partition.imbalance.per.broker.percentage", int64(c.Cluster.PartitionPercent), 1, 100},
		{"partition.rebalance.max.concurrent", int64(c.Cluster.PartitionMoves), 1, 10_000},
	} {
		if n.value < n.min || n.value > n.max {
			return invalid(n.name, strconv.FormatInt(n.value, 10), fmt.Sprintf("must be between %d and %d", n.min, n.max))
		}
	}
	return nil
}

// maxPartitions bounds the partitions that one number can ask for.
const maxPartitions = 100_000

func invalid(name, value, allowed string) error {
	return fmt.Errorf("%w: %s=%.200s: %s", ErrConfig, name, value, allowed)
}

func isAnyHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// splitAddress splits host:port, and checks the port.
func splitAddress(address string) (host string, port int32, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("must be HOST:PORT")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, errors.New("the port must be a number from 0 to 65535")
	}
	return host, int32(n), nil
}
