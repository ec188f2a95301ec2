package coordinator

import (
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/record"
)

const loadBytes = 1 << 20

// Config configures a Runtime. All fields are required but Logger.
type Config struct {
	// Now is the clock.
	Now func() time.Time
	// AfterFunc calls f once after d, as time.AfterFunc does; stop keeps it from
	// being called.
	AfterFunc func(d time.Duration, f func()) (stop func())
	// Go runs f on a goroutine of its own: the loading of a partition.
	Go func(f func())
	// NewShard makes an empty shard.
	NewShard func(partition int32) Shard
	Logger   zerolog.Logger
}

// Runtime runs the shards of the partitions that this node leads. All methods
// are safe for concurrent use. Lock order: Runtime before shard.
type Runtime struct {
	cfg Config

	mu     sync.RWMutex
	closed bool
	hosts  map[int32]*host
}

// host is a shard with what drives it.
type host struct {
	runtime   *Runtime
	partition int32
	epoch     int32
	log       Log

	mu      sync.Mutex
	shard   Shard
	loaded  bool
	gone    bool // leadership is over, or the log failed
	stop    func()
	alarm   time.Time
	builder *record.Builder

	outcomesMu sync.Mutex // taken after mu, or alone
	outcomes   []outcome
	releasing  bool
}

// NewRuntime returns a runtime without partitions.
func NewRuntime(cfg Config) *Runtime { return &Runtime{cfg: cfg, hosts: map[int32]*host{}} }

// Lead says that this node leads the partition in the epoch, with its log. The
// partition is loaded on another goroutine; until then Do reports ErrLoading.
func (r *Runtime) Lead(partition, epoch int32, log Log) {
	r.mu.Lock()
	old := r.hosts[partition]
	if r.closed || (old != nil && old.epoch >= epoch) {
		r.mu.Unlock()
		return
	}
	h := &host{runtime: r, partition: partition, epoch: epoch, log: log,
		shard: r.cfg.NewShard(partition), builder: record.NewBuilder(record.CodecNone)}
	r.hosts[partition] = h
	r.mu.Unlock()
	if old != nil {
		old.unload()
	}
	r.cfg.Go(h.load)
}

// Resign says that this node does not lead the partition any more.
func (r *Runtime) Resign(partition int32) {
	r.mu.Lock()
	h := r.hosts[partition]
	delete(r.hosts, partition)
	r.mu.Unlock()
	if h != nil {
		h.unload()
	}
}

// Close resigns every partition.
func (r *Runtime) Close() {
	r.mu.Lock()
	r.closed = true
	hosts := r.hosts
	r.hosts = map[int32]*host{}
	r.mu.Unlock()
	for _, h := range hosts {
		h.unload()
	}
}

// Partitions returns the partitions that are led here, loaded or not.
func (r *Runtime) Partitions() []int32 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]int32, 0, len(r.hosts))
	for p := range r.hosts {
		list = append(list, p)
	}
	return list
}

// Do runs an event on a partition's shard. It fails with ErrNotCoordinator or
// ErrLoading without running it; after nil, event was run and its result is
// taken care of.
func (r *Runtime) Do(partition int32, event func(shard Shard, now time.Time) Result) error {
	r.mu.RLock()
	h := r.hosts[partition]
	r.mu.RUnlock()
	if h == nil {
		return fmt.Errorf("%w: partition %d", ErrNotCoordinator, partition)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.gone:
		return fmt.Errorf("%w: partition %d", ErrNotCoordinator, partition)
	case !h.loaded:
		return fmt.Errorf("%w: partition %d", ErrLoading, partition)
	}
	h.take(event(h.shard, r.cfg.Now()))
	h.arm()
	return nil
}

// load replays the log.
func (h *host) load() {
	err := h.replayAll()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return
	}
	if err != nil {
		h.runtime.cfg.Logger.Error().Err(err).Int32("partition", h.partition).
			Msg("a coordinator's partition cannot be read; its groups are not served. Check the partition's log, then restart the node")
		h.gone = true
		return
	}
	h.loaded = true
	h.take(h.shard.Loaded(h.runtime.cfg.Now()))
	h.arm()
}

func (h *host) replayAll() error {
	var buffer []byte
	offset, end := h.log.Offsets()
	for offset < end {
		var err error
		buffer, err = h.log.Read(buffer[:0], offset, loadBytes)
		if err != nil {
			return fmt.Errorf("coordinator: read partition %d at %d: %w", h.partition, offset, err)
		}
		if len(buffer) == 0 {
			return nil // all that is left is not committed
		}
		for rest := buffer; len(rest) > 0; {
			var batch record.Batch
			if batch, rest, err = record.Parse(rest); err != nil {
				return fmt.Errorf("coordinator: partition %d at %d: %w", h.partition, offset, err)
			}
			if err := h.replayBatch(batch); err != nil {
				return fmt.Errorf("coordinator: partition %d at %d: %w", h.partition, batch.BaseOffset(), err)
			}
			offset = batch.NextOffset()
		}
	}
	return nil
}

func (h *host) replayBatch(batch record.Batch) error {
	if batch.IsControl() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return nil
	}
	return batch.Iterate(func(r *record.Record) error {
		return h.shard.Replay(Record{Key: r.Key, Value: r.Value}, r.Timestamp)
	})
}

// take appends a result's records, replays them, and sees to its outcome. The
// lock is held.
func (h *host) take(result Result) {
	if len(result.Records) == 0 {
		if result.Done != nil {
			h.take(result.Done(nil))
		}
		return
	}
	now := h.runtime.cfg.Now().UnixMilli()
	h.builder.Reset()
	for _, r := range result.Records {
		h.builder.Append(now, r.Key, r.Value, nil)
	}
	batch := h.builder.Build(nil)
	for _, r := range result.Records {
		if err := h.shard.Replay(r, now); err != nil {
			// A record that the shard itself made: a bug, and the state is not what it
			// should be. Nothing was appended, so loading again gives the old state.
			h.runtime.cfg.Logger.Error().Err(err).Int32("partition", h.partition).Msg("a coordinator cannot replay its own record; please report this")
			h.drop(err, result.Done)
			return
		}
	}
	done := result.Done
	h.log.Append(batch, func(err error) { h.settle(outcome{err, done}) })
}

// outcome is what became of an append, and who waits for it.
type outcome struct {
	err  error
	done func(error) Result
}

// settle has an outcome released. The log may call it while this goroutine holds
// the lock, so another one releases it; outcomes keep their order.
func (h *host) settle(o outcome) {
	h.outcomesMu.Lock()
	defer h.outcomesMu.Unlock()
	h.outcomes = append(h.outcomes, o)
	if !h.releasing {
		h.releasing = true
		h.runtime.cfg.Go(h.releaseAll)
	}
}

func (h *host) releaseAll() {
	for {
		h.outcomesMu.Lock()
		list := h.outcomes
		h.outcomes = nil
		h.releasing = len(list) > 0
		h.outcomesMu.Unlock()
		if len(list) == 0 {
			return
		}
		h.mu.Lock()
		for _, o := range list {
			h.release(o)
		}
		if !h.gone {
			h.arm()
		}
		h.mu.Unlock()
	}
}

func (h *host) release(o outcome) {
	switch {
	case o.err != nil:
		h.drop(o.err, o.done)
	case o.done == nil:
	case h.gone:
		// The records are committed, but what follows is for the next shard to decide.
		o.done(nil)
	default:
		h.take(o.done(nil))
	}
}

// drop ends the shard's life: its state may be ahead of the log. It is loaded
// again from the log when the partition's leadership comes anew.
func (h *host) drop(err error, done func(error) Result) {
	if done != nil {
		done(err) // a failed outcome's result cannot be appended
	}
	if h.gone {
		return
	}
	h.end()
	r := h.runtime
	r.cfg.Go(func() { r.reload(h) })
}

// reload loads the partition anew after an append failed, if it is still led.
func (r *Runtime) reload(h *host) {
	r.mu.Lock()
	if r.closed || r.hosts[h.partition] != h {
		r.mu.Unlock()
		return
	}
	fresh := &host{runtime: r, partition: h.partition, epoch: h.epoch, log: h.log,
		shard: r.cfg.NewShard(h.partition), builder: record.NewBuilder(record.CodecNone)}
	r.hosts[h.partition] = fresh
	r.mu.Unlock()
	fresh.load()
}

func (h *host) unload() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end()
}

func (h *host) end() {
	if h.gone {
		return
	}
	h.gone = true
	h.shard.Unload()
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// arm sets the alarm to the shard's next deadline.
func (h *host) arm() {
	at, ok := h.shard.NextDeadline()
	if h.gone || !ok {
		return
	}
	if h.stop != nil {
		if !at.Before(h.alarm) {
			return // the alarm rings earlier, and arms anew
		}
		h.stop()
	}
	h.alarm = at
	h.stop = h.runtime.cfg.AfterFunc(max(0, at.Sub(h.runtime.cfg.Now())), h.ring)
}

func (h *host) ring() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone || !h.loaded {
		return
	}
	h.stop = nil
	h.take(h.shard.Expire(h.runtime.cfg.Now()))
	h.arm()
}
