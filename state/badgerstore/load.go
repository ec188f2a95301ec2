package badgerstore

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"github.com/leatlog/leat/state"
)

// bulk sorts the writes of a restore into an empty store, so that they can go
// through Badger's stream writer: it collects them in memory, writes sorted runs
// to files when that is full, and merges the runs at the end.
//
// A run is a list of
//
//	| key length (uvarint) | value length + 1, 0 for a deletion (uvarint) | key | value |
//
// with keys rising and none twice. Runs are scratch files of one restore: they
// carry no checksum and are removed when it ends.
type bulk struct {
	backend *Backend
	dir     string
	memory  []byte
	writes  []bulkWrite
	runs    []string
	bytes   int64 // in runs
}

// bulkWrite is a write whose key and value lie in bulk.memory at start.
type bulkWrite struct {
	prefix    uint64 // the first eight bytes of the key, for fast comparison
	start     int
	keySize   int32
	valueSize int32 // -1 for a deletion
}

const (
	smallestRun = 1 << 20
	// smallBulk is how many writes are not worth a stream writer, which drops and
	// syncs the database first.
	smallBulk = 2000
	// streamChunk is how much is handed to the stream writer at once.
	streamChunk = 1 << 20
	// bulkWriteSize is what a write costs besides its bytes.
	bulkWriteSize = 24
)

func runsDir(dir string) string { return filepath.Join(dir, "restore") }

// Load implements state.Engine. The writes of a restore from the beginning become
// visible and durable with Checkpoint.
func (e *engine) Load(b *state.Batch) error {
	if err := e.writable(int64(b.Bytes())); err != nil {
		return err
	}
	if bound, _ := expiry(b); bound != nil || !e.fresh && e.bulk == nil {
		return e.Apply(b)
	}
	if e.bulk == nil {
		e.publishNone()
		e.bulk = &bulk{backend: e.backend, dir: runsDir(e.dir)}
		e.backend.restores.Add(1)
		e.fresh = false
	}
	if err := e.bulk.add(b); err != nil {
		return e.fail("sort a restore", err)
	}
	return nil
}

// finishBulk writes what a restore has collected to the database.
func (e *engine) finishBulk() error {
	if e.bulk == nil {
		return nil
	}
	defer func() {
		e.bulk.remove()
		e.bulk = nil
	}()
	if err := e.backend.checkSpace(e.bulk.bytes + int64(len(e.bulk.memory))); err != nil {
		return e.fail("finish a restore", err)
	}
	if len(e.bulk.runs) == 0 && len(e.bulk.writes) <= smallBulk {
		e.publish(nil)
		b := e.bulk.batch()
		if b.Len() == 0 {
			return nil
		}
		return e.write(b)
	}
	if err := e.stream(); err != nil {
		return e.fail("load a restore", err)
	}
	e.publish(nil)
	return nil
}

// stream merges the runs into Badger's stream writer.
func (e *engine) stream() (err error) {
	merged, err := e.bulk.merge()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, merged.close()) }()
	w := e.db.NewStreamWriter()
	defer w.Cancel()
	if err := w.Prepare(); err != nil {
		return err
	}
	buffer := z.NewBuffer(streamChunk+streamChunk/4, "leat restore")
	defer buffer.Release() //nolint:errcheck // it is memory
	kv := &pb.KV{StreamId: 1, Version: 1}
	var key, value []byte
	for {
		k, v, deleted, err := merged.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if deleted {
			continue
		}
		key = append(append(key[:0], dataPrefix), k...)
		value = sealValue(value[:0], k, v)
		kv.Key, kv.Value = key, value
		badger.KVToBuffer(kv, buffer)
		if buffer.LenNoPadding() >= streamChunk {
			if err := w.Write(buffer); err != nil {
				return err
			}
			buffer.Reset()
		}
	}
	if err := w.Write(buffer); err != nil {
		return err
	}
	return w.Flush()
}

func (b *bulk) add(batch *state.Batch) error {
	for i := range batch.Len() {
		op, key, value := batch.Entry(i)
		w := bulkWrite{prefix: keyPrefix(key), start: len(b.memory), keySize: int32(len(key)), valueSize: int32(len(value))}
		if op == state.OpDelete {
			w.valueSize = -1
		}
		b.memory = append(append(b.memory, key...), value...)
		b.writes = append(b.writes, w)
	}
	limit := max(smallestRun, b.backend.config.RestoreBytes/max(1, b.backend.restores.Load()))
	if int64(len(b.memory)+len(b.writes)*bulkWriteSize) >= limit {
		return b.spill()
	}
	return nil
}

// keyPrefix is ordered as the first eight bytes of keys are.
func keyPrefix(key []byte) uint64 {
	var first [8]byte
	copy(first[:], key)
	return binary.BigEndian.Uint64(first[:])
}

func (b *bulk) key(w bulkWrite) []byte { return b.memory[w.start : w.start+int(w.keySize)] }

func (b *bulk) value(w bulkWrite) []byte {
	start := w.start + int(w.keySize)
	return b.memory[start : start+int(max(w.valueSize, 0))]
}

// sort orders the writes in memory by key and leaves the last one of each key.
func (b *bulk) sort() {
	slices.SortFunc(b.writes, func(x, y bulkWrite) int {
		if x.prefix != y.prefix {
			return cmp.Compare(x.prefix, y.prefix)
		}
		if order := bytes.Compare(b.key(x), b.key(y)); order != 0 {
			return order
		}
		return cmp.Compare(y.start, x.start) // the last one first
	})
	b.writes = slices.CompactFunc(b.writes, func(x, y bulkWrite) bool {
		return x.prefix == y.prefix && bytes.Equal(b.key(x), b.key(y))
	})
}

// batch returns the writes in memory as a batch.
func (b *bulk) batch() *state.Batch {
	b.sort()
	batch := &state.Batch{}
	for _, w := range b.writes {
		if w.valueSize >= 0 {
			batch.Put(b.key(w), b.value(w))
		}
	}
	return batch
}

// spill writes the writes in memory to a run.
func (b *bulk) spill() error {
	b.sort()
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(b.dir, fmt.Sprintf("%06d.run", len(b.runs)))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	b.runs = append(b.runs, path)
	out := bufio.NewWriterSize(f, 256<<10)
	var lengths []byte
	for _, w := range b.writes {
		lengths = binary.AppendUvarint(lengths[:0], uint64(w.keySize))
		lengths = binary.AppendUvarint(lengths, uint64(w.valueSize+1))
		for _, part := range [][]byte{lengths, b.key(w), b.value(w)} {
			n, err := out.Write(part)
			b.bytes += int64(n)
			if err != nil {
				return errors.Join(err, f.Close())
			}
		}
	}
	b.memory, b.writes = b.memory[:0], b.writes[:0]
	return errors.Join(out.Flush(), f.Close())
}

// remove forgets the restore and its files.
func (b *bulk) remove() {
	if b == nil {
		return
	}
	b.backend.restores.Add(-1)
	if len(b.runs) > 0 {
		// What stays is removed when the store is opened again.
		_ = os.RemoveAll(b.dir)
	}
}

// merge returns the writes of all runs and of memory in order of their keys.
func (b *bulk) merge() (*merge, error) {
	if len(b.runs) > 0 && len(b.writes) > 0 {
		if err := b.spill(); err != nil {
			return nil, err
		}
	}
	m := &merge{}
	if len(b.runs) == 0 {
		b.sort()
		m.memory, m.writes = b, b.writes
		return m, nil
	}
	for i, path := range b.runs {
		f, err := os.Open(path)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		r := &run{age: i, file: f, in: bufio.NewReaderSize(f, 128<<10)}
		m.files = append(m.files, f)
		switch err := r.read(); {
		case err == nil:
			m.runs = append(m.runs, r)
		case !errors.Is(err, io.EOF):
			return nil, errors.Join(err, m.close())
		}
	}
	heap.Init(&m.runs)
	return m, nil
}

// merge yields each key once, with its last write: from one sorted memory, or from
// runs.
type merge struct {
	memory *bulk
	writes []bulkWrite
	runs   runHeap
	files  []*os.File
	last   *run // whose write was yielded and that must move on
	key    []byte
}

// next returns the next write, or io.EOF. The slices are valid until the next call.
func (m *merge) next() (key, value []byte, deleted bool, err error) {
	if m.memory != nil {
		if len(m.writes) == 0 {
			return nil, nil, false, io.EOF
		}
		w := m.writes[0]
		m.writes = m.writes[1:]
		return m.memory.key(w), m.memory.value(w), w.valueSize < 0, nil
	}
	if m.last != nil {
		// Every run that stands at the key just yielded holds an older write of it.
		m.key = append(m.key[:0], m.last.key...)
		for len(m.runs) > 0 && bytes.Equal(m.runs[0].key, m.key) {
			if err := m.advance(); err != nil {
				return nil, nil, false, err
			}
		}
		m.last = nil
	}
	if len(m.runs) == 0 {
		return nil, nil, false, io.EOF
	}
	m.last = m.runs[0]
	return m.last.key, m.last.value, m.last.deleted, nil
}

// advance moves the first run to its next write.
func (m *merge) advance() error {
	err := m.runs[0].read()
	if errors.Is(err, io.EOF) {
		heap.Pop(&m.runs)
		return nil
	}
	heap.Fix(&m.runs, 0)
	return err
}

func (m *merge) close() error {
	var failures []error
	for _, f := range m.files {
		failures = append(failures, f.Close())
	}
	return errors.Join(failures...)
}

// run reads a run.
type run struct {
	age        int
	file       *os.File
	in         *bufio.Reader
	key, value []byte
	deleted    bool
}

// read reads the next write; io.EOF at the end.
func (r *run) read() error {
	keySize, err := binary.ReadUvarint(r.in)
	if err != nil {
		return err
	}
	valueSize, err := binary.ReadUvarint(r.in)
	if err != nil {
		return fmt.Errorf("%s is cut: %w", r.file.Name(), io.ErrUnexpectedEOF)
	}
	r.deleted = valueSize == 0
	r.key = slices.Grow(r.key[:0], int(keySize))[:keySize]
	r.value = slices.Grow(r.value[:0], int(valueSize))[:max(valueSize, 1)-1]
	for _, part := range [][]byte{r.key, r.value} {
		if _, err := io.ReadFull(r.in, part); err != nil {
			return fmt.Errorf("%s is cut: %w", r.file.Name(), io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// runHeap orders runs by key, and the youngest first among equals.
type runHeap []*run

func (h runHeap) Len() int      { return len(h) }
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h runHeap) Less(i, j int) bool {
	if order := bytes.Compare(h[i].key, h[j].key); order != 0 {
		return order < 0
	}
	return h[i].age > h[j].age
}
func (h *runHeap) Push(x any) { *h = append(*h, x.(*run)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
