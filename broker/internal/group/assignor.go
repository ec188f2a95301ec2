package group

import (
	"cmp"
	"slices"
	"strings"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// Names of the server-side assignors.
const (
	UniformAssignor = "uniform"
	RangeAssignor   = "range"
)

// Assignors are the names of the server-side assignors, the preferred one first.
func Assignors() []string { return []string{UniformAssignor, RangeAssignor} }

// assignee is a member that gets partitions.
type assignee struct {
	id         string
	instanceID *string
	topics     []int // it subscribes to, as places in the list of topics, ascending
	previous   assignment
}

// assignedTopic is a topic of which somebody gets partitions.
type assignedTopic struct {
	id         metadata.UUID
	partitions int32
}

// assign gives out all partitions of the topics by an assignor's rules, each to one
// of the members that subscribe to it. It returns an assignment for each member, in
// their order. Members must be sorted by id.
func assign(assignor string, members []assignee, topics []assignedTopic) []assignment {
	var given []map[int][]int32 // of each member, by topic
	switch {
	case assignor == RangeAssignor:
		given = assignRange(members, topics)
	case sameTopics(members):
		given = assignEvenly(members, topics)
	default:
		given = assignBalanced(members, topics)
	}
	list := make([]assignment, len(members))
	for i := range members {
		list[i] = assignment{}
		for t, partitions := range given[i] {
			if len(partitions) > 0 {
				slices.Sort(partitions)
				list[i][topics[t].id] = partitions
			}
		}
	}
	return list
}

func sameTopics(members []assignee) bool {
	for i := 1; i < len(members); i++ {
		if !slices.Equal(members[i].topics, members[0].topics) {
			return false
		}
	}
	return true
}

func emptyShares(n int) []map[int][]int32 {
	given := make([]map[int][]int32, n)
	for i := range given {
		given[i] = map[int][]int32{}
	}
	return given
}

// assignRange gives each member of a topic a range of its partitions, the first
// members one more where it does not come out even. Static members come first, in the
// order of their instance ids, so that they keep their ranges when they come back.
func assignRange(members []assignee, topics []assignedTopic) []map[int][]int32 {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &members[a], &members[b]
		switch {
		case x.instanceID != nil && y.instanceID != nil:
			return strings.Compare(*x.instanceID, *y.instanceID)
		case x.instanceID != nil:
			return -1
		case y.instanceID != nil:
			return 1
		}
		return strings.Compare(x.id, y.id)
	})
	given := emptyShares(len(members))
	for t, topic := range topics {
		var readers []int
		for _, m := range order {
			if _, ok := slices.BinarySearch(members[m].topics, t); ok {
				readers = append(readers, m)
			}
		}
		next := int32(0)
		for i, m := range readers {
			n := topic.partitions / int32(len(readers))
			if int32(i) < topic.partitions%int32(len(readers)) {
				n++
			}
			for range n {
				given[m][t] = append(given[m][t], next)
				next++
			}
		}
	}
	return given
}

// assignEvenly is for members that all subscribe to the same topics: the numbers of
// their partitions differ by one at most, and as few as possible move.
func assignEvenly(members []assignee, topics []assignedTopic) []map[int][]int32 {
	given := emptyShares(len(members))
	if len(members) == 0 {
		return given
	}
	total := 0
	for _, t := range members[0].topics {
		total += int(topics[t].partitions)
	}
	quota, extra := total/len(members), total%len(members)
	taken := make(map[int]map[int32]bool, len(topics))
	load := make([]int, len(members))
	var over []int // members that had more than the quota
	keep := func(i, limit int) {
		for _, t := range members[i].topics {
			for _, p := range members[i].previous[topics[t].id] {
				if load[i] < limit && p < topics[t].partitions && !taken[t][p] {
					if taken[t] == nil {
						taken[t] = map[int32]bool{}
					}
					taken[t][p] = true
					given[i][t] = append(given[i][t], p)
					load[i]++
				}
			}
		}
	}
	for i := range members {
		keep(i, quota)
		if load[i] == quota {
			over = append(over, i)
		}
	}
	for _, i := range over { // those who had more keep the partitions that are left over
		if before := load[i]; extra > 0 {
			keep(i, quota+1)
			extra -= load[i] - before
		}
	}
	var free []func(member int)
	for _, t := range members[0].topics {
		for p := range topics[t].partitions {
			if !taken[t][p] {
				free = append(free, func(member int) { given[member][t] = append(given[member][t], p) })
			}
		}
	}
	fill(free, load, quota, extra)
	return given
}

// fill hands the free partitions out in turn: to members below the quota, then one more
// to as many as get one.
func fill(free []func(member int), load []int, quota, extra int) {
	for len(free) > 0 {
		handed := false
		for i := range load {
			if len(free) > 0 && load[i] < quota {
				free[0](i)
				free, handed = free[1:], true
				load[i]++
			}
		}
		if !handed {
			break
		}
	}
	for i := range load {
		if len(free) > 0 && extra > 0 && load[i] == quota {
			free[0](i)
			free = free[1:]
			extra--
		}
	}
}

// balancer assigns partitions to members that subscribe to different topics.
type balancer struct {
	topics  []assignedTopic
	readers [][]int // members by topic
	load    []int
	given   []map[int][]int32
}

// least returns the topic's reader with the fewest partitions.
func (b *balancer) least(topic int) int {
	best := -1
	for _, m := range b.readers[topic] {
		if best < 0 || b.load[m] < b.load[best] {
			best = m
		}
	}
	return best
}

// assignBalanced keeps what members had, gives the rest to whoever has least, and
// then moves partitions from those with more to those with less until no move helps.
func assignBalanced(members []assignee, topics []assignedTopic) []map[int][]int32 {
	b := &balancer{topics: topics, readers: make([][]int, len(topics)), load: make([]int, len(members)), given: emptyShares(len(members))}
	taken := make([]map[int32]bool, len(topics))
	for i := range members {
		for _, t := range members[i].topics {
			b.readers[t] = append(b.readers[t], i)
			for _, p := range members[i].previous[topics[t].id] {
				if p < topics[t].partitions && !taken[t][p] {
					if taken[t] == nil {
						taken[t] = map[int32]bool{}
					}
					taken[t][p] = true
					b.given[i][t] = append(b.given[i][t], p)
					b.load[i]++
				}
			}
		}
	}
	order := make([]int, len(topics))
	for t := range order {
		order[t] = t
	}
	// Those with the least choice first.
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(len(b.readers[x]), len(b.readers[y])) })
	for _, t := range order {
		for p := range topics[t].partitions {
			if m := b.least(t); m >= 0 && !taken[t][p] {
				b.given[m][t] = append(b.given[m][t], p)
				b.load[m]++
			}
		}
	}
	for b.improve() {
	}
	return b.given
}

// improve moves partitions to members that have at least two fewer; it returns
// whether it moved any. The sum of the squares of the loads shrinks with each move, so it ends.
func (b *balancer) improve() (moved bool) {
	order := make([]int, len(b.load))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(b.load[y], b.load[x]) })
	for _, m := range order {
		for t := range b.topics {
			for len(b.given[m][t]) > 0 {
				to := b.least(t)
				if b.load[to] > b.load[m]-2 {
					break
				}
				last := len(b.given[m][t]) - 1
				b.given[to][t] = append(b.given[to][t], b.given[m][t][last])
				b.given[m][t] = b.given[m][t][:last]
				b.load[m]--
				b.load[to]++
				moved = true
			}
		}
	}
	return moved
}
