package stream

import (
	"fmt"
	"sync"

	"github.com/leatlog/leat/topology/plan"
)

// State is where an App is in its life.
type State uint8

// The states. Created goes to Rebalancing; Rebalancing, Restoring and Running go
// to each other; each of them goes to Stopping or Failed; Stopping goes to
// Stopped or Failed. Stopped and Failed are the end.
const (
	// Created: Run was not called yet.
	Created State = iota
	// Rebalancing: the group is settling who runs which task. Tasks that stay run on.
	Rebalancing
	// Restoring: some tasks wait for their stores. The others run.
	Restoring
	// Running: every task of this process runs.
	Running
	// Stopping: the last commit is under way.
	Stopping
	// Stopped: Run has returned without an error.
	Stopped
	// Failed: Run has returned an error.
	Failed
)

var stateNames = [...]string{"created", "rebalancing", "restoring", "running", "stopping", "stopped", "failed"}

// String returns the state in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// RestoreProgress tells how far a store's restoring is.
type RestoreProgress struct {
	Task  plan.TaskID
	Store string
	// Restored and Total count changelog offsets since the restore began: Restored is 0 at
	// its begin, and equals Total at its end.
	Restored, Total int64
}

// status is the App's state and its listeners. It keeps the order of what
// listeners are told.
type status struct {
	mu        sync.Mutex
	state     State
	assigned  bool // the group has settled
	restoring int  // tasks that wait for their stores or to be opened

	listen  sync.Mutex // one listener at a time
	onState func(from, to State)
	onError func(error)
}

// State returns where the App is.
func (a *App) State() State {
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	return a.status.state
}

// update changes what the state follows from, and tells the listener.
func (s *status) update(change func()) {
	s.listen.Lock()
	defer s.listen.Unlock()
	s.mu.Lock()
	from := s.state
	change()
	if s.state == Rebalancing || s.state == Restoring || s.state == Running {
		switch {
		case !s.assigned:
			s.state = Rebalancing
		case s.restoring > 0:
			s.state = Restoring
		default:
			s.state = Running
		}
	}
	to := s.state
	s.mu.Unlock()
	if from != to && s.onState != nil {
		s.onState(from, to)
	}
}

func (s *status) set(to State) { s.update(func() { s.state = to }) }

func (s *status) setAssigned(assigned bool) { s.update(func() { s.assigned = assigned }) }

func (s *status) addRestoring(n int) { s.update(func() { s.restoring += n }) }

// report tells the listener of an error.
func (s *status) report(err error) {
	if err == nil || s.onError == nil {
		return
	}
	s.listen.Lock()
	defer s.listen.Unlock()
	s.onError(err)
}
