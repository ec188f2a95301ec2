package handler

import (
	"runtime/debug"
	"sync"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/wire"
)

// workers runs functions on at most limit goroutines. The goroutines exist only
// while there is work, so nothing has to be closed; the queue is as long as the
// requests that the connections may have in flight.
type workers struct {
	limit  int
	start  func(func()) // nil: the go statement
	logger zerolog.Logger

	mu      sync.Mutex
	queue   []job
	head    int
	running int
}

// job is a function and the request it answers.
type job struct {
	call    func()
	respond wire.Responder
}

// submit has f, which answers through respond, called soon. It does not block. If
// f panics, the request's connection is closed and the node goes on.
func (w *workers) submit(respond wire.Responder, f func()) {
	w.mu.Lock()
	w.queue = append(w.queue, job{f, respond})
	start := w.running < w.limit
	if start {
		w.running++
	}
	w.mu.Unlock()
	switch {
	case !start:
	case w.start != nil:
		w.start(w.run)
	default:
		go w.run()
	}
}

func (w *workers) run() {
	for {
		w.mu.Lock()
		if w.head == len(w.queue) {
			w.queue, w.head = w.queue[:0], 0
			w.running--
			w.mu.Unlock()
			return
		}
		next := w.queue[w.head]
		w.queue[w.head] = job{}
		w.head++
		if w.head > 1024 && w.head*2 > len(w.queue) {
			n := copy(w.queue, w.queue[w.head:])
			clear(w.queue[n:])
			w.queue, w.head = w.queue[:n], 0
		}
		w.mu.Unlock()
		w.do(next)
	}
}

func (w *workers) do(j job) {
	defer func() {
		if v := recover(); v != nil {
			w.logger.Error().Interface("panic", v).Bytes("stack", debug.Stack()).
				Msg("a request made its handler panic: closing its connection; please report this")
			j.respond(wire.Response{Close: true})
		}
	}()
	j.call()
}
