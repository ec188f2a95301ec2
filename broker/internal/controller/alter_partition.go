package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// AlterPartition: leaders propose other in-sync replicas (KIP-497, KIP-841, KIP-903). One
// that leaves itself out gives up, for its log is damaged or its disk full: it is neither
// in sync nor eligible, and another one leads, if one can.

func (c *Controller) alterPartition(e AlterPartition) {
	if b, known := c.image.Broker(e.Broker); !known || b.Epoch != e.BrokerEpoch {
		c.refuse(e.ID, kerr.StaleBrokerEpoch)
		return
	}
	results := make([]kmsg.AlterPartitionResponseTopic, len(e.Topics))
	var changes []metadata.Change
	seen := map[metadata.UUID]map[int32]bool{}
	for n := range e.Topics {
		asked, result := &e.Topics[n], &results[n]
		result.Default()
		result.TopidID = asked.TopicID
		topic, known := c.image.TopicByID(asked.TopicID)
		var rules partitionRules
		if known {
			rules = c.rules(topic)
			if seen[topic.ID] == nil {
				seen[topic.ID] = map[int32]bool{}
			}
		}
		for m := range asked.Partitions {
			p := &asked.Partitions[m]
			answer := kmsg.NewAlterPartitionResponseTopicPartition()
			answer.Partition = p.Partition
			switch {
			case !known:
				answer.ErrorCode = kerr.UnknownTopicID.Code
			case seen[topic.ID][p.Partition]:
				answer.ErrorCode = kerr.InvalidRequest.Code
			default:
				seen[topic.ID][p.Partition] = true
				change, err := c.alterISR(e.Broker, topic, rules, p, &answer)
				if err != nil {
					answer.ErrorCode = err.Code
				}
				if change != nil {
					changes = append(changes, change)
				}
			}
			result.Partitions = append(result.Partitions, answer)
		}
	}
	c.propose(changes)
	c.answerWhenCommitted(e.ID, results)
}

// alterISR decides on one partition and fills the answer in. It may return both a
// change and an error: the change is made, and the broker does not lead any more.
func (c *Controller) alterISR(leader int32, topic *metadata.Topic, rules partitionRules,
	asked *kmsg.AlterPartitionRequestTopicPartition, answer *kmsg.AlterPartitionResponseTopicPartition) (metadata.Change, *kerr.Error) {
	if asked.Partition < 0 || int(asked.Partition) >= len(topic.Partitions) {
		return nil, kerr.UnknownTopicOrPartition
	}
	p := &topic.Partitions[asked.Partition]
	isr := make([]int32, len(asked.NewEpochISR))
	for n, member := range asked.NewEpochISR {
		isr[n] = member.BrokerID
	}
	switch {
	case asked.LeaderEpoch > p.LeaderEpoch || asked.PartitionEpoch > p.PartitionEpoch:
		// The broker has seen more of the log than this controller.
		return nil, kerr.NotController
	case asked.LeaderEpoch < p.LeaderEpoch:
		return nil, kerr.FencedLeaderEpoch
	case leader != p.Leader:
		return nil, kerr.InvalidRequest
	case asked.PartitionEpoch < p.PartitionEpoch:
		return nil, kerr.InvalidUpdateVersion
	case !containsAll(p.Replicas, isr) || hasDuplicates(isr):
		return nil, kerr.InvalidRequest
	}
	for _, member := range asked.NewEpochISR {
		b, known := c.image.Broker(member.BrokerID)
		if !known || !c.image.Active(b.ID) || member.BrokerEpoch >= 0 && member.BrokerEpoch != b.Epoch {
			return nil, kerr.IneligibleReplica
		}
	}
	edit := editPartition(topic.ID, p, rules)
	edit.next.ISR = isr
	givesUp := !slices.Contains(isr, leader)
	if givesUp {
		edit.suspect, edit.logs, edit.elect = leader, logsLost, online
	}
	change := edit.finish()
	if givesUp && (change == nil || change.Leader < 0) {
		return nil, kerr.IneligibleReplica
	}
	if change == nil {
		change = p.Change(topic.ID)
		fillAlterPartition(answer, change)
		return nil, nil
	}
	if change.Leader != leader {
		return change, kerr.NewLeaderElected
	}
	fillAlterPartition(answer, change)
	return change, nil
}

func fillAlterPartition(answer *kmsg.AlterPartitionResponseTopicPartition, p *metadata.PartitionChange) {
	answer.LeaderID, answer.LeaderEpoch, answer.PartitionEpoch = p.Leader, p.LeaderEpoch, p.PartitionEpoch
	answer.ISR = slices.Clone(p.ISR)
}

func hasDuplicates(ids []int32) bool {
	for n, id := range ids {
		if slices.Contains(ids[:n], id) {
			return true
		}
	}
	return false
}
