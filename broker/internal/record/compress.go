package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// pooledBytes is the largest buffer that goes back to the pool: one giant
// batch must not stay resident for good.
const pooledBytes = 1 << 20

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func putBuffer(buffer *[]byte) {
	if cap(*buffer) <= pooledBytes {
		buffers.Put(buffer)
	}
}

// Writers and readers are pooled because each holds tables of 10 KB to 1 MB.
// The pools hold nothing that outlives a call: all are reset before use.
var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	lz4Writers  = sync.Pool{New: func() any {
		w := lz4.NewWriter(nil)
		// Kafka's clients write independent 64 KiB blocks without checksums.
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
			panic("record: lz4 options: " + err.Error())
		}
		return w
	}}
	zstdDecoders = sync.Pool{New: func() any {
		// Concurrency 1 without a stream starts no goroutine. The capacity of the
		// destination is the limit.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic("record: zstd options: " + err.Error())
		}
		return d
	}}
	zstdEncoders = sync.Pool{New: func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic("record: zstd options: " + err.Error())
		}
		return e
	}}
)

// Decompress appends the decompressed bytes of src to dst. It fails with
// ErrTooLarge when they exceed limit bytes, without having used much more than
// that, with ErrCorrupt when src is not what the codec writes, and with
// ErrCodec for a codec that does not exist.
func Decompress(dst []byte, codec Codec, src []byte, limit int) ([]byte, error) {
	var err error
	switch codec {
	case CodecNone:
		if len(src) > limit {
			return dst, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
		}
		return append(dst, src...), nil
	case CodecGzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err = r.Reset(bytes.NewReader(src)); err == nil {
			dst, err = readLimited(dst, r, limit)
		}
	case CodecSnappy:
		dst, err = decompressSnappy(dst, src, limit)
	case CodecLZ4:
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		dst, err = readLimited(dst, r, limit)
	case CodecZstd:
		dst, err = decompressZstd(dst, src, limit)
	default:
		return dst, fmt.Errorf("%w: %d", ErrCodec, codec)
	}
	if err != nil && !errors.Is(err, ErrTooLarge) {
		err = fmt.Errorf("%w: %s: %w", ErrCorrupt, codec, err)
	}
	return dst, err
}

// sizeWithin returns what src takes when it is decompressed, if it can be told without
// keeping it; 0 when it cannot, and an error of Decompress when there is one already. It
// uses no memory to speak of, whatever src grows to.
func sizeWithin(codec Codec, src []byte, limit int) (int, error) {
	var r io.Reader
	switch codec {
	case CodecGzip:
		z := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(z)
		if err := z.Reset(bytes.NewReader(src)); err != nil {
			return 0, fmt.Errorf("%w: %s: %w", ErrCorrupt, codec, err)
		}
		r = z
	case CodecLZ4:
		z := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(z)
		z.Reset(bytes.NewReader(src))
		r = z
	default:
		return 0, nil // snappy and zstd tell before they grow
	}
	n, err := io.Copy(onlyWriter{io.Discard}, io.LimitReader(r, int64(limit)+1))
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %s: %w", ErrCorrupt, codec, err)
	case n > int64(limit):
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
	}
	return int(n), nil
}

// onlyWriter hides what else a writer can do.
type onlyWriter struct{ io.Writer }

// readLimited appends what r gives to dst, up to limit bytes.
func readLimited(dst []byte, r io.Reader, limit int) ([]byte, error) {
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		// One byte more than the limit is asked for, to tell "at" from "over".
		room := min(cap(dst)-len(dst), limit-(len(dst)-start)+1)
		n, err := r.Read(dst[len(dst) : len(dst)+room])
		dst = dst[:len(dst)+n]
		if len(dst)-start > limit {
			return dst, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// xerialMagic starts the framing that Java's snappy streams put around blocks:
// the magic, two int32 versions, then blocks with an int32 length each.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

func decompressSnappy(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return decompressSnappyBlock(dst, src, limit)
	}
	if len(src) < xerialHeader {
		return dst, io.ErrUnexpectedEOF
	}
	size, err := xerialSize(src, limit)
	if err != nil {
		return dst, err
	}
	dst = grow(dst, size) // once, not for every block
	for src = src[xerialHeader:]; len(src) > 0; {
		block := src[4 : 4+binary.BigEndian.Uint32(src)]
		src = src[4+len(block):]
		if dst, err = decompressSnappyBlock(dst, block, limit); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// xerialSize adds up what the blocks say of their sizes, and checks their lengths.
func xerialSize(src []byte, limit int) (total int, err error) {
	for src = src[xerialHeader:]; len(src) > 0; {
		if len(src) < 4 {
			return 0, io.ErrUnexpectedEOF
		}
		length := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(length) > uint64(len(src)) {
			return 0, io.ErrUnexpectedEOF
		}
		size, err := s2.DecodedLen(src[:length])
		if err != nil {
			return 0, err
		}
		if total += size; size > limit || total > limit {
			return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
		}
		src = src[length:]
	}
	return total, nil
}

func decompressSnappyBlock(dst, src []byte, limit int) ([]byte, error) {
	size, err := s2.DecodedLen(src)
	if err != nil {
		return dst, err
	}
	if size > limit {
		return dst, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
	}
	dst = grow(dst, size)
	block, err := s2.Decode(dst[len(dst):len(dst)+size], src)
	if err != nil {
		return dst, err
	}
	return dst[:len(dst)+len(block)], nil
}

// decompressZstd gives the decoder a destination that it may not outgrow: the
// size the frame declares, or a guess that is doubled up to the limit.
func decompressZstd(dst, src []byte, limit int) ([]byte, error) {
	d := zstdDecoders.Get().(*zstd.Decoder)
	defer zstdDecoders.Put(d)
	guess := 4*len(src) + 1024
	var header zstd.Header
	if header.Decode(src) == nil && header.HasFCS {
		if header.FrameContentSize > uint64(limit) {
			return dst, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
		}
		guess = int(header.FrameContentSize)
	}
	for {
		guess = min(guess, limit)
		grown := grow(dst, guess)
		out, err := d.DecodeAll(src, grown[:len(grown):len(grown)+guess])
		if !errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			if err != nil {
				return dst, err
			}
			return out, nil
		}
		if guess >= limit {
			return dst, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
		}
		guess = guess*2 + 1024
	}
}

// grow returns dst with room for n more bytes.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	grown := make([]byte, len(dst), len(dst)+n)
	copy(grown, dst)
	return grown
}

// sliceWriter appends what is written to a slice.
type sliceWriter struct{ bytes []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.bytes = append(w.bytes, p...)
	return len(p), nil
}

// Compress appends the compressed bytes of src to dst.
func Compress(dst []byte, codec Codec, src []byte) ([]byte, error) {
	switch codec {
	case CodecNone:
		return append(dst, src...), nil
	case CodecGzip:
		w := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(w)
		out := &sliceWriter{bytes: dst}
		w.Reset(out)
		return writeAll(out, w, src)
	case CodecSnappy:
		dst = grow(dst, s2.MaxEncodedLen(len(src)))
		return dst[:len(dst)+len(s2.EncodeSnappy(dst[len(dst):cap(dst)], src))], nil
	case CodecLZ4:
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		out := &sliceWriter{bytes: dst}
		w.Reset(out)
		return writeAll(out, w, src)
	case CodecZstd:
		e := zstdEncoders.Get().(*zstd.Encoder)
		defer zstdEncoders.Put(e)
		return e.EncodeAll(src, dst), nil
	}
	return dst, fmt.Errorf("%w: %d", ErrCodec, codec)
}

func writeAll(out *sliceWriter, w io.WriteCloser, src []byte) ([]byte, error) {
	if _, err := w.Write(src); err != nil {
		return out.bytes, err
	}
	if err := w.Close(); err != nil {
		return out.bytes, err
	}
	return out.bytes, nil
}
