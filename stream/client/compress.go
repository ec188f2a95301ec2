package client

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

// Codec is how the records of a batch are compressed; the values are those of
// the batch's attributes.
type Codec int8

// The codecs.
const (
	// NoCompression stores records as they are.
	NoCompression Codec = iota
	// Gzip is slow and small.
	Gzip
	// Snappy is fast.
	Snappy
	// LZ4 is fast and a little smaller than Snappy.
	LZ4
	// Zstd is the smallest at a moderate cost.
	Zstd
)

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// String returns the codec's name in Kafka's configuration.
func (c Codec) String() string {
	if int(c) < len(codecNames) && c >= 0 {
		return codecNames[c]
	}
	return fmt.Sprintf("codec(%d)", int8(c))
}

// ParseCodec reads a codec's name: none, gzip, snappy, lz4 or zstd.
func ParseCodec(name string) (Codec, error) {
	for i, n := range codecNames {
		if n == name {
			return Codec(i), nil
		}
	}
	return 0, fmt.Errorf("client: compression %q: use none, gzip, snappy, lz4 or zstd", name)
}

// errDecompressedSize says that a batch would unpack to more than the limit.
var errDecompressedSize = errors.New("records unpack to more than the limit")

// zstd's encoders and decoders are safe for concurrent use through EncodeAll and
// DecodeAll, and expensive to make: one of each for the process, made on demand.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<10), zstd.WithZeroFrames(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(0),
			zstd.WithDecoderMaxMemory(maxDecompressBytes))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Writers  = sync.Pool{New: func() any { return lz4.NewWriter(nil) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
)

// appendWriter lets a codec that writes to an io.Writer append to a slice.
type appendWriter struct{ b []byte }

func (w *appendWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

// compress appends src, compressed, to dst.
func compress(dst []byte, codec Codec, src []byte) ([]byte, error) {
	switch codec {
	case NoCompression:
		return append(dst, src...), nil
	case Gzip:
		w := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(w)
		out := appendWriter{dst}
		w.Reset(&out)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		err := w.Close()
		return out.b, err
	case Snappy:
		start := len(dst)
		n := s2.MaxEncodedLen(len(src))
		if n < 0 {
			return nil, fmt.Errorf("client: %d bytes are too many for one snappy block", len(src))
		}
		dst = grow(dst, n)
		encoded := s2.EncodeSnappy(dst[start:start+n], src)
		return dst[:start+len(encoded)], nil
	case LZ4:
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		out := appendWriter{dst}
		w.Reset(&out)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		err := w.Close()
		return out.b, err
	case Zstd:
		return zstdEncoder().EncodeAll(src, dst), nil
	}
	return nil, fmt.Errorf("client: unknown compression %d", int8(codec))
}

// grow returns b with room for n more bytes.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	bigger := make([]byte, len(b), len(b)+n)
	copy(bigger, b)
	return bigger
}

// decompress unpacks src into dst, from its start, and returns dst or what it
// grew to. It fails before it holds more than limit bytes, which is at most
// maxDecompressBytes.
func decompress(dst []byte, codec Codec, src []byte, limit int) ([]byte, error) {
	dst = dst[:0]
	switch codec {
	case Gzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err := r.Reset(bytes.NewReader(src)); err != nil {
			return dst, err
		}
		return readBounded(dst, r, limit)
	case Snappy:
		return decodeSnappy(dst, src, limit)
	case LZ4:
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		return readBounded(dst, r, limit)
	case Zstd:
		out, err := zstdDecoder().DecodeAll(src, dst)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || len(out) > limit {
			return dst, errDecompressedSize
		}
		return out, err
	}
	return dst, fmt.Errorf("unknown compression %d", int8(codec))
}

// readBounded reads r to its end into dst.
func readBounded(dst []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = grow(dst, max(4096, min(len(dst), limit)))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst) > limit {
			return dst, errDecompressedSize
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// xerialMagic starts the framing of Java's snappy library: magic, two int32
// versions, then blocks led by their int32 length.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeaderSize = 16

func decodeSnappy(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return decodeSnappyBlock(dst, src, limit)
	}
	if len(src) < xerialHeaderSize {
		return dst, io.ErrUnexpectedEOF
	}
	src = src[xerialHeaderSize:]
	for len(src) > 0 {
		if len(src) < 4 {
			return dst, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(n) > uint64(len(src)) {
			return dst, io.ErrUnexpectedEOF
		}
		var err error
		if dst, err = decodeSnappyBlock(dst, src[:n], limit); err != nil {
			return dst, err
		}
		src = src[n:]
	}
	return dst, nil
}

// decodeSnappyBlock appends one block to dst.
func decodeSnappyBlock(dst, src []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return dst, err
	}
	if n > limit-len(dst) {
		return dst, errDecompressedSize
	}
	start := len(dst)
	dst = grow(dst, n)
	if _, err := s2.Decode(dst[start:start+n:start+n], src); err != nil {
		return dst, err
	}
	return dst[:start+n], nil
}
