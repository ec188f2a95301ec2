package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// verifyAll reads the log to its end and returns the damage that is found.
func verifyAll(t testing.TB, l *Log, step int64) (read int64, found []*DamageError) {
	t.Helper()
	for v := l.Verifier(); ; {
		n, done, err := v.Step(step)
		read += n
		var damage *DamageError
		switch {
		case errors.As(err, &damage):
			found = append(found, damage)
		case err != nil:
			t.Fatal(err)
		case done:
			return read, found
		}
	}
}

// TestVerifierFindsEveryFlippedBit flips each byte of a log's files, the leader epochs that
// no checksum covers as well, and expects the damage to be found where it is, and nothing
// else. A log that is read by offset alone would serve most of them.
func TestVerifierFindsEveryFlippedBit(t *testing.T) {
	cfg := smallConfig()
	cfg.SegmentBytes = 600
	disk := vfs.NewMem()
	l := mustOpen(t, disk, cfg)
	type place struct {
		file             string
		position, offset int64
		size             int64
	}
	var places []place
	for i := range 12 {
		at := l.active()
		info := mustAppend(t, l, batchOf(1, 100, fmt.Sprint(i)))
		p := place{position: at.size.Load(), offset: info.BaseOffset}
		if l.active() != at {
			at, p.position = l.active(), 0
		}
		p.file, p.size = at.file.name(), at.size.Load()
		p.size -= p.position
		places = append(places, p)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if read, found := verifyAll(t, l, 1); len(found) > 0 || read != l.Size() || l.Segments() < 3 {
		t.Fatalf("%d of %d bytes of a sound log of %d segments are verified, damage %v", read, l.Size(), l.Segments(), found)
	}
	for _, p := range places {
		for i := range p.size {
			flip(t, disk, p.file, p.position+i)
			_, found := verifyAll(t, l, 200)
			if len(found) != 1 || found[0].File != p.file || found[0].Position != p.position || found[0].Offset != p.offset {
				t.Fatalf("byte %d of the batch %+v: found %v", i, p, found)
			}
			flip(t, disk, p.file, p.position+i)
		}
	}
	if err := l.Damaged(); err != nil {
		t.Errorf("the verifier fenced the log: %v", err)
	}
}

// TestVerifierFindsALostSegmentEnd cuts full batches off a segment that another one follows.
func TestVerifierFindsALostSegmentEnd(t *testing.T) {
	cfg := smallConfig()
	cfg.SegmentBytes = 600
	disk := vfs.NewMem()
	l := mustOpen(t, disk, cfg)
	mustAppend(t, l, batchOf(1, 100, "first"))
	whole := l.Size()
	for l.Segments() < 2 {
		mustAppend(t, l, batchOf(1, 100, "next"))
	}
	f, err := disk.OpenReadWrite(l.segments[0].file.name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(whole); err != nil {
		t.Fatal(err)
	}
	if _, found := verifyAll(t, l, 1<<20); len(found) != 1 || found[0].Position != 0 && found[0].Position != whole {
		t.Errorf("found %v, want the end at byte %d", found, whole)
	}
}

// TestVerifierBesideTruncation verifies a log that is truncated and written again all the
// time: none of it is damage.
func TestVerifierBesideTruncation(t *testing.T) {
	cfg := smallConfig()
	cfg.SegmentBytes = 1000
	l := mustOpen(t, vfs.NewMem(), cfg)
	stop := make(chan struct{})
	var verifiers sync.WaitGroup
	for range 2 {
		verifiers.Go(func() {
			for v := l.Verifier(); ; {
				_, done, err := v.Step(300)
				if err != nil {
					t.Error(err)
					return
				}
				if done {
					v = l.Verifier()
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for epoch := range int32(400) {
		for range 1 + r.IntN(8) {
			if _, err := l.Append(batchOf(1+r.IntN(3), r.IntN(200), "x"), epoch); err != nil {
				t.Fatal(err)
			}
		}
		to := r.Int64N(l.EndOffset() + 1)
		if r.IntN(20) == 0 {
			if err := l.ResetTo(to); err != nil {
				t.Fatal(err)
			}
		} else if err := l.TruncateTo(max(to, l.StartOffset())); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	verifiers.Wait()
}
