package controller

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// refusal is why one item of a request is refused.
type refusal struct {
	err     *kerr.Error
	message string
}

func refusef(err *kerr.Error, format string, args ...any) *refusal {
	return &refusal{err, fmt.Sprintf(format, args...)}
}

// place chooses the replicas of count new partitions of a topic: leaders go round
// the live brokers, and followers go round the others at a distance that grows
// with every round, so that the partitions of one leader have different followers.
// start shifts the first leader. This is Kafka's placement without racks.
func (c *Controller) place(start, count, replication int) ([][]int32, *refusal) {
	var alive []int32
	for _, b := range c.image.Brokers() {
		if !b.Fenced {
			alive = append(alive, b.ID)
		}
	}
	n := len(alive)
	if n == 0 {
		return nil, refusef(kerr.InvalidReplicationFactor,
			"Unable to replicate the partition %d time(s): All brokers are currently fenced.", replication)
	}
	if replication > n {
		return nil, refusef(kerr.InvalidReplicationFactor,
			"Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached because only %d broker(s) are registered.",
			replication, replication, n)
	}
	partitions := make([][]int32, count)
	for p := range partitions {
		first := (start + p) % n
		replicas := make([]int32, 0, replication)
		replicas = append(replicas, alive[first])
		for r := 1; r < replication; r++ {
			distance := 1 + (p/n+r-1)%(n-1)
			replicas = append(replicas, alive[(first+distance)%n])
		}
		partitions[p] = replicas
	}
	return partitions, nil
}

// checkAssignment checks the replicas a client chose for one partition. width is
// the replication factor of the topic's other partitions, 0 when it is the first.
func (c *Controller) checkAssignment(partition int, replicas []int32, width int) *refusal {
	if len(replicas) == 0 {
		return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	alive := 0
	seen := map[int32]bool{}
	for _, id := range replicas {
		b, ok := c.image.Broker(id)
		switch {
		case !ok:
			return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		case seen[id]:
			return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		case !b.Fenced:
			alive++
		}
		seen[id] = true
	}
	if width > 0 && len(replicas) != width {
		return refusef(kerr.InvalidReplicaAssignment,
			"The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).",
			len(replicas), width)
	}
	if alive == 0 {
		return refusef(kerr.InvalidReplicaAssignment,
			"All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", partition)
	}
	return nil
}

// newPartition returns the change that creates a partition: the live replicas are
// in sync, the first of them leads.
func (c *Controller) newPartition(topic metadata.UUID, partition int, replicas []int32) *metadata.PartitionChange {
	var isr []int32
	for _, id := range replicas {
		if c.image.Alive(id) {
			isr = append(isr, id)
		}
	}
	return &metadata.PartitionChange{Topic: topic, Partition: int32(partition), Replicas: replicas, ISR: isr, Leader: isr[0]}
}
