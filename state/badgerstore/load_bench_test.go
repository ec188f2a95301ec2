package badgerstore

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

const benchmarkKeys = 500_000

// BenchmarkRestoreSmallKeys restores small keys that come in any order; BenchmarkStreamWriter is
// Badger's bulk loader alone, with the same keys sorted already: the bound of the former.
func BenchmarkRestoreSmallKeys(b *testing.B) {
	for b.Loop() {
		backend, err := New(Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		e, err := backend.Open(context.Background(), "0_0", statetest.Spec)
		if err != nil {
			b.Fatal(err)
		}
		batch := &state.Batch{}
		var key, value []byte
		for n := range uint64(benchmarkKeys) {
			key = binary.BigEndian.AppendUint64(key[:0], n*0x9e3779b97f4a7c15)
			key = binary.BigEndian.AppendUint64(key, n)
			value = binary.BigEndian.AppendUint64(value[:0], n)
			if batch.Put(key, value); batch.Bytes() >= 256<<10 {
				if err := e.Load(batch); err != nil {
					b.Fatal(err)
				}
				batch.Reset()
			}
		}
		if err := errors.Join(e.Load(batch), e.Checkpoint(state.Position{Offset: benchmarkKeys}), e.Close(), backend.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(benchmarkKeys*b.N)/b.Elapsed().Seconds(), "keys/s")
}

func BenchmarkStreamWriter(b *testing.B) {
	for b.Loop() {
		db, err := badger.Open(databaseOptions(b.TempDir(), largestMemtable, zerolog.Nop()))
		if err != nil {
			b.Fatal(err)
		}
		w := db.NewStreamWriter()
		if err := w.Prepare(); err != nil {
			b.Fatal(err)
		}
		buffer := z.NewBuffer(2*streamChunk, "benchmark")
		kv := &pb.KV{StreamId: 1, Version: 1}
		for n := range uint64(benchmarkKeys) {
			kv.Key = binary.BigEndian.AppendUint64(append(kv.Key[:0], dataPrefix), n)
			kv.Key = binary.BigEndian.AppendUint64(kv.Key, n)
			kv.Value = append(binary.BigEndian.AppendUint64(kv.Value[:0], n), 0, 0, 0, 0)
			badger.KVToBuffer(kv, buffer)
			if buffer.LenNoPadding() >= streamChunk || n == benchmarkKeys-1 {
				if err := w.Write(buffer); err != nil {
					b.Fatal(err)
				}
				buffer.Reset()
			}
		}
		if err := errors.Join(w.Flush(), db.Close(), buffer.Release()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(benchmarkKeys*b.N)/b.Elapsed().Seconds(), "keys/s")
}
