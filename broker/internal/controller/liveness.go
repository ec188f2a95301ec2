package controller

import (
	"slices"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// What the coming and going of brokers means for partitions. Brokers are changed in
// the speculative image first, then their partitions.

func (c *Controller) fence(b *metadata.Broker) {
	c.propose([]metadata.Change{&metadata.BrokerFenceChange{ID: b.ID, Epoch: b.Epoch, Fenced: true, ControlledShutdown: b.ControlledShutdown}})
	c.propose(c.deactivate(b.ID, logsKept))
}

// deactivate takes a broker that is not active any more out of leadership and out of
// the in-sync replicas. When its logs are not what they were, it stops being eligible
// to lead, too.
func (c *Controller) deactivate(broker int32, left logs) []metadata.Change {
	var changes []metadata.Change
	for _, t := range c.image.Topics() {
		var rules partitionRules
		for n := range t.Partitions {
			p := &t.Partitions[n]
			if !slices.Contains(p.Replicas, broker) ||
				p.Leader != broker && !slices.Contains(p.ISR, broker) && (left == logsKept || !remembers(p, broker)) {
				continue
			}
			if rules.active == nil {
				rules = c.rules(t)
			}
			e := editPartition(t.ID, p, rules)
			e.next.ISR = without(p.ISR, broker)
			e.suspect, e.logs = broker, left
			if change := e.finish(); change != nil {
				changes = append(changes, change)
			}
		}
	}
	return changes
}

func remembers(p *metadata.Partition, broker int32) bool {
	return slices.Contains(p.ELR, broker) || slices.Contains(p.LastKnownELR, broker)
}

// activate elects leaders for partitions that have none and of which the broker, now
// active, is a replica.
func (c *Controller) activate(broker int32) []metadata.Change {
	return c.electMissing(func(p *metadata.Partition) bool { return slices.Contains(p.Replicas, broker) })
}

// electMissing elects leaders where there is none and want says so.
func (c *Controller) electMissing(want func(*metadata.Partition) bool) []metadata.Change {
	var changes []metadata.Change
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			p := &t.Partitions[n]
			if p.Leader >= 0 || !want(p) {
				continue
			}
			if change := editPartition(t.ID, p, c.rules(t)).finish(); change != nil {
				changes = append(changes, change)
			}
		}
	}
	return changes
}

// settle brings partitions in line with the brokers' state when a controller takes
// over: an earlier one may have ended between the change of a broker and those of its
// partitions.
func (c *Controller) settle() []metadata.Change {
	var changes []metadata.Change
	for _, t := range c.image.Topics() {
		var rules partitionRules
		for n := range t.Partitions {
			p := &t.Partitions[n]
			if c.settledPartition(p) {
				continue
			}
			if rules.active == nil {
				rules = c.rules(t)
			}
			e := editPartition(t.ID, p, rules)
			e.next.ISR = slices.DeleteFunc(slices.Clone(p.ISR), func(id int32) bool { return !c.image.Active(id) })
			if change := e.finish(); change != nil {
				changes = append(changes, change)
			}
		}
	}
	return changes
}

func (c *Controller) settledPartition(p *metadata.Partition) bool {
	if p.Leader < 0 {
		return false // finish decides whether there is somebody now
	}
	for _, id := range p.ISR {
		if !c.image.Active(id) {
			return false
		}
	}
	return slices.Contains(p.ISR, p.Leader)
}
