// Package state holds the contracts of the stores that processors keep: what a
// store is told (Spec), what an operator sees (Store), and what an engine
// (memstore, badgerstore) provides (Engine). Stores are byte stores, ordered by
// key; the typed views live in package topology.
package state

import (
	"context"
	"errors"
)

// Position is a place in a store's changelog partition.
type Position struct {
	// Offset is the next changelog offset to restore: all before it is in the store.
	Offset int64
	// LeaderEpoch is the epoch of the last record applied, -1 when not known.
	LeaderEpoch int32
}

// Errors callers branch on.
var (
	// ErrClosed says that the store was used after Close.
	ErrClosed = errors.New("state: store is closed")
	// ErrDamaged says that an engine's files are not what its checkpoint says; the
	// store must be rebuilt from its changelog.
	ErrDamaged = errors.New("state: store is damaged")
	// ErrRestoring says that a store was read between a Load and the Checkpoint
	// that ends the restore.
	ErrRestoring = errors.New("state: store is being restored")
	// ErrNoSpace says that the disk is too full to write safely. Nothing was
	// written: free space and try again.
	ErrNoSpace = errors.New("state: not enough free disk space")
	// ErrOpen says that the store is open already.
	ErrOpen = errors.New("state: store is open already")
)

// Reader reads an ordered byte store. A reader sees the writes made before it
// through the same Store. Not safe for concurrent use unless said so.
type Reader interface {
	// Get appends the value of key to dst. found is false when there is none.
	Get(dst, key []byte) (value []byte, found bool, err error)
	// Scan calls fn for the keys in [from, to) in order, or in reverse order; a nil
	// bound is open. The slices are valid during the call only. It stops when fn
	// returns false. fn must not write to the store.
	Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error
}

// Store is what an operator of a task sees: reads and uncommitted writes.
// Key and value are copied. A nil value is a deletion.
type Store interface {
	Reader
	// Put sets key to value. timestamp is the record's, in ms since the epoch; it
	// becomes the timestamp of the changelog record.
	Put(key, value []byte, timestamp int64) error
	// Delete removes key.
	Delete(key []byte, timestamp int64) error
	// DeleteBefore forgets every key below bound, without changelog records (the
	// changelog forgets by its own retention): how windows expire.
	DeleteBefore(bound []byte) error
}

// Engine is one partition of a store on some medium. It holds committed state
// only. Apply and Load are called by one goroutine; Get and Scan may run
// concurrently with them (interactive queries).
type Engine interface {
	Reader
	// Apply writes a committed batch. When it returns, readers see it; it need not
	// be durable before Checkpoint.
	Apply(*Batch) error
	// Load writes a batch during restore; keys may come in any order and repeat, the
	// last one wins. The engine may hold loaded writes back, to sort them: readers
	// see them, and they are durable, after Checkpoint only, and until then reads may
	// fail with ErrRestoring.
	Load(*Batch) error
	// Checkpoint makes all that was applied durable and then records that it reaches
	// position. After a crash Position returns the last one recorded.
	Checkpoint(Position) error
	// Position returns the checkpoint found when the engine was opened or made last;
	// false when there is none and the store must be restored from the beginning.
	Position() (Position, bool)
	// Clear removes everything and the position: the store starts over. Called by the
	// goroutine that calls Apply.
	Clear() error
	// Size estimates the bytes on the medium.
	Size() int64
	// Close releases the engine; it does not checkpoint.
	Close() error
}

// Backend opens engines. Safe for concurrent use.
type Backend interface {
	// Open opens the engine of one task's store. task is "<sub-topology>_<partition>".
	// Damage is not an error: the engine is opened empty, Position is false, and the
	// reason is logged.
	Open(ctx context.Context, task string, spec Spec) (Engine, error)
	// Close closes the backend; every engine must be closed first.
	Close() error
}
