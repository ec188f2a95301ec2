package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/storage"
)

// FlushMode says what "durable" means to the high watermark and to acks=all.
type FlushMode int8

// The flush modes.
const (
	// FlushSync: synced by group commit. The default.
	FlushSync FlushMode = iota
	// FlushInterval: written; everything is synced every Config.FlushInterval. A crash
	// of the machine may lose what was acknowledged since.
	FlushInterval
	// FlushOS: written; the operating system decides when to sync.
	FlushOS
)

// Config configures a Manager.
type Config struct {
	NodeID int32
	// Directory holds the logs. The caller closes it after the manager.
	Directory *storage.Directory
	Clock     Clock
	Logger    zerolog.Logger
	Flush     FlushMode
	// FlushInterval is the time between two syncs with Flush=FlushInterval. Default 1 s.
	FlushInterval time.Duration
	// RetentionInterval is the time between two retention steps. Default 5 minutes, as
	// Kafka's log.retention.check.interval.ms; negative for never.
	RetentionInterval time.Duration
	// CleanerInterval is the time between two looks for logs to compact. Default 15 s, as
	// Kafka's log.cleaner.backoff.ms; negative for never.
	CleanerInterval time.Duration
	// Cleaner is how logs are compacted.
	Cleaner storage.CleanerConfig
	// Verify is how logs are searched for damage.
	Verify VerifyConfig
	// TopicDefaults are the topic configurations set for this broker, by the topic
	// configuration's name.
	TopicDefaults map[string]string
	// ProducerExpiration is producer.id.expiration.ms. Default one day.
	ProducerExpiration time.Duration
	// Cluster is the way to the other brokers. Without one nothing is fetched and no
	// ISR changes.
	Cluster Cluster
	// Lag is replica.lag.time.max.ms. Default 30 s.
	Lag time.Duration
	// OnRole, when set, is told of every replica whose role or leader epoch changed,
	// Offline included, in the order of the changes and after they took effect. It
	// must not block and must not call Apply or Close.
	OnRole func(r *Replica, role Role, epoch int32)
	// Current, when set, says that the controller was heard of so lately that no other broker
	// can lead what this one leads by its metadata. It may be called at any time.
	Current func() bool
	// Go runs f on a goroutine of its own. Default: the go statement.
	Go func(f func())
	// NewBell returns a new bell. Default: one that goroutines can wait for.
	NewBell func() Bell
	// Committer makes logs durable; the manager closes it. Default: a storage.Committer of
	// the directory.
	Committer Committer
}

// key names a replica.
type key struct {
	topic     metadata.UUID
	partition int32
}

// Manager keeps the replicas of a broker: it opens, creates and deletes their
// logs as metadata says. Safe for concurrent use.
type Manager struct {
	cfg       Config
	clock     Clock
	logger    zerolog.Logger
	committer Committer
	alterer   *alterer
	bring     func(*Replica, *Proposal) // to the controller
	deadlines *Deadlines
	cleaner   *storage.Cleaner

	applyMu   sync.Mutex // one change at a time
	started   bool
	deleted   map[metadata.UUID]bool // topics whose deletion was seen before the start
	image     *metadata.Image        // that was applied last
	offset    int64                  // of it, -1 without one
	unopened  []key                  // replicas whose logs could not be opened
	defaults  map[string]string      // of topic configurations: TopicDefaults and what was set at run time
	closed    bool
	retention Deadline
	cleaning  Deadline
	flushing  Deadline
	lagging   Deadline
	verifying Deadline
	reopening Deadline
	verifier  verifier
	fetchers  map[int32]*fetcher // by leader
	// reopenDelay is how long after the last time logs that cannot be opened are tried
	// again, 0 when there are none.
	reopenDelay time.Duration
	// leading and following bound what is copied from this broker, and to it.
	leading, following throttle
	running            sync.WaitGroup // background steps
	converting         chan *[]byte   // the buffers for small batches that are opened
	largeMu            sync.Mutex     // held while a large one is open

	mu       sync.RWMutex
	replicas map[key]*Replica
	stopping bool
	fullSaid time.Time // when a full disk was last logged
}

// Committer makes logs durable, as storage.Committer does.
type Committer interface {
	Request(l *storage.Log, tell func(synced int64, err error))
	Close()
}

// NewManager returns a manager without replicas; Start gives it some.
func NewManager(cfg Config) (*Manager, error) {
	if cfg.Directory == nil {
		return nil, errors.New("replica: Config.Directory is required")
	}
	if cfg.FlushInterval == 0 {
		cfg.FlushInterval = time.Second
	}
	if cfg.RetentionInterval == 0 {
		cfg.RetentionInterval = 5 * time.Minute
	}
	if cfg.CleanerInterval == 0 {
		cfg.CleanerInterval = 15 * time.Second
	}
	if cfg.FlushInterval < 0 {
		return nil, fmt.Errorf("replica: flush interval %v: must be positive", cfg.FlushInterval)
	}
	cfg.Verify.fill()
	cfg.Clock.fill()
	cfg.fill()
	if cfg.Lag == 0 {
		cfg.Lag = DefaultLag
	}
	m := &Manager{cfg: cfg, clock: cfg.Clock, logger: cfg.Logger, defaults: cfg.TopicDefaults, committer: cfg.Committer,
		deadlines: NewDeadlines(cfg.Clock), cleaner: storage.NewCleaner(cfg.Cleaner), offset: -1, deleted: map[metadata.UUID]bool{}, replicas: map[key]*Replica{}, fetchers: map[int32]*fetcher{},
		converting: make(chan *[]byte, smallBatches)}
	for range smallBatches {
		m.converting <- new([]byte)
	}
	m.alterer = newAlterer(m)
	m.bring = m.alterer.bring
	cfg.Directory.OnFence(func(cause error) {
		// Told while a log may be locked, and a sink may append: not on this goroutine.
		cfg.Go(func() { m.Each(func(r *Replica) { r.damaged(cause) }) })
	})
	return m, nil
}

func (c *Config) fill() {
	if c.Go == nil {
		c.Go = func(f func()) { go f() }
	}
	if c.NewBell == nil {
		c.NewBell = newChannelBell
	}
	if c.Committer == nil {
		c.Committer = storage.NewCommitter(c.Directory)
	}
}

// Deadlines is the manager's set of deadlines, for others' waiters too.
func (m *Manager) Deadlines() *Deadlines { return m.deadlines }

// Replica returns the replica of a partition. It fails with
// UNKNOWN_TOPIC_OR_PARTITION when this broker has none.
func (m *Manager) Replica(topic metadata.UUID, partition int32) (*Replica, *kerr.Error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r, ok := m.replicas[key{topic, partition}]; ok {
		return r, nil
	}
	return nil, kerr.UnknownTopicOrPartition
}

// Each calls f for every replica, ordered by topic and partition.
func (m *Manager) Each(f func(*Replica)) {
	m.mu.RLock()
	list := make([]*Replica, 0, len(m.replicas))
	for _, r := range m.replicas {
		list = append(list, r)
	}
	m.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Replica) int {
		if a.name != b.name {
			if a.name < b.name {
				return -1
			}
			return 1
		}
		return int(a.partition) - int(b.partition)
	})
	for _, r := range list {
		f(r)
	}
}

// Start opens the replicas of an image that has caught up with the quorum, which
// matters: an older image would take the logs of topics made since for strays.
// Logs of topics that were deleted, and of replicas that were moved, while the broker
// was down are deleted; others that no topic claims are named in the log and left alone.
func (m *Manager) Start(image *metadata.Image) error {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	if m.started || m.closed {
		return errors.New("replica: the manager was started or closed before")
	}
	m.started = true
	m.apply(image, metadata.Diff(metadata.Empty(), image))
	if err := m.settleStrays(image); err != nil {
		return err
	}
	m.every(&m.retention, m.cfg.RetentionInterval, m.Retain)
	m.every(&m.cleaning, m.cfg.CleanerInterval, m.Compact)
	m.after(&m.verifying, min(m.cfg.Verify.Interval, firstVerification), m.verify)
	if m.cfg.Cluster != nil {
		m.every(&m.lagging, m.cfg.Lag/4, m.checkLag)
	}
	if m.cfg.Flush == FlushInterval {
		m.every(&m.flushing, m.cfg.FlushInterval, m.flush)
	}
	return nil
}

// Apply follows metadata from one image to the next. Images that Start or an
// earlier Apply has seen are ignored. Before Start it only learns which topics are deleted.
func (m *Manager) Apply(image *metadata.Image, delta *metadata.Delta) {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	switch {
	case !m.started:
		for _, t := range delta.TopicsRemoved {
			m.deleted[t.ID] = true
		}
	case !m.closed && image.Offset() > m.offset:
		m.apply(image, delta)
	}
}

func (m *Manager) apply(image *metadata.Image, delta *metadata.Delta) {
	m.offset, m.image = image.Offset(), image
	if slices.Contains(delta.BrokerConfigsChanged, -1) || slices.Contains(delta.BrokerConfigsChanged, m.cfg.NodeID) {
		m.leading.set(image.ThrottleRate(metadata.LeaderThrottle, m.cfg.NodeID))
		m.following.set(image.ThrottleRate(metadata.FollowerThrottle, m.cfg.NodeID))
		m.defaults = image.TopicConfigDefaults(m.cfg.NodeID, m.cfg.TopicDefaults)
		for _, t := range image.Topics() {
			m.configure(t)
		}
	}
	for _, t := range delta.TopicsRemoved {
		for i := range t.Partitions {
			m.remove(t, t.Partitions[i].ID)
		}
	}
	for _, t := range delta.TopicConfigs {
		m.configure(t)
	}
	for i := range delta.PartitionsChanged {
		d := &delta.PartitionsChanged[i]
		if _, still := image.TopicByID(d.Topic.ID); !still {
			continue
		}
		if slices.Contains(d.New.Replicas, m.cfg.NodeID) {
			m.become(d.Topic, d.New)
		} else if d.Old != nil && slices.Contains(d.Old.Replicas, m.cfg.NodeID) {
			m.remove(d.Topic, d.New.ID)
		}
	}
	if slices.ContainsFunc(delta.BrokersChanged, image.Active) {
		now := m.clock.Now()
		m.Each(func(r *Replica) {
			r.step(func(p *Partition, fx *Effects) { p.BrokersJoined(now, fx) })
		})
	}
}

// become takes over a partition's state, opening its log first if need be.
func (m *Manager) become(t *metadata.Topic, p *metadata.Partition) {
	r, _ := m.Replica(t.ID, p.ID)
	if r == nil {
		r = m.open(t, p.ID)
	}
	before, epoch := r.Role(), r.leaderEpoch()
	r.become(p)
	m.follow(r)
	m.tell(r, before, epoch)
	if before == Offline { // visible only when it knows its role
		m.mu.Lock()
		m.replicas[key{t.ID, p.ID}] = r
		m.mu.Unlock()
	}
}

func (m *Manager) tell(r *Replica, before Role, epoch int32) {
	if role, now := r.Role(), r.leaderEpoch(); m.cfg.OnRole != nil && (role != before || now != epoch) {
		m.cfg.OnRole(r, role, now)
	}
}

// open opens or creates a log. A failure makes a replica that is offline until reopen
// has more luck.
func (m *Manager) open(t *metadata.Topic, partition int32) *Replica {
	r := &Replica{manager: m, topic: t.ID, name: t.Name, partition: partition}
	r.onSynced = r.synced
	cfg, c := m.config(t)
	r.throttle(c.LeaderThrottled, c.FollowerThrottled)
	r.setCodec(&c)
	log, err := m.openLog(t, partition, cfg)
	if err != nil {
		m.openLater(key{t.ID, partition})
		r.core = NewPartition(m.cfg.NodeID, 0)
		r.damaged(err)
		return r
	}
	r.log = log
	r.core = NewPartition(m.cfg.NodeID, log.EndOffset())
	r.core.SetMinISR(int(c.MinInSyncReplicas))
	r.core.SetLag(m.cfg.Lag)
	if err := log.Damaged(); err != nil {
		r.damaged(err)
	}
	return r
}

// config resolves a topic's configuration.
func (m *Manager) config(t *metadata.Topic) (storage.Config, metadata.TopicConfig) {
	c, err := metadata.ParseTopicConfig(m.defaults, t.Config)
	if err != nil {
		// The controller validates what it commits, so this is an entry of a newer version.
		m.logger.Error().Err(err).Str("topic", t.Name).Msg("the topic's configuration cannot be read; the broker's defaults apply")
		if c, err = metadata.ParseTopicConfig(m.defaults); err != nil {
			c, _ = metadata.ParseTopicConfig()
		}
	}
	out := storage.DefaultConfig()
	out.SegmentBytes, out.SegmentAge = int64(c.SegmentBytes), metadata.Duration(c.SegmentMs)
	out.SegmentIndexBytes, out.IndexInterval = int(c.SegmentIndexBytes), int(c.IndexIntervalBytes)
	out.RetentionBytes, out.RetentionAge = c.RetentionBytes, metadata.Duration(c.RetentionMs)
	out.MaxBatchBytes, out.Compact, out.Delete = int(c.MaxMessageBytes), c.Compact, c.Delete
	out.LogAppendTime = c.LogAppendTime
	out.TimestampBeforeMax, out.TimestampAfterMax = metadata.Duration(c.TimestampBeforeMaxMs), metadata.Duration(c.TimestampAfterMaxMs)
	out.MinCleanableRatio, out.DeleteRetention = c.MinCleanableRatio, metadata.Duration(c.DeleteRetentionMs)
	out.MinCompactionLag, out.MaxCompactionLag = metadata.Duration(c.MinCompactionLagMs), metadata.Duration(c.MaxCompactionLagMs)
	if m.cfg.ProducerExpiration > 0 {
		out.ProducerExpiration = m.cfg.ProducerExpiration
	}
	return out, c
}

// configure applies a changed configuration to a topic's replicas.
func (m *Manager) configure(t *metadata.Topic) {
	cfg, c := m.config(t)
	for i := range t.Partitions {
		r, _ := m.Replica(t.ID, t.Partitions[i].ID)
		if r == nil || r.log == nil {
			continue
		}
		if err := r.log.SetConfig(cfg); err != nil {
			m.logger.Error().Err(err).Str("topic", t.Name).Msg("the topic's configuration cannot be applied; the old one stays")
			return
		}
		r.step(func(p *Partition, _ *Effects) { p.SetMinISR(int(c.MinInSyncReplicas)) })
		r.throttle(c.LeaderThrottled, c.FollowerThrottled)
		r.setCodec(&c)
	}
}

// remove ends a replica and deletes its log.
func (m *Manager) remove(t *metadata.Topic, partition int32) {
	k := key{t.ID, partition}
	m.mu.Lock()
	r := m.replicas[k]
	delete(m.replicas, k)
	m.mu.Unlock()
	m.unopened = slices.DeleteFunc(m.unopened, func(other key) bool { return other == k })
	if r == nil {
		return
	}
	before, epoch := r.Role(), r.leaderEpoch()
	m.unfollow(r, -1)
	r.end(kerr.UnknownTopicOrPartition)
	m.tell(r, before, epoch)
	if err := m.cfg.Directory.Delete(t.Name, partition); err != nil {
		m.logger.Error().Err(err).Str("topic", t.Name).Int32("partition", partition).Msg("the log of a deleted partition cannot be removed")
	}
}

// Close takes all replicas out of service, failing what is parked with
// NOT_LEADER_OR_FOLLOWER, and stops the group commit after it has served what was
// requested. The logs stay open for Directory.Close, which closes them cleanly.
func (m *Manager) Close() error {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	m.deadlines.Close()
	m.cleaner.Stop()
	for _, f := range m.fetchers {
		f.close()
	}
	m.alterer.close()
	m.running.Wait()
	m.Each(func(r *Replica) {
		before, epoch := r.Role(), r.leaderEpoch()
		r.end(kerr.NotLeaderForPartition)
		m.tell(r, before, epoch)
	})
	m.committer.Close()
	return nil
}
