package sim

import (
	"fmt"
	"reflect"
	"strings"
)

// Stats counts what happened.
type Stats struct {
	// Faults.
	PowerLosses, PowerLostByAll, Kills, Pauses, LostDisks, Strikes              int
	FailedDisks, FailedOperations, FullDisks, RefusedWrites                     int
	Isolations, OneWayCuts, BridgedCuts, ClientCuts                             int
	LossyTimes, SlowTimes, SlowDisks                                            int
	LostMessages, LateMessages, CutMessages, RepeatedMessages, RepeatedRequests int
	MinorityPhases                                                              int
	// What was done.
	Requests, Produced, Acknowledged, ProduceRetries, Consumed int
	ControllerElections, SnapshotsRestored, LeaderChanges      int
	TopicsCreated, TopicsDeleted, Reassignments                int
	// What was checked.
	ComparedBatches, MetadataEntries, AckedOffsets int
}

// Add adds other's counts.
func (s *Stats) Add(other *Stats) {
	a, b := reflect.ValueOf(s).Elem(), reflect.ValueOf(other).Elem()
	for i := range a.NumField() {
		a.Field(i).SetInt(a.Field(i).Int() + b.Field(i).Int())
	}
}

// String lists the counts, one a line.
func (s *Stats) String() string {
	var out strings.Builder
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		fmt.Fprintf(&out, "  %-22s %12d\n", v.Type().Field(i).Name, v.Field(i).Int())
	}
	return out.String()
}
