package client

import (
	"encoding/binary"
	"fmt"

	"github.com/leatlog/leat/topology/plan"
)

// Records is a chunk of decoded records in memory that is used again. Keys and
// values alias the fetched bytes or the chunk's own scratch: they are valid
// until the next Reset. Not safe for concurrent use.
type Records struct {
	// Records are in the order of the partition.
	Records []plan.Record
	// Next is the offset after all that was decoded, records left out included.
	Next int64
	// LeaderEpoch is the epoch of the last batch, -1 when not known.
	LeaderEpoch int32

	headers []plan.Header
	scratch [][]byte
	used    int
	names   map[string]string
}

// Reset empties the chunk and keeps its memory.
func (r *Records) Reset() {
	r.Records, r.headers, r.used = r.Records[:0], r.headers[:0], 0
	r.Next, r.LeaderEpoch = 0, -1
}

// maxNames bounds the header keys a chunk remembers.
const maxNames = 256

// name returns b as a string, without allocating for the keys seen before.
func (r *Records) name(b []byte) string {
	if s, ok := r.names[string(b)]; ok {
		return s
	}
	if r.names == nil || len(r.names) >= maxNames {
		r.names = make(map[string]string)
	}
	s := string(b)
	r.names[s] = s
	return s
}

// addBatch decodes the records of b whose offset is at least from.
func (r *Records) addBatch(b batchView, from int64) error {
	if err := b.check(); err != nil {
		return err
	}
	count := int(b.count())
	body := []byte(b[batchHeaderSize:])
	if codec := b.codec(); codec != NoCompression {
		if r.used == len(r.scratch) {
			r.scratch = append(r.scratch, nil)
		}
		out, err := decompress(r.scratch[r.used], codec, body, maxDecompressBytes)
		r.scratch[r.used] = out
		if err != nil {
			return fmt.Errorf("%w: offset %d: %s: %v", ErrCorrupt, b.baseOffset(), codec, err)
		}
		r.used++
		body = out
	}
	if count < 0 || count > len(body)/minRecordSize {
		return fmt.Errorf("%w: offset %d: %d records in %d bytes", ErrCorrupt, b.baseOffset(), count, len(body))
	}
	d := decoder{base: b.baseOffset(), time: b.baseTimestamp(), from: from, fixedTime: -1}
	if b.attributes()&logAppendTimeBit != 0 {
		d.fixedTime = b.maxTimestamp()
	}
	before := len(r.Records)
	for i := range count {
		n, w := varint(body)
		if w == 0 || n < 0 || n > int64(len(body)-w) {
			r.Records = r.Records[:before]
			return fmt.Errorf("%w: offset %d: record %d of %d: length does not fit", ErrCorrupt, b.baseOffset(), i, count)
		}
		if !d.record(r, body[w:w+int(n)]) {
			r.Records = r.Records[:before]
			return fmt.Errorf("%w: offset %d: record %d of %d: field does not fit", ErrCorrupt, b.baseOffset(), i, count)
		}
		body = body[w+int(n):]
	}
	return nil
}

// decoder holds what the records of one batch share.
type decoder struct {
	base, time, from, fixedTime int64
}

// record decodes one record; false when a field does not fit.
func (d *decoder) record(r *Records, b []byte) bool {
	if len(b) < 1 {
		return false
	}
	b = b[1:] // attributes: none are defined
	timeDelta, w := varint(b)
	if w == 0 {
		return false
	}
	b = b[w:]
	offsetDelta, w := varint(b)
	if w == 0 {
		return false
	}
	b = b[w:]
	key, b, ok := nullable(b)
	if !ok {
		return false
	}
	value, b, ok := nullable(b)
	if !ok {
		return false
	}
	var headers []plan.Header
	if len(b) != 1 || b[0] != 0 { // not the one byte that says: no headers
		if headers, ok = r.decodeHeaders(b); !ok {
			return false
		}
	}
	offset := d.base + offsetDelta
	if offset < d.from {
		return true
	}
	timestamp := d.time + timeDelta
	if d.fixedTime >= 0 {
		timestamp = d.fixedTime
	}
	r.Records = append(r.Records, plan.Record{Offset: offset, Timestamp: timestamp, Key: key, Value: value, Headers: headers})
	return true
}

func (r *Records) decodeHeaders(b []byte) ([]plan.Header, bool) {
	n, w := varint(b)
	if w == 0 || n < 0 || n > int64(len(b)-w)/2 {
		return nil, false
	}
	b = b[w:]
	start := len(r.headers)
	for range n {
		var key, value []byte
		var ok bool
		if key, b, ok = nullable(b); !ok || key == nil {
			return nil, false
		}
		if value, b, ok = nullable(b); !ok {
			return nil, false
		}
		r.headers = append(r.headers, plan.Header{Key: r.name(key), Value: value})
	}
	return r.headers[start:len(r.headers):len(r.headers)], true
}

// varint reads a zigzag varint; width 0 when there is none.
func varint(b []byte) (v int64, width int) {
	if len(b) > 0 && b[0] < 0x80 { // most are one byte
		u := uint64(b[0])
		return int64(u>>1) ^ -int64(u&1), 1
	}
	v, width = binary.Varint(b)
	return v, max(width, 0)
}

// nullable reads length-led bytes; a length of -1 is nil.
func nullable(b []byte) (field, rest []byte, ok bool) {
	n, w := varint(b)
	if w == 0 || n > int64(len(b)-w) || n < -1 {
		return nil, nil, false
	}
	if n == -1 {
		return nil, b[w:], true
	}
	end := w + int(n)
	return b[w:end:end], b[end:], true
}
