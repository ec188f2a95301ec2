package handler

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/wire"
)

// sendfileFrom is the size in bytes from which records are sent from the file;
// smaller ones are read into a buffer, which costs less.
const sendfileFrom = 64 << 10

// maxPooledBuffer bounds the buffers that are kept for reuse.
const maxPooledBuffer = 1 << 20

// fetchBuffers is the memory of one answer.
type fetchBuffers struct {
	body    []byte // the encoded response without records
	records []byte // records read from files
	cuts    []int
	chunks  []wire.Chunk
	slices  []storage.Slice // to release when the answer is sent
	release func()
	failed  func(*wire.Chunk)
}

var fetchBuffersPool sync.Pool

func newFetchBuffers() *fetchBuffers {
	if b, ok := fetchBuffersPool.Get().(*fetchBuffers); ok {
		return b
	}
	b := new(fetchBuffers)
	b.release, b.failed = b.free, b.fail
	return b
}

// fail tells the log of a chunk that it could not be read.
func (b *fetchBuffers) fail(chunk *wire.Chunk) {
	for _, s := range b.slices {
		if wire.File(s.File) == chunk.File && s.Position == chunk.Position {
			s.Failed()
		}
	}
}

// free gives back what the answer held.
func (b *fetchBuffers) free() {
	for i := range b.slices {
		b.slices[i].Release()
	}
	clear(b.slices)
	clear(b.chunks)
	b.body, b.cuts, b.chunks, b.slices = b.body[:0], b.cuts[:0], b.chunks[:0], b.slices[:0]
	b.records = b.records[:0]
	if cap(b.records) > maxPooledBuffer {
		b.records = nil
	}
	if cap(b.body) > maxPooledBuffer {
		b.body = nil
	}
	fetchBuffersPool.Put(b)
}

// releaseItems gives back what the items hold of log files.
func releaseItems(items []fetchItem) {
	for i := range items {
		if r := &items[i].result; r.Slice.Size > 0 {
			r.Slice.Release()
			r.Slice = storage.Slice{}
		}
	}
}

// answer encodes and sends the response. The op is over with it.
func (op *fetchOp) answer() {
	b := newFetchBuffers()
	items := op.items
	head := fetchHead{version: op.body.Version}
	if op.session.err == nil {
		b.readSmall(items)
		items = op.h.sessions.close(&op.session, items, op.body.Version >= 13, op.h.Now())
	}
	if head.err = op.session.err; head.err != nil {
		items = nil
	} else {
		head.sessionID = op.session.sessionID
		head.brokers = op.leaders(items)
	}
	b.body, b.cuts = appendFetchResponse(b.body, &head, items, b.cuts)
	b.assemble(items)
	clear(op.items)
	*op.pooled = op.items[:0]
	itemsPool.Put(op.pooled)
	op.respond(wire.Response{Chunks: b.chunks, Release: b.release, Failed: b.failed})
}

// leaders returns where the leaders are that the items name.
func (op *fetchOp) leaders(items []fetchItem) []endpoint {
	var ids []int32
	if op.body.Version >= 16 {
		for i := range items {
			if movedLeader(items[i].result.Err) {
				ids = append(ids, items[i].leaderID)
			}
		}
	}
	if ids == nil {
		return nil
	}
	return leaderEndpoints(op.h.Image(), op.request, ids)
}

// readSmall reads what is not to be sent from the file into the buffer.
func (b *fetchBuffers) readSmall(items []fetchItem) {
	total := 0
	for i := range items {
		if r := &items[i].result; small(&r.Slice) {
			total += r.Slice.Size
		}
	}
	if cap(b.records) < total {
		b.records = make([]byte, 0, total)
	}
	for i := range items {
		r := &items[i].result
		if !small(&r.Slice) {
			continue
		}
		var err error
		at := len(b.records)
		b.records, err = r.Slice.AppendTo(b.records)
		if err != nil {
			r.Slice.Failed()
			r.Slice.Release()
			*r = ReadResult{Err: kerr.KafkaStorageError, DivergingEpoch: -1}
			continue
		}
		items[i].records = b.records[at:]
	}
}

// small says that the records are there and are to be read into memory.
func small(s *storage.Slice) bool {
	if s.Size == 0 {
		return false
	}
	if s.Size < sendfileFrom {
		return true
	}
	_, sendable := s.File.Fd()
	return !sendable
}

// assemble makes the chunks of the response: the body, with each item's records
// at its cut.
func (b *fetchBuffers) assemble(items []fetchItem) {
	at, cut := 0, 0
	for i := range items {
		r := &items[i].result
		if r.Slice.Size == 0 {
			continue
		}
		b.chunks = append(b.chunks, wire.Chunk{Bytes: b.body[at:b.cuts[cut]]})
		at = b.cuts[cut]
		cut++
		if records := items[i].records; records != nil {
			b.chunks = append(b.chunks, wire.Chunk{Bytes: records})
			r.Slice.Release()
		} else {
			b.chunks = append(b.chunks, wire.Chunk{File: r.Slice.File, Position: r.Slice.Position, Size: r.Slice.Size})
			b.slices = append(b.slices, r.Slice)
		}
		r.Slice = storage.Slice{}
	}
	b.chunks = append(b.chunks, wire.Chunk{Bytes: b.body[at:]})
}
