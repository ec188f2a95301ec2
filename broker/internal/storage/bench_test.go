package storage

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func benchLog(b *testing.B) *Log {
	b.Helper()
	env := Env{FS: vfs.OS{}, Now: time.Now, Logger: zerolog.Nop()}
	l, err := Open(env, filepath.ToSlash(b.TempDir())+"/topic-0", DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// benchBatch builds a batch of about size bytes, of records of 100 bytes.
func benchBatch(size int) []byte {
	b := record.NewBuilder(record.CodecNone)
	now := time.Now().UnixMilli()
	for b.Size() < size {
		b.Append(now, nil, make([]byte, 100), nil)
	}
	return b.Build(nil)
}

func BenchmarkAppend(b *testing.B) {
	for _, sync := range []bool{false, true} {
		for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("sync=%v/%dKiB", sync, size>>10), func(b *testing.B) {
				l := benchLog(b)
				batch := benchBatch(size)
				b.SetBytes(int64(len(batch)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := l.Append(batch, 0); err != nil {
						b.Fatal(err)
					}
					if sync {
						if err := l.Sync(); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// setProducer patches a batch as an idempotent producer would send it.
func setProducer(b record.Batch, id int64, epoch int16, sequence int32) {
	binary.BigEndian.PutUint64(b[43:], uint64(id))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(sequence))
	b.SetCRC()
}

func BenchmarkAppendIdempotent(b *testing.B) {
	l := benchLog(b)
	sequence := int32(0)
	batch := benchBatch(4 << 10)
	count := record.Batch(batch).Count()
	b.ReportAllocs()
	for b.Loop() {
		setProducer(batch, 1, 0, sequence)
		sequence = record.AddSequence(sequence, count)
		if _, err := l.Append(batch, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads a log from start to end, over and over.
func BenchmarkRead(b *testing.B) {
	for _, maxBytes := range []int{16 << 10, 64 << 10, 1 << 20} {
		for _, slice := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/slice=%v", maxBytes>>10, slice), func(b *testing.B) {
				l := benchLog(b)
				batch := benchBatch(4 << 10)
				for range 10_000 {
					if _, err := l.Append(batch, 0); err != nil {
						b.Fatal(err)
					}
				}
				perBatch := int64(record.Batch(batch).Count())
				var buffer []byte
				total, offset := int64(0), int64(0)
				b.ReportAllocs()
				for b.Loop() {
					if offset >= l.EndOffset() {
						offset = 0
					}
					n := 0
					if slice {
						s, err := l.Slice(offset, l.EndOffset(), maxBytes, true)
						if err != nil {
							b.Fatal(err)
						}
						n = s.Size
						s.Release()
					} else {
						var err error
						if buffer, err = l.Read(buffer[:0], offset, l.EndOffset(), maxBytes, true); err != nil {
							b.Fatal(err)
						}
						n = len(buffer)
					}
					total += int64(n)
					offset += int64(n/len(batch)) * perBatch
				}
				b.SetBytes(total / int64(b.N))
			})
		}
	}
}

// BenchmarkReadRandom reads one batch at a random place, through the index.
func BenchmarkReadRandom(b *testing.B) {
	l := benchLog(b)
	batch := benchBatch(4 << 10)
	for range 20_000 {
		if _, err := l.Append(batch, 0); err != nil {
			b.Fatal(err)
		}
	}
	var buffer []byte
	offset := int64(1)
	b.ReportAllocs()
	for b.Loop() {
		offset = (offset*6364136223846793005 + 1442695040888963407) & (1<<62 - 1)
		var err error
		if buffer, err = l.Read(buffer[:0], offset%l.EndOffset(), l.EndOffset(), 1, true); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens logs that were closed cleanly, per log.
func BenchmarkOpen(b *testing.B) {
	env := Env{FS: vfs.OS{}, Now: time.Now, Logger: zerolog.Nop()}
	const logs = 200
	root := filepath.ToSlash(b.TempDir())
	d, err := OpenDirectory(env, root)
	if err != nil {
		b.Fatal(err)
	}
	for i := range logs {
		l, err := d.Log(LogID{"topic", int32(i), [16]byte{1}}, DefaultConfig())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Append(benchBatch(4<<10), 0); err != nil {
			b.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d, err := OpenDirectory(env, root)
		if err != nil {
			b.Fatal(err)
		}
		for i := range logs {
			if _, err := d.Log(LogID{"topic", int32(i), [16]byte{1}}, DefaultConfig()); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*logs), "µs/log")
}
