package controller

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// planned applies a plan and checks that it is one: the same number of replicas, no
// broker twice, none that was to be drained, no fewer racks.
func planned(t *testing.T, brokers []PlanBroker, partitions []PlanPartition) (after []PlanPartition, copies int) {
	t.Helper()
	moves, err := Plan(brokers, partitions)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Plan(brokers, partitions)
	if !reflect.DeepEqual(moves, again) {
		t.Fatal("the same input gave two plans")
	}
	rack, cordoned := map[int32]string{}, map[int32]bool{}
	for _, b := range brokers {
		rack[b.ID] = b.Rack
		cordoned[b.ID] = b.Cordoned
	}
	racks := func(replicas []int32) int {
		seen := map[string]bool{}
		for _, id := range replicas {
			if r, ok := rack[id]; ok {
				seen[r] = true
			}
		}
		return len(seen)
	}
	after = slices.Clone(partitions)
	for _, m := range moves {
		n := slices.IndexFunc(after, func(p PlanPartition) bool { return p.Topic == m.Topic && p.Partition == m.Partition })
		if !slices.Equal(after[n].Replicas, m.From) || len(m.To) != len(m.From) || hasDuplicates(m.To) {
			t.Fatalf("move %+v of %+v", m, after[n])
		}
		for _, id := range m.To {
			if cordoned[id] && !slices.Contains(m.From, id) {
				t.Fatalf("move %+v to the cordoned broker %d", m, id)
			}
		}
		if racks(m.To) < racks(m.From) {
			t.Fatalf("move %+v is in fewer racks", m)
		}
		after[n].Replicas = m.To
		copies += m.Copies()
	}
	for _, p := range after {
		for _, id := range p.Replicas {
			if _, ok := rack[id]; !ok {
				t.Fatalf("%+v: broker %d is not to be used", p, id)
			}
		}
	}
	return after, copies
}

// spread returns the difference between most and least replicas, and first replicas.
func spread(brokers []PlanBroker, partitions []PlanPartition) (replicas, leaders int) {
	load, first := map[int32]int{}, map[int32]int{}
	for _, p := range partitions {
		first[p.Replicas[0]]++
		for _, id := range p.Replicas {
			load[id]++
		}
	}
	var loads, firsts []int
	for _, b := range brokers {
		loads, firsts = append(loads, load[b.ID]), append(firsts, first[b.ID])
	}
	return slices.Max(loads) - slices.Min(loads), slices.Max(firsts) - slices.Min(firsts)
}

func planBrokers(racks int, ids ...int32) []PlanBroker {
	var brokers []PlanBroker
	for _, id := range ids {
		brokers = append(brokers, PlanBroker{ID: id, Rack: fmt.Sprint("r", int(id)%racks)})
	}
	return brokers
}

// laidOut places partitions as a new topic's would be, on brokers 1 to n.
func laidOut(n int32, partitions int32, width int32) []PlanPartition {
	var list []PlanPartition
	for p := range partitions {
		x := PlanPartition{Topic: fmt.Sprintf("t%d", p/10), Partition: p % 10}
		for r := range width {
			x.Replicas = append(x.Replicas, 1+(p+r)%n)
		}
		list = append(list, x)
	}
	return list
}

func TestPlanAfterAddingBrokers(t *testing.T) {
	partitions := laidOut(3, 60, 3)
	brokers := planBrokers(1, 1, 2, 3, 4)
	after, copies := planned(t, brokers, partitions)
	if r, l := spread(brokers, after); r > 1 || l > 1 {
		t.Errorf("replicas differ by %d, leaders by %d", r, l)
	}
	if copies != 45 { // a quarter of 180
		t.Errorf("%d copies, want no more than the new broker's share, 45", copies)
	}
}

func TestPlanOfABalancedClusterIsEmpty(t *testing.T) {
	partitions := laidOut(4, 60, 2)
	if moves, err := Plan(planBrokers(2, 1, 2, 3, 4), partitions); err != nil || len(moves) != 0 {
		t.Errorf("%d moves, %v", len(moves), err)
	}
}

func TestPlanToDrain(t *testing.T) {
	partitions := laidOut(4, 40, 2)
	brokers := planBrokers(1, 1, 2, 4)
	after, copies := planned(t, brokers, partitions)
	if r, l := spread(brokers, after); r > 1 || l > 1 {
		t.Errorf("replicas differ by %d, leaders by %d", r, l)
	}
	if copies != 20 {
		t.Errorf("%d copies, want only what the drained broker had, 20", copies)
	}
	if _, err := Plan(planBrokers(1, 1), partitions); !errors.Is(err, ErrPlan) {
		t.Errorf("one broker for two replicas: %v", err)
	}
}

// What a cordoned broker has may be spread over the others, and it gets nothing.
func TestPlanWithACordon(t *testing.T) {
	brokers := planBrokers(1, 1, 2, 3, 4)
	brokers[3].Cordoned = true
	if _, copies := planned(t, brokers, laidOut(3, 60, 2)); copies != 0 {
		t.Errorf("%d copies to a cordoned broker", copies)
	}
	brokers[3].Cordoned, brokers[0].Cordoned = false, true
	after, copies := planned(t, brokers, laidOut(3, 60, 2))
	if r, _ := spread(brokers, after); r > 1 || copies != 30 {
		t.Errorf("%d copies, replicas differ by %d", copies, r)
	}
}

// TestPlansOfRandomClusters checks plans of clusters with racks that grow and shrink.
func TestPlansOfRandomClusters(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := int32(3 + r.IntN(6))
		var partitions []PlanPartition
		for p := range int32(1 + r.IntN(80)) {
			x := PlanPartition{Topic: fmt.Sprint("t", r.IntN(4)), Partition: p}
			for _, id := range r.Perm(int(n))[:1+r.IntN(3)] {
				x.Replicas = append(x.Replicas, int32(id))
			}
			partitions = append(partitions, x)
		}
		var brokers []PlanBroker
		racks := 1 + r.IntN(3)
		for id := range n + int32(r.IntN(3)) {
			if id > 0 && len(brokers) >= 3 && r.IntN(4) == 0 {
				continue // to be drained
			}
			brokers = append(brokers, planBrokers(racks, id)...)
		}
		cordoned := len(brokers) > 3 && r.IntN(4) == 0
		brokers[0].Cordoned = cordoned
		after, _ := planned(t, brokers, partitions)
		replicas, _ := spread(brokers, after)
		if racks == 1 && !cordoned && replicas > 1 {
			t.Errorf("seed %d: without racks replicas differ by %d", seed, replicas)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	partitions := laidOut(5, 10_000, 3)
	brokers := planBrokers(3, 1, 2, 3, 4, 5, 6)
	for b.Loop() {
		if _, err := Plan(brokers, partitions); err != nil {
			b.Fatal(err)
		}
	}
}
