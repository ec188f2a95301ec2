package controller

import (
	"slices"
	"strconv"
	"strings"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/mutant"
)

// Edits of partitions: whatever happens to a partition, its next state is worked out
// here, so that the rules hold in one place: the leader is in sync and active, the
// in-sync replicas are replicas, and eligible leader replicas (KIP-966) are those
// that have everything up to the high watermark though they are not in sync.

// election says which replicas may become the leader.
type election int

const (
	online    election = iota // keep the leader; else the first in sync; else one that is eligible
	preferred                 // as online, but the first replica rather than the leader
	unclean                   // as online, and any active replica when there is none
)

// logs says how much of what a broker had is still there.
type logs int

const (
	logsKept      logs = iota // all that it had made durable
	logsUncertain             // perhaps not the last records before a crash
	logsLost                  // nothing: its directory is new
)

// partitionRules are what an edit depends on besides the partition; those of one
// topic.
type partitionRules struct {
	active    func(broker int32) bool // may lead
	elr       bool                    // eligible.leader.replicas.version is 1
	minInSync int
	unclean   bool // unclean.leader.election.enable
}

// rules returns those of a topic under the speculative image.
func (c *Controller) rules(t *metadata.Topic) partitionRules {
	defaults := c.topicDefaults()
	value := func(name string) string {
		if v, ok := t.Config[name]; ok {
			return v
		}
		if v, ok := defaults[name]; ok {
			return v
		}
		key, _ := metadata.LookupTopicKey(name)
		return key.Default
	}
	minInSync, err := strconv.Atoi(strings.TrimSpace(value("min.insync.replicas")))
	if err != nil {
		minInSync = 1 // values are validated before they are stored
	}
	return partitionRules{
		active:    c.image.Active,
		elr:       c.image.FeatureLevel(metadata.ELRFeature) >= 1,
		minInSync: minInSync,
		unclean:   strings.EqualFold(value("unclean.leader.election.enable"), "true"),
	}
}

// topicDefaults returns the topic configurations of topics that do not set them.
func (c *Controller) topicDefaults() map[string]string {
	if c.defaultsOf != c.image {
		c.defaults, c.defaultsOf = c.image.TopicConfigDefaults(-1, c.cfg.TopicDefaults), c.image
	}
	return c.defaults
}

// partitionEdit is a partition being changed: set what the change is about in next,
// then call finish.
type partitionEdit struct {
	rules partitionRules
	was   *metadata.Partition
	next  *metadata.PartitionChange
	elect election
	// suspect is a broker whose logs are not what they were, with what is left.
	suspect int32
	logs    logs
}

func editPartition(topic metadata.UUID, p *metadata.Partition, rules partitionRules) *partitionEdit {
	e := &partitionEdit{rules: rules, was: p, next: p.Change(topic), suspect: -1}
	if rules.unclean {
		e.elect = unclean
	}
	return e
}

// finish returns the change to the next state, nil when it is the same.
func (e *partitionEdit) finish() *metadata.PartitionChange {
	e.completeReassignment()
	e.followISR()
	e.electLeader()
	e.orderELR()
	p, n := e.was, e.next
	if (n.Leader != p.Leader || removesReplica(p.Replicas, n.Replicas)) && !mutant.Is(mutant.LeaderEpochStays) {
		n.LeaderEpoch++
	}
	if n.LeaderEpoch == p.LeaderEpoch && slices.Equal(n.Replicas, p.Replicas) && slices.Equal(n.ISR, p.ISR) &&
		slices.Equal(n.ELR, p.ELR) && slices.Equal(n.LastKnownELR, p.LastKnownELR) &&
		slices.Equal(n.Adding, p.Adding) && slices.Equal(n.Removing, p.Removing) {
		return nil
	}
	n.PartitionEpoch++
	return n
}

// completeReassignment drops the replicas that were to leave once all that were to
// join are in sync and somebody stays.
func (e *partitionEdit) completeReassignment() {
	n := e.next
	if len(n.Adding) == 0 && len(n.Removing) == 0 {
		return
	}
	isr := withoutAll(n.ISR, n.Removing)
	if len(isr) == 0 || !containsAll(isr, n.Adding) {
		return
	}
	n.Replicas, n.ISR = withoutAll(n.Replicas, n.Removing), isr
	n.ELR, n.LastKnownELR = withoutAll(n.ELR, n.Removing), withoutAll(n.LastKnownELR, n.Removing)
	n.Adding, n.Removing = nil, nil
}

// followISR keeps the eligible leader replicas in step with the in-sync replicas.
// While at least min.insync.replicas are in sync the high watermark moves without
// the others, and nobody else is eligible. Below it does not move, and who leaves
// stays eligible.
func (e *partitionEdit) followISR() {
	n := e.next
	if !e.rules.elr {
		n.ELR, n.LastKnownELR = nil, nil
		if len(n.ISR) == 0 && e.logs != logsLost {
			n.ISR = e.was.ISR // the last one stays the only one to lead again
		}
		return
	}
	if len(n.ISR) >= min(e.rules.minInSync, len(n.Replicas)) {
		n.ELR, n.LastKnownELR = nil, nil
		return
	}
	elr := withoutAll(n.ELR, n.ISR)
	for _, id := range e.was.ISR {
		if !slices.Contains(n.ISR, id) && !slices.Contains(elr, id) && slices.Contains(n.Replicas, id) {
			elr = append(elr, id)
		}
	}
	if e.logs != logsKept {
		elr = without(elr, e.suspect)
	}
	n.ELR = elr
	if e.logs == logsLost {
		n.LastKnownELR = without(n.LastKnownELR, e.suspect)
	}
	if len(n.ISR) == 0 && e.was.Leader >= 0 {
		n.LastKnownELR = nil
		if e.was.Leader != e.suspect || e.logs != logsLost {
			n.LastKnownELR = []int32{e.was.Leader}
		}
	} else if last := lastInSync(e.was); len(n.ISR) == 0 && len(elr) == 0 && len(n.LastKnownELR) == 0 &&
		last == e.suspect && e.logs == logsUncertain {
		n.LastKnownELR = []int32{last} // the only one left that may have it all
	}
}

// lastInSync returns the only replica that could lead p, -1 when there are none or
// several.
func lastInSync(p *metadata.Partition) int32 {
	switch {
	case len(p.ISR) == 1:
		return p.ISR[0]
	case len(p.ISR) == 0 && len(p.ELR) == 1:
		return p.ELR[0]
	}
	return -1
}

func (e *partitionEdit) electLeader() {
	n := e.next
	if e.elect == preferred && e.mayLead(n.Replicas[0]) {
		e.lead(n.Replicas[0])
		return
	}
	if n.Leader >= 0 && e.mayLead(n.Leader) {
		return
	}
	for _, id := range n.Replicas {
		if e.mayLead(id) {
			e.lead(id)
			return
		}
	}
	switch {
	case e.rules.elr && len(n.ISR) == 0 && len(n.ELR) == 0 && len(n.LastKnownELR) == 1 && e.rules.active(n.LastKnownELR[0]) &&
		slices.Contains(n.Replicas, n.LastKnownELR[0]):
		e.lead(n.LastKnownELR[0])
		return
	case e.elect == unclean:
		for _, id := range n.Replicas {
			if e.rules.active(id) {
				e.lead(id)
				return
			}
		}
	}
	n.Leader = -1
}

// mayLead says that a clean election can choose the replica.
func (e *partitionEdit) mayLead(id int32) bool {
	eligible := slices.Contains(e.next.ISR, id) ||
		e.rules.elr && len(e.next.ISR) == 0 && slices.Contains(e.next.ELR, id)
	return (eligible || mutant.Is(mutant.OutOfSyncElected)) && e.rules.active(id)
}

// lead makes the replica the leader. One that was not in sync is then the only one
// that is.
func (e *partitionEdit) lead(id int32) {
	n := e.next
	n.Leader = id
	if slices.Contains(n.ISR, id) {
		return
	}
	wasEligible := slices.Contains(n.ELR, id)
	n.ISR, n.ELR, n.LastKnownELR = []int32{id}, without(n.ELR, id), nil
	if !wasEligible || len(n.ISR) >= min(e.rules.minInSync, len(n.Replicas)) {
		n.ELR = nil // an unclean election begins a history the others do not have
	}
}

// orderELR puts the eligible leader replicas into the order of preference.
func (e *partitionEdit) orderELR() {
	if len(e.next.ELR) == 0 {
		e.next.ELR = nil
		return
	}
	ordered := make([]int32, 0, len(e.next.ELR))
	for _, id := range e.next.Replicas {
		if slices.Contains(e.next.ELR, id) {
			ordered = append(ordered, id)
		}
	}
	e.next.ELR = ordered
}

func removesReplica(was, next []int32) bool { return !containsAll(next, was) }

func containsAll(set, ids []int32) bool {
	for _, id := range ids {
		if !slices.Contains(set, id) {
			return false
		}
	}
	return true
}

func without(ids []int32, id int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(x int32) bool { return x == id })
}

func withoutAll(ids, gone []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(x int32) bool { return slices.Contains(gone, x) })
}
