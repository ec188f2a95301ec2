package txn

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// EndRequest ends a transaction.
type EndRequest struct {
	TransactionalID string
	ProducerID      int64
	Epoch           int16
	Commit          bool
	// Version is the protocol that the client speaks: with V2 the end raises the epoch.
	Version int16
	// Fresh is a producer id that nobody has, -1 when none was fetched yet.
	Fresh int64
}

// EndAnswer answers an EndRequest: with V2 the producer id and epoch from now on.
type EndAnswer struct {
	Err        *kerr.Error
	ProducerID int64
	Epoch      int16
}

// End decides how a transaction ends. The answer comes when that is durable; the
// markers follow.
func (s *Shard) End(r *EndRequest, now time.Time, answer func(EndAnswer)) coordinator.Result {
	t := s.ids[r.TransactionalID]
	end := s.endV1
	if r.Version >= V2 {
		end = s.endV2
	}
	decided, err := end(t, r)
	if decided {
		return s.decide(t, r, now, answer)
	}
	a := EndAnswer{ProducerID: -1, Epoch: -1}
	if err == nil {
		a.ProducerID, a.Epoch = t.producerID, t.epoch
	}
	return say(func(err *kerr.Error) {
		if a.Err = err; err != nil {
			a.ProducerID, a.Epoch = -1, -1
		}
		answer(a)
	}, err)
}

// endV1 says whether a request of the first protocol ends the transaction, or else how
// it is answered: without an error when it was carried out before.
func (s *Shard) endV1(t *transaction, r *EndRequest) (bool, *kerr.Error) {
	switch {
	case t == nil || t.producerID != r.ProducerID:
		return false, kerr.InvalidProducerIDMapping
	case t.epoch != r.Epoch:
		return false, kerr.ProducerFenced
	case t.state.preparing():
		return false, kerr.ConcurrentTransactions
	case t.state == Ongoing:
		return true, nil
	}
	return false, t.repeated(r.Commit)
}

// repeated answers a request that asks for the end of a transaction that is over.
func (t *transaction) repeated(commit bool) *kerr.Error {
	if t.state == CompleteCommit && commit || t.state == CompleteAbort && !commit {
		return nil
	}
	return kerr.InvalidTxnState
}

// endV2 is endV1 for the second protocol, whose producers have another epoch after each
// end. A repetition therefore has the epoch before, and the same epoch with nothing
// open means an empty transaction: clients do not know whether a broker has added
// anything, and may abort it.
func (s *Shard) endV2(t *transaction, r *EndRequest) (bool, *kerr.Error) {
	if t == nil {
		return false, kerr.InvalidProducerIDMapping
	}
	overflowed := t.previousID == r.ProducerID && r.Epoch == lastUsableEpoch && t.epoch == 0
	if t.producerID != r.ProducerID && !overflowed {
		return false, kerr.InvalidProducerIDMapping
	}
	if t.state.preparing() {
		// Whatever is asked for is answered when that is over. Before the epoch is looked
		// at: who aborts the next transaction already is not a producer to fence.
		return false, kerr.ConcurrentTransactions
	}
	retried := t.version >= V2 && r.Epoch == t.epoch-1
	complete := t.state == CompleteCommit || t.state == CompleteAbort
	switch {
	case complete && (retried || overflowed):
		return false, t.repeated(r.Commit)
	case t.epoch != r.Epoch:
		return false, kerr.ProducerFenced
	case t.state == Ongoing, !r.Commit:
		return true, nil
	}
	return false, kerr.InvalidTxnState
}

// decide records the end of a transaction.
func (s *Shard) decide(t *transaction, r *EndRequest, now time.Time, answer func(EndAnswer)) coordinator.Result {
	state := PrepareAbort
	if r.Commit {
		state = PrepareCommit
	}
	next := t.with(state, now)
	next.nextID = -1
	if t.state != Ongoing {
		next.started, next.partitions = now.UnixMilli(), nil
	}
	a := EndAnswer{ProducerID: t.producerID, Epoch: t.epoch}
	if r.Version >= V2 {
		if t.exhausted() && r.Fresh < 0 {
			return say(func(err *kerr.Error) { answer(EndAnswer{Err: err, ProducerID: -1, Epoch: -1}) }, errNeedsID)
		}
		next.version, next.raised = V2, true
		next.epoch++ // the markers have it: nothing of the producer can follow them
		a.Epoch = next.epoch
		if t.exhausted() {
			next.nextID = r.Fresh
			a.ProducerID, a.Epoch = r.Fresh, 0
		}
		t.lastEpoch = t.epoch
	}
	return s.prepare(next, func(err *kerr.Error) {
		if err != nil {
			a = EndAnswer{Err: err, ProducerID: -1, Epoch: -1}
		}
		answer(a)
	})
}

// Complete says that the markers of a transaction that was prepared are written.
// Repeating it does nothing.
func (s *Shard) Complete(p *Prepared, now time.Time, done func()) coordinator.Result {
	t := s.ids[p.TransactionalID]
	if t == nil || !t.state.preparing() || t.producerID != p.ProducerID || t.epoch != p.Epoch {
		return say(func(*kerr.Error) { done() }, nil)
	}
	state := CompleteAbort
	if t.state == PrepareCommit {
		state = CompleteCommit
	}
	next := t.with(state, now)
	next.partitions, next.nextID = nil, -1
	if t.nextID >= 0 {
		next.previousID, next.producerID, next.epoch = t.producerID, t.nextID, 0
	}
	return record(next, func(*kerr.Error) { done() })
}
