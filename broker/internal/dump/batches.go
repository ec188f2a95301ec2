package dump

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/record"
)

// maxBatch bounds the size of a batch that is read, and of its records once
// decompressed, in bytes.
const maxBatch = 256 << 20

// markSize is the size of the sync mark that ends the file of a segment in use.
const markSize = 40

// batches writes the record batches of a file.
type batches struct {
	*printer
	reader      io.ReaderAt
	size        int64
	headersOnly bool
	state       state
	buffer      []byte
}

func (d *batches) run() error {
	position, next := int64(0), int64(-1)
	for position < d.size && d.err == nil {
		var prefix [record.HeaderSize]byte
		n, err := d.reader.ReadAt(prefix[:min(int64(len(prefix)), d.size-position)], position)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read at %d: %w", position, err)
		}
		if allZero(prefix[:n]) {
			return d.tail(position)
		}
		batch, err := d.read(prefix[:n], position)
		if err != nil {
			return err
		}
		if batch.BaseOffset() < next {
			return fmt.Errorf("%w: at position %d, offset %d comes after %d", ErrDamaged, position, batch.BaseOffset(), next-1)
		}
		if err := d.batch(batch, position); err != nil {
			return fmt.Errorf("%w: at position %d: %w", ErrDamaged, position, err)
		}
		position += int64(len(batch))
		next = batch.NextOffset()
	}
	return nil
}

// read returns the batch at a position whose first bytes are there.
func (d *batches) read(prefix []byte, position int64) (record.Batch, error) {
	if len(prefix) < record.HeaderSize {
		return nil, fmt.Errorf("%w: at position %d: %d bytes are left, a batch has %d or more", ErrDamaged, position, len(prefix), record.HeaderSize)
	}
	size := record.SizeOf(prefix)
	if size < record.HeaderSize || size > maxBatch || size > d.size-position {
		return nil, fmt.Errorf("%w: at position %d: a batch of %d bytes, %d are left", ErrDamaged, position, size, d.size-position)
	}
	if int64(cap(d.buffer)) < size {
		d.buffer = make([]byte, size)
	}
	d.buffer = d.buffer[:size]
	if _, err := d.reader.ReadAt(d.buffer, position); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", size, position, err)
	}
	batch, _, err := record.Parse(d.buffer)
	if err != nil {
		return nil, fmt.Errorf("%w: at position %d: %w", ErrDamaged, position, err)
	}
	return batch, nil
}

// tail tells what follows the last batch: the room a segment in use has left, and
// the mark that says what was synced.
func (d *batches) tail(position int64) error {
	d.print(0, "preallocated", field{"position", position}, field{"size", d.size - position})
	if d.size-position < markSize {
		return nil
	}
	mark := make([]byte, markSize)
	if _, err := d.reader.ReadAt(mark, d.size-markSize); err != nil {
		return fmt.Errorf("read at %d: %w", d.size-markSize, err)
	}
	if string(mark[:8]) == "LEATMARK" {
		d.print(0, "synced", field{"position", int64(binary.BigEndian.Uint64(mark[16:]))}, field{"offset", int64(binary.BigEndian.Uint64(mark[24:]))})
	}
	return nil
}

func (d *batches) batch(b record.Batch, position int64) error {
	fields := []field{
		{"offset", b.BaseOffset()}, {"last offset", b.LastOffset()}, {"count", b.Count()}, {"position", position}, {"size", len(b)},
		{"leader epoch", b.LeaderEpoch()}, {"codec", word(b.Codec().String())}, {"max timestamp", timestamp(b.MaxTimestamp())},
	}
	if b.IsLogAppendTime() {
		fields = append(fields, field{"timestamp type", word("LogAppendTime")})
	}
	if b.HasDeleteHorizon() {
		fields = append(fields, field{"delete horizon", timestamp(b.BaseTimestamp())})
	}
	if b.ProducerID() >= 0 {
		fields = append(fields, field{"producer id", b.ProducerID()}, field{"producer epoch", b.ProducerEpoch()}, field{"sequence", b.BaseSequence()})
	}
	if b.IsTransactional() {
		fields = append(fields, field{"transactional", true})
	}
	if b.IsControl() {
		fields = append(fields, field{"control", true})
	}
	invalid := b.Validate()
	if invalid != nil {
		fields = append(fields, field{"invalid", invalid.Error()})
	}
	d.print(0, "batch", fields...)
	if invalid != nil || d.headersOnly {
		return invalid
	}
	it := record.NewIterator(b, maxBatch)
	defer it.Close()
	for it.Next() {
		d.record(b, it.Record())
	}
	return it.Err()
}

func (d *batches) record(b record.Batch, r *record.Record) {
	fields := []field{{"offset", r.Offset}, {"timestamp", timestamp(r.Timestamp)}}
	kind := "record"
	switch {
	case b.IsControl():
		kind = "control"
		fields = append(fields, control(r)...)
	default:
		decoded, err := d.state.decode(r)
		switch {
		case err != nil:
			fields = append(fields, field{"undecoded", err.Error()}, field{"key", r.Key}, field{"value", r.Value})
		case decoded != nil:
			kind = "state"
			fields = append(fields, decoded...)
		default:
			fields = append(fields, field{"key", r.Key}, field{"value", r.Value})
		}
	}
	if len(r.Headers) > 0 {
		fields = append(fields, d.headers(r.Headers))
	}
	d.print(1, kind, fields...)
}

func (d *batches) headers(headers []record.Header) field {
	if d.json {
		list := make([]map[string]any, len(headers))
		for i, h := range headers {
			list[i] = map[string]any{"key": h.Key, "value": jsonValue(h.Value)}
		}
		return field{"headers", list}
	}
	out := ""
	for i, h := range headers {
		if i > 0 {
			out += ","
		}
		out += text(h.Key) + "=" + text(h.Value)
	}
	return field{"headers", word(out)}
}

// control decodes the key of a control record, and the coordinator's epoch from
// the value of a transaction's end.
func control(r *record.Record) []field {
	if len(r.Key) < 4 {
		return []field{{"key", r.Key}, {"value", r.Value}}
	}
	kind := int16(binary.BigEndian.Uint16(r.Key[2:]))
	names := map[int16]word{0: "abort", 1: "commit", 2: "leader-change", 3: "snapshot-header", 4: "snapshot-footer", 5: "kraft-version",
		6: "kraft-voters", 100: "voter-change", 101: "voters"}
	name, ok := names[kind]
	if !ok {
		name = word(fmt.Sprintf("type-%d", kind))
	}
	fields := []field{{"kind", name}}
	if kind <= 1 {
		var marker kmsg.EndTxnMarker
		if err := marker.ReadFrom(r.Value); err == nil {
			fields = append(fields, field{"coordinator epoch", marker.CoordinatorEpoch})
		}
	}
	return fields
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
