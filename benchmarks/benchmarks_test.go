package main

import (
	"fmt"
	"testing"
)

func benchmarkEngine(b *testing.B, make func() (*engine, error)) {
	e, err := make()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := e.step(); err != nil {
			b.Fatal(err)
		}
		n += runRecords
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
}

func BenchmarkStateless(b *testing.B) { benchmarkEngine(b, stateless) }
func BenchmarkCount(b *testing.B)     { benchmarkEngine(b, counting) }
func BenchmarkWindowed(b *testing.B)  { benchmarkEngine(b, windowed) }

func BenchmarkProduce(b *testing.B) {
	for _, acks := range []int16{-1, 1} {
		for _, records := range []int{10, 100, 600} {
			b.Run(fmt.Sprintf("acks=%d/records=%d", acks, records), func(b *testing.B) {
				e, err := startEmbedded(b.Context(), b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				defer e.close()
				raw := batch(records, 100)
				request := produceRequest(raw, acks)
				b.ReportAllocs()
				b.SetBytes(int64(len(raw)))
				for b.Loop() {
					if err := e.produce(request); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestEmbeddedRoundTrip keeps the benchmark honest: what is measured is produced
// and fetched for real.
func TestEmbeddedRoundTrip(t *testing.T) {
	e, err := startEmbedded(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	raw := batch(10, 100)
	for range 3 {
		if err := e.produce(produceRequest(raw, -1)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := e.fetch(10, int32(2*len(raw)))
	if err != nil || len(got) != 2*len(raw) {
		t.Fatalf("fetched %d bytes, produced batches of %d: %v", len(got), len(raw), err)
	}
}

// The benchmark of restoring restores: it looks for the last key itself.
func TestRestoreChangelog(t *testing.T) {
	if err := restoreChangelog(t.TempDir(), 5000); err != nil {
		t.Fatal(err)
	}
}
