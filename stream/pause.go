package stream

// Pause stops the processing of records and the punctuation of operators in this process,
// until Resume; before Run, too. What was processed is committed, the process stays in its
// group and keeps its tasks, commits and State go on as they are, and stores that restore go on
// (Kafka Streams holds those as well). Input waits in the cluster, but for BufferBytes of each
// partition. Queries are answered from what is committed.
func (a *App) Pause() { a.paused.Store(true) }

// Resume goes on after Pause.
func (a *App) Resume() {
	a.paused.Store(false)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.post(func() {}) // there is work again
	}
}

// Paused tells whether Pause was called, and Resume was not since.
func (a *App) Paused() bool { return a.paused.Load() }
