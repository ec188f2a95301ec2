package gokastream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lovoo/goka/storage"

	"github.com/leatlog/leat/state"
)

const (
	// pendingBytes and pendingWrites bound the writes that wait to be applied
	// together.
	pendingBytes  = 1 << 20
	pendingWrites = 4096
	// checkpointInterval is the time between checkpoints while offsets come.
	checkpointInterval = 30 * time.Second
)

// StorageBuilder keeps goka's tables in stores of the backend, one for each
// partition of a topic: pass it to goka.WithStorageBuilder or
// goka.WithViewStorageBuilder. Close the processors and views before the backend.
//
// What a store holds after a crash is what was checkpointed, every 30 s, and goka
// reads the rest of the table's topic again. A store whose files are damaged
// starts empty and without an offset: goka reads the whole topic.
func StorageBuilder(backend state.Backend) storage.Builder {
	return func(topic string, partition int32) (storage.Storage, error) {
		if partition < 0 {
			return nil, fmt.Errorf("gokastream: storage of %s: partition %d", topic, partition)
		}
		return &store{backend: backend, topic: topic, partition: partition}, nil
	}
}

// store is goka's Storage over an engine. Writes wait in memory for others, so
// that a batch of them is applied at once; reads see them. Safe for concurrent
// use.
type store struct {
	backend   state.Backend
	topic     string
	partition int32

	mu          sync.RWMutex
	engine      state.Engine // nil while it is not open
	pending     map[string][]byte
	size        int
	batch       state.Batch
	offset      int64
	known       bool // there is an offset
	checkpoint  time.Time
	checkpoints int64 // the offset of the last one
	iterators   map[*iterator]struct{}
}

var _ storage.Storage = (*store)(nil)

func (s *store) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("gokastream: storage of %s-%d: %s: %w", s.topic, s.partition, what, err)
}

// task names the directory of the topic's partition: a task may not have all the
// bytes that a topic may.
func (s *store) task() string {
	return "goka_" + strings.NewReplacer("_", "__", ".", "_-").Replace(s.topic) + "_" + strconv.Itoa(int(s.partition))
}

// Open implements storage.Storage.
func (s *store) Open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		return s.wrap("open", state.ErrOpen)
	}
	engine, err := s.backend.Open(context.Background(), s.task(), state.Spec{Name: "table", Kind: state.KeyValue, NoChangelog: true})
	if err != nil {
		return s.wrap("open", err)
	}
	s.engine, s.pending, s.size = engine, map[string][]byte{}, 0
	s.iterators, s.checkpoint = map[*iterator]struct{}{}, time.Now()
	position, found := engine.Position()
	s.offset, s.known, s.checkpoints = position.Offset, found, position.Offset
	if !found {
		s.checkpoints = math.MinInt64
	}
	return nil
}

// Close implements storage.Storage: everything is durable when it returns.
// Iterators end.
func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return nil
	}
	for i := range s.iterators {
		i.end()
	}
	err := errors.Join(s.durable(), s.engine.Close())
	s.engine = nil
	return s.wrap("close", err)
}

// Has implements storage.Storage.
func (s *store) Has(key string) (bool, error) {
	value, err := s.Get(key)
	return value != nil, err
}

// Get implements storage.Storage.
func (s *store) Get(key string) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.engine == nil {
		return nil, s.wrap("get", state.ErrClosed)
	}
	if value, ok := s.pending[key]; ok {
		return bytes.Clone(value), nil // a deletion is nil
	}
	value, found, err := s.engine.Get([]byte{}, []byte(key))
	if err != nil || !found {
		return nil, s.wrap("get", err)
	}
	return value, nil
}

// Set implements storage.Storage. A nil value is refused, as by goka's memory
// storage.
func (s *store) Set(key string, value []byte) error {
	if value == nil {
		return fmt.Errorf("gokastream: storage of %s-%d: set %q: the value is nil: use Delete", s.topic, s.partition, key)
	}
	return s.write(key, append([]byte{}, value...))
}

// Delete implements storage.Storage.
func (s *store) Delete(key string) error { return s.write(key, nil) }

func (s *store) write(key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return s.wrap("write", state.ErrClosed)
	}
	s.pending[key] = value
	s.size += len(key) + len(value)
	if s.size < pendingBytes && len(s.pending) < pendingWrites {
		return nil
	}
	return s.wrap("write", s.apply())
}

// apply hands what is pending to the engine. On an error it stays pending.
func (s *store) apply() error {
	s.batch.Reset()
	for key, value := range s.pending {
		if value == nil {
			s.batch.Delete([]byte(key))
		} else {
			s.batch.Put([]byte(key), value)
		}
	}
	if s.batch.Len() == 0 {
		return nil
	}
	if err := s.engine.Apply(&s.batch); err != nil {
		return err
	}
	clear(s.pending)
	s.size = 0
	return nil
}

// durable applies and checkpoints what there is. Without an offset there is
// nothing to go on from, and so no checkpoint.
func (s *store) durable() error {
	if err := s.apply(); err != nil {
		return err
	}
	s.checkpoint = time.Now()
	if !s.known || s.offset == s.checkpoints {
		return nil
	}
	if err := s.engine.Checkpoint(state.Position{Offset: s.offset, LeaderEpoch: -1}); err != nil {
		return err
	}
	s.checkpoints = s.offset
	return nil
}

// GetOffset implements storage.Storage.
func (s *store) GetOffset(otherwise int64) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.known {
		return otherwise, nil
	}
	return s.offset, nil
}

// SetOffset implements storage.Storage.
func (s *store) SetOffset(offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return s.wrap("set the offset", state.ErrClosed)
	}
	s.offset, s.known = offset, true
	if time.Since(s.checkpoint) < checkpointInterval {
		return nil
	}
	return s.wrap("checkpoint", s.durable())
}

// MarkRecovered implements storage.Storage.
func (s *store) MarkRecovered() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return s.wrap("mark recovered", state.ErrClosed)
	}
	return s.wrap("checkpoint", s.durable())
}

// Iterator implements storage.Storage.
func (s *store) Iterator() (storage.Iterator, error) { return s.IteratorWithRange(nil, nil) }

// IteratorWithRange implements storage.Storage. Without a limit start is a prefix,
// as in goka's own storages.
func (s *store) IteratorWithRange(start, limit []byte) (storage.Iterator, error) {
	if len(limit) == 0 {
		limit = prefixEnd(start)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return nil, s.wrap("iterate", state.ErrClosed)
	}
	if err := s.apply(); err != nil {
		return nil, s.wrap("iterate", err)
	}
	i := &iterator{store: s, from: bytes.Clone(start), to: limit}
	i.begin(i.from)
	s.iterators[i] = struct{}{}
	return i, nil
}

// prefixEnd returns the first key after all with the prefix, nil for none.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for len(end) > 0 {
		if end[len(end)-1]++; end[len(end)-1] != 0 {
			return end
		}
		end = end[:len(end)-1]
	}
	return nil
}

// iterator runs a scan step by step. It sees the store as it was when it was made,
// or at the last Seek. For one goroutine; ended by the store's Close too.
type iterator struct {
	store    *store
	from, to []byte

	mu         sync.Mutex // against Close of the store
	ended      bool
	next       func() ([2][]byte, bool)
	stop       func()
	head       [2][]byte // the first step, while ahead
	some       bool      // it has a pair
	ahead      bool
	key, value []byte
	err        error
}

// begin starts a scan at a key and takes its first step, so that it sees this
// moment.
func (i *iterator) begin(from []byte) {
	engine := i.store.engine
	i.next, i.stop = iter.Pull(func(yield func([2][]byte) bool) {
		if err := engine.Scan(from, i.to, false, func(key, value []byte) bool { return yield([2][]byte{key, value}) }); err != nil {
			i.err = i.store.wrap("iterate", err)
		}
	})
	i.head, i.some = i.next()
	i.ahead, i.key, i.value = true, nil, nil
}

// Next implements storage.Iterator.
func (i *iterator) Next() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.step()
}

func (i *iterator) step() bool {
	if i.ended {
		return false
	}
	pair, ok := i.head, i.some
	if !i.ahead {
		pair, ok = i.next()
	}
	i.ahead = false
	i.key, i.value = pair[0], pair[1]
	return ok
}

// Seek implements storage.Iterator: it goes to the first key that is not below
// the given one.
func (i *iterator) Seek(key []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return false
	}
	i.stop()
	if bytes.Compare(key, i.from) < 0 {
		key = i.from
	}
	i.begin(bytes.Clone(key))
	return i.step()
}

// Err implements storage.Iterator.
func (i *iterator) Err() error { return i.err }

// Key implements storage.Iterator; the bytes are valid until the next step.
func (i *iterator) Key() []byte { return i.key }

// Value implements storage.Iterator; the bytes are valid until the next step.
func (i *iterator) Value() ([]byte, error) { return i.value, i.err }

// Release implements storage.Iterator.
func (i *iterator) Release() {
	i.store.mu.Lock()
	delete(i.store.iterators, i)
	i.store.mu.Unlock()
	i.end()
}

func (i *iterator) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.ended {
		i.stop()
		i.ended, i.key, i.value = true, nil, nil
	}
}
