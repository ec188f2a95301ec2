package sim

import (
	"testing"
	"time"
)

// TestSimulatedClusters runs a few short lives of clusters. More of them:
// go run ./broker/internal/sim/cmd --seed 1 --hours 1.
func TestSimulatedClusters(t *testing.T) {
	var total Stats
	for seed := uint64(1); seed <= 6; seed++ {
		result := Run(Config{Seed: seed, Duration: 40 * time.Second})
		for _, v := range result.Violations {
			t.Error(v)
		}
		total.Add(&result.Stats)
	}
	t.Logf("\n%s", total.String())
	if total.Acknowledged < 1000 || total.ComparedBatches < 1000 || total.AckedOffsets < 1000 {
		t.Errorf("a simulation in which little happens shows little:\n%s", total.String())
	}
	if total.PowerLosses == 0 || total.Pauses == 0 || total.CutMessages == 0 || total.LostMessages == 0 || total.LeaderChanges == 0 {
		t.Errorf("a simulation without faults shows little:\n%s", total.String())
	}
}

func TestSeedRepeats(t *testing.T) {
	cfg := Config{Seed: 7, Duration: 30 * time.Second}
	first, second := Run(cfg), Run(cfg)
	if first.Trace != second.Trace || first.Events != second.Events || first.Stats != second.Stats {
		t.Errorf("seed 7 gave the trace %016x of %d events and then %016x of %d", first.Trace, first.Events, second.Trace, second.Events)
	}
	cfg.Seed = 8
	if other := Run(cfg); other.Trace == first.Trace {
		t.Error("seeds 7 and 8 give one trace: it does not show what happened")
	}
}
