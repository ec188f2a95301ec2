package server

import (
	"math/bits"
	"sync"
)

const (
	// firstFrameBytes is what a request gets before more of it has arrived.
	firstFrameBytes = 64 << 10
	// Buffers from 2^minPooledBits to 2^maxPooledBits bytes are kept for reuse.
	minPooledBits = 10
	maxPooledBits = 22
)

// frame is the memory of one request.
type frame struct {
	bytes  []byte
	pooled bool
}

// framePool keeps buffers by powers of two.
type framePool struct {
	pools [maxPooledBits + 1]sync.Pool
	// poison has buffers overwritten when they go back, so that a test finds who
	// still refers to them.
	poison bool
}

// get returns a frame with room for size bytes and none in it.
func (p *framePool) get(size int, pooled bool) *frame {
	class := bits.Len(uint(max(size, 1<<minPooledBits) - 1))
	if !pooled || class > maxPooledBits {
		return &frame{bytes: make([]byte, 0, size)}
	}
	if f, ok := p.pools[class].Get().(*frame); ok {
		return f
	}
	return &frame{bytes: make([]byte, 0, 1<<class), pooled: true}
}

// put takes a frame back. Nobody may refer to its bytes any more.
func (p *framePool) put(f *frame) {
	if !f.pooled {
		return
	}
	if p.poison {
		all := f.bytes[:cap(f.bytes)]
		for i := range all {
			all[i] = 0xdd
		}
	}
	f.bytes = f.bytes[:0]
	p.pools[bits.Len(uint(cap(f.bytes)-1))].Put(f)
}

// grow returns a frame with the content of f and room for size bytes, or for
// twice what is there when that is less.
func (p *framePool) grow(f *frame, size int, pooled bool) *frame {
	larger := p.get(min(size, 2*cap(f.bytes)), pooled)
	larger.bytes = append(larger.bytes, f.bytes...)
	p.put(f)
	return larger
}
