package controller

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// The controller can move replicas by itself, as an operator would after adding brokers:
// when one broker has clearly more replicas than another and all is well, it makes a
// Plan and reassigns some partitions at a time until it is carried out.

// Spread says when replicas are moved between brokers without being asked.
type Spread struct {
	// Check is the time between two looks; zero: never.
	Check time.Duration
	// Percent is the share of the average broker's replicas by which the brokers with
	// the most and the fewest may differ.
	Percent int32
	// AtOnce is the most partitions that are reassigned at the same time.
	AtOnce int
}

// spreadPause is the time between two looks while a plan is carried out.
const spreadPause = time.Second

// spreading is a plan that is being carried out.
type spreading struct {
	looked time.Time // when partitions were last looked at
	moves  []Move    // that are left
	under  bool      // a plan is being carried out
}

// nextLook is when partitions are to be looked at again; zero: never.
func (c *Controller) nextLook() time.Time {
	switch {
	case !c.active || c.cfg.Spread.Check <= 0:
		return time.Time{}
	case c.spread.under:
		return c.spread.looked.Add(spreadPause)
	}
	return c.spread.looked.Add(c.cfg.Spread.Check)
}

// spreadReplicas begins a plan when it is time to look and one is needed, and goes on
// with the one that is being carried out.
func (c *Controller) spreadReplicas(now time.Time) {
	if next := c.nextLook(); next.IsZero() || now.Before(next) {
		return
	}
	c.spread.looked = now
	if !c.healthy() {
		return // also while the last moves are being copied
	}
	if !c.spread.under {
		if c.spread.moves = c.spreadPlan(); len(c.spread.moves) == 0 {
			return
		}
		c.spread.under = true
		c.note(RebalanceBegun{Partitions: len(c.spread.moves), Copies: copies(c.spread.moves)})
	}
	if c.moveSome() {
		return
	}
	c.spread.moves, c.spread.under = nil, false
	c.note(RebalanceEnded{})
	if c.cfg.Imbalance.Check > 0 {
		c.propose(c.balance())
	}
}

// moveSome reassigns the next partitions of the plan, and says whether there were any.
// What has changed since the plan was made is left as it is.
func (c *Controller) moveSome() bool {
	var changes []metadata.Change
	for len(c.spread.moves) > 0 && len(changes) < c.cfg.Spread.AtOnce {
		m := c.spread.moves[0]
		c.spread.moves = c.spread.moves[1:]
		t, ok := c.image.Topic(m.Topic)
		if !ok || int(m.Partition) >= len(t.Partitions) || !slices.Equal(t.Partitions[m.Partition].Replicas, m.From) {
			continue
		}
		asked := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		asked.Partition, asked.Replicas = m.Partition, m.To
		if change, no := c.reassign(m.Topic, &asked, false); no == nil && change != nil {
			changes = append(changes, change)
		}
	}
	c.propose(changes)
	return len(changes) > 0
}

// healthy says that replicas may be moved: all brokers that have some are active, all
// replicas are in sync, and nothing is being reassigned.
func (c *Controller) healthy() bool {
	if c.image.MetadataVersion() < 27 {
		return false
	}
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			if p := &t.Partitions[n]; len(p.ISR) != len(p.Replicas) || len(p.Adding) > 0 || len(p.Removing) > 0 {
				return false
			}
		}
	}
	return true
}

// spreadPlan returns what there is to move; nothing while brokers differ by little.
func (c *Controller) spreadPlan() []Move {
	var brokers []PlanBroker
	load := map[int32]int{}
	for _, b := range c.image.Brokers() {
		if c.image.Active(b.ID) {
			brokers = append(brokers, PlanBroker{ID: b.ID, Rack: b.Rack, Cordoned: c.image.Cordoned(b.ID)})
		}
	}
	var partitions []PlanPartition
	total := 0
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			p := &t.Partitions[n]
			partitions = append(partitions, PlanPartition{Topic: t.Name, Partition: p.ID, Replicas: p.Replicas})
			total += len(p.Replicas)
			for _, id := range p.Replicas {
				load[id]++
			}
		}
	}
	if !c.uneven(brokers, load, total) {
		return nil
	}
	moves, err := Plan(brokers, partitions)
	if err != nil || copies(moves) == 0 {
		return nil // racks, or cordons, leave no better place
	}
	return moves
}

// uneven says that a broker has too many replicas more than one that could take some.
func (c *Controller) uneven(brokers []PlanBroker, load map[int32]int, total int) bool {
	most, fewest := 0, -1
	for _, b := range brokers {
		most = max(most, load[b.ID])
		if !b.Cordoned && (fewest < 0 || load[b.ID] < fewest) {
			fewest = load[b.ID]
		}
	}
	more := most - fewest
	return fewest >= 0 && more > 1 && more*100*len(brokers) > total*int(c.cfg.Spread.Percent)
}

func copies(moves []Move) int {
	count := 0
	for n := range moves {
		count += moves[n].Copies()
	}
	return count
}

// holdsNothing says that a broker, now active, could take replicas that others have.
func (c *Controller) holdsNothing(broker int32) bool {
	held := false
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			held = true
			if slices.Contains(t.Partitions[n].Replicas, broker) {
				return false
			}
		}
	}
	return held && !c.image.Cordoned(broker)
}
