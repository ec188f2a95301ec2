package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatlog/leat/topology/plan"
)

var allCodecs = []Codec{NoCompression, Gzip, Snappy, LZ4, Zstd}

// buildBatch makes a stamped batch at a base offset.
func buildBatch(t testing.TB, codec Codec, base int64, records []plan.Record) []byte {
	t.Helper()
	var b batchBuilder
	for _, r := range records {
		b.append(r.Timestamp, r.Key, r.Value, r.Headers)
	}
	out, err := b.build(nil, codec, false)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint64(out, uint64(base))
	stamp(out, 7, 3, 11)
	return out
}

func drawRecords(t *rapid.T) []plan.Record {
	nullableBytes := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 40))
	n := rapid.IntRange(1, 50).Draw(t, "records")
	records := make([]plan.Record, n)
	for i := range records {
		records[i] = plan.Record{
			Timestamp: rapid.Int64Range(0, 1<<42).Draw(t, "timestamp"),
			Key:       nullableBytes.Draw(t, "key"), Value: nullableBytes.Draw(t, "value"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "headers") {
			records[i].Headers = append(records[i].Headers, plan.Header{
				Key: rapid.StringN(0, 8, -1).Draw(t, "header"), Value: nullableBytes.Draw(t, "header value"),
			})
		}
	}
	return records
}

func TestBatchesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawRecords(t)
		codec := rapid.SampledFrom(allCodecs).Draw(t, "codec")
		base := rapid.Int64Range(0, 1<<40).Draw(t, "base")
		var b batchBuilder
		for _, r := range records {
			b.append(r.Timestamp, r.Key, r.Value, r.Headers)
		}
		raw, err := b.build(nil, codec, false)
		if err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint64(raw, uint64(base))
		stamp(raw, 1, 2, 3)
		from := base + rapid.Int64Range(0, int64(len(records))).Draw(t, "from")
		f := &Fetched{raw: raw, from: from, next: base + int64(len(records))}
		var got Records
		if err := f.Decode(&got, 1); err != nil {
			t.Fatal(err)
		}
		if got.Next != base+int64(len(records)) {
			t.Fatalf("next = %d", got.Next)
		}
		want := records[from-base:]
		if len(got.Records) != len(want) {
			t.Fatalf("%d records, want %d", len(got.Records), len(want))
		}
		for i, w := range want {
			w.Offset = from + int64(i)
			if !reflect.DeepEqual(normal(got.Records[i]), normal(w)) {
				t.Fatalf("record %d = %+v, want %+v", i, got.Records[i], w)
			}
		}
	})
}

// normal makes nil and empty header lists equal, and keeps nil and empty bytes
// apart.
func normal(r plan.Record) string {
	return fmt.Sprintf("%d %d %#v %#v %q", r.Offset, r.Timestamp, r.Key, r.Value, r.Headers)
}

// kgo reads what the builder writes.
func TestBatchesAreReadByKgo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, codec := range allCodecs {
		t.Run(codec.String(), func(t *testing.T) {
			records := randomRecords(rng, 300)
			raw := buildBatch(t, codec, 100, records)
			if got := batchView(raw).codec(); got != codec {
				t.Fatalf("codec in the batch = %v", got)
			}
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.RecordBatches = raw
			fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t", Offset: 100}, &rp, kgo.DefaultDecompressor(), nil)
			if fp.Err != nil {
				t.Fatal(fp.Err)
			}
			if next != 400 || len(fp.Records) != len(records) {
				t.Fatalf("next %d, %d records", next, len(fp.Records))
			}
			for i, r := range fp.Records {
				w := records[i]
				if r.Offset != 100+int64(i) || r.Timestamp.UnixMilli() != w.Timestamp || !bytes.Equal(r.Key, w.Key) ||
					!bytes.Equal(r.Value, w.Value) || (r.Key == nil) != (w.Key == nil) || len(r.Headers) != len(w.Headers) {
					t.Fatalf("record %d = %+v, want %+v", i, r, w)
				}
			}
		})
	}
}

// The reader reads what kgo's compressors write, including the framing of
// Java's snappy library.
func TestDecompressReadsOtherWriters(t *testing.T) {
	src := bytes.Repeat([]byte("leat carries a stream to a mill. "), 5000)
	for codec, option := range map[Codec]kgo.CompressionCodec{
		Gzip: kgo.GzipCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression(),
	} {
		c, err := kgo.DefaultCompressor(option)
		if err != nil {
			t.Fatal(err)
		}
		packed, _ := c.Compress(new(bytes.Buffer), src)
		got, err := decompress(nil, codec, packed, len(src))
		if err != nil || !bytes.Equal(got, src) {
			t.Errorf("%v: %v", codec, err)
		}
		if _, err := decompress(nil, codec, packed, len(src)-1); !errors.Is(err, errDecompressedSize) {
			t.Errorf("%v: limit: %v", codec, err)
		}
	}
	xerial := append([]byte(nil), xerialMagic...)
	xerial = append(xerial, 0, 0, 0, 1, 0, 0, 0, 1)
	for _, part := range [][]byte{src[:1000], src[1000:]} {
		block, err := compress(nil, Snappy, part)
		if err != nil {
			t.Fatal(err)
		}
		xerial = binary.BigEndian.AppendUint32(xerial, uint32(len(block)))
		xerial = append(xerial, block...)
	}
	got, err := decompress(nil, Snappy, xerial, len(src))
	if err != nil || !bytes.Equal(got, src) {
		t.Errorf("xerial: %v", err)
	}
}

func TestAbortedTransactionsAreLeftOut(t *testing.T) {
	one := func(base, producer int64, attributes uint16, value string) []byte {
		b := buildBatch(t, NoCompression, base, []plan.Record{{Value: []byte(value)}})
		binary.BigEndian.PutUint16(b[batchAttributesAt:], attributes)
		stamp(b, producer, 0, 0)
		return b
	}
	var raw []byte
	raw = append(raw, one(0, 1, transactionalBit, "aborted")...)
	raw = append(raw, one(1, 2, transactionalBit, "committed")...)
	raw = append(raw, one(2, -1, 0, "plain")...)
	raw = append(raw, one(3, 1, transactionalBit|controlBit, "abort marker")...)
	raw = append(raw, one(4, 1, transactionalBit, "next transaction")...)
	raw = append(raw, one(5, 1, transactionalBit|controlBit, "commit marker")...)
	f := &Fetched{raw: raw, next: 6, aborted: []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 1, FirstOffset: 0}}}
	var r Records
	if err := f.Decode(&r, 100); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rec := range r.Records {
		got = append(got, string(rec.Value))
	}
	if want := []string{"committed", "plain", "next transaction"}; !reflect.DeepEqual(got, want) {
		t.Errorf("records = %q, want %q", got, want)
	}
	if r.Next != 6 {
		t.Errorf("next = %d", r.Next)
	}
}

func TestDamagedBatchesAreRefused(t *testing.T) {
	good := buildBatch(t, LZ4, 0, randomRecords(rand.New(rand.NewPCG(2, 2)), 20))
	for i := batchMagicAt + 1; i < len(good); i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		f := &Fetched{raw: bad, next: 20}
		var r Records
		if err := f.Decode(&r, 1); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: err = %v", i, err)
		}
	}
}

func TestWholeBatchesCutsTheTail(t *testing.T) {
	records := randomRecords(rand.New(rand.NewPCG(3, 3)), 5)
	a, b := buildBatch(t, NoCompression, 10, records), buildBatch(t, NoCompression, 15, records)
	both := append(bytes.Clone(a), b...)
	for n := range len(both) + 1 {
		whole, next, err := wholeBatches(both[:n], 10)
		wantLen, wantNext := 0, int64(10)
		if n >= len(a) {
			wantLen, wantNext = len(a), 15
		}
		if n == len(both) {
			wantLen, wantNext = n, 20
		}
		if err != nil || len(whole) != wantLen || next != wantNext {
			t.Fatalf("%d bytes: %d whole, next %d, %v", n, len(whole), next, err)
		}
	}
}

func TestSequencesWrap(t *testing.T) {
	if got := nextSequence(1<<31-1, 1); got != 0 {
		t.Errorf("after the last comes %d", got)
	}
	if got := nextSequence(1<<31-3, 5); got != 2 {
		t.Errorf("wrapped to %d", got)
	}
}

// The values are those of Kafka's own test of its murmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
	byKgo := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for i := range 200 {
		key := fmt.Appendf(nil, "key-%d", i)
		if got, want := PartitionOf(key, 12), byKgo.Partition(&kgo.Record{Key: key}, 12); int(got) != want {
			t.Fatalf("partition of %q = %d, kgo says %d", key, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(4, 4))
	for _, codec := range allCodecs {
		f.Add(buildBatch(f, codec, 0, randomRecords(rng, 5)), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, mend bool) {
		if b, _, ok, err := splitBatch(raw); mend && ok && err == nil {
			stamp(b, 1, 1, 1) // a right CRC lets the fuzzer reach the records
		}
		whole, next, err := wholeBatches(raw, 0)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		d := &Fetched{raw: whole, next: next}
		var r Records
		for !d.Done() {
			if err := d.Decode(&r, len(r.Records)+1); err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
				return
			}
		}
	})
}

func randomRecords(rng *rand.Rand, n int) []plan.Record {
	records := make([]plan.Record, n)
	for i := range records {
		records[i] = plan.Record{Timestamp: 1_700_000_000_000 + rng.Int64N(100_000), Value: fmt.Appendf(nil, "value of the record number %d", i)}
		if rng.IntN(4) > 0 {
			records[i].Key = fmt.Appendf(nil, "key-%d", rng.IntN(100))
		}
		if rng.IntN(5) == 0 {
			records[i].Headers = []plan.Header{{Key: "trace", Value: []byte{1, 2, 3}}}
		}
	}
	return records
}

func BenchmarkDecode(b *testing.B) {
	for _, codec := range []Codec{NoCompression, LZ4, Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			raw := buildBatch(b, codec, 0, randomRecords(rand.New(rand.NewPCG(5, 5)), 1000))
			var r Records
			b.ReportAllocs()
			for b.Loop() {
				r.Reset()
				f := Fetched{raw: raw, next: 1000}
				if err := f.Decode(&r, 1); err != nil || len(r.Records) != 1000 {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, codec := range []Codec{NoCompression, LZ4, Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			records := randomRecords(rand.New(rand.NewPCG(5, 5)), 1000)
			var builder batchBuilder
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				for i := range records {
					r := &records[i]
					builder.append(r.Timestamp, r.Key, r.Value, r.Headers)
				}
				var err error
				if dst, err = builder.build(dst[:0], codec, false); err != nil {
					b.Fatal(err)
				}
				stamp(dst, 1, 1, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
		})
	}
}
