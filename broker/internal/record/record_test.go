package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

var codecs = []Codec{CodecNone, CodecGzip, CodecSnappy, CodecLZ4, CodecZstd}

func sample(codec Codec, records int) Batch {
	b := NewBuilder(codec)
	b.SetProducer(7, 3, 11)
	for i := range records {
		b.Append(1000+int64(i), fmt.Appendf(nil, "key-%d", i), bytes.Repeat([]byte{byte(i)}, 100), []Header{{Key: "h", Value: []byte("v")}})
	}
	return Batch(b.Build(nil))
}

func TestBatchFields(t *testing.T) {
	b := sample(CodecZstd, 5)
	b.SetBaseOffset(100)
	b.SetLeaderEpoch(9)
	if err := b.Validate(); err != nil {
		t.Fatalf("setting offset and epoch broke the batch: %v", err)
	}
	if err := b.ValidateProduced(); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(b.BaseOffset(), b.LastOffset(), b.NextOffset(), b.LeaderEpoch(), b.Count(), b.LastOffsetDelta(), b.BaseTimestamp(), b.MaxTimestamp(),
		b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.LastSequence(), b.Codec(), b.IsControl(), b.IsTransactional(), b.IsLogAppendTime(), b.HasDeleteHorizon(), b.Size() == len(b), b.Attributes())
	want := "100 104 105 9 5 4 1000 1004 7 3 11 15 zstd false false false false true 4"
	if got != want {
		t.Errorf("fields\n got %s\nwant %s", got, want)
	}
	b.SetLogAppendTime(5000)
	if err := b.Validate(); err != nil {
		t.Fatalf("setting the append time broke the batch: %v", err)
	}
	err := b.Iterate(func(r *Record) error {
		if r.Timestamp != 5000 {
			return fmt.Errorf("timestamp %d", r.Timestamp)
		}
		return nil
	})
	if err != nil || !b.IsLogAppendTime() {
		t.Errorf("append time %v: %v", b.IsLogAppendTime(), err)
	}
}

func TestSequencesWrap(t *testing.T) {
	for _, c := range []struct{ sequence, delta, want int32 }{
		{0, 0, 0}, {5, 3, 8}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 1, 3, 1}, {0, -1, math.MaxInt32}, {3, -5, math.MaxInt32 - 1}, {9, -4, 5},
	} {
		if got := AddSequence(c.sequence, c.delta); got != c.want {
			t.Errorf("AddSequence(%d, %d) = %d, want %d", c.sequence, c.delta, got, c.want)
		}
	}
}

// edit returns a valid batch with some bytes changed and, when rehash is set,
// the checksum made right again.
func edit(rehash bool, change func(b Batch)) Batch {
	b := sample(CodecNone, 3)
	change(b)
	if rehash {
		b.SetCRC()
	}
	return b
}

func TestBadBatches(t *testing.T) {
	put32 := func(at int, v int32) func(Batch) {
		return func(b Batch) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
	}
	cases := []struct {
		name  string
		batch []byte
		want  error
	}{
		{"empty", nil, ErrTruncated},
		{"short header", sample(CodecNone, 1)[:40], ErrTruncated},
		{"short body", sample(CodecNone, 1)[:HeaderSize+1], ErrTruncated},
		{"magic 0", edit(false, func(b Batch) { b[magicAt] = 0 }), ErrMagic},
		{"magic 1", edit(false, func(b Batch) { b[magicAt] = 1 }), ErrMagic},
		{"magic 3", edit(false, func(b Batch) { b[magicAt] = 3 }), ErrMagic},
		{"negative length", edit(false, put32(lengthAt, -1)), ErrCorrupt},
		{"length below header", edit(false, put32(lengthAt, HeaderSize-LengthPrefix-1)), ErrCorrupt},
		{"huge length", edit(false, put32(lengthAt, math.MaxInt32)), ErrTruncated},
		{"negative count", edit(true, put32(countAt, -1)), ErrCorrupt},
		{"count above delta", edit(true, put32(countAt, 4)), ErrCorrupt},
		{"negative delta", edit(true, put32(lastOffsetDeltaAt, -1)), ErrCorrupt},
		{"unknown codec", edit(true, func(b Batch) { b[attributesAt+1] = 5 }), ErrCodec},
		{"negative offset", edit(true, func(b Batch) { b.SetBaseOffset(-1) }), ErrCorrupt},
		{"offset overflow", edit(true, func(b Batch) { b.SetBaseOffset(math.MaxInt64) }), ErrCorrupt},
		{"flipped bit", edit(false, func(b Batch) { b[len(b)-1] ^= 1 }), ErrCRC},
	}
	for _, c := range cases {
		batch, _, err := Parse(c.batch)
		if err == nil {
			err = batch.Validate()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if err := (Batch)(sample(CodecNone, 2)[:HeaderSize]).ValidateHeader(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a cut batch validates: %v", err)
	}
}

func TestOldMessageSets(t *testing.T) {
	for _, magic := range []byte{0, 1} {
		set := make([]byte, 34)
		binary.BigEndian.PutUint32(set[8:], 22)
		set[16] = magic
		if _, _, err := Parse(set); !errors.Is(err, ErrMagic) {
			t.Errorf("magic %d: %v", magic, err)
		}
	}
}

func TestValidateProduced(t *testing.T) {
	cases := map[string]func(b *Builder){
		"no records":               func(*Builder) {},
		"control":                  func(b *Builder) { b.SetControl(); b.Append(0, nil, nil, nil) },
		"gap":                      func(b *Builder) { b.AppendAt(1, 0, nil, nil, nil) },
		"transaction, no producer": func(b *Builder) { b.SetTransactional(); b.Append(0, nil, nil, nil) },
		"no sequence":              func(b *Builder) { b.SetProducer(1, 0, NoSequence); b.Append(0, nil, nil, nil) },
		"no epoch":                 func(b *Builder) { b.SetProducer(1, NoProducerEpoch, 0); b.Append(0, nil, nil, nil) },
	}
	for name, fill := range cases {
		b := NewBuilder(CodecNone)
		fill(b)
		if err := Batch(b.Build(nil)).ValidateProduced(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadRecords(t *testing.T) {
	build := func(payload []byte, count int32) Batch {
		b := NewBuilder(CodecNone).Build(nil)
		b = append(b, payload...)
		binary.BigEndian.PutUint32(b[lengthAt:], uint32(len(b)-LengthPrefix))
		binary.BigEndian.PutUint32(b[countAt:], uint32(count))
		binary.BigEndian.PutUint32(b[lastOffsetDeltaAt:], uint32(max(count-1, 0)))
		Batch(b).SetCRC()
		return b
	}
	varints := func(values ...int64) []byte {
		var b []byte
		for _, v := range values {
			b = binary.AppendVarint(b, v)
		}
		return b
	}
	cases := map[string]Batch{
		"no records there":   build(nil, 1),
		"bytes left over":    build([]byte{1}, 0),
		"record too long":    build(varints(100, 0, 0, 0), 1),
		"negative length":    build(varints(-5, 0), 1),
		"endless varint":     build(bytes.Repeat([]byte{0xff}, 11), 1),
		"key too long":       build(varints(6, 0, 0, 0, 40, 0, 0), 1),
		"huge header count":  build(varints(9, 0, 0, 0, -1, -1, 1<<30), 1),
		"null header key":    build(varints(8, 0, 0, 0, -1, -1, 1, -1, -1), 1),
		"offset not rising":  build(append(varints(6, 0, 0, 0, -1, -1, 0), varints(6, 0, 0, 0, -1, -1, 0)...), 2),
		"offset beyond last": build(varints(6, 0, 0, 5, -1, -1, 0), 1),
		"fields short":       build(varints(7, 0, 0, 0, -1, -1, 0, 0), 1),
	}
	for name, b := range cases {
		if err := b.Validate(); err != nil {
			t.Fatalf("%s: the test's batch does not validate: %v", name, err)
		}
		if err := b.Iterate(func(*Record) error { return nil }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	failed := errors.New("stop")
	if err := sample(CodecGzip, 2).Iterate(func(*Record) error { return failed }); err != failed {
		t.Errorf("visit's error is lost: %v", err)
	}
}

func TestDecompressionIsBounded(t *testing.T) {
	plain := bytes.Repeat([]byte("leat"), 100_000)
	for _, codec := range codecs {
		packed, err := Compress(nil, codec, plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decompress([]byte("x"), codec, packed, len(plain)); err != nil || !bytes.Equal(got[1:], plain) {
			t.Errorf("%s at the limit: %d bytes, %v", codec, len(got), err)
		}
		if got, err := Decompress(nil, codec, packed, len(plain)-1); !errors.Is(err, ErrTooLarge) || len(got) > len(plain) {
			t.Errorf("%s over the limit: %d bytes, %v", codec, len(got), err)
		}
		if codec == CodecNone {
			continue
		}
		for _, cut := range []int{1, len(packed) / 2, len(packed) - 1} {
			if _, err := Decompress(nil, codec, packed[:cut], len(plain)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut at %d: %v", codec, cut, err)
			}
		}
	}
	if _, err := Decompress(nil, 5, nil, 1); !errors.Is(err, ErrCodec) {
		t.Error(err)
	}
	if _, err := Compress(nil, 5, nil); !errors.Is(err, ErrCodec) {
		t.Error(err)
	}
}

func TestZstdOfUnknownSize(t *testing.T) {
	plain := []byte(strings.Repeat("0123456789abcdef", 5000))
	packed := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58} // a frame header without a size, window 2 MiB
	for start := 0; start < len(plain); start += 40_000 {
		block := plain[start:min(start+40_000, len(plain))]
		header := uint32(len(block)) << 3 // raw block
		if start+40_000 >= len(plain) {
			header |= 1
		}
		packed = append(packed, byte(header), byte(header>>8), byte(header>>16))
		packed = append(packed, block...)
	}
	if got, err := Decompress(nil, CodecZstd, packed, 1<<20); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := Decompress(nil, CodecZstd, packed, 50_000); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestXerialSnappy(t *testing.T) {
	plain := []byte(strings.Repeat("framed ", 1000))
	framed := append([]byte{}, xerialMagic...)
	framed = append(framed, 0, 0, 0, 1, 0, 0, 0, 1)
	for _, part := range [][]byte{plain[:3000], plain[3000:]} {
		block, err := Compress(nil, CodecSnappy, part)
		if err != nil {
			t.Fatal(err)
		}
		framed = binary.BigEndian.AppendUint32(framed, uint32(len(block)))
		framed = append(framed, block...)
	}
	if got, err := Decompress(nil, CodecSnappy, framed, len(plain)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := Decompress(nil, CodecSnappy, framed, len(plain)-1); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	for _, cut := range []int{9, 18, len(framed) - 1} {
		if _, err := Decompress(nil, CodecSnappy, framed[:cut], len(plain)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func drawBytes(t *rapid.T, name string) []byte {
	if rapid.Bool().Draw(t, name+" is null") {
		return nil
	}
	return rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, name)
}

// TestRoundTrip builds batches and reads them with this package and, as a
// second opinion, with kmsg.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom(codecs).Draw(t, "codec")
		b := NewBuilder(codec)
		if rapid.Bool().Draw(t, "transactional") {
			b.SetTransactional()
			b.SetProducer(rapid.Int64Min(0).Draw(t, "id"), rapid.Int16Min(0).Draw(t, "epoch"), rapid.Int32Min(0).Draw(t, "sequence"))
		}
		count := rapid.IntRange(1, 20).Draw(t, "count")
		want := make([]Record, count)
		delta := int32(0)
		for i := range want {
			r := Record{Offset: int64(delta), Timestamp: rapid.Int64Range(-1, 1<<50).Draw(t, "timestamp"), Key: drawBytes(t, "key"), Value: drawBytes(t, "value")}
			for range rapid.IntRange(0, 3).Draw(t, "headers") {
				r.Headers = append(r.Headers, Header{Key: rapid.String().Draw(t, "header"), Value: drawBytes(t, "header value")})
			}
			b.AppendAt(delta, r.Timestamp, r.Key, r.Value, r.Headers)
			want[i] = r
			delta += 1 + rapid.Int32Range(0, 3).Draw(t, "gap")
		}
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(t, "prefix")
		built := b.Build(prefix)
		batch, rest, err := Parse(append(built[len(prefix):], "rest"...))
		if err != nil || string(rest) != "rest" {
			t.Fatalf("parse: %v, rest %q", err, rest)
		}
		if err := batch.Validate(); err != nil {
			t.Fatal(err)
		}
		if codec == CodecNone && b.Size() != len(batch) || b.Count() != count {
			t.Fatalf("builder says %d bytes, %d records; batch has %d", b.Size(), b.Count(), len(batch))
		}
		i := 0
		err = batch.Iterate(func(r *Record) error {
			if err := sameRecord(&want[i], r); err != nil {
				return err
			}
			i++
			return nil
		})
		if err != nil || i != count {
			t.Fatalf("record %d of %d: %v", i, count, err)
		}
		checkWithKmsg(t, batch, want)
		checkRecompressed(t, batch, want)
	})
}

func sameRecord(want, got *Record) error {
	same := want.Offset == got.Offset && want.Timestamp == got.Timestamp && len(want.Headers) == len(got.Headers) &&
		bytes.Equal(want.Key, got.Key) && (want.Key == nil) == (got.Key == nil) &&
		bytes.Equal(want.Value, got.Value) && (want.Value == nil) == (got.Value == nil)
	for i := 0; same && i < len(want.Headers); i++ {
		w, g := want.Headers[i], got.Headers[i]
		same = w.Key == g.Key && bytes.Equal(w.Value, g.Value) && (w.Value == nil) == (g.Value == nil)
	}
	if !same {
		return fmt.Errorf("got %+v, want %+v", got, want)
	}
	return nil
}

func checkWithKmsg(t *rapid.T, batch Batch, want []Record) {
	var k kmsg.RecordBatch
	if err := k.ReadFrom(batch); err != nil {
		t.Fatalf("kmsg: %v", err)
	}
	if k.CRC != int32(crc32.Checksum(batch[21:], castagnoli)) || k.NumRecords != batch.Count() || k.FirstTimestamp != batch.BaseTimestamp() ||
		k.MaxTimestamp != batch.MaxTimestamp() || k.ProducerID != batch.ProducerID() || k.ProducerEpoch != batch.ProducerEpoch() ||
		k.FirstSequence != batch.BaseSequence() || k.Attributes != batch.Attributes() || k.PartitionLeaderEpoch != batch.LeaderEpoch() || k.LastOffsetDelta != batch.LastOffsetDelta() {
		t.Fatalf("kmsg reads %+v", k)
	}
	if batch.Codec() != CodecNone {
		return
	}
	rest := k.Records
	for i := range want {
		length, n := binary.Varint(rest)
		var r kmsg.Record
		if err := r.ReadFrom(rest[:n+int(length)]); err != nil {
			t.Fatalf("kmsg record %d: %v", i, err)
		}
		rest = rest[n+int(length):]
		if int64(r.OffsetDelta) != want[i].Offset || k.FirstTimestamp+r.TimestampDelta64 != want[i].Timestamp || !bytes.Equal(r.Key, want[i].Key) || !bytes.Equal(r.Value, want[i].Value) || len(r.Headers) != len(want[i].Headers) {
			t.Fatalf("kmsg reads record %d as %+v, want %+v", i, r, want[i])
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	raw := []byte(sample(CodecNone, 100))
	allocations := testing.AllocsPerRun(100, func() {
		b, _, err := Parse(raw)
		if err != nil || b.Validate() != nil || b.ValidateProduced() != nil {
			t.Fatal("batch is bad")
		}
		b.SetBaseOffset(5)
		b.SetLeaderEpoch(1)
		b.SetLogAppendTime(77)
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
