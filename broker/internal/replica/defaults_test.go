package replica

import (
	"testing"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// TestDefaultsSetAtRunTime changes the default of a topic configuration for all
// brokers: topics that do not say follow at once, and after a restart.
func TestDefaultsSetAtRunTime(t *testing.T) {
	fs := vfs.NewMem()
	w := newWorld(t, fs, nil, nil)
	w.create("orders", 1)
	w.create("own", 1)
	w.apply(set("own", "min.insync.replicas", "1"))
	under := func() [2]bool {
		return [2]bool{w.replica("orders", 0).UnderMinISR(), w.replica("own", 0).UnderMinISR()}
	}
	if got := under(); got != [2]bool{} {
		t.Fatalf("before: under the minimum %v", got)
	}
	two := "2"
	w.apply(&metadata.ConfigChange{Resource: metadata.BrokerResource, Key: "min.insync.replicas", Value: &two})
	if got, want := under(), [2]bool{true, false}; got != want {
		t.Errorf("minimum of 2: under it %v, want %v", got, want)
	}
	image := w.image
	w.close()
	w = newWorld(t, fs, image, nil)
	if got, want := under(), [2]bool{true, false}; got != want {
		t.Errorf("after a restart: under the minimum %v, want %v", got, want)
	}
	w.apply(&metadata.ConfigChange{Resource: metadata.BrokerResource, Key: "min.insync.replicas"})
	if got := under(); got != [2]bool{} {
		t.Errorf("back: under the minimum %v", got)
	}
	w.close()
}
