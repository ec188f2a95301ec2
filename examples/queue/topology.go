package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// Job is a message to be delivered; its key is its id, which is its own.
type Job struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// Attempt is a job that failed, waiting for the next attempt.
type Attempt struct {
	Job Job `json:"job"`
	// ID is the job's.
	ID string `json:"id"`
	// Attempts is how many have failed, Error why the last one did.
	Attempts int    `json:"attempts"`
	Error    string `json:"error"`
}

// Result is what became of a job.
type Result struct {
	Job      Job    `json:"job"`
	Attempts int    `json:"attempts"`
	Error    string `json:"error,omitempty"`
}

// The topics, keyed by job.
var (
	jobsTopic   = topology.NewTopic("queue-jobs", serde.String, serde.JSON[Job]())
	doneTopic   = topology.NewTopic("queue-done", serde.String, serde.JSON[Result]())
	failedTopic = topology.NewTopic("queue-failed", serde.String, serde.JSON[Result]())
)

// unreadable has the records that are no jobs, with headers that say why.
const unreadable = "queue-unreadable"

// maxAttempts is how often a job is tried.
const maxAttempts = 5

// backoff is how long a job waits after its nth failure.
func backoff(n int) time.Duration { return time.Second << (n - 1) }

// queueTopology declares the queue:
//
//	queue-jobs ── work ─┬─> queue-done
//	              │  ↑   └─> queue-failed, after maxAttempts
//	              waiting, until the timer finds it due
//
// try does a job; n counts its attempts from 1.
func queueTopology(try func(id string, j Job, n int) error) *topology.Topology {
	t := topology.New(topology.OnError(topology.DeadLetter(unreadable)))
	w := worker{
		try:     try,
		waiting: topology.NewKeyValueStore("waiting", serde.String, serde.JSON[Attempt]()),
		done:    topology.NewOutput("done", serde.String, serde.JSON[Result]()),
		failed:  topology.NewOutput("failed", serde.String, serde.JSON[Result]()),
	}
	p := topology.Process(topology.From(t, jobsTopic, topology.Named("jobs")), topology.Processor[string, Job]{
		Process:      w.take,
		Stores:       []topology.ProcessorStore{w.waiting},
		Outputs:      []topology.ProcessorOutput{w.done, w.failed},
		Punctuations: []topology.Punctuation{topology.EveryWallTime(time.Second, w.again)},
	}, topology.Named("work"))
	topology.To(w.done.Of(p), doneTopic, topology.Named("done"))
	topology.To(w.failed.Of(p), failedTopic, topology.Named("failed"))
	return t
}

// worker does jobs.
type worker struct {
	try func(id string, j Job, n int) error
	// waiting has failed jobs by the time at which they are due, and their id.
	waiting      *topology.KeyValueStore[string, Attempt]
	done, failed *topology.Output[string, Result]
}

// take does a new job.
func (w worker) take(c *topology.ProcessorContext, r *topology.Record[string, Job]) error {
	if !r.HasKey() || !r.HasValue() {
		return errors.New("a job needs an id as its key, and a value")
	}
	return w.attempt(c, Attempt{ID: r.Key, Job: r.Value})
}

// again does the jobs whose time has come.
func (w worker) again(c *topology.ProcessorContext, now time.Time) error {
	var failed error
	err := w.waiting.Scan(c, func(key string, a Attempt) bool {
		if key >= dueKey(now.Add(time.Millisecond), "") {
			return false
		}
		if failed = w.waiting.Delete(c, key); failed == nil {
			failed = w.attempt(c, a)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

func (w worker) attempt(c *topology.ProcessorContext, a Attempt) error {
	a.Attempts++
	err := w.try(a.ID, a.Job, a.Attempts)
	switch {
	case err == nil:
		return w.done.Forward(c, a.ID, Result{Job: a.Job, Attempts: a.Attempts})
	case a.Attempts == maxAttempts:
		return w.failed.Forward(c, a.ID, Result{Job: a.Job, Attempts: a.Attempts, Error: err.Error()})
	}
	a.Error = err.Error()
	return w.waiting.Put(c, dueKey(c.WallTime().Add(backoff(a.Attempts)), a.ID), a)
}

// dueKey orders jobs by time.
func dueKey(at time.Time, id string) string { return fmt.Sprintf("%015d/%s", at.UnixMilli(), id) }
