package stream

import (
	"errors"
	"slices"
)

// errKilled ends an App that a test has killed.
var errKilled = errors.New("killed by the test")

// Kill ends the App as kill -9 would: without a commit, and without a word to
// the group. cut is called in between and must cut its connections.
func (a *App) Kill(cut func()) {
	a.mu.Lock()
	workers := slices.Clone(a.workers)
	a.mu.Unlock()
	if len(workers) < a.cfg.Workers {
		workers = nil // still connecting: they have no task, and may never run
	}
	for _, w := range workers {
		w.interrupt()
		done := make(chan struct{})
		w.post(func() {
			defer close(done)
			w.stopped = true
			w.closeTasks(func(*running) bool { return true }, false)
		})
		w.await(done)
	}
	cut()
	a.fail(errKilled)
}

// Failpoint calls at at each step of each commit. Before Run.
func (a *App) Failpoint(at func(step string)) { a.failpoint = at }
