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
	ID       int32
	Rack     string
	Cordoned bool // it keeps what it has and gets no more
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
// those to be drained, go elsewhere; cordoned ones get nothing. It copies as little as it can: only from brokers
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
	topic      []int     // of each partition: the place of its topic among all
	load       []int     // replicas of each broker
	held       [][][]int // the partitions that each broker has of each topic
}

func newPlanner(brokers []PlanBroker, partitions []PlanPartition) *planner {
	p := &planner{brokers: slices.Clone(brokers), place: map[int32]int{}, partitions: slices.Clone(partitions)}
	slices.SortFunc(p.brokers, func(a, b PlanBroker) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(p.partitions, func(a, b PlanPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	topics := 0
	for n := range p.partitions {
		if n > 0 && p.partitions[n].Topic != p.partitions[n-1].Topic {
			topics++
		}
		p.topic = append(p.topic, topics)
	}
	p.load, p.held = make([]int, len(p.brokers)), make([][][]int, len(p.brokers))
	for n, b := range p.brokers {
		p.place[b.ID], p.held[n] = n, make([][]int, topics+1)
	}
	for n := range p.partitions {
		x := &p.partitions[n]
		p.was = append(p.was, x.Replicas)
		x.Replicas = slices.Clone(x.Replicas)
		for _, id := range x.Replicas {
			if b, ok := p.place[id]; ok {
				p.take(b, n)
			}
		}
	}
	return p
}

// take gives a broker, by its place, a replica of a partition.
func (p *planner) take(broker, partition int) {
	p.load[broker]++
	p.held[broker][p.topic[partition]] = append(p.held[broker][p.topic[partition]], partition)
}

// leave takes it back.
func (p *planner) leave(broker, partition int) {
	p.load[broker]--
	held := &p.held[broker][p.topic[partition]]
	n := slices.Index(*held, partition)
	*held = slices.Delete(*held, n, n+1)
}

// drain gives replicas of brokers that are not there any more to others.
func (p *planner) drain() error {
	for n := range p.partitions {
		x := &p.partitions[n]
		for r, id := range x.Replicas {
			if _, stays := p.place[id]; stays {
				continue
			}
			to := p.best(n, r)
			if to < 0 {
				return fmt.Errorf("%w: partition %s-%d has %d replicas, and %d broker(s) would be left for them: add a broker, or lower its replication factor",
					ErrPlan, x.Topic, x.Partition, len(x.Replicas), p.places(x))
			}
			x.Replicas[r] = p.brokers[to].ID
			p.take(to, n)
		}
	}
	return nil
}

// places counts the brokers that may hold replicas of a partition.
func (p *planner) places(x *PlanPartition) int {
	count := 0
	for b := range p.brokers {
		if !p.brokers[b].Cordoned || slices.Contains(x.Replicas, p.brokers[b].ID) {
			count++
		}
	}
	return count
}

// best returns the broker to take the place of one replica of a partition: in the rack
// it has least of, then with the least load, of the topic and of all; -1 when there is
// none.
func (p *planner) best(partition, replaced int) int {
	x, topic := &p.partitions[partition], p.topic[partition]
	racks := map[string]int{}
	for r, id := range x.Replicas {
		if b, ok := p.place[id]; ok && r != replaced {
			racks[p.brokers[b].Rack]++
		}
	}
	best := -1
	for b := range p.brokers {
		if p.brokers[b].Cordoned || slices.Contains(x.Replicas, p.brokers[b].ID) {
			continue
		}
		if best < 0 || cmp.Or(
			cmp.Compare(racks[p.brokers[b].Rack], racks[p.brokers[best].Rack]),
			cmp.Compare(p.load[b], p.load[best]),
			cmp.Compare(len(p.held[b][topic]), len(p.held[best][topic]))) < 0 {
			best = b
		}
	}
	return best
}

// level moves replicas from brokers with more than others to those with fewer.
func (p *planner) level() {
	order := make([]int, len(p.brokers))
	for n := range order {
		order[n] = n
	}
	for p.levelOnce(order) {
	}
}

// levelOnce makes the best move between the broker with the most and the one with the
// fewest replicas; when there is none, between the next ones. It sorts order, which has
// all brokers.
func (p *planner) levelOnce(order []int) bool {
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(p.load[b], p.load[a]), cmp.Compare(a, b)) })
	for _, from := range order {
		for i := len(order) - 1; i >= 0 && p.load[from]-p.load[order[i]] > 1; i-- {
			to := order[i]
			if p.brokers[to].Cordoned {
				continue
			}
			if n := p.candidate(from, to); n >= 0 {
				x := &p.partitions[n]
				x.Replicas[slices.Index(x.Replicas, p.brokers[from].ID)] = p.brokers[to].ID
				p.leave(from, n)
				p.take(to, n)
				return true
			}
		}
	}
	return false
}

// candidate returns the first partition that may move between two brokers, of the topic
// of which the one has most more than the other; -1 when there is none.
func (p *planner) candidate(from, to int) int {
	best, most := -1, 0
	for topic, held := range p.held[from] {
		if more := len(held) - len(p.held[to][topic]); best < 0 || more > most {
			if n := p.movable(held, from, to); n >= 0 {
				best, most = n, more
			}
		}
	}
	return best
}

// movable returns the first of some partitions that may move between two brokers; -1
// when there is none.
func (p *planner) movable(held []int, from, to int) int {
	for _, n := range held {
		x := &p.partitions[n]
		if !slices.Contains(x.Replicas, p.brokers[to].ID) && p.keepsRacks(x, from, to) {
			return n
		}
	}
	return -1
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
