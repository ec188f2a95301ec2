package replica

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
)

// ReadRequest says what to read.
type ReadRequest struct {
	Offset   int64
	MaxBytes int32
	// AtLeastOne has the first batch returned even when it is larger than MaxBytes.
	AtLeastOne bool
	// CurrentLeaderEpoch is what the reader takes for the leader epoch (KIP-320), -1 unknown.
	CurrentLeaderEpoch int32
	// LastFetchedEpoch is the epoch of the record before Offset, -1 unknown. When the
	// log has another there, the result diverges.
	LastFetchedEpoch int32
	// Committed reads up to the last stable offset instead of the high watermark.
	Committed bool
	// Nearby lets a follower answer, up to its own high watermark (KIP-392).
	Nearby bool
	// Near are the brokers that are close to the reader (KIP-392): a leader that is none
	// of them says in the result which of them to read from, if one can serve the read.
	Near []int32
}

// ReadResult is what was read. With an Err only LeaderEpoch and Position are set.
type ReadResult struct {
	Err              *kerr.Error
	Slice            storage.Slice // Size 0: nothing to read
	HighWatermark    int64
	LastStableOffset int64
	LogStart         int64
	// Aborted are the aborted transactions of what is in Slice, of a read with
	// Committed; their producers' batches from FirstOffset on are not to be seen.
	Aborted     []storage.AbortedTxn
	LeaderEpoch int32
	// Position is the point in the partition's growth at which Read looked, for Wait.
	Position int64
	// DivergingEpoch is -1 when the reader's log and this one agree.
	DivergingEpoch int32
	DivergingEnd   int64
	// Preferred is the broker to read from instead, 0 for none: then nothing was read.
	Preferred int32
	// End is the end of the log at which ReadFollower looked, for WaitEnd.
	End int64
}

// look is the core at one moment.
type look struct {
	err          *kerr.Error
	high, stable int64
	position     int64
	epoch        int32
	behind       bool // a leader's high watermark has not reached its epoch yet (KIP-207)
}

func (r *Replica) look(currentLeaderEpoch int32, nearby bool) look {
	now := r.lookCore(currentLeaderEpoch, nearby)
	if r.log != nil {
		if first, ok := r.log.FirstUnstableOffset(now.high); ok {
			now.stable = min(now.stable, first)
		}
	}
	return now
}

func (r *Replica) lookCore(currentLeaderEpoch int32, nearby bool) look {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := look{high: r.core.HighWatermark(), stable: r.core.HighWatermark(),
		position: r.core.Position(), epoch: r.core.LeaderEpoch(), behind: r.core.HighWatermark() < r.core.EpochStart()}
	if nearby {
		now.err = r.core.CheckReplica(currentLeaderEpoch)
	} else {
		now.err = r.core.CheckLeader(currentLeaderEpoch)
	}
	return now
}

// Read reads whole batches as a range of a log file. The caller releases the slice.
func (r *Replica) Read(q ReadRequest) ReadResult {
	now := r.look(q.CurrentLeaderEpoch, q.Nearby)
	result := now.result()
	if result.Err != nil {
		return result
	}
	if !r.agrees(&q, &result) {
		result.Err = r.verdict(result.Err)
		return result
	}
	if len(q.Near) > 0 {
		if result.Preferred = r.near(q.Near, q.Offset); result.Preferred != 0 {
			return result
		}
	}
	limit := now.high
	if q.Committed {
		limit = now.stable
	}
	if mutant.Is(mutant.ReadBeyondHighWatermark) {
		limit = result.End
	}
	r.slice(&q, limit, &result)
	if q.Committed && result.Slice.Size > 0 {
		var err error
		if result.Aborted, err = r.log.AbortedTransactions(nil, q.Offset, result.Slice.End); err != nil {
			result.Slice.Release()
			result.Slice, result.Err = storage.Slice{}, r.readError(err)
		}
	}
	r.traffic.sent(result.Slice.Size)
	return result
}

// near returns the broker among ids that a reader at offset is sent to, 0 for none.
func (r *Replica) near(ids []int32, offset int64) int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.Near(ids, offset)
}

func (now *look) result() ReadResult {
	return ReadResult{Err: now.err, HighWatermark: now.high, LastStableOffset: now.stable, LeaderEpoch: now.epoch,
		Position: now.position, DivergingEpoch: -1}
}

// agrees says that the reader's log is a beginning of this one, as far as it
// tells; else the result says what is wrong, in Kafka's order.
func (r *Replica) agrees(q *ReadRequest, result *ReadResult) bool {
	result.LogStart, result.End = r.log.StartOffset(), r.log.EndOffset()
	if q.Offset < result.LogStart {
		result.Err = kerr.OffsetOutOfRange
		return false
	}
	if q.LastFetchedEpoch >= 0 && !mutant.Is(mutant.NoEpochCheck) {
		epoch, end := r.log.EndOffsetForEpoch(q.LastFetchedEpoch)
		if epoch < 0 || end < 0 {
			result.Err = kerr.OffsetOutOfRange
			return false
		}
		if epoch < q.LastFetchedEpoch || end < q.Offset {
			result.DivergingEpoch, result.DivergingEnd = epoch, end
			return false
		}
	}
	if q.Offset > result.End {
		result.Err = kerr.OffsetOutOfRange
		return false
	}
	return true
}

func (r *Replica) slice(q *ReadRequest, limit int64, result *ReadResult) {
	if q.Offset >= limit {
		return
	}
	if err := r.log.Damaged(); err != nil {
		result.Err = r.readError(err) // somebody else found out
		return
	}
	slice, err := r.log.Slice(q.Offset, limit, int(q.MaxBytes), q.AtLeastOne)
	if err != nil {
		result.Err = r.readError(err)
		return
	}
	result.Slice = slice
}

// ReadFollower is Read for a replica of the partition that is registered under
// brokerEpoch: it reads up to the end of the log. That the follower asks for an
// offset says that it has on disk what is below; an offset of -1 that it lost its
// log, which is answered with OFFSET_OUT_OF_RANGE and the LogStart to copy from.
func (r *Replica) ReadFollower(q ReadRequest, replica int32, brokerEpoch int64) ReadResult {
	r.mu.Lock()
	known := slices.Contains(r.core.replicas, replica)
	throttled := r.throttledLeader.Load() && r.meta != nil && !slices.Contains(r.meta.ISR, replica)
	r.mu.Unlock()
	now := r.look(q.CurrentLeaderEpoch, false)
	result := now.result()
	if result.Err == nil && !known {
		result.Err = kerr.NotLeaderForPartition // metadata that names it is on its way
	}
	if result.Err != nil {
		return result
	}
	if !r.agrees(&q, &result) && q.Offset >= 0 {
		return result
	}
	at := r.manager.clock.Now()
	r.step(func(p *Partition, fx *Effects) {
		if p.LeaderEpoch() == now.epoch {
			p.FollowerFetched(replica, brokerEpoch, q.Offset, at, fx)
		}
		result.HighWatermark, result.Position = p.HighWatermark(), p.Position()
	})
	if result.Err != nil || throttled && r.manager.leading.wait(at) > 0 {
		return result
	}
	r.slice(&q, result.End, &result)
	if throttled {
		r.manager.leading.took(at, result.Slice.Size)
	}
	return result
}

// The special timestamps of ListOffsets.
const (
	latestTimestamp        = -1
	earliestTimestamp      = -2
	maxTimestamp           = -3 // KIP-734
	earliestLocalTimestamp = -4 // KIP-405: the same as earliest without tiered storage
	latestTieredTimestamp  = -5 // KIP-1005: none without tiered storage
)

// Listed is an answer of ListOffset; -1 is unknown.
type Listed struct {
	Offset      int64
	Timestamp   int64 // ms
	LeaderEpoch int32
}

// ListOffset finds an offset by time, or by a special timestamp.
func (r *Replica) ListOffset(timestamp int64, committed bool, currentLeaderEpoch int32) (Listed, *kerr.Error) {
	none := Listed{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	now := r.look(currentLeaderEpoch, false)
	if now.err != nil {
		return none, now.err
	}
	if now.behind && (timestamp == latestTimestamp || timestamp == maxTimestamp || timestamp >= 0) {
		return none, kerr.OffsetNotAvailable // KIP-207
	}
	limit := now.high
	if committed {
		limit = now.stable
	}
	switch timestamp {
	case latestTimestamp:
		return Listed{Offset: limit, Timestamp: -1, LeaderEpoch: now.epoch}, nil
	case earliestTimestamp, earliestLocalTimestamp:
		start := r.log.StartOffset()
		return Listed{Offset: start, Timestamp: -1, LeaderEpoch: r.log.EpochAt(start)}, nil
	case maxTimestamp:
		offset, at, epoch := r.log.MaxTimestamp()
		if offset < 0 || offset >= limit {
			return none, nil
		}
		return Listed{Offset: offset, Timestamp: at, LeaderEpoch: epoch}, nil
	}
	if timestamp < 0 {
		return none, nil
	}
	offset, at, epoch, err := r.log.OffsetForTimestamp(timestamp)
	switch {
	case err != nil:
		return none, r.readError(err)
	case offset < 0 || offset >= limit:
		return none, nil
	}
	return Listed{Offset: offset, Timestamp: at, LeaderEpoch: epoch}, nil
}

// EpochEnd returns the largest epoch that is not larger than epoch and its end
// offset; -1, -1 when the epoch is not known (KIP-101, KIP-279).
func (r *Replica) EpochEnd(currentLeaderEpoch, epoch int32) (found int32, end int64, err *kerr.Error) {
	if now := r.look(currentLeaderEpoch, false); now.err != nil {
		return -1, -1, now.err
	}
	found, end = r.log.EndOffsetForEpoch(epoch)
	return found, end, nil
}

// DeleteBefore removes all records below offset, -1 meaning the high watermark,
// and returns the new log start.
func (r *Replica) DeleteBefore(offset int64) (logStart int64, err *kerr.Error) {
	now := r.look(-1, false)
	if now.err != nil {
		return -1, now.err
	}
	if offset == -1 {
		offset = now.high
	}
	if offset < 0 || offset > now.high {
		return -1, kerr.OffsetOutOfRange
	}
	if offset > r.log.StartOffset() {
		if failure := r.log.AdvanceStart(offset); failure != nil {
			return -1, r.readError(failure)
		}
	}
	return r.log.StartOffset(), nil
}

// readError names the failure of a read to the client. Only damage fences the
// replica: what a client wrote into its batches, or a read that failed once, does
// not.
func (r *Replica) readError(err error) *kerr.Error {
	switch {
	case errors.Is(err, storage.ErrOffsetOutOfRange):
		return kerr.OffsetOutOfRange
	case errors.Is(err, storage.ErrDamaged), errors.Is(err, storage.ErrFenced):
		r.damaged(err)
	case errors.Is(err, record.ErrCorrupt), errors.Is(err, record.ErrTruncated), errors.Is(err, record.ErrTooLarge), errors.Is(err, record.ErrCodec):
		return kerr.CorruptMessage
	default:
		r.manager.logger.Error().Err(err).Str("topic", r.name).Int32("partition", r.partition).Msg("a read failed")
	}
	return kerr.KafkaStorageError
}
