package storage

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/record"
)

// rememberedBatches is how many batches of a producer are remembered, so that a
// retry of one is answered with its old offsets. Idempotent producers have at
// most five requests in flight.
const rememberedBatches = 5

// producerBatch is what is remembered of a batch.
type producerBatch struct {
	lastSequence int32
	offsetDelta  int32
	lastOffset   int64
	timestamp    int64 // ms
}

func (b *producerBatch) firstSequence() int32 {
	return record.AddSequence(b.lastSequence, -b.offsetDelta)
}

// producer is the state of one producer id.
//
// Invariant: batches[:count] are of the current epoch, oldest first.
type producer struct {
	id               int64
	epoch            int16
	count            int8
	batches          [rememberedBatches]producerBatch
	coordinatorEpoch int32
	txnStart         int64 // first offset of the open transaction, -1 without one
	timestamp        int64 // ms, of the last batch or marker
	// seen is when the last batch was appended here, in ms. Expiry counts from it too,
	// so that a producer of old records is not forgotten while it is at work.
	seen int64
	// ended counts the markers appended since the log was opened.
	ended uint32
}

func newProducer(id int64) producer {
	return producer{id: id, epoch: record.NoProducerEpoch, coordinatorEpoch: -1, txnStart: -1, timestamp: record.NoTimestamp}
}

func (p *producer) lastSequence() int32 {
	if p.count == 0 {
		return record.NoSequence
	}
	return p.batches[p.count-1].lastSequence
}

// duplicate returns the remembered batch that b repeats.
func (p *producer) duplicate(b record.Batch) (producerBatch, bool) {
	if b.ProducerEpoch() != p.epoch || b.BaseSequence() == record.NoSequence || mutant.Is(mutant.DuplicateAppended) {
		return producerBatch{}, false
	}
	for _, old := range p.batches[:p.count] {
		if old.firstSequence() == b.BaseSequence() && old.lastSequence == b.LastSequence() {
			return old, true
		}
	}
	return producerBatch{}, false
}

// completedTxn is a transaction whose marker has been appended.
type completedTxn struct {
	producerID  int64
	firstOffset int64
	lastOffset  int64 // of the marker
	aborted     bool
}

// endMarker is the control record that ends a transaction.
type endMarker struct {
	commit           bool
	coordinatorEpoch int32
}

// Key and value of the control record that ends a transaction:
//
//	key    version int16 | type int16, 0 abort, 1 commit
//	value  version int16 | coordinator epoch int32
const (
	markerAbort  = 0
	markerCommit = 1
)

// AppendMarker appends to dst the control batch that ends a producer's transaction,
// at a time in ms.
func AppendMarker(dst []byte, producerID int64, epoch int16, commit bool, coordinatorEpoch int32, timestamp int64) []byte {
	kind := uint16(markerAbort)
	if commit {
		kind = markerCommit
	}
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, kind)
	value := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(coordinatorEpoch))
	b := record.NewBuilder(record.CodecNone)
	b.SetProducer(producerID, epoch, record.NoSequence)
	b.SetTransactional()
	b.SetControl()
	b.Append(timestamp, key, value, nil)
	return b.Build(dst)
}

// ParseMarker says whether a control batch ends a transaction, and how.
func ParseMarker(b record.Batch) (commit, ok bool, err error) {
	marker, ok, err := parseMarker(b)
	return marker.commit, ok, err
}

// parseMarker reads a transaction's end marker; ok is false for control records
// of another kind and for control batches that were compacted to nothing.
func parseMarker(b record.Batch) (marker endMarker, ok bool, err error) {
	it := record.NewIterator(b, record.DefaultLimit)
	defer it.Close()
	if !it.Next() {
		return marker, false, it.Err()
	}
	r := it.Record()
	if len(r.Key) < 4 {
		return marker, false, fmt.Errorf("%w: control record with a key of %d bytes", ErrInvalidBatch, len(r.Key))
	}
	kind := int16(binary.BigEndian.Uint16(r.Key[2:]))
	if kind != markerAbort && kind != markerCommit {
		return marker, false, nil
	}
	if len(r.Value) < 6 {
		return marker, false, fmt.Errorf("%w: transaction marker with a value of %d bytes", ErrInvalidBatch, len(r.Value))
	}
	return endMarker{commit: kind == markerCommit, coordinatorEpoch: int32(binary.BigEndian.Uint32(r.Value[2:]))}, true, nil
}

// check tells whether a leader may append b, as Kafka decides for client
// batches. A producer that is not known may start with any sequence number.
func (p *producer) check(b record.Batch) error {
	epoch, first := b.ProducerEpoch(), b.BaseSequence()
	if epoch < p.epoch {
		return fmt.Errorf("%w: producer %d sent epoch %d, newest is %d", ErrInvalidProducerEpoch, p.id, epoch, p.epoch)
	}
	if b.IsControl() || first == record.NoSequence || mutant.Is(mutant.DuplicateAppended) {
		return nil // markers and coordinators' batches carry no sequence
	}
	if epoch != p.epoch {
		if first != 0 && p.epoch != record.NoProducerEpoch {
			return fmt.Errorf("%w: producer %d starts epoch %d with %d, must be 0", ErrOutOfOrderSequence, p.id, epoch, first)
		}
	} else if last := p.lastSequence(); int64(first) != int64(last)+1 && !(first == 0 && last == math.MaxInt32) {
		return fmt.Errorf("%w: producer %d sent %d after %d", ErrOutOfOrderSequence, p.id, first, last)
	}
	if p.txnStart >= 0 && !b.IsTransactional() {
		return fmt.Errorf("%w: producer %d has a transaction open since offset %d", ErrInvalidTxnState, p.id, p.txnStart)
	}
	return nil
}

// checkMarker is check for a batch that ends a transaction.
func (p *producer) checkMarker(b record.Batch, m endMarker) error {
	if b.ProducerEpoch() < p.epoch {
		return fmt.Errorf("%w: marker of producer %d with epoch %d, newest is %d", ErrInvalidProducerEpoch, p.id, b.ProducerEpoch(), p.epoch)
	}
	if m.coordinatorEpoch < p.coordinatorEpoch {
		return fmt.Errorf("%w: marker of producer %d from coordinator epoch %d, newest is %d", ErrCoordinatorFenced, p.id, m.coordinatorEpoch, p.coordinatorEpoch)
	}
	return nil
}

func (p *producer) setEpoch(epoch int16) {
	if epoch != p.epoch {
		p.epoch, p.count = epoch, 0
	}
}

// append takes over a data batch at its place in the log.
func (p *producer) append(b record.Batch) {
	p.setEpoch(b.ProducerEpoch())
	if p.count == rememberedBatches {
		copy(p.batches[:], p.batches[1:])
		p.count--
	}
	p.batches[p.count] = producerBatch{lastSequence: b.LastSequence(), offsetDelta: b.LastOffsetDelta(), lastOffset: b.LastOffset(), timestamp: b.MaxTimestamp()}
	p.count++
	p.timestamp = b.MaxTimestamp()
	if b.IsTransactional() && p.txnStart < 0 {
		p.txnStart = b.BaseOffset()
	}
}

// appendMarker takes over a marker and returns the transaction that it ends.
func (p *producer) appendMarker(b record.Batch, m endMarker) (completedTxn, bool) {
	done := completedTxn{producerID: p.id, firstOffset: p.txnStart, lastOffset: b.LastOffset(), aborted: !m.commit}
	p.setEpoch(b.ProducerEpoch())
	p.coordinatorEpoch = m.coordinatorEpoch
	p.timestamp = b.MaxTimestamp()
	p.txnStart = -1
	p.ended++
	return done, done.firstOffset >= 0
}

// producers is the state of all idempotent and transactional producers of a
// partition, a function of the batches in its log. It decides only; the log
// calls it under its appender's lock.
type producers struct {
	byID map[int64]*producer
	// open holds the first offsets of open transactions with their producers.
	open map[int64]int64
	// undecided are ended transactions that the last stable offset may still wait
	// for, because their markers are not replicated yet; in order of their ends.
	undecided []completedTxn
}

func (s *producers) ensure(id int64) *producer {
	if p, ok := s.byID[id]; ok {
		return p
	}
	p := newProducer(id)
	if s.byID == nil {
		s.byID = make(map[int64]*producer)
	}
	s.byID[id] = &p
	return &p
}

// set stores a producer's state, with its open transaction if it has one.
func (s *producers) set(p producer) {
	*s.ensure(p.id) = p
	if p.txnStart >= 0 {
		s.begin(p.id, p.txnStart)
	}
}

func (s *producers) begin(id, offset int64) {
	if s.open == nil {
		s.open = make(map[int64]int64)
	}
	s.open[offset] = id
}

// replay takes over a batch that is in the log, without checking it.
func (s *producers) replay(b record.Batch) (done completedTxn, ended bool, err error) {
	if b.ProducerID() < 0 {
		return done, false, nil
	}
	if !b.IsControl() {
		p := s.ensure(b.ProducerID())
		before := p.txnStart
		p.append(b)
		if p.txnStart != before {
			s.begin(p.id, p.txnStart)
		}
		return done, false, nil
	}
	marker, ok, err := parseMarker(b)
	if err != nil || !ok {
		return done, false, err
	}
	done, ended = s.ensure(b.ProducerID()).appendMarker(b, marker)
	if ended {
		delete(s.open, done.firstOffset)
		s.undecided = append(s.undecided, done)
	}
	return done, ended, nil
}

// firstOpen returns the first offset of the oldest open transaction of other
// producers than except, -1 for all; ok is false without one.
func (s *producers) firstOpen(except int64) (first int64, ok bool) {
	first = math.MaxInt64
	for offset, id := range s.open {
		if id != except && offset < first {
			first, ok = offset, true
		}
	}
	return first, ok
}

// firstUnstable returns the first offset of any transaction that is open or
// whose marker lies at or above the high watermark.
func (s *producers) firstUnstable(highWatermark int64) (int64, bool) {
	s.undecided = slices.DeleteFunc(s.undecided, func(t completedTxn) bool { return t.lastOffset < highWatermark })
	first, ok := s.firstOpen(-1)
	for _, t := range s.undecided {
		if t.firstOffset < first {
			first, ok = t.firstOffset, true
		}
	}
	return first, ok
}

// stableAfter returns what the last stable offset becomes by the end of a
// transaction, as the transaction index records it.
func (s *producers) stableAfter(t completedTxn) int64 {
	if first, ok := s.firstOpen(t.producerID); ok {
		return first
	}
	return t.lastOffset + 1
}

// see notes that a producer is at work at a time in ms.
func (s *producers) see(id, now int64) {
	if p, ok := s.byID[id]; ok {
		p.seen = now
	}
}

// expire forgets producers that have been idle for the given time.
func (s *producers) expire(now time.Time, idle time.Duration) {
	limit := now.Add(-idle).UnixMilli()
	for id, p := range s.byID {
		if p.txnStart < 0 && max(p.timestamp, p.seen) <= limit {
			delete(s.byID, id)
		}
	}
}

// clear forgets everything.
func (s *producers) clear() { *s = producers{} }

// sorted returns the producers by id.
func (s *producers) sorted() []*producer {
	list := make([]*producer, 0, len(s.byID))
	for _, p := range s.byID {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *producer) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return list
}
