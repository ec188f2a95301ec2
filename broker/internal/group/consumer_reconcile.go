package group

import (
	"slices"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// reconcile takes a member a step on the way to its target assignment, as far as the
// partitions that it and others still own allow (KIP-848): it first gives back what it
// is to lose, is then told of the new epoch, and gets partitions when nobody has them any more. owned is
// what the member says it has, nil when it does not say; owner says who has a partition.
//
//	Stable ----target is newer----> Unrevoked --given back--> Stable or Unreleased
//	   \---nothing to give back---> Unreleased --others gave back--> Stable
func reconcile(m *consumerMember, targetEpoch int32, target assignment, owner func(partitionID) bool, owned *assignment) *consumerMember {
	switch m.state {
	case memberStable:
		if m.epoch == targetEpoch {
			return m
		}
		return nextAssignment(m, m.epoch, targetEpoch, target, owner, owned)
	case memberUnrevoked:
		if owned == nil || owned.overlaps(m.revoking) {
			return m
		}
		return nextAssignment(m, m.epoch+1, targetEpoch, target, owner, owned)
	}
	return nextAssignment(m, m.epoch, targetEpoch, target, owner, owned)
}

func nextAssignment(m *consumerMember, epoch, targetEpoch int32, target assignment, owner func(partitionID) bool, owned *assignment) *consumerMember {
	kept, revoking := m.assigned.split(target)
	_, missing := target.split(kept)
	adding, unreleased := assignment{}, false
	for _, topic := range missing.topics() {
		for _, p := range missing[topic] {
			if owner(partitionID{topic, p}) {
				unreleased = true
			} else {
				adding[topic] = append(adding[topic], p)
			}
		}
	}
	next := *m
	next.previousEpoch = m.epoch
	switch {
	case len(revoking) > 0 && (owned == nil || owned.overlaps(revoking)):
		next.epoch, next.state, next.assigned, next.revoking = epoch, memberUnrevoked, kept, revoking
	case unreleased:
		next.epoch, next.state, next.assigned, next.revoking = targetEpoch, memberUnreleased, kept.union(adding), nil
	default:
		next.epoch, next.state, next.assigned, next.revoking = targetEpoch, memberStable, kept.union(adding), nil
	}
	if next.epoch == m.epoch && next.state == m.state && next.assigned.equal(m.assigned) && next.revoking.equal(m.revoking) {
		return m
	}
	return &next
}

// overlaps says that the two have a partition in common.
func (a assignment) overlaps(b assignment) bool {
	for topic, partitions := range a {
		if slices.ContainsFunc(partitions, func(p int32) bool { return b.has(topic, p) }) {
			return true
		}
	}
	return false
}

// assignmentOf makes an assignment of what a client sent: sorted, nothing twice.
func assignmentOf(topics map[metadata.UUID][]int32) assignment {
	a := assignment{}
	for topic, partitions := range topics {
		if len(partitions) == 0 {
			continue
		}
		sorted := slices.Clone(partitions)
		slices.Sort(sorted)
		a[topic] = slices.Compact(sorted)
	}
	return a
}
