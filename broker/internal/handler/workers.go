package handler

import "sync"

// workers runs functions on at most limit goroutines. The goroutines exist only
// while there is work, so nothing has to be closed; the queue is as long as the
// requests that the connections may have in flight.
type workers struct {
	limit int

	mu      sync.Mutex
	queue   []func()
	head    int
	running int
}

// submit has f called soon. It does not block.
func (w *workers) submit(f func()) {
	w.mu.Lock()
	w.queue = append(w.queue, f)
	start := w.running < w.limit
	if start {
		w.running++
	}
	w.mu.Unlock()
	if start {
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
		f := w.queue[w.head]
		w.queue[w.head] = nil
		w.head++
		if w.head > 1024 && w.head*2 > len(w.queue) {
			n := copy(w.queue, w.queue[w.head:])
			clear(w.queue[n:])
			w.queue, w.head = w.queue[:n], 0
		}
		w.mu.Unlock()
		f()
	}
}
