package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

const (
	// pageRows and pageBytes bound a page of rows.
	pageRows  = 256
	pageBytes = 1 << 20
	// seekAfter is how many rows of other keys are passed over before a fetch of one key
	// looks for the next window of it: opening an iterator costs as much as some rows.
	seekAfter = 64
)

// pageRequest asks a task for rows of a store.
type pageRequest struct {
	App   string
	Task  plan.TaskID
	Store string
	// From and To bound the keys, [From, To); nil is open.
	From, To []byte
	Reverse  bool
	// OneKey leaves out rows of windows and sessions of other keys than Key.
	OneKey bool
	Key    []byte
	// LatestStart leaves out sessions that begin later, in milliseconds.
	LatestStart int64
	Limit       int
	// MaxStaleness is 0 for any.
	MaxStaleness time.Duration
	// here says that other processes are not asked.
	here bool
}

// row is a row as the store has it.
type row struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// page is some of the rows that were asked for, in order.
type page struct {
	Rows []row `json:"rows"`
	// More says that there may be others; Next is the From of the next page, or, in
	// reverse order, its To.
	More bool   `json:"more"`
	Next []byte `json:"next,omitempty"`
	// Note is what a versioned store has under state.VersionNote: its time, by which the
	// asker tells what is too old.
	Note []byte `json:"note,omitempty"`
}

// queries is what a running App needs to answer queries.
type queries struct {
	app    *App
	counts []int32 // tasks by sub-topology
	client *http.Client

	mu       sync.RWMutex
	tasks    map[plan.TaskID]*queryable // those that run
	restores map[plan.TaskID]map[string]RestoreHealth
	owners   map[plan.TaskID]string // where tasks of all processes can be queried
}

// queryable is a task that runs in this process. Immutable but for fresh.
type queryable struct {
	engines map[string]state.Engine
	kinds   map[string]state.Kind
	fresh   *freshness
}

func newQueries(a *App) *queries {
	q := &queries{
		app: a, client: newQueryClient(),
		tasks: make(map[plan.TaskID]*queryable), restores: make(map[plan.TaskID]map[string]RestoreHealth),
	}
	for i := range a.plan.SubTopologies {
		q.counts = append(q.counts, a.taskCount(i))
	}
	return q
}

// add lets a task be queried, from the worker that runs it; remove ends that.
func (q *queries) add(r *running) {
	t := &queryable{engines: make(map[string]state.Engine), kinds: make(map[string]state.Kind), fresh: r.fresh}
	for i, spec := range r.sub().Stores {
		t.engines[spec.Name], t.kinds[spec.Name] = r.stores[i].Engine(), spec.Kind
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tasks[r.id] = t
	delete(q.restores, r.id)
}

func (q *queries) remove(id plan.TaskID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.tasks, id)
	delete(q.restores, id)
}

// runs says whether a task runs in this process.
func (q *queries) runs(id plan.TaskID) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.tasks[id] != nil
}

// local answers from the tasks of this process.
func (q *queries) local(req pageRequest) (page, error) {
	q.mu.RLock()
	t := q.tasks[req.Task]
	q.mu.RUnlock()
	if t == nil {
		return page{}, q.absent(req.Task)
	}
	engine := t.engines[req.Store]
	if engine == nil {
		return page{}, fmt.Errorf("%w: task %s has no store %q", ErrNoStore, req.Task, req.Store)
	}
	if req.MaxStaleness > 0 {
		// Looked at before the rows are: they are at least as fresh.
		asOf := t.fresh.asOf()
		if asOf.IsZero() {
			return page{}, fmt.Errorf("%w: task %s has not caught up since it was opened", ErrStale, req.Task)
		}
		if age := time.Since(asOf); age > req.MaxStaleness {
			return page{}, fmt.Errorf("%w: task %s lacks what came %v ago, MaxStaleness is %v", ErrStale, req.Task, age.Round(time.Millisecond), req.MaxStaleness)
		}
	}
	p, err := readPage(engine, t.kinds[req.Store], req)
	switch {
	case errors.Is(err, state.ErrClosed): // the task has left meanwhile
		return page{}, q.absent(req.Task)
	case errors.Is(err, state.ErrRestoring):
		return page{}, fmt.Errorf("%w: store %q of task %s", ErrRestoring, req.Store, req.Task)
	case err != nil:
		return page{}, fmt.Errorf("stream: query of store %q of task %s: %w", req.Store, req.Task, err)
	}
	return p, nil
}

// absent says why a task does not answer here.
func (q *queries) absent(id plan.TaskID) error {
	q.app.mu.Lock()
	_, ours := q.app.owned[id]
	q.app.mu.Unlock()
	if ours {
		return fmt.Errorf("%w: task %s", ErrRestoring, id)
	}
	return &NotOwnerError{Task: id, Address: q.ownerElsewhere(id)}
}

// readPage reads rows of one engine; they are copied.
func readPage(engine state.Reader, kind state.Kind, req pageRequest) (page, error) {
	var p page
	if kind == state.Versioned {
		// Read before the rows are, of which those that count at its time are there then.
		note, _, err := engine.Get(nil, state.VersionNote())
		if err != nil {
			return page{}, err
		}
		p.Note = note
	}
	size := 0
	limit := max(1, min(req.Limit, pageRows))
	from, to := req.From, req.To
	for again := true; again; {
		again = false
		passed := 0
		err := engine.Scan(from, to, req.Reverse, func(key, value []byte) bool {
			if len(p.Rows) == limit || size >= pageBytes {
				p.More = true
				return false
			}
			if !req.wants(kind, key) {
				if passed++; passed < seekAfter || !req.OneKey {
					return true
				}
				// Go on where the key can be next, in this window or the one beside it.
				next := req.seek(kind, key)
				if req.Reverse {
					to = next
				} else {
					from = next
				}
				again = true
				return false
			}
			passed = 0
			p.Rows = append(p.Rows, row{Key: bytes.Clone(key), Value: append([]byte{}, value...)})
			size += len(key) + len(value)
			return true
		})
		if err != nil {
			return page{}, err
		}
	}
	if p.More {
		last := p.Rows[len(p.Rows)-1].Key
		if p.Next = last; !req.Reverse {
			p.Next = append(last[:len(last):len(last)], 0)
		}
	}
	return p, nil
}

// wants tells whether a row is asked for.
func (req *pageRequest) wants(kind state.Kind, key []byte) bool {
	if req.OneKey && !bytes.Equal(keyPart(kind, key), req.Key) {
		return false
	}
	if kind == state.Session {
		start, _, _, ok := state.SplitSessionKey(key)
		return !ok || start <= req.LatestStart
	}
	return true
}

// seek returns a bound beyond a row of another key, which no row that is asked for lies
// before.
func (req *pageRequest) seek(kind state.Kind, key []byte) []byte {
	part := keyPart(kind, key)
	at := bytes.Clone(key[:len(key)-len(part)])
	order := bytes.Compare(part, req.Key)
	switch {
	case req.Reverse && order > 0: // to the key in the same window, which the bound leaves in
		return append(append(at, req.Key...), 0)
	case req.Reverse:
		return at
	case order < 0:
		return append(at, req.Key...)
	}
	return nextTime(at)
}

// nextTime changes a time, of windows 8 bytes and of sessions 16, to the one after it.
func nextTime(next []byte) []byte {
	for at := len(next) - 8; at >= 0; at -= 8 {
		if n := binary.BigEndian.Uint64(next[at:]); n < math.MaxUint64 {
			binary.BigEndian.PutUint64(next[at:], n+1)
			return next
		}
		binary.BigEndian.PutUint64(next[at:], 0)
	}
	return bytes.Repeat([]byte{0xff}, len(next)+1) // nothing lies beyond the end of time
}

// keyPart is the key within a store's key.
func keyPart(kind state.Kind, stored []byte) []byte {
	switch kind {
	case state.Window:
		return stored[min(state.WindowStartSize, len(stored)):]
	case state.Session:
		return stored[min(state.SessionSpanSize, len(stored)):]
	}
	return stored
}

// pageReader reads the rows of one task, a page at a time.
type pageReader struct {
	queries *queries
	request pageRequest
	begun   bool
	page    page
}

// head returns the next row without taking it.
func (r *pageReader) head(ctx context.Context) (row, bool, error) {
	for len(r.page.Rows) == 0 {
		if r.begun && !r.page.More {
			return row{}, false, nil
		}
		if r.begun {
			if r.request.Reverse {
				r.request.To = r.page.Next
			} else {
				r.request.From = r.page.Next
			}
		}
		p, err := r.queries.page(ctx, r.request)
		if err != nil {
			return row{}, false, err
		}
		r.page, r.begun = p, true
	}
	return r.page.Rows[0], true, nil
}

// rowMerger brings the rows of several tasks in one order.
type rowMerger struct {
	readers []*pageReader
	reverse bool
}

func (m *rowMerger) next(ctx context.Context) (best row, found bool, err error) {
	var from *pageReader
	for _, r := range m.readers {
		head, more, err := r.head(ctx)
		if err != nil {
			return row{}, false, err
		}
		if !more {
			continue
		}
		if order := bytes.Compare(head.Key, best.Key); from == nil || order < 0 && !m.reverse || order > 0 && m.reverse {
			best, from = head, r
		}
	}
	if from == nil {
		return row{}, false, nil
	}
	from.page.Rows = from.page.Rows[1:]
	return best, true, nil
}

// page answers a request, from here or from the task's owner.
func (q *queries) page(ctx context.Context, req pageRequest) (page, error) {
	if err := ctx.Err(); err != nil {
		return page{}, err
	}
	if n := q.counts[req.Task.SubTopology]; req.Task.Partition >= n {
		return page{}, fmt.Errorf("%w: store %q has %d partitions, there is no %d", ErrNoStore, req.Store, n, req.Task.Partition)
	}
	p, err := q.local(req)
	var elsewhere *NotOwnerError
	if req.here || !errors.As(err, &elsewhere) || elsewhere.Address == "" {
		return p, err
	}
	req.App = q.app.cfg.AppID
	return q.remote(ctx, elsewhere.Address, req)
}

// freshness tells what of its input a task has committed. Safe for concurrent use.
type freshness struct {
	seen func(client.Partition) (end int64, at time.Time, known bool)

	mu      sync.Mutex
	sources []freshSource
}

// freshSource is one input of a task.
type freshSource struct {
	partition client.Partition
	committed int64
	// end was the end of the input at at: when committed reaches it, all that came
	// before is in the state, and reached is at.
	end     int64
	at      time.Time
	reached time.Time
}

// commit notes what is committed of the inputs, and in the stores.
func (f *freshness) commit(offsets map[client.Partition]client.Offset) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.sources {
		s := &f.sources[i]
		if o, moved := offsets[s.partition]; moved {
			s.committed = o.Offset
		}
		f.look(s)
	}
}

// look moves on to the last known end whenever the one before is reached: while records
// come in, a later one is always ahead.
func (f *freshness) look(s *freshSource) {
	if !s.at.IsZero() && s.committed < s.end {
		return
	}
	s.reached = s.at
	end, at, known := f.seen(s.partition)
	if !known || !at.After(s.at) {
		return
	}
	if s.end, s.at = end, at; s.committed >= end {
		s.reached = at
	}
}

// asOf is the time up to which all input is in the committed state; the zero time when
// that is not known yet.
func (f *freshness) asOf() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var oldest time.Time
	for i := range f.sources {
		s := &f.sources[i]
		f.look(s)
		if i == 0 || s.reached.Before(oldest) {
			oldest = s.reached
		}
	}
	return oldest
}
