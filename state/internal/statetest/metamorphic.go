package statetest

import (
	"context"
	"slices"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/state"
)

// Durability says what a reopened engine must hold.
type Durability int

// The kinds of engine.
const (
	// Volatile engines are empty when reopened.
	Volatile Durability = iota
	// Durable engines are what they were when closed, and their position is that of
	// the last checkpoint.
	Durable
)

// Metamorphic does random operations to an engine and a model and compares
// every answer. open returns a fresh backend and a function that removes it.
func Metamorphic(open func(t *rapid.T) (state.Backend, func()), durability Durability) func(*rapid.T) {
	return func(t *rapid.T) {
		backend, remove := open(t)
		defer remove()
		m := &machine{t: t, backend: backend, durability: durability, model: Model{}}
		m.open()
		defer func() { m.check(m.engine.Close()) }()
		t.Repeat(map[string]func(*rapid.T){
			"apply":      m.apply,
			"load":       m.load,
			"checkpoint": m.checkpoint,
			"get":        m.get,
			"scan":       m.scan,
			"reopen":     m.reopen,
		})
		m.equal()
	}
}

type machine struct {
	t          *rapid.T
	backend    state.Backend
	engine     state.Engine
	model      Model
	durability Durability
	position   *state.Position
	offset     int64
}

var (
	keys = rapid.OneOf(
		rapid.StringMatching(`[a-d]{0,3}`),
		rapid.SampledFrom([]string{"", "\x00", "\xff", "\xff\xff", "a\x00"}))
	values = rapid.OneOf(
		rapid.StringMatching(`[0-9]{0,6}`),
		rapid.SampledFrom([]string{"", string(make([]byte, 3000)), string(make([]byte, 60_000))}))
)

func (m *machine) check(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) open() {
	e, err := m.backend.Open(context.Background(), "0_0", Spec)
	m.check(err)
	m.engine = e
}

func batch(t *rapid.T) *state.Batch {
	b := &state.Batch{}
	for range rapid.IntRange(0, 12).Draw(t, "writes") {
		key := []byte(keys.Draw(t, "key"))
		switch rapid.IntRange(0, 9).Draw(t, "op") {
		case 0:
			b.DeleteBefore(key)
		case 1, 2:
			b.Delete(key)
		default:
			b.Put(key, []byte(values.Draw(t, "value")))
		}
	}
	return b
}

func (m *machine) apply(t *rapid.T) {
	b := batch(t)
	m.check(m.engine.Apply(b))
	m.model.Apply(b)
}

func (m *machine) load(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "batches") {
		b := batch(t)
		m.check(m.engine.Load(b))
		m.model.Apply(b)
	}
	m.checkpoint(t)
}

func (m *machine) checkpoint(*rapid.T) {
	m.offset++
	m.position = &state.Position{Offset: m.offset, LeaderEpoch: int32(m.offset % 3)}
	m.check(m.engine.Checkpoint(*m.position))
}

func (m *machine) get(t *rapid.T) {
	key := keys.Draw(t, "key")
	got, found, err := m.engine.Get(nil, []byte(key))
	m.check(err)
	if want, exists := m.model[key]; found != exists || string(got) != want {
		t.Fatalf("get %q = %q, %v, want %q, %v", key, got, found, want, exists)
	}
}

func (m *machine) scan(t *rapid.T) {
	bound := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.Bool().Draw(t, "open") {
			return nil
		}
		return []byte(keys.Draw(t, "bound"))
	})
	from, to, reverse := bound.Draw(t, "from"), bound.Draw(t, "to"), rapid.Bool().Draw(t, "reverse")
	got, err := Scan(m.engine, from, to, reverse)
	m.check(err)
	if want := m.model.Scan(from, to, reverse); !slices.Equal(got, want) {
		t.Fatalf("scan [%q, %q) reverse %v = %v, want %v", from, to, reverse, got, want)
	}
}

func (m *machine) reopen(t *rapid.T) {
	m.check(m.engine.Close())
	m.open()
	if m.durability == Volatile || m.position == nil {
		m.model, m.position = Model{}, nil
	}
	position, ok := m.engine.Position()
	if ok != (m.position != nil) || ok && position != *m.position {
		t.Fatalf("position after reopening = %v %v, want %v", position, ok, m.position)
	}
	m.equal()
}

func (m *machine) equal() {
	difference, err := Difference(m.engine, m.model)
	m.check(err)
	if difference != "" {
		m.t.Fatal(difference)
	}
}
