package memstore

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

func TestConformance(t *testing.T) {
	statetest.Run(t, func(*testing.T) state.Backend { return New() })
}

func TestMetamorphic(t *testing.T) {
	rapid.Check(t, statetest.Metamorphic(func(*rapid.T) (state.Backend, func()) { return New(), func() {} }, statetest.Volatile))
}

// A writer may change only what it made: every earlier moment stays as it was.
func TestOldMomentsStayAsTheyWere(t *testing.T) {
	e := statetest.Open(t, New()).(*Engine)
	type moment struct {
		tree  *tree
		model statetest.Model
	}
	var moments []moment
	model := statetest.Model{}
	for i := range 300 {
		b := statetest.Build(fmt.Sprintf("%d=%d", i*7919%97, i), fmt.Sprint(i*31%97))
		if i%50 == 49 {
			b.DeleteBefore(fmt.Appendf(nil, "%d", i*13%97))
		}
		if err := e.Apply(b); err != nil {
			t.Fatal(err)
		}
		model.Apply(b)
		copied := statetest.Model{}
		for k, v := range model {
			copied[k] = v
		}
		moments = append(moments, moment{e.tree.Load(), copied})
	}
	for i, m := range moments {
		old := &Engine{}
		old.tree.Store(m.tree)
		if difference, _ := statetest.Difference(old, m.model); difference != "" {
			t.Fatalf("moment %d: %s", i, difference)
		}
		var size int64
		for k, v := range m.model {
			size += int64(len(k) + len(v))
		}
		if m.tree.bytes != size {
			t.Fatalf("moment %d: size %d, want %d", i, m.tree.bytes, size)
		}
	}
}

func TestDepthIsLogarithmic(t *testing.T) {
	e := statetest.Open(t, New()).(*Engine)
	b := &state.Batch{}
	for i := range int64(100_000) {
		b.Put(state.WindowKey(nil, i, []byte("key")), nil)
	}
	if err := e.Apply(b); err != nil {
		t.Fatal(err)
	}
	if d := depth(e.tree.Load().root); d > 60 {
		t.Errorf("depth of 100,000 keys is %d", d)
	}
}

func depth(n *node) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}

func BenchmarkApply(b *testing.B) {
	e := statetest.Open(b, New())
	var batch state.Batch
	key := make([]byte, 0, 32)
	for i := 0; b.Loop(); i++ {
		key = fmt.Appendf(key[:0], "key-%d", i*7919%100_000)
		batch.Put(key, key)
		if batch.Len() == 1000 {
			if err := e.Apply(&batch); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
}
