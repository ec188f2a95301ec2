package coordinator

import (
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/record"
)

const (
	// loadBytes is how much of the log is read at a time.
	loadBytes = 1 << 20
	// tailPoll is how often a loader looks whether the end of the log is committed.
	// It is not only where a leader has just begun.
	tailPoll = 10 * time.Millisecond
	// defaultMaxBatch is Kafka's default of max.message.bytes.
	defaultMaxBatch = 1048588
	// recordOverhead is the most that a record takes beside key and value.
	recordOverhead = 40
)

// Config configures a Runtime. All fields are required but MaxBatch and Logger.
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
	// MaxBatch is the largest record batch that the logs take, in bytes; Kafka's
	// default of max.message.bytes when it is 0.
	MaxBatch int
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
	next    int64 // what to load next, up to end
	end     int64
	gone    bool  // leadership is over, or the log failed
	failed  error // why the log failed: nothing that saw the state may succeed
	stop    func()
	alarm   time.Time
	builder *record.Builder

	// markers are those that ended transactions and are not applied yet, as while the
	// shard is loaded: loading may not have come across them.
	markersMu sync.Mutex // taken after mu, or alone
	markers   []marker

	outcomesMu sync.Mutex // taken after mu, or alone
	outcomes   []*outcome // in the order of the events
	releasing  bool
}

// NewRuntime returns a runtime without partitions.
func NewRuntime(cfg Config) *Runtime {
	if cfg.MaxBatch == 0 {
		cfg.MaxBatch = defaultMaxBatch
	}
	return &Runtime{cfg: cfg, hosts: map[int32]*host{}}
}

func (r *Runtime) newHost(partition, epoch int32, log Log) *host {
	return &host{runtime: r, partition: partition, epoch: epoch, log: log,
		shard: r.cfg.NewShard(partition), builder: record.NewBuilder(record.CodecNone)}
}

// Lead says that this node leads the partition in the epoch, with its log. The
// partition is loaded on another goroutine; until then Do reports ErrLoading.
func (r *Runtime) Lead(partition, epoch int32, log Log) {
	r.mu.Lock()
	old := r.hosts[partition]
	if r.closed || (old != nil && old.epoch >= epoch) {
		r.mu.Unlock()
		return
	}
	h := r.newHost(partition, epoch, log)
	r.hosts[partition] = h
	r.mu.Unlock()
	if old != nil {
		old.unload()
	}
	// Only now, as the old shard appends no more.
	h.next, h.end = log.Offsets()
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
	h.replayMarkers()
	h.take(event(h.shard, r.cfg.Now()))
	h.arm()
	return nil
}

// load replays the log, up to what its end was when the leadership came. All of
// that has to be committed: a leader's log may end with records that are not yet,
// and the state must not miss them when they are.
func (h *host) load() {
	err := h.replayAll()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch cfg := &h.runtime.cfg; {
	case h.gone:
	case err != nil:
		cfg.Logger.Error().Err(err).Int32("partition", h.partition).
			Msg("a coordinator's partition cannot be read; its groups are not served. Check the partition's log, then restart the node")
		h.leave()
	case h.next < h.end:
		h.stop = cfg.AfterFunc(tailPoll, func() { cfg.Go(h.load) })
	default:
		h.loaded, h.stop = true, nil
		h.replayMarkers()
		h.take(h.shard.Loaded(cfg.Now()))
		h.arm()
	}
}

// replayAll replays what is committed.
func (h *host) replayAll() error {
	var buffer []byte
	for h.next < h.end {
		var err error
		buffer, err = h.log.Read(buffer[:0], h.next, loadBytes)
		if err != nil {
			return fmt.Errorf("coordinator: read partition %d at %d: %w", h.partition, h.next, err)
		}
		if len(buffer) == 0 {
			return nil
		}
		for rest := buffer; len(rest) > 0; {
			var batch record.Batch
			if batch, rest, err = record.Parse(rest); err != nil {
				return fmt.Errorf("coordinator: partition %d at %d: %w", h.partition, h.next, err)
			}
			if err := h.replayBatch(batch); err != nil {
				return fmt.Errorf("coordinator: partition %d at %d: %w", h.partition, batch.BaseOffset(), err)
			}
			h.next = batch.NextOffset()
		}
	}
	return nil
}

func (h *host) replayBatch(batch record.Batch) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.gone:
		return nil
	case batch.IsControl():
		return h.replayControl(batch)
	case batch.IsTransactional():
		return h.replayTransactional(batch)
	}
	return batch.Iterate(func(r *record.Record) error {
		return h.shard.Replay(Record{Key: r.Key, Value: r.Value}, r.Timestamp)
	})
}

// outcome is what became of an event, and who waits for it.
type outcome struct {
	follows bool // fails when one before it failed
	settled bool
	err     error
	done    func(error) Result
}

// take appends a result's records, replays them, and sees to its outcome. The
// lock is held.
func (h *host) take(result Result) {
	records, done := result.Records, result.Done
	if len(records) == 0 {
		if done != nil && !h.follow(&outcome{follows: true, settled: true, done: done}) {
			h.take(done(nil))
		}
		return
	}
	for len(records) > 0 {
		part := records
		if result.Several {
			part = h.prefix(records)
		}
		o := &outcome{follows: len(part) < len(result.Records)}
		records = records[len(part):]
		if len(records) == 0 {
			o.done = done
		}
		if err := h.append(part, result.Transaction, o); err != nil {
			if done != nil {
				h.fail(done, err)
			}
			return
		}
	}
}

// fail tells who waits that nothing was appended.
func (h *host) fail(done func(error) Result, err error) {
	if result := done(err); !h.gone {
		h.take(result)
	}
}

// prefix returns the first records, as many as fit into a batch, one at least.
func (h *host) prefix(records []Record) []Record {
	size := record.HeaderSize
	for i, r := range records {
		if size += len(r.Key) + len(r.Value) + recordOverhead; size > h.runtime.cfg.MaxBatch && i > 0 {
			return records[:i]
		}
	}
	return records
}

// append replays records and appends them as one batch. After an error nothing
// was appended.
func (h *host) append(records []Record, transaction *Transaction, o *outcome) error {
	now := h.runtime.cfg.Now().UnixMilli()
	h.builder.Reset()
	if transaction != nil {
		h.builder.SetProducer(transaction.ProducerID, transaction.Epoch, record.NoSequence)
		h.builder.SetTransactional()
	}
	for _, r := range records {
		h.builder.Append(now, r.Key, r.Value, nil)
	}
	batch := h.builder.Build(nil)
	if limit := h.runtime.cfg.MaxBatch; len(batch) > limit {
		return fmt.Errorf("%w: partition %d: %d bytes, the limit is %d", ErrTooLarge, h.partition, len(batch), limit)
	}
	if transaction != nil {
		return h.appendInTransaction(batch, records, transaction, o)
	}
	for _, r := range records {
		if err := h.shard.Replay(r, now); err != nil {
			// Nothing was appended, so loading again gives the old state.
			return h.cannotReplay(err)
		}
	}
	h.expect(o)
	h.log.Append(batch, func(err error) { h.settle(o, err) })
	return nil
}

// cannotReplay drops the shard because of a record that it made itself: a bug, and the
// state is not what it should be.
func (h *host) cannotReplay(err error) error {
	h.runtime.cfg.Logger.Error().Err(err).Int32("partition", h.partition).Msg("a coordinator cannot replay its own record; please report this")
	h.drop(err, nil)
	return err
}

// expect adds an outcome to those that are to be released.
func (h *host) expect(o *outcome) {
	h.outcomesMu.Lock()
	h.outcomes = append(h.outcomes, o)
	h.outcomesMu.Unlock()
}

// follow has an outcome released after those before it; false says that there
// are none.
func (h *host) follow(o *outcome) bool {
	h.outcomesMu.Lock()
	defer h.outcomesMu.Unlock()
	if len(h.outcomes) == 0 {
		return false
	}
	h.outcomes = append(h.outcomes, o)
	return true
}

// settle has an outcome released. The log may call it while this goroutine holds
// the lock, so another one releases it.
func (h *host) settle(o *outcome, err error) {
	h.outcomesMu.Lock()
	defer h.outcomesMu.Unlock()
	o.settled, o.err = true, err
	if !h.releasing && h.outcomes[0].settled {
		h.releasing = true
		h.runtime.cfg.Go(h.releaseAll)
	}
}

// releaseAll releases the outcomes that are settled, up to the first that is not.
func (h *host) releaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for o := h.settled(); o != nil; o = h.settled() {
		h.release(o)
	}
	if !h.gone {
		h.arm()
	}
}

// settled takes the first outcome if it is settled. An outcome stays in the list
// until then, so that no event overtakes a failure.
func (h *host) settled() *outcome {
	h.outcomesMu.Lock()
	defer h.outcomesMu.Unlock()
	if len(h.outcomes) == 0 || !h.outcomes[0].settled {
		h.releasing = false
		return nil
	}
	o := h.outcomes[0]
	h.outcomes[0] = nil
	h.outcomes = h.outcomes[1:]
	return o
}

func (h *host) release(o *outcome) {
	switch {
	case o.err != nil:
		h.drop(o.err, o.done)
	case o.done == nil:
	case h.failed != nil && o.follows:
		o.done(h.failed) // it saw what was lost, or is a part of it
	case h.gone:
		// The records are committed, but what follows is for the next shard to decide.
		o.done(nil)
	default:
		h.take(o.done(nil))
	}
}

// drop ends the shard's life: its state may be ahead of the log. It is loaded
// again from the log.
func (h *host) drop(err error, done func(error) Result) {
	h.failed = err
	if done != nil {
		done(err) // a failed outcome's result cannot be appended
	}
	if h.gone {
		return
	}
	h.leave()
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
	fresh := r.newHost(h.partition, h.epoch, h.log)
	r.hosts[h.partition] = fresh
	r.mu.Unlock()
	fresh.next, fresh.end = fresh.log.Offsets()
	fresh.load()
}

func (h *host) unload() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leave()
}

// leave ends the shard's life, answering what is parked.
func (h *host) leave() {
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
	h.replayMarkers()
	h.take(h.shard.Expire(h.runtime.cfg.Now()))
	h.arm()
}
