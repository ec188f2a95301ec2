package replica

import "testing"

// follow adds to the trace, an FNV-1a hash by words.
func (s *sim) follow(words ...uint64) {
	for _, w := range words {
		s.trace = (s.trace ^ w) * 0x100000001b3
	}
}

// TestReplicationSimulationRepeats runs seeds twice: a failure that a seed found can
// only be looked into if the seed finds it again.
func TestReplicationSimulationRepeats(t *testing.T) {
	traces := map[uint64]uint64{}
	for seed := range uint64(8) {
		first, second := newSim(seed), newSim(seed)
		first.run()
		second.run()
		if first.trace != second.trace || first.now != second.now || first.stats != second.stats {
			t.Errorf("seed %d: trace %016x at %v (%+v), then %016x at %v (%+v)", seed, first.trace, first.now, first.stats, second.trace, second.now, second.stats)
		}
		if other, ok := traces[first.trace]; ok {
			t.Errorf("seeds %d and %d have one trace", other, seed)
		}
		traces[first.trace] = seed
	}
}
