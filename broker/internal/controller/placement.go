package controller

import (
	"fmt"
	"slices"

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

// site is a broker as a place for replicas.
type site struct {
	id     int32
	rack   string
	active bool
	load   int // replicas placed by this request
}

// sites returns the brokers that are not cordoned, rack after rack in turn, so that
// neighbours are in different racks where that is possible.
func (c *Controller) sites() []site {
	racks := map[string][]site{}
	var names []string
	count := 0
	for _, b := range c.image.Brokers() {
		if c.image.Cordoned(b.ID) {
			continue
		}
		count++
		if _, ok := racks[b.Rack]; !ok {
			names = append(names, b.Rack)
		}
		racks[b.Rack] = append(racks[b.Rack], site{id: b.ID, rack: b.Rack, active: c.image.Active(b.ID)})
	}
	slices.Sort(names)
	var all []site
	for round := 0; len(all) < count; round++ {
		for _, name := range names {
			if round < len(racks[name]) {
				all = append(all, racks[name][round])
			}
		}
	}
	return all
}

// place chooses the replicas of count new partitions of a topic: leaders go round
// the active brokers, and each follower is the one that is active, in a rack that the
// partition has least of, with the fewest replicas of this request, and next round
// the circle, where the start of the search moves on with every round so that the
// partitions of one leader have different followers. start shifts the first leader.
// As in Kafka, fenced brokers are taken when there are not enough others, and never
// lead.
func (c *Controller) place(start, count, replication int) ([][]int32, *refusal) {
	all := c.sites()
	var leaders []int // places in all
	for n := range all {
		if all[n].active {
			leaders = append(leaders, n)
		}
	}
	if len(leaders) == 0 {
		return nil, refusef(kerr.InvalidReplicationFactor,
			"Unable to replicate the partition %d time(s): All brokers are currently fenced%s.", replication, c.ifCordoned(len(all), " or cordoned"))
	}
	if replication > len(all) {
		return nil, refusef(kerr.InvalidReplicationFactor,
			"Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached because only %d broker(s) are registered%s.",
			replication, replication, len(all), c.ifCordoned(len(all), " and not cordoned"))
	}
	partitions := make([][]int32, count)
	for p := range partitions {
		first := leaders[(start+p)%len(leaders)]
		all[first].load++
		replicas := append(make([]int32, 0, replication), all[first].id)
		taken := map[string]int{all[first].rack: 1}
		shift := 0
		if len(all) > 1 {
			shift = p / len(leaders) % (len(all) - 1)
		}
		for len(replicas) < replication {
			next := nextFollower(all, first, shift, replicas, taken)
			all[next].load++
			taken[all[next].rack]++
			replicas = append(replicas, all[next].id)
		}
		partitions[p] = replicas
	}
	return partitions, nil
}

// ifCordoned returns text when count is smaller than the number of all brokers.
func (c *Controller) ifCordoned(count int, text string) string {
	if count == len(c.image.Brokers()) {
		return ""
	}
	return text
}

// nextFollower returns the place of the best broker that is not among replicas.
func nextFollower(all []site, first, shift int, replicas []int32, taken map[string]int) int {
	best := -1
	for step := range len(all) - 1 {
		n := (first + 1 + (shift+step)%(len(all)-1)) % len(all)
		s := &all[n]
		if slices.Contains(replicas, s.id) {
			continue
		}
		if best < 0 {
			best = n
			continue
		}
		b := &all[best]
		switch {
		case s.active != b.active:
			if s.active {
				best = n
			}
		case taken[s.rack] != taken[b.rack]:
			if taken[s.rack] < taken[b.rack] {
				best = n
			}
		case s.load < b.load:
			best = n
		}
	}
	return best
}

// checkAssignment checks the replicas a client chose for one partition, of which has
// are its replicas already. width is the replication factor of the topic's other
// partitions, 0 when it is the first.
func (c *Controller) checkAssignment(partition int, replicas, has []int32, width int) *refusal {
	if len(replicas) == 0 {
		return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	alive := 0
	seen := map[int32]bool{}
	for _, id := range replicas {
		_, ok := c.image.Broker(id)
		switch {
		case !ok:
			return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		case seen[id]:
			return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		case c.image.Cordoned(id) && !slices.Contains(has, id):
			return refusef(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but all its log directories are cordoned.", id)
		case c.image.Active(id):
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
		if c.image.Active(id) {
			isr = append(isr, id)
		}
	}
	return &metadata.PartitionChange{Topic: topic, Partition: int32(partition), Replicas: replicas, ISR: isr, Leader: isr[0]}
}
