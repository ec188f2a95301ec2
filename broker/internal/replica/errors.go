package replica

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// refusals are the failures of an append that are the producer's fault and leave
// the log as it was.
var refusals = []struct {
	is     error
	answer *kerr.Error
}{
	{storage.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{storage.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{storage.ErrRecordTooLarge, kerr.MessageTooLarge},
	{storage.ErrInvalidTimestamp, kerr.InvalidTimestamp},
	{storage.ErrInvalidTxnState, kerr.InvalidTxnState},
	{storage.ErrCoordinatorFenced, kerr.TransactionCoordinatorFenced},
	{storage.ErrInvalidBatch, kerr.InvalidRecord},
	{record.ErrMagic, kerr.InvalidRecord},
	{record.ErrTooLarge, kerr.MessageTooLarge},
	{record.ErrCodec, kerr.UnsupportedCompressionType},
	{record.ErrCRC, kerr.CorruptMessage},
	{record.ErrTruncated, kerr.CorruptMessage},
	{record.ErrCorrupt, kerr.CorruptMessage},
}

// appendError names the failure of an append to the client. A full disk leaves
// the log as it was; any other failure of the disk fences the replica.
func (r *Replica) appendError(err error) *kerr.Error {
	if errors.Is(err, storage.ErrFenced) || errors.Is(err, storage.ErrDamaged) || errors.Is(err, storage.ErrClosed) {
		r.damaged(err) // it may wrap a cause that looks like a refusal
		return kerr.KafkaStorageError
	}
	for _, refusal := range refusals {
		if errors.Is(err, refusal.is) {
			return refusal.answer
		}
	}
	if errors.Is(err, vfs.ErrNoSpace) {
		r.manager.diskFull(err)
		r.giveUp()
		return kerr.KafkaStorageError
	}
	r.damaged(err)
	return kerr.KafkaStorageError
}

// giveUpPause is the time between two attempts of one replica to have another one lead
// because of a full disk: when all disks are full the leadership must not go round.
const giveUpPause = time.Minute

// giveUp asks that another replica leads.
func (r *Replica) giveUp() {
	now := r.manager.clock.Now()
	r.step(func(p *Partition, fx *Effects) {
		if now.Sub(r.gaveUp) < giveUpPause {
			return
		}
		if p.GiveUp(fx); fx.Proposal != nil {
			r.gaveUp = now
		}
	})
}
