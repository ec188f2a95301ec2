package controller

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Plans for moving replicas: what an operator, or a program for it, asks for by
// AlterPartitionReassignments after brokers were added or before one is removed.

// ErrPlan says that what was asked for cannot be reached; the message says why.
var ErrPlan = errors.New("no plan")

// PlanBroker is a broker that may hold replicas.
type PlanBroker struct {
	ID   int32
	Rack string
}

// PlanPartition is a partition as it is: its replicas in order of preference.
type PlanPartition struct {
	Topic     string
	Partition int32
	Replicas  []int32
}

// Move is a partition whose replicas, or their order, are to change.
type Move struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	From      []int32 `json:"from"`
	To        []int32 `json:"to"`
}

// Copies is the number of replicas that have to be copied.
func (m *Move) Copies() int { return len(withoutAll(m.To, m.From)) }

// Plan returns moves after which every broker has as many replicas, and as many first
// replicas, as the others, give or take one, as far as the racks allow: no partition
// ends up in fewer racks than it was in. Replicas on brokers that are not in brokers,
// those to be drained, go elsewhere. It copies as little as it can: only from brokers
// that have more than their share. The same input gives the same plan, ordered by
// topic and partition.
func Plan(brokers []PlanBroker, partitions []PlanPartition) ([]Move, error) {
	p := newPlanner(brokers, partitions)
	if err := p.drain(); err != nil {
		return nil, err
	}
	p.level()
	p.lead()
	return p.moves(), nil
}

// PlanDrain is the part of Plan that gives replicas on brokers that are not in brokers
// to others, and moves nothing else.
func PlanDrain(brokers []PlanBroker, partitions []PlanPartition) ([]Move, error) {
	p := newPlanner(brokers, partitions)
	if err := p.drain(); err != nil {
		return nil, err
	}
	return p.moves(), nil
}

func (p *planner) moves() []Move {
	var moves []Move
	for n := range p.partitions {
		was, now := p.was[n], p.partitions[n].Replicas
		if !slices.Equal(was, now) {
			moves = append(moves, Move{Topic: p.partitions[n].Topic, Partition: p.partitions[n].Partition, From: was, To: now})
		}
	}
	return moves
}

// planner works on brokers by their place in its list.
type planner struct {
	brokers    []PlanBroker
	place      map[int32]int // of a broker
	partitions []PlanPartition
	was        [][]int32
	load       []int            // replicas of each broker
	topics     []map[string]int // replicas of each broker by topic
}

func newPlanner(brokers []PlanBroker, partitions []PlanPartition) *planner {
	p := &planner{brokers: slices.Clone(brokers), place: map[int32]int{}, partitions: slices.Clone(partitions)}
	slices.SortFunc(p.brokers, func(a, b PlanBroker) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(p.partitions, func(a, b PlanPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	p.load, p.topics = make([]int, len(p.brokers)), make([]map[string]int, len(p.brokers))
	for n, b := range p.brokers {
		p.place[b.ID], p.topics[n] = n, map[string]int{}
	}
	for n := range p.partitions {
		x := &p.partitions[n]
		p.was = append(p.was, x.Replicas)
		x.Replicas = slices.Clone(x.Replicas)
		for _, id := range x.Replicas {
			if b, ok := p.place[id]; ok {
				p.count(b, x.Topic, 1)
			}
		}
	}
	return p
}

func (p *planner) count(broker int, topic string, by int) {
	p.load[broker] += by
	p.topics[broker][topic] += by
}

// drain gives replicas of brokers that are not there any more to others.
func (p *planner) drain() error {
	for n := range p.partitions {
		x := &p.partitions[n]
		if len(x.Replicas) > len(p.brokers) {
			return fmt.Errorf("%w: partition %s-%d has %d replicas, and %d broker(s) would be left for them: add a broker, or lower its replication factor",
				ErrPlan, x.Topic, x.Partition, len(x.Replicas), len(p.brokers))
		}
		for r, id := range x.Replicas {
			if _, stays := p.place[id]; stays {
				continue
			}
			to := p.best(x, r)
			x.Replicas[r] = p.brokers[to].ID
			p.count(to, x.Topic, 1)
		}
	}
	return nil
}

// best returns the broker to take the place of one replica of a partition: in the rack
// it has least of, then with the least load, of the topic and of all.
func (p *planner) best(x *PlanPartition, replaced int) int {
	racks := map[string]int{}
	for r, id := range x.Replicas {
		if b, ok := p.place[id]; ok && r != replaced {
			racks[p.brokers[b].Rack]++
		}
	}
	best := -1
	for b := range p.brokers {
		if slices.Contains(x.Replicas, p.brokers[b].ID) {
			continue
		}
		if best < 0 || cmp.Or(
			cmp.Compare(racks[p.brokers[b].Rack], racks[p.brokers[best].Rack]),
			cmp.Compare(p.load[b], p.load[best]),
			cmp.Compare(p.topics[b][x.Topic], p.topics[best][x.Topic])) < 0 {
			best = b
		}
	}
	return best
}

// level moves replicas from brokers with more than others to those with fewer.
func (p *planner) level() {
	held := make([][]int, len(p.brokers)) // partitions of each broker
	for n := range p.partitions {
		for _, id := range p.partitions[n].Replicas {
			b := p.place[id]
			held[b] = append(held[b], n)
		}
	}
	for p.levelOnce(held) {
	}
}

// levelOnce makes the best move between the broker with the most and the one with the
// fewest replicas; when there is none, between the next ones.
func (p *planner) levelOnce(held [][]int) bool {
	order := make([]int, len(p.brokers))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.load[b], p.load[a]) })
	for _, from := range order {
		for i := len(order) - 1; i >= 0 && p.load[from]-p.load[order[i]] > 1; i-- {
			to := order[i]
			if n := p.candidate(held[from], from, to); n >= 0 {
				x := &p.partitions[n]
				x.Replicas[slices.Index(x.Replicas, p.brokers[from].ID)] = p.brokers[to].ID
				p.count(from, x.Topic, -1)
				p.count(to, x.Topic, 1)
				held[from] = slices.DeleteFunc(held[from], func(m int) bool { return m == n })
				held[to] = append(held[to], n)
				return true
			}
		}
	}
	return false
}

// candidate returns the partition of whose topic the one broker has most more than
// the other, and that may move between them; -1 when there is none.
func (p *planner) candidate(held []int, from, to int) int {
	best, most := -1, 0
	for _, n := range held {
		x := &p.partitions[n]
		if slices.Contains(x.Replicas, p.brokers[to].ID) || !p.keepsRacks(x, from, to) {
			continue
		}
		if more := p.topics[from][x.Topic] - p.topics[to][x.Topic]; best < 0 || more > most {
			best, most = n, more
		}
	}
	return best
}

// keepsRacks says that a partition is in as many racks after a move as before.
func (p *planner) keepsRacks(x *PlanPartition, from, to int) bool {
	if p.brokers[from].Rack == p.brokers[to].Rack {
		return true
	}
	leaves, has := 0, false
	for _, id := range x.Replicas {
		switch p.brokers[p.place[id]].Rack {
		case p.brokers[from].Rack:
			leaves++
		case p.brokers[to].Rack:
			has = true
		}
	}
	return leaves > 1 || !has
}

// lead orders the replicas so that every broker is first as often as others.
func (p *planner) lead() {
	first := make([]int, len(p.brokers))
	for n := range p.partitions {
		first[p.place[p.partitions[n].Replicas[0]]]++
	}
	for changed := true; changed; {
		changed = false
		for n := range p.partitions {
			replicas := p.partitions[n].Replicas
			least := 0
			for r := range replicas {
				if first[p.place[replicas[r]]] < first[p.place[replicas[least]]] {
					least = r
				}
			}
			if from, to := p.place[replicas[0]], p.place[replicas[least]]; first[from]-first[to] > 1 {
				replicas[0], replicas[least] = replicas[least], replicas[0]
				first[from]--
				first[to]++
				changed = true
			}
		}
	}
}
