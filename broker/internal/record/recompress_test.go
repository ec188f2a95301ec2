package record

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// checkRecompressed has a batch in another codec: the same records, and the same header
// but for codec, length and checksum.
func checkRecompressed(t *rapid.T, batch Batch, want []Record) {
	to := rapid.SampledFrom(codecs).Draw(t, "to")
	out, err := batch.Recompress([]byte("before"), to, DefaultLimit, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := Batch(out[len("before"):])
	if err := got.Validate(); err != nil || got.Codec() != to {
		t.Fatalf("%s to %s: codec %s, %v", batch.Codec(), to, got.Codec(), err)
	}
	checkWithKmsg(t, got, want)
	header := func(b Batch) []byte {
		h := Batch(bytes.Clone(b[:HeaderSize]))
		h.setCodec(CodecNone)
		clear(h[lengthAt : lengthAt+4])
		clear(h[crcAt : crcAt+4])
		return h
	}
	if !bytes.Equal(header(got), header(batch)) {
		t.Fatalf("%s to %s: another header", batch.Codec(), to)
	}
}

// What cannot be opened, or grows beyond the limit, is refused, and nothing is appended.
func TestRecompressRefuses(t *testing.T) {
	bomb := NewBuilder(CodecZstd)
	bomb.Append(0, nil, make([]byte, 1<<20), nil)
	bomb.SetProducer(1, 0, 0)
	for name, c := range map[string]struct {
		batch Batch
		want  error
	}{
		"a bomb":           {bomb.Build(nil), ErrTooLarge},
		"a wrong count":    {edit(true, func(b Batch) { b[countAt+3]++; b[lastOffsetDeltaAt+3]++ }), ErrCorrupt},
		"another codec":    {edit(true, func(b Batch) { b[attributesAt+1] = byte(CodecGzip) }), ErrCorrupt},
		"no such codec":    {edit(true, func(b Batch) { b[attributesAt+1] = 6 }), ErrCodec},
		"trailing records": {append(edit(true, func(Batch) {}), 0, 0, 0), ErrCorrupt},
	} {
		got, err := c.batch.Recompress([]byte("x"), CodecLZ4, 1<<16, nil)
		if !errors.Is(err, c.want) || string(got) != "x" {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(got), err, c.want)
		}
	}
}

func BenchmarkRecompress(b *testing.B) {
	batch := sample(CodecNone, 100)
	var dst, scratch []byte
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = batch.Recompress(dst[:0], CodecLZ4, DefaultLimit, &scratch); err != nil {
			b.Fatal(err)
		}
	}
}
