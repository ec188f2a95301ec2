package badgerstore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

// What a store holds is known without opening it, and while it is open.
func TestHeld(t *testing.T) {
	dir := t.TempDir()
	b, _ := open(t, dir)
	e := openStore(t, b)
	if p, ok := b.Held("0_0", statetest.Spec.Name); ok {
		t.Errorf("a store without a checkpoint holds %v", p)
	}
	want := state.Position{Offset: 17, LeaderEpoch: 3}
	must(t, e.Checkpoint(want))
	if p, ok := b.Held("0_0", statetest.Spec.Name); !ok || p != want {
		t.Errorf("held is %v, %v while it is open", p, ok)
	}
	must(t, e.Close())
	if p, ok := b.Held("0_0", statetest.Spec.Name); !ok || p != want {
		t.Errorf("held is %v, %v", p, ok)
	}
	must(t, os.WriteFile(filepath.Join(dir, "0_0", statetest.Spec.Name, checkpointName), []byte("LEATCKP"), 0o644))
	if p, ok := b.Held("0_0", statetest.Spec.Name); ok {
		t.Errorf("a damaged checkpoint holds %v", p)
	}
}
