package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// AlterPartitionReassignments: other replicas for partitions (KIP-455). The new ones
// are added, copy what there is, and join the in-sync replicas; AlterPartition then
// completes the reassignment and the old ones leave.

func (c *Controller) alterReassignments(e AlterPartitionReassignments) {
	results := make([]kmsg.AlterPartitionAssignmentsResponseTopic, len(e.Topics))
	counts := map[string]map[int32]int{}
	for _, t := range e.Topics {
		if counts[t.Topic] == nil {
			counts[t.Topic] = map[int32]int{}
		}
		for _, p := range t.Partitions {
			counts[t.Topic][p.Partition]++
		}
	}
	left := newBudget()
	var changes []metadata.Change
	for n := range e.Topics {
		t := &e.Topics[n]
		results[n].Default()
		results[n].Topic = t.Topic
		for m := range t.Partitions {
			p := &t.Partitions[m]
			result := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			result.Partition = p.Partition
			var change *metadata.PartitionChange
			var no *refusal
			if counts[t.Topic][p.Partition] > 1 {
				no = refusef(kerr.InvalidRequest, "The partition %s is in the request more than once.", partitionName(t.Topic, p.Partition))
			} else {
				change, no = c.reassign(t.Topic, p, e.AllowReplicationFactorChange)
			}
			if no == nil && change != nil {
				no = left.take([]metadata.Change{change})
			}
			if no != nil {
				result.ErrorCode, result.ErrorMessage = no.err.Code, &no.message
			} else if change != nil {
				changes = append(changes, change)
			}
			results[n].Partitions = append(results[n].Partitions, result)
		}
	}
	c.propose(changes)
	c.answerWhenCommitted(e.ID, results)
}

// reassign decides on one partition; the change is nil when it is as asked already.
func (c *Controller) reassign(name string, asked *kmsg.AlterPartitionAssignmentsRequestTopicPartition, anyWidth bool) (*metadata.PartitionChange, *refusal) {
	t, ok := c.image.Topic(name)
	if !ok {
		return nil, refusef(kerr.UnknownTopicOrPartition, "Unable to find a topic named %.249s.", name)
	}
	if asked.Partition < 0 || int(asked.Partition) >= len(t.Partitions) {
		return nil, refusef(kerr.UnknownTopicOrPartition, "Unable to find partition %s.", partitionName(name, asked.Partition))
	}
	if c.image.MetadataVersion() < 27 {
		return nil, refusef(kerr.UnsupportedVersion, "Reassignments need metadata.version 27: raise it first.")
	}
	p := &t.Partitions[asked.Partition]
	edit := editPartition(t.ID, p, c.rules(t))
	if asked.Replicas == nil {
		return cancel(p, edit)
	}
	if no := c.checkTarget(p, asked.Replicas, anyWidth); no != nil {
		return nil, no
	}
	// What an earlier reassignment was adding is still to be added if it stays.
	original := withoutAll(p.Replicas, p.Adding)
	removing := withoutAll(p.Replicas, asked.Replicas)
	slices.Sort(removing)
	adding := withoutAll(asked.Replicas, original)
	slices.Sort(adding)
	edit.next.Replicas = append(slices.Clone(asked.Replicas), removing...)
	edit.next.Adding, edit.next.Removing = adding, removing
	return edit.finish(), nil
}

// cancel goes back to the replicas before the reassignment.
func cancel(p *metadata.Partition, edit *partitionEdit) (*metadata.PartitionChange, *refusal) {
	if len(p.Adding) == 0 && len(p.Removing) == 0 {
		return nil, refuse(kerr.NoReassignmentInProgress)
	}
	n := edit.next
	n.Replicas, n.ISR = withoutAll(p.Replicas, p.Adding), withoutAll(p.ISR, p.Adding)
	n.ELR, n.LastKnownELR = withoutAll(p.ELR, p.Adding), withoutAll(p.LastKnownELR, p.Adding)
	n.Adding, n.Removing = nil, nil
	if len(n.Replicas) == 0 || len(p.ISR) > 0 && len(n.ISR) == 0 {
		return nil, refusef(kerr.InvalidReplicaAssignment,
			"The reassignment cannot be cancelled: none of the original replicas is in sync.")
	}
	return edit.finish(), nil
}

func (c *Controller) checkTarget(p *metadata.Partition, target []int32, anyWidth bool) *refusal {
	if no := c.checkAssignment(int(p.ID), target, p.Replicas, 0); no != nil {
		return no
	}
	if width := len(p.Replicas) - len(p.Removing); !anyWidth && len(target) != width {
		return refusef(kerr.InvalidReplicationFactor, "The replication factor is changed from %d to %d", width, len(target))
	}
	return nil
}
