package coordinator

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/internal/storage"
)

// ledger is a register with transactions: values that count when a marker commits.
type ledger struct {
	register
	pending map[int64][]Record
}

func (s *ledger) ReplayInTransaction(r Record, producerID int64, _ int16) error {
	r = Record{slices.Clone(r.Key), slices.Clone(r.Value)} // the caller's
	s.pending[producerID] = append(s.pending[producerID], r)
	return nil
}

func (s *ledger) ReplayMarker(producerID int64, _ int16, commit bool) {
	for _, r := range s.pending[producerID] {
		if commit {
			_ = s.Replay(r, 0)
		}
	}
	delete(s.pending, producerID)
}

// transactionalLog is a memoryLog that may refuse batches of transactions.
type transactionalLog struct {
	memoryLog
	refuse error
	ended  uint32
}

func (l *transactionalLog) AppendInTransaction(batch []byte, _ uint32, done func(error)) error {
	if l.refuse == nil {
		l.Append(batch, done)
	}
	return l.refuse
}

func (l *transactionalLog) TransactionState(int64, int16) (bool, uint32) { return false, l.ended }

// newLedger returns a bench of a ledger.
func newLedger(t *testing.T) (*bench, *transactionalLog) {
	b := newBench(t)
	log := &transactionalLog{}
	b.runtime.cfg.NewShard = func(int32) Shard {
		return &ledger{register{map[string]int{}, &b.unloaded}, map[int64][]Record{}}
	}
	b.runtime.Lead(3, 1, log)
	b.drain()
	return b, log
}

func (b *bench) ledgerDo(event func(*ledger) Result) *answer {
	a := &answer{}
	err := b.runtime.Do(3, func(s Shard, _ time.Time) Result {
		result := event(s.(*ledger))
		result.Done = a.done("ok")
		return result
	})
	if err != nil {
		a.text = err.Error()
	}
	b.drain()
	return a
}

func (b *bench) ledgerValue(key string) (n int) {
	_ = b.runtime.Do(3, func(s Shard, _ time.Time) Result { n = s.(*ledger).values[key]; return Result{} })
	return n
}

func inTransaction(n int) func(*ledger) Result {
	return func(*ledger) Result {
		return Result{Records: []Record{set("a", n)}, Transaction: &Transaction{ProducerID: 7, Epoch: 2}}
	}
}

// TestTransactionsCountWhenCommitted has markers come live, while the shard is
// loaded, and from the log.
func TestTransactionsCountWhenCommitted(t *testing.T) {
	b, log := newLedger(t)
	b.expect("in a transaction", b.ledgerDo(inTransaction(1)), "ok")
	if n := b.ledgerValue("a"); n != 0 {
		t.Fatalf("before the marker: %d", n)
	}
	batch := log.batches[0]
	if !batch.IsTransactional() || batch.ProducerID() != 7 || batch.ProducerEpoch() != 2 || batch.BaseSequence() != -1 {
		t.Fatalf("the batch has producer %d epoch %d sequence %d", batch.ProducerID(), batch.ProducerEpoch(), batch.BaseSequence())
	}
	marker := func(commit bool) {
		log.Append(storage.AppendMarker(nil, 7, 2, commit, 0, 0), func(error) {})
		b.runtime.CompleteTransaction(3, 7, 2, commit)
	}
	marker(true)
	if n := b.ledgerValue("a"); n != 1 {
		t.Fatalf("after the marker: %d", n)
	}
	b.expect("another", b.ledgerDo(inTransaction(2)), "ok")
	marker(false)

	b.expect("a third", b.ledgerDo(inTransaction(3)), "ok")
	b.runtime.Lead(3, 2, log) // loaded when b.drain is called
	marker(true)
	b.runtime.CompleteTransaction(4, 7, 2, true) // led elsewhere
	b.drain()
	if n := b.ledgerValue("a"); n != 3 {
		t.Fatalf("with a marker while loading: %d", n)
	}
	b.runtime.Lead(3, 3, log)
	b.drain()
	if n := b.ledgerValue("a"); n != 3 {
		t.Fatalf("from the log: %d", n)
	}
}

// TestRefusedTransactionChangesNothing has the log refuse a batch, as of a fenced
// producer: the shard stays as it is and is not loaded again.
func TestRefusedTransactionChangesNothing(t *testing.T) {
	b, log := newLedger(t)
	log.hold = true
	waiting := b.ledgerDo(func(*ledger) Result { return Result{Records: []Record{set("b", 5)}} })
	log.refuse = errors.New("fenced")
	b.expect("refused", b.ledgerDo(inTransaction(1)), "fenced")
	log.refuse = nil
	after := b.ledgerDo(inTransaction(2))
	b.expect("not committed yet", waiting, "")
	log.commit()
	b.drain()
	b.expect("before it", waiting, "ok")
	b.expect("after it", after, "ok")
	b.runtime.CompleteTransaction(3, 7, 2, true)
	if n := b.ledgerValue("a"); n != 2 || b.unloaded != 0 {
		t.Fatalf("%d, unloaded %d times", n, b.unloaded)
	}
}

// TestTransactionsNeedWhoKnowsThem gives a plain shard what belongs to a transaction.
func TestTransactionsNeedWhoKnowsThem(t *testing.T) {
	b := newBench(t)
	b.lead(1)
	b.expect("a plain log", b.do(func(*register) Result {
		return Result{Records: []Record{set("a", 1)}, Transaction: &Transaction{ProducerID: 7}}
	}), "holds no transactions")
	if _, _, err := b.runtime.TransactionState(3, 7, 0); !errors.Is(err, errNotTransactional) {
		t.Errorf("state of a plain log: %v", err)
	}
	if _, _, err := b.runtime.TransactionState(9, 7, 0); !errors.Is(err, ErrNotCoordinator) {
		t.Errorf("state of a partition led elsewhere: %v", err)
	}
	b.expect("it goes on", b.write("a", 2), "ok")
}

// TestMarkersDoNotWait has a log tell of a marker while the shard's lock is held, as a log
// may that answers within an append: nothing blocks, and the next event sees it.
func TestMarkersDoNotWait(t *testing.T) {
	b, _ := newLedger(t)
	b.expect("in a transaction", b.ledgerDo(inTransaction(1)), "ok")
	b.expect("an event within which the marker comes", b.ledgerDo(func(*ledger) Result {
		b.runtime.CompleteTransaction(3, 7, 2, true)
		return Result{}
	}), "ok")
	if n := b.ledgerValue("a"); n != 1 {
		t.Fatalf("the next event sees %d", n)
	}
}
