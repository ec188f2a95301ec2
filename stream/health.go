package stream

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

// Health tells how an App is. As JSON it is what its query endpoint serves at /health.
type Health struct {
	App   string `json:"app"`
	State State  `json:"state"`
	// Paused says that Pause holds the tasks.
	Paused bool `json:"paused"`
	// Tasks are those of this process, in order.
	Tasks []TaskHealth `json:"tasks"`
	// Standbys are the copies of other tasks' state in this process, in order.
	Standbys []StandbyHealth `json:"standbys,omitempty"`
}

// TaskHealth tells how a task is.
type TaskHealth struct {
	// Task is its plan.TaskID as a word, "0_1" for partition 1 of sub-topology 0.
	Task string `json:"task"`
	// Running is false until its stores are restored.
	Running bool `json:"running"`
	// AsOf is when all of its input up to then was committed: a time in the past, and the
	// zero time when it has not caught up since it was opened.
	AsOf time.Time `json:"as_of"`
	// Lag is what is left of all inputs, in offsets.
	Lag int64 `json:"lag"`
	// Inputs are the partitions that it reads; none before it runs.
	Inputs []InputHealth `json:"inputs,omitempty"`
	// Restores are the stores that read their changelogs, while it does not run.
	Restores []RestoreHealth `json:"restores,omitempty"`
}

// InputHealth tells how far the input of a task is processed.
type InputHealth struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// Committed is the next offset to process after the last commit, End the end of the
	// partition at the last fetch, Lag what is between.
	Committed int64 `json:"committed"`
	End       int64 `json:"end"`
	Lag       int64 `json:"lag"`
}

// RestoreHealth tells how far a store is restored, in changelog offsets.
type RestoreHealth struct {
	Store    string `json:"store"`
	Restored int64  `json:"restored"`
	Total    int64  `json:"total"`
}

// StandbyHealth tells how the copy of a task's state is.
type StandbyHealth struct {
	// Task is its plan.TaskID as a word.
	Task string `json:"task"`
	// WarmUp says that the task is to run in this process when the copy has caught up.
	WarmUp bool `json:"warm_up"`
	// Following is false while the stores are opened, and after a failure.
	Following bool `json:"following"`
	// Lag is what is left of all changelogs, in offsets.
	Lag    int64          `json:"lag"`
	Stores []StandbyStore `json:"stores,omitempty"`
}

// StandbyStore tells how far the copy of a store is, in changelog offsets.
type StandbyStore struct {
	Store string `json:"store"`
	// Offset is the next to apply, End the end of the changelog at the last fetch.
	Offset int64 `json:"offset"`
	End    int64 `json:"end"`
}

// MarshalText makes a State the word for it in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("stream: %q is no state: use one of %s", text, strings.Join(stateNames[:], ", "))
	}
	*s = State(i)
	return nil
}

// Health returns how the App is at the moment.
func (a *App) Health() Health {
	h := Health{App: a.cfg.AppID, State: a.State(), Paused: a.Paused(), Tasks: []TaskHealth{}}
	q := a.queries.Load()
	if q == nil {
		return h
	}
	a.mu.Lock()
	owned := slices.SortedFunc(maps.Keys(a.owned), assign.CompareTasks)
	a.mu.Unlock()
	for _, id := range owned {
		h.Tasks = append(h.Tasks, q.health(id))
	}
	for _, b := range a.standbys.following() {
		b.mu.Lock()
		h.Standbys = append(h.Standbys, b.health)
		b.mu.Unlock()
	}
	return h
}

func (q *queries) health(id plan.TaskID) TaskHealth {
	h := TaskHealth{Task: id.String()}
	q.mu.RLock()
	defer q.mu.RUnlock()
	t := q.tasks[id]
	if t == nil {
		restores := q.restores[id]
		for _, store := range slices.Sorted(maps.Keys(restores)) {
			h.Restores = append(h.Restores, restores[store])
		}
		return h
	}
	h.Running, h.AsOf, h.Inputs = true, t.fresh.asOf(), t.fresh.inputs()
	for _, in := range h.Inputs {
		h.Lag += in.Lag
	}
	return h
}

// inputs tells how far the inputs are committed.
func (f *freshness) inputs() []InputHealth {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []InputHealth
	for i := range f.sources {
		s := &f.sources[i]
		in := InputHealth{Topic: s.partition.Topic, Partition: s.partition.Partition, Committed: s.committed, End: s.committed}
		if end, _, known := f.seen(s.partition); known {
			in.End, in.Lag = end, max(0, end-s.committed)
		}
		out = append(out, in)
	}
	return out
}

// restoring notes how far a store of a task is.
func (q *queries) restoring(id plan.TaskID, h RestoreHealth) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.restores[id] == nil {
		q.restores[id] = make(map[string]RestoreHealth)
	}
	q.restores[id][h.Store] = h
}
