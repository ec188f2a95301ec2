// Package memstore keeps stores in memory, ordered by key. It is the model
// twin that the Badger engine is tested against, and the engine of stores that
// a topology declares InMemory: what it holds is gone when it is closed, and is
// restored from the changelog.
//
// An engine is a treap (a search tree whose nodes are also a heap by a hash of
// their key, so that its shape depends on the keys alone and its depth is
// logarithmic) that is never changed once readers can see it: Apply copies the
// paths it changes and then publishes a new root. Readers therefore take no
// lock and a Scan sees one moment of the store. Expiry cuts the tree in two at
// the bound.
package memstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/leatlog/leat/state"
)

// Backend opens engines in memory. Safe for concurrent use. Create it with New.
type Backend struct {
	mu   sync.Mutex
	open map[string]bool
}

var _ state.Backend = (*Backend)(nil)

// New returns a Backend.
func New() *Backend { return &Backend{open: map[string]bool{}} }

// Open returns an empty engine. It fails with state.ErrOpen when the store of
// this task is open, and with state.ErrSpec when spec is not valid.
func (b *Backend) Open(ctx context.Context, task string, spec state.Spec) (state.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	id := task + "/" + spec.Name
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[id] {
		return nil, fmt.Errorf("memstore: open store %q of task %q: %w: close it first", spec.Name, task, state.ErrOpen)
	}
	b.open[id] = true
	e := &Engine{release: func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.open, id)
	}}
	e.tree.Store(&tree{})
	return e, nil
}

// Close does nothing: engines hold all there is.
func (b *Backend) Close() error { return nil }

// Engine is one store in memory.
type Engine struct {
	tree    atomic.Pointer[tree] // nil when closed
	release func()

	mu         sync.Mutex // guards position and positioned
	position   state.Position
	positioned bool
}

var _ state.Engine = (*Engine)(nil)

// tree is one moment of the store.
type tree struct {
	root *node
	// bytes is the size of all keys and values.
	bytes int64
}

// Get implements state.Reader.
func (e *Engine) Get(dst, key []byte) ([]byte, bool, error) {
	t := e.tree.Load()
	if t == nil {
		return dst, false, state.ErrClosed
	}
	if n := t.root.find(key); n != nil {
		return append(dst, n.value...), true, nil
	}
	return dst, false, nil
}

// Scan implements state.Reader. It sees the store as it was when it began.
func (e *Engine) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	t := e.tree.Load()
	if t == nil {
		return state.ErrClosed
	}
	if reverse {
		t.root.descend(from, to, fn)
	} else {
		t.root.ascend(from, to, fn)
	}
	return nil
}

// Apply implements state.Engine.
func (e *Engine) Apply(b *state.Batch) error {
	t := e.tree.Load()
	if t == nil {
		return state.ErrClosed
	}
	w := writer{bytes: t.bytes, generation: new(byte)}
	root := t.root
	for i := range b.Len() {
		op, key, value := b.Entry(i)
		switch op {
		case state.OpPut:
			root = w.put(root, key, value)
		case state.OpDelete:
			root = w.remove(root, key)
		case state.OpDeleteBefore:
			root = w.removeBefore(root, key)
		}
	}
	e.tree.Store(&tree{root: root, bytes: w.bytes})
	return nil
}

// Load implements state.Engine; it is Apply.
func (e *Engine) Load(b *state.Batch) error { return e.Apply(b) }

// Checkpoint implements state.Engine: the position lasts until Close.
func (e *Engine) Checkpoint(p state.Position) error {
	if e.tree.Load() == nil {
		return state.ErrClosed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.position, e.positioned = p, true
	return nil
}

// Position implements state.Engine.
func (e *Engine) Position() (state.Position, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.position, e.positioned
}

// Clear implements state.Engine.
func (e *Engine) Clear() error {
	if e.tree.Load() == nil {
		return state.ErrClosed
	}
	e.tree.Store(&tree{})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.position, e.positioned = state.Position{}, false
	return nil
}

// Size is the number of bytes of all keys and values.
func (e *Engine) Size() int64 {
	if t := e.tree.Load(); t != nil {
		return t.bytes
	}
	return 0
}

// Close drops the contents. Scans that run go on with what they see.
func (e *Engine) Close() error {
	if e.tree.Swap(nil) == nil {
		return state.ErrClosed
	}
	e.release()
	return nil
}
