package storage

import (
	"errors"
	"fmt"
)

// Errors that callers branch on with errors.Is.
var (
	// ErrOffsetOutOfRange says that an offset is below the start or above the end.
	ErrOffsetOutOfRange = errors.New("storage: offset out of range")
	// ErrRecordTooLarge says that a batch exceeds max.message.bytes.
	ErrRecordTooLarge = errors.New("storage: batch exceeds max.message.bytes")
	// ErrInvalidTimestamp says that a batch's timestamps are further from now than
	// message.timestamp.before.max.ms or message.timestamp.after.max.ms allow.
	ErrInvalidTimestamp = errors.New("storage: timestamp out of the allowed range")
	// ErrInvalidBatch says that a batch may not be appended: no records, a gap in
	// its offsets, offsets that do not follow the log's, or a bad control record.
	ErrInvalidBatch = errors.New("storage: batch may not be appended")
	// ErrOutOfOrderSequence says that an idempotent producer's sequence number does
	// not follow its last one.
	ErrOutOfOrderSequence = errors.New("storage: out of order sequence number")
	// ErrInvalidProducerEpoch says that a newer epoch of the producer is known.
	ErrInvalidProducerEpoch = errors.New("storage: producer epoch is stale")
	// ErrInvalidTxnState says that a producer with an open transaction sent a batch
	// outside of it.
	ErrInvalidTxnState = errors.New("storage: transactional batch expected")
	// ErrCoordinatorFenced says that a transaction marker comes from a coordinator
	// that has been replaced.
	ErrCoordinatorFenced = errors.New("storage: transaction coordinator is fenced")
	// ErrFenced says that the log or its directory takes no more writes because
	// data is damaged or the disk failed. The error wraps the cause.
	ErrFenced = errors.New("storage: fenced")
	// ErrDamaged says that bytes that were durable are not there any more.
	ErrDamaged = errors.New("storage: damaged")
	// ErrClosed says that the log or directory has been closed.
	ErrClosed = errors.New("storage: closed")
)

// DamageError says which bytes are damaged. errors.Is finds ErrDamaged in it.
type DamageError struct {
	File     string // path
	Position int64  // in the file, in bytes
	Offset   int64  // the first offset that cannot be read
	Err      error  // what is wrong there
}

// Error names the damage and what to do about it.
func (e *DamageError) Error() string {
	return fmt.Sprintf("storage: damaged: %s at byte %d, offset %d: %v; copy the partition from another replica or restore the file", e.File, e.Position, e.Offset, e.Err)
}

// Unwrap gives ErrDamaged and the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// fencedError is what a fenced log answers to writes.
type fencedError struct {
	dir   string
	cause error
}

func (e *fencedError) Error() string {
	return fmt.Sprintf("storage: fenced: %s takes no writes until the broker is restarted on a sound disk: %v", e.dir, e.cause)
}

func (e *fencedError) Unwrap() []error { return []error{ErrFenced, e.cause} }
