package record

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// DefaultLimit bounds, in bytes, what Iterate lets a batch grow to when it is
// decompressed.
const DefaultLimit = 64 << 20

// Record is one record of a batch. Key, Value and header values are nil for
// null and empty for empty. They alias the iterator's buffer or the batch.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since the epoch
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is a name and a value that travel with a record.
type Header struct {
	Key   string
	Value []byte
}

// Iterator walks through the records of one batch. It must be closed. It is
// not safe for concurrent use.
type Iterator struct {
	batch    Batch
	buffer   *[]byte // pooled, holds decompressed records; nil when there was no need
	rest     []byte
	left     int32 // records to come
	previous int64 // offset delta of the record before
	record   Record
	err      error
}

var iterators = sync.Pool{New: func() any { return new(Iterator) }}

// NewIterator opens a batch, whose decompressed records may take up to limit
// bytes. The iterator is valid until Close even on an error, which Err returns.
func NewIterator(b Batch, limit int) *Iterator {
	it := iterators.Get().(*Iterator)
	*it = Iterator{batch: b, left: b.Count(), previous: -1, record: Record{Headers: it.record.Headers[:0]}}
	if b.Codec() == CodecNone {
		it.rest = b.Records()
		return it
	}
	it.buffer = buffers.Get().(*[]byte)
	*it.buffer, it.err = Decompress((*it.buffer)[:0], b.Codec(), b.Records(), limit)
	it.rest = *it.buffer
	return it
}

// Next moves to the next record. It returns false after the last one and on an
// error.
func (it *Iterator) Next() bool {
	if it.err != nil {
		return false
	}
	if it.left <= 0 {
		if len(it.rest) > 0 || it.left < 0 {
			it.err = fmt.Errorf("%w: %d bytes after %d records", ErrCorrupt, len(it.rest), it.batch.Count())
		}
		return false
	}
	it.left--
	it.err = it.decode()
	return it.err == nil
}

// Record returns the current record. It and what it refers to are valid until
// the next call of Next or Close; only uncompressed keys and values live as long
// as the batch.
func (it *Iterator) Record() *Record { return &it.record }

// Err returns what ended the iteration early, wrapping ErrCorrupt, ErrCodec or
// ErrTooLarge, or nil.
func (it *Iterator) Err() error { return it.err }

// Close gives the iterator and its buffer back. Neither may be used afterwards.
func (it *Iterator) Close() {
	if it.buffer != nil {
		putBuffer(it.buffer)
	}
	clear(it.record.Headers[:cap(it.record.Headers)])
	*it = Iterator{record: Record{Headers: it.record.Headers[:0]}}
	iterators.Put(it)
}

// Iterate calls visit with each record, which is valid during the call. It stops
// at the first error, visit's included. Decompressed records may take up to
// DefaultLimit bytes.
func (b Batch) Iterate(visit func(*Record) error) error {
	it := NewIterator(b, DefaultLimit)
	defer it.Close()
	for it.Next() {
		if err := visit(it.Record()); err != nil {
			return err
		}
	}
	return it.Err()
}

func (it *Iterator) decode() error {
	length, n := binary.Varint(it.rest)
	if n <= 0 || length < 0 || length > int64(len(it.rest)-n) {
		return fmt.Errorf("%w: record of %d bytes, %d are there", ErrCorrupt, length, len(it.rest)-max(n, 0))
	}
	d := decoder{rest: it.rest[n : n+int(length)]}
	it.rest = it.rest[n+int(length):]
	d.byte() // record attributes: none are defined
	timestampDelta, offsetDelta := d.varint(), d.varint()
	r := &it.record
	r.Key = d.bytes()
	r.Value = d.bytes()
	r.Headers = r.Headers[:0]
	count := d.varint()
	// A header takes two bytes at least.
	if count < 0 || count > int64(len(d.rest)/2) {
		d.failed = true
	}
	for i := int64(0); i < count && !d.failed; i++ {
		key := d.bytes()
		if key == nil {
			d.failed = true
		}
		r.Headers = append(r.Headers, Header{Key: string(key), Value: d.bytes()})
	}
	if d.failed || len(d.rest) > 0 {
		return fmt.Errorf("%w: fields of a record do not add up to its %d bytes", ErrCorrupt, length)
	}
	if offsetDelta <= it.previous || offsetDelta > int64(it.batch.LastOffsetDelta()) {
		return fmt.Errorf("%w: offset delta %d after %d, the last is %d", ErrCorrupt, offsetDelta, it.previous, it.batch.LastOffsetDelta())
	}
	it.previous = offsetDelta
	r.Offset = it.batch.BaseOffset() + offsetDelta
	if it.batch.IsLogAppendTime() {
		r.Timestamp = it.batch.MaxTimestamp()
	} else {
		r.Timestamp = it.batch.BaseTimestamp() + timestampDelta
	}
	return nil
}

// decoder takes fields off the front of a record. After a failure all fields
// are zero.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) byte() {
	if len(d.rest) == 0 {
		d.failed = true
		return
	}
	d.rest = d.rest[1:]
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// bytes returns nil for a negative length, which means null.
func (d *decoder) bytes() []byte {
	length := d.varint()
	if d.failed || length < 0 {
		return nil
	}
	if length > int64(len(d.rest)) {
		d.failed, d.rest = true, nil
		return nil
	}
	b := d.rest[:length:length]
	d.rest = d.rest[length:]
	return b
}
