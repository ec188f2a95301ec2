package server

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leatlog/leat/broker/internal/wire"
)

// TestReleaseOnce has connections break while their requests are answered
// elsewhere: each answer is released, and once.
func TestReleaseOnce(t *testing.T) {
	var answers, releases, twice atomic.Int64
	var work sync.WaitGroup
	ln := listen(t)
	s := start(t, ln, Config{Handle: func(_ context.Context, r *wire.Request, respond wire.Responder) {
		work.Go(func() {
			var released atomic.Bool
			answers.Add(1)
			respond(wire.Response{Chunks: []wire.Chunk{{Bytes: make([]byte, 100)}}, Release: func() {
				if released.Swap(true) {
					twice.Add(1)
				}
				releases.Add(1)
			}})
		})
	}})
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		c := dial(t, ln)
		for id := range int32(30) {
			c.Write(metadataFrame(id))
		}
		for range random.IntN(5) {
			c.receive()
		}
		c.Close()
	}
	s.stop()
	work.Wait()
	if twice.Load() != 0 || releases.Load() != answers.Load() {
		t.Fatalf("%d answers, %d releases, %d of them again", answers.Load(), releases.Load(), twice.Load())
	}
}
