package coordinator

import (
	"errors"
	"fmt"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
)

// errNotTransactional says that a shard or a log was given what belongs to a
// transaction and knows of none.
var errNotTransactional = errors.New("coordinator: this partition holds no transactions")

// marker is the end of a producer's transaction.
type marker struct {
	producerID int64
	epoch      int16
	commit     bool
}

// TransactionState says whether a producer has a transaction open in a partition,
// in that epoch, and how many of it have ended there: the count that Result.Transaction
// wants. It fails with ErrNotCoordinator.
func (r *Runtime) TransactionState(partition int32, producerID int64, epoch int16) (open bool, ended uint32, err error) {
	h := r.host(partition)
	if h == nil {
		return false, 0, fmt.Errorf("%w: partition %d", ErrNotCoordinator, partition)
	}
	log, ok := h.log.(TransactionalLog)
	if !ok {
		return false, 0, fmt.Errorf("%w: partition %d", errNotTransactional, partition)
	}
	open, ended = log.TransactionState(producerID, epoch)
	return open, ended, nil
}

// CompleteTransaction tells a partition's shard that a marker was appended to its log
// by somebody else. It must be called before the end of the transaction is told to
// anyone who may begin the next. A partition that is not led here needs nothing: who
// loads it comes across the marker. It does not wait for the shard, whose lock the log
// may call it under: an event that comes later finds the marker applied.
func (r *Runtime) CompleteTransaction(partition int32, producerID int64, epoch int16, commit bool) {
	h := r.host(partition)
	if h == nil {
		return
	}
	h.markersMu.Lock()
	h.markers = append(h.markers, marker{producerID, epoch, commit})
	h.markersMu.Unlock()
	if h.mu.TryLock() {
		defer h.mu.Unlock()
		if h.loaded && !h.gone { // one that is gone is loaded anew, from a log that has the marker
			h.replayMarkers()
		}
	}
}

func (r *Runtime) host(partition int32) *host {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.hosts[partition]
}

// replayMarkers applies what came from CompleteTransaction. A marker that loading
// has applied already ends nothing a second time, as no transaction of its producer can
// have begun since. The lock is held.
func (h *host) replayMarkers() {
	h.markersMu.Lock()
	markers := h.markers
	h.markers = nil
	h.markersMu.Unlock()
	shard, ok := h.shard.(TransactionalShard)
	for _, m := range markers {
		if ok {
			shard.ReplayMarker(m.producerID, m.epoch, m.commit)
		}
	}
}

// replayControl replays a control batch of the log. The lock is held.
func (h *host) replayControl(batch record.Batch) error {
	commit, ok, err := storage.ParseMarker(batch)
	if err != nil || !ok {
		return err
	}
	if shard, ok := h.shard.(TransactionalShard); ok {
		shard.ReplayMarker(batch.ProducerID(), batch.ProducerEpoch(), commit)
	}
	return nil
}

// replayTransactional replays a batch of the log that belongs to a transaction. The
// lock is held.
func (h *host) replayTransactional(batch record.Batch) error {
	shard, ok := h.shard.(TransactionalShard)
	if !ok {
		return errNotTransactional
	}
	return batch.Iterate(func(r *record.Record) error {
		return shard.ReplayInTransaction(Record{Key: r.Key, Value: r.Value}, batch.ProducerID(), batch.ProducerEpoch())
	})
}

// appendInTransaction appends a batch of a transaction and replays its records. The
// log decides first: a producer that is fenced must not cost the shard its state.
func (h *host) appendInTransaction(batch []byte, records []Record, transaction *Transaction, o *outcome) error {
	shard, isShard := h.shard.(TransactionalShard)
	log, isLog := h.log.(TransactionalLog)
	if !isShard || !isLog {
		return fmt.Errorf("%w: partition %d", errNotTransactional, h.partition)
	}
	h.expect(o)
	if err := log.AppendInTransaction(batch, transaction.Ended, func(err error) { h.settle(o, err) }); err != nil {
		h.unexpect(o)
		return err
	}
	for _, r := range records {
		if err := shard.ReplayInTransaction(r, transaction.ProducerID, transaction.Epoch); err != nil {
			o.done = nil // the caller tells
			return h.cannotReplay(err)
		}
	}
	return nil
}

// unexpect takes back the outcome that was expected last.
func (h *host) unexpect(o *outcome) {
	h.outcomesMu.Lock()
	defer h.outcomesMu.Unlock()
	if n := len(h.outcomes); n > 0 && h.outcomes[n-1] == o {
		h.outcomes = h.outcomes[:n-1]
	}
}
