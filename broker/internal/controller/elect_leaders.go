package controller

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// ElectLeaders: an operator moves leaders to the first replicas (KIP-460), or has an
// out-of-sync replica lead where nobody else can, at the price of records.

// Types of an election, as in ElectLeaders.
const (
	preferredElection int8 = 0
	uncleanElection   int8 = 1
)

func (c *Controller) electLeaders(e ElectLeaders) {
	if e.Type != preferredElection && e.Type != uncleanElection {
		c.refuse(e.ID, kerr.InvalidRequest)
		return
	}
	asked, all := e.Topics, e.Topics == nil
	if all {
		for _, t := range c.image.Topics() {
			every := kmsg.ElectLeadersRequestTopic{Topic: t.Name}
			for n := range t.Partitions {
				every.Partitions = append(every.Partitions, int32(n))
			}
			asked = append(asked, every)
		}
	}
	var results []kmsg.ElectLeadersResponseTopic
	var changes []metadata.Change
	type partition struct {
		topic string
		id    int32
	}
	seen := map[partition]bool{}
	for _, t := range asked {
		result := kmsg.NewElectLeadersResponseTopic()
		result.Topic = t.Topic
		for _, id := range t.Partitions {
			if seen[partition{t.Topic, id}] {
				continue
			}
			seen[partition{t.Topic, id}] = true
			change, no := c.electPartition(t.Topic, id, e.Type)
			if no != nil && all && no.err == kerr.ElectionNotNeeded {
				continue
			}
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition = id
			if no != nil {
				p.ErrorCode, p.ErrorMessage = no.err.Code, &no.message
			} else {
				changes = append(changes, change)
			}
			result.Partitions = append(result.Partitions, p)
		}
		results = append(results, result)
	}
	c.propose(changes)
	c.answerWhenCommitted(e.ID, results)
}

func (c *Controller) electPartition(name string, id int32, kind int8) (metadata.Change, *refusal) {
	t, ok := c.image.Topic(name)
	if !ok {
		return nil, refusef(kerr.UnknownTopicOrPartition, "No such topic as %.249s", name)
	}
	if id < 0 || int(id) >= len(t.Partitions) {
		return nil, refusef(kerr.UnknownTopicOrPartition, "No such partition as %s-%d", name, id)
	}
	p := &t.Partitions[id]
	edit := editPartition(t.ID, p, c.rules(t))
	failure := kerr.PreferredLeaderNotAvailable
	if kind == preferredElection {
		if p.Leader == p.Replicas[0] {
			return nil, refuse(kerr.ElectionNotNeeded)
		}
		edit.elect = preferred
	} else {
		if p.Leader >= 0 {
			return nil, refuse(kerr.ElectionNotNeeded)
		}
		edit.elect, failure = unclean, kerr.EligibleLeadersNotAvailable
	}
	change := edit.finish()
	if change == nil || change.Leader < 0 || kind == preferredElection && change.Leader != p.Replicas[0] {
		return nil, refuse(failure)
	}
	return change, nil
}

// refuse is a refusal in the words of the error.
func refuse(err *kerr.Error) *refusal {
	return &refusal{err, strings.TrimSuffix(err.Description, ".") + "."}
}

// balance moves leaders back to the first replicas where too many of a broker's are
// elsewhere: more than the share of leader.imbalance.per.broker.percentage.
func (c *Controller) balance() []metadata.Change {
	type share struct{ all, away int }
	shares := map[int32]share{}
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			p := &t.Partitions[n]
			s := shares[p.Replicas[0]]
			s.all++
			if p.Leader != p.Replicas[0] {
				s.away++
			}
			shares[p.Replicas[0]] = s
		}
	}
	var changes []metadata.Change
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			p := &t.Partitions[n]
			first := p.Replicas[0]
			s := shares[first]
			if p.Leader == first || s.away*100 <= s.all*int(c.cfg.Imbalance.Percent) || !c.image.Active(first) {
				continue
			}
			edit := editPartition(t.ID, p, c.rules(t))
			edit.elect = preferred
			if change := edit.finish(); change != nil && change.Leader == first {
				changes = append(changes, change)
			}
			if len(changes) == maxBalanced {
				return changes
			}
		}
	}
	return changes
}

// maxBalanced bounds the leaders moved at once; the rest follow at the next check.
const maxBalanced = 1000

func partitionName(topic string, partition int32) string {
	return fmt.Sprintf("%s-%d", topic, partition)
}
