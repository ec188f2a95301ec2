package broker

import "sync"

// tasks are goroutines that come and go. Unlike with a sync.WaitGroup, one may be added
// while somebody waits: the log settles what coordinators appended until it is closed.
// The zero value has none.
type tasks struct {
	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when the last ends; nil unless somebody waits
}

// run runs f on a goroutine of its own.
func (t *tasks) run(f func()) {
	t.mu.Lock()
	t.running++
	t.mu.Unlock()
	go func() {
		defer t.ended()
		f()
	}()
}

func (t *tasks) ended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if t.running == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// wait waits until none runs.
func (t *tasks) wait() {
	t.mu.Lock()
	if t.running == 0 {
		t.mu.Unlock()
		return
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	<-idle
}
