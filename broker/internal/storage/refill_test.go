package storage

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// retry sends batches again, as a producer does that got no answer, and expects
// their old offsets.
func retry(t *testing.T, l *Log, id int64, sequences []int32, offsets []int64) {
	t.Helper()
	for i, sequence := range sequences {
		info, err := l.Append(idempotentBatch(id, 0, sequence, 3), max(l.LatestEpoch(), 0))
		if err != nil || !info.Duplicate || info.BaseOffset != offsets[i] || info.LastOffset != offsets[i]+2 {
			t.Fatalf("retry of producer %d, sequence %d: %+v, %v; was appended at %d", id, sequence, info, err, offsets[i])
		}
	}
}

// TestRetriesAfterRestart retries the five newest batches of two producers after
// clean and unclean ends of the process, with and without a roll, a snapshot and
// other producers' batches in between.
func TestRetriesAfterRestart(t *testing.T) {
	cfg := smallConfig()
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		disk := vfs.NewMem()
		l := mustOpen(t, disk, cfg)
		sequences, offsets := map[int64][]int32{}, map[int64][]int64{}
		next := map[int64]int32{}
		for range 10 + random.IntN(150) {
			switch id := int64(random.IntN(8)); {
			case id < 2:
				info := mustAppend(t, l, idempotentBatch(id, 0, next[id], 3))
				sequences[id], offsets[id] = append(sequences[id], next[id]), append(offsets[id], info.BaseOffset)
				next[id] += 3
			case id == 2:
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
			default:
				mustAppend(t, l, batchOf(2, 100, "noise"))
			}
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		clones := []*vfs.Mem{disk.Kill(), disk.Crash(nil), disk.Crash(random)}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for i, clone := range append(clones, disk.Kill()) {
			again := mustOpen(t, clone, cfg)
			for id := range int64(2) {
				n := len(sequences[id])
				from := max(n-rememberedBatches, 0)
				retry(t, again, id, sequences[id][from:], offsets[id][from:])
			}
			if again.EndOffset() != l.EndOffset() {
				t.Fatalf("seed %d, clone %d: the log ends at %d, want %d", seed, i, again.EndOffset(), l.EndOffset())
			}
			// And once more, after a clean close.
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRefillStopsAtAGap makes sure that nothing is remembered of another epoch, or
// before a gap, which deleted batches leave.
func TestRefillStopsAtAGap(t *testing.T) {
	disk := vfs.NewMem()
	cfg := smallConfig()
	l := mustOpen(t, disk, cfg)
	mustAppend(t, l, idempotentBatch(1, 0, 0, 3))
	mustAppend(t, l, idempotentBatch(1, 0, 3, 3))
	mustAppend(t, l, idempotentBatch(1, 1, 0, 3)) // a new epoch
	follower := record.Batch(idempotentBatch(1, 1, 6, 3))
	follower.SetBaseOffset(l.EndOffset())
	follower.SetLeaderEpoch(0)
	if err := l.AppendFollower(follower); err != nil { // sequences 3 to 5 are missing
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, disk, cfg)
	if p := again.producers.byID[1]; p.count != 1 || p.batches[0].lastSequence != 8 {
		t.Fatalf("producer %+v", p)
	}
	if _, err := again.Append(idempotentBatch(1, 1, 0, 3), 0); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Fatal(err)
	}
	if _, err := again.Append(idempotentBatch(1, 0, 3, 3), 0); !errors.Is(err, ErrInvalidProducerEpoch) {
		t.Fatal(err)
	}
}
