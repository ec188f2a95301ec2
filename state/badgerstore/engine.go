package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
)

// Keys in the database: dataPrefix and the store's key, and numberKey. Values of
// data are the value and the CRC-32C of key and value (4).
const dataPrefix = 1

var numberKey = []byte{0, 'n'}

// engine is one store. Apply, Load, Checkpoint and Close are called by one
// goroutine; Get and Scan by any.
type engine struct {
	backend  *Backend
	dir      string
	kind     state.Kind
	log      zerolog.Logger
	memtable int64
	release  func()
	db       *badger.DB

	// Of the writing goroutine.
	marks     []fileMark // of the last checkpoint
	number    uint64     // of the last checkpoint
	fresh     bool       // nothing was written: a restore may use the stream writer
	bulk      *bulk      // the restore that holds writes back, nil for none
	failed    error      // a write or sync that failed; never tried again
	collected int64      // value log bytes after the last garbage collection

	logged atomic.Int64 // bytes in logs, about

	mu         sync.Mutex // guards the fields below
	idle       *sync.Cond // a snapshot was released
	snapshot   *snapshot  // what readers see; nil while restoring
	readers    int        // snapshots held by readers, old ones included
	closed     bool
	position   state.Position
	positioned bool
}

// snapshot is one moment of the store, between two Applies.
type snapshot struct {
	txn *badger.Txn
	// holders counts the readers, and the engine while it is the latest; the last
	// one discards txn. Guarded by engine.mu.
	holders int
	// floor is a bound below which there is no key. Expired windows leave tombstones
	// there that a scan would walk over.
	floor []byte
}

var _ state.Engine = (*engine)(nil)

// openVerified opens the database, or an empty one when the files are damaged.
func (e *engine) openVerified() error {
	e.idle = sync.NewCond(&e.mu)
	reason := e.openChecked()
	if reason == nil {
		return nil
	}
	if errors.Is(reason, errNoCheckpoint) {
		e.log.Debug().Msg("the store has no checkpoint: it starts empty")
	} else if cannotOpen(reason) {
		return reason
	} else {
		e.log.Warn().Err(reason).Str("directory", e.dir).
			Msg("the store's files are not what its checkpoint says: they are removed and the store is rebuilt from its changelog; " +
				"nothing needs to be done, but look at the disk if it happens again")
	}
	return e.openEmpty()
}

// openEmpty removes whatever there is and opens an empty database.
func (e *engine) openEmpty() error {
	if err := startOver(e.dir); err != nil {
		return fmt.Errorf("remove the store's files: %w", err)
	}
	if err := e.openDatabase(); err != nil {
		return err
	}
	e.fresh, e.marks, e.number, e.collected = true, nil, 0, 0
	e.logged.Store(0)
	return nil
}

var errNoCheckpoint = errors.New("there is no checkpoint")

// openChecked opens the database if its files are what the checkpoint says.
func (e *engine) openChecked() error {
	c, err := readCheckpoint(e.dir)
	if errors.Is(err, os.ErrNotExist) {
		return errNoCheckpoint
	}
	if err != nil {
		return err
	}
	if c.kind != e.kind {
		return fmt.Errorf("the checkpoint is of a %v store and this is a %v store", c.kind, e.kind)
	}
	// A restore that was cut short over existing contents left this.
	if err := os.RemoveAll(runsDir(e.dir)); err != nil {
		return err
	}
	database := databaseDir(e.dir)
	if err := removeEmptyLogs(database); err != nil {
		return err
	}
	if err := verify(database, c); err != nil {
		return err
	}
	named, _, err := readManifest(database)
	if err != nil {
		return err
	}
	if err := e.openDatabase(); err != nil {
		return err
	}
	err = e.verifyOpened(named, c.number)
	if err == nil {
		err = e.adopt(c, named)
	}
	if err != nil {
		e.closeDatabase()
	}
	return err
}

// adopt makes c, which the opened database agrees with, the engine's checkpoint.
func (e *engine) adopt(c *checkpoint, named []string) error {
	e.marks = slices.DeleteFunc(c.files, func(m fileMark) bool {
		_, still := slices.BinarySearch(named, m.name)
		return strings.HasSuffix(m.name, tableSuffix) && !still
	})
	// Badger has begun new logs and may use the names of old ones again: list what
	// is there now.
	e.awaitFlush()
	return e.record(c.position, c.number)
}

// verifyOpened checks that Badger loaded the tables named before it was opened,
// and that it holds a checkpoint not older than number. Compaction may begin at
// once, so a table may be missing if the MANIFEST no longer names it.
func (e *engine) verifyOpened(named []string, number uint64) error {
	loaded := map[string]bool{}
	for _, t := range e.db.Tables() {
		loaded[fmt.Sprintf("%06d%s", t.ID, tableSuffix)] = true
	}
	now, _, err := readManifest(databaseDir(e.dir))
	if err != nil {
		return err
	}
	for _, name := range named {
		if _, still := slices.BinarySearch(now, name); still && !loaded[name] {
			return fmt.Errorf("badger left out table %s", name)
		}
	}
	item, err := e.snapshot.txn.Get(numberKey)
	if err != nil {
		return fmt.Errorf("the database does not know checkpoint %d: %w", number, err)
	}
	return item.Value(func(b []byte) error {
		if len(b) != 8 || binary.BigEndian.Uint64(b) < number {
			return fmt.Errorf("the database is older than checkpoint %d: its number is %x", number, b)
		}
		return nil
	})
}

// cannotOpen is true for failures that say nothing about the files.
func cannotOpen(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, state.ErrNoSpace) || isResourceError(err) ||
		strings.Contains(err.Error(), "Cannot acquire directory lock")
}

func (e *engine) openDatabase() error {
	db, err := badger.Open(databaseOptions(databaseDir(e.dir), e.memtable, e.log))
	if err != nil {
		return err
	}
	e.db = db
	e.publish(nil)
	return nil
}

func (e *engine) closeDatabase() {
	e.publishNone()
	if err := e.db.Close(); err != nil {
		e.log.Warn().Err(err).Msg("closing the database failed")
	}
	e.db = nil
}

// publish makes all that was written visible to readers that come from now on.
func (e *engine) publish(floor []byte) {
	next := &snapshot{txn: e.db.NewTransaction(false), holders: 1, floor: floor}
	e.mu.Lock()
	old := e.snapshot
	e.snapshot = next
	e.mu.Unlock()
	e.drop(old)
}

// publishNone makes readers fail, and returns when none is left.
func (e *engine) publishNone() {
	e.mu.Lock()
	old := e.snapshot
	e.snapshot = nil
	e.mu.Unlock()
	e.drop(old)
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.readers > 0 {
		e.idle.Wait()
	}
}

// drop ends one hold of s.
func (e *engine) drop(s *snapshot) {
	if s == nil {
		return
	}
	e.mu.Lock()
	s.holders--
	last := s.holders == 0
	e.mu.Unlock()
	if last {
		s.txn.Discard()
	}
}

// acquire returns the latest snapshot for a reader, who must release it.
func (e *engine) acquire() (*snapshot, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, state.ErrClosed
	}
	if e.snapshot == nil {
		return nil, state.ErrRestoring
	}
	e.readers++
	e.snapshot.holders++
	return e.snapshot, nil
}

func (e *engine) releaseSnapshot(s *snapshot) {
	e.drop(s)
	e.mu.Lock()
	e.readers--
	if e.readers == 0 {
		e.idle.Broadcast()
	}
	e.mu.Unlock()
}

// Get implements state.Reader.
func (e *engine) Get(dst, key []byte) ([]byte, bool, error) {
	s, err := e.acquire()
	if err != nil {
		return dst, false, err
	}
	defer e.releaseSnapshot(s)
	var room [128]byte
	item, err := s.txn.Get(append(append(room[:0], dataPrefix), key...))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, e.damaged(fmt.Errorf("read key %x: %w", key, err))
	}
	start := len(dst)
	err = item.Value(func(stored []byte) error {
		value, err := openValue(key, stored)
		dst = append(dst, value...)
		return err
	})
	if err != nil {
		return dst[:start], false, e.damaged(fmt.Errorf("read key %x: %w", key, err))
	}
	return dst, true, nil
}

// Scan implements state.Reader. It sees one moment between two Applies.
func (e *engine) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	s, err := e.acquire()
	if err != nil {
		return err
	}
	defer e.releaseSnapshot(s)
	if s.floor != nil && bytes.Compare(from, s.floor) < 0 {
		from = s.floor
	}
	if to != nil && bytes.Compare(from, to) >= 0 {
		return nil
	}
	it := s.txn.NewIterator(badger.IteratorOptions{Reverse: reverse, Prefix: []byte{dataPrefix}})
	defer it.Close()
	low := append([]byte{dataPrefix}, from...)
	high := []byte{dataPrefix + 1} // above every key
	if to != nil {
		high = append([]byte{dataPrefix}, to...)
	}
	if reverse {
		it.Seek(high) // the last key not above high
	} else {
		it.Seek(low)
	}
	for ; it.Valid(); it.Next() {
		item := it.Item()
		stored := item.Key()
		if bytes.Compare(stored, high) >= 0 {
			if reverse {
				continue // high itself is not in the range
			}
			return nil
		}
		if reverse && bytes.Compare(stored, low) < 0 {
			return nil
		}
		more := true
		err := item.Value(func(b []byte) error {
			value, err := openValue(stored[1:], b)
			if err == nil {
				more = fn(stored[1:], value)
			}
			return err
		})
		if err != nil {
			return e.damaged(fmt.Errorf("scan at key %x: %w", stored[1:], err))
		}
		if !more {
			return nil
		}
	}
	return nil
}

// sealValue appends value and the checksum of key and value to dst.
func sealValue(dst, key, value []byte) []byte {
	dst = append(dst, value...)
	return binary.BigEndian.AppendUint32(dst, crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value))
}

func openValue(key, stored []byte) ([]byte, error) {
	n := len(stored) - crc32.Size
	if n < 0 {
		return nil, fmt.Errorf("the value has %d bytes", len(stored))
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, stored[:n])
	if want := binary.BigEndian.Uint32(stored[n:]); sum != want {
		return nil, fmt.Errorf("the value's checksum is %08x, it says %08x", sum, want)
	}
	return stored[:n:n], nil
}

// damaged makes sure that the next open starts over.
func (e *engine) damaged(reason error) error {
	if err := removeCheckpoint(e.dir); err != nil {
		reason = errors.Join(reason, fmt.Errorf("remove the checkpoint: %w", err))
	}
	e.log.Warn().Err(reason).Str("directory", e.dir).
		Msg("the store is damaged: its task stops, and the store is rebuilt from its changelog when it is opened again")
	return fmt.Errorf("badgerstore: %w: %w", state.ErrDamaged, reason)
}

// writable returns why nothing can be written.
func (e *engine) writable(size int64) error {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return state.ErrClosed
	}
	if e.failed != nil {
		return e.failed
	}
	return e.backend.checkSpace(size)
}

// fail notes that what the database holds is no longer known.
func (e *engine) fail(what string, err error) error {
	e.failed = fmt.Errorf("badgerstore: %s: %w: the store must be opened again", what, err)
	return e.failed
}

// Apply implements state.Engine. Readers see all of the batch or nothing.
func (e *engine) Apply(b *state.Batch) error {
	if err := e.writable(int64(b.Bytes())); err != nil {
		return err
	}
	if err := e.finishBulk(); err != nil {
		return err
	}
	if b.Len() == 0 {
		return nil
	}
	return e.write(b)
}

func (e *engine) write(b *state.Batch) error {
	e.fresh = false
	e.mu.Lock()
	floor := e.snapshot.floor
	e.mu.Unlock()
	batch := e.db.NewWriteBatch()
	defer batch.Cancel()
	bound, covered := expiry(b)
	if bound != nil && bytes.Compare(bound, floor) > 0 {
		if err := e.deleteBefore(batch, floor, bound); err != nil {
			return e.fail("expire keys", err)
		}
		floor = bytes.Clone(bound)
	}
	var memory []byte // Badger refers to it until Flush
	for i := range b.Len() {
		op, key, value := b.Entry(i)
		if covered != nil && covered[i] {
			continue
		}
		start := len(memory)
		memory = append(append(memory, dataPrefix), key...)
		stored := memory[start:len(memory):len(memory)]
		if op == state.OpDelete {
			if err := batch.Delete(stored); err != nil {
				return e.fail(fmt.Sprintf("delete key %x", key), err)
			}
			continue
		}
		if bytes.Compare(key, floor) < 0 {
			floor = bytes.Clone(key)
		}
		start = len(memory)
		memory = sealValue(memory, key, value)
		if err := batch.Set(stored, memory[start:len(memory):len(memory)]); err != nil {
			return e.fail(fmt.Sprintf("write key %x", key), err)
		}
	}
	if err := batch.Flush(); err != nil {
		return e.fail("write a batch", err)
	}
	e.publish(floor)
	e.logged.Add(int64(b.Bytes()))
	return nil
}

// expiry returns the highest bound of the batch's DeleteBefores, nil for none, and
// for each entry whether a later one covers its key.
func expiry(b *state.Batch) (bound []byte, covered []bool) {
	for i := b.Len() - 1; i >= 0; i-- {
		op, key, _ := b.Entry(i)
		switch {
		case op == state.OpDeleteBefore:
			if covered == nil {
				covered, bound = make([]bool, b.Len()), key
			}
			if bytes.Compare(key, bound) > 0 {
				bound = key
			}
			covered[i] = true
		case covered != nil:
			covered[i] = bytes.Compare(key, bound) < 0
		}
	}
	return bound, covered
}

// deleteBefore adds the deletion of every key in [floor, bound).
func (e *engine) deleteBefore(batch *badger.WriteBatch, floor, bound []byte) error {
	it := e.snapshot.txn.NewIterator(badger.IteratorOptions{Prefix: []byte{dataPrefix}})
	defer it.Close()
	high := append([]byte{dataPrefix}, bound...)
	for it.Seek(append([]byte{dataPrefix}, floor...)); it.Valid(); it.Next() {
		if bytes.Compare(it.Item().Key(), high) >= 0 {
			return nil
		}
		if err := batch.Delete(it.Item().KeyCopy(nil)); err != nil {
			return err
		}
	}
	return nil
}

// flushPatience is how long Checkpoint waits for memtables in the queue to become
// tables; until then their logs count.
const flushPatience = 2 * time.Second

// Checkpoint implements state.Engine.
func (e *engine) Checkpoint(p state.Position) error {
	if err := e.writable(0); err != nil {
		return err
	}
	if err := e.finishBulk(); err != nil {
		return err
	}
	if err := e.collectGarbage(); err != nil {
		return e.fail("collect garbage", err)
	}
	number := e.number + 1
	batch := e.db.NewWriteBatch()
	defer batch.Cancel()
	if err := batch.Set(numberKey, binary.BigEndian.AppendUint64(nil, number)); err != nil {
		return e.fail("write a checkpoint's number", err)
	}
	if err := batch.Flush(); err != nil {
		return e.fail("write a checkpoint's number", err)
	}
	if err := e.db.Sync(); err != nil {
		return e.fail("sync", err)
	}
	e.awaitFlush()
	if err := e.record(p, number); err != nil {
		return e.fail("make a checkpoint", err)
	}
	e.fresh = false
	return nil
}

// record lists the files and writes the checkpoint file.
func (e *engine) record(p state.Position, number uint64) error {
	marks, err := inventory(databaseDir(e.dir), e.marks)
	if err != nil {
		return fmt.Errorf("list the files: %w", err)
	}
	c := &checkpoint{kind: e.kind, position: p, number: number, files: marks}
	if err := writeCheckpoint(e.dir, c); err != nil {
		return fmt.Errorf("write the checkpoint file: %w", err)
	}
	var logged int64
	for _, m := range marks {
		if isLog(m.name) {
			logged += m.size
		}
	}
	e.logged.Store(logged)
	e.marks, e.number = marks, number
	e.mu.Lock()
	e.position, e.positioned = p, true
	e.mu.Unlock()
	return nil
}

// awaitFlush waits until the memtable that is written is the only one.
func (e *engine) awaitFlush() {
	for begin := time.Now(); time.Since(begin) < flushPatience; time.Sleep(time.Millisecond) {
		names, err := logs(databaseDir(e.dir))
		if err != nil {
			return // listing the files reports it
		}
		waiting := 0
		for _, name := range names {
			if strings.HasSuffix(name, writeAheadExt) {
				waiting++
			}
		}
		if waiting <= 1 {
			return
		}
	}
}

// garbageThreshold is how many bytes of value log may be written before those
// that are no longer used are looked for.
const garbageThreshold = 64 << 20

// collectGarbage rewrites value logs that are half unused, when they have doubled
// since the last time. Only values above the threshold of databaseOptions are
// in them; most stores have none.
func (e *engine) collectGarbage() error {
	var size int64
	for _, m := range e.marks {
		if strings.HasSuffix(m.name, valueLogExt) {
			size += m.size
		}
	}
	if size < max(garbageThreshold, 2*e.collected) {
		return nil
	}
	for {
		err := e.db.RunValueLogGC(0.5)
		if errors.Is(err, badger.ErrNoRewrite) {
			break
		}
		if err != nil {
			return err
		}
	}
	e.collected = size
	return nil
}

// Clear implements state.Engine.
func (e *engine) Clear() error {
	if err := e.writable(0); err != nil {
		return err
	}
	e.mu.Lock()
	e.position, e.positioned = state.Position{}, false
	e.mu.Unlock()
	e.bulk.remove()
	e.bulk = nil
	e.publishNone()
	if err := e.db.Close(); err != nil {
		return e.fail("clear the store", err)
	}
	if err := e.openEmpty(); err != nil {
		return e.fail("clear the store", err)
	}
	return nil
}

// Position implements state.Engine.
func (e *engine) Position() (state.Position, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.position, e.positioned
}

// Size implements state.Engine: the bytes of the tables, and those written to
// logs since the last table. The latter counts from the last checkpoint.
func (e *engine) Size() int64 {
	s, err := e.acquire()
	if err != nil {
		return 0
	}
	defer e.releaseSnapshot(s)
	size := e.logged.Load()
	for _, t := range e.db.Tables() {
		size += int64(t.OnDiskSize)
	}
	return size
}

// Close implements state.Engine. Badger turns its memtables into tables; if there
// is a checkpoint, it is written again, at the same position, to list them.
func (e *engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return state.ErrClosed
	}
	e.closed = true
	e.mu.Unlock()
	defer e.release()
	e.publishNone()
	e.bulk.remove()
	err := e.db.Close()
	if err != nil || e.failed != nil || !e.positioned {
		return err
	}
	if _, err := os.Stat(filepath.Join(e.dir, checkpointName)); err != nil {
		return nil // damage was found while it was open
	}
	if err := e.record(e.position, e.number); err != nil {
		return fmt.Errorf("badgerstore: close: %w", err)
	}
	return nil
}
