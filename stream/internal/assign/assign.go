// Package assign says which member of an app's group runs which task, and how
// many partitions the app's internal topics have. It is pure: equal arguments
// give equal answers, in any order of members.
//
// What members tell when they join, and what the leader tells them, travels as
// bytes (integers are unsigned varints):
//
//	joining:   version (1) | capacity | n | n × task | m | m × { task, restored } | address
//	assigned:  version (1) | n | n × task | m | m × { address, n | n × task }
//	task:      sub-topology | partition
//	address:   length | bytes
package assign

import (
	"slices"
	"strings"

	"github.com/leatlog/leat/topology/plan"
)

// Member is a process of the app, or a worker of a process.
type Member struct {
	// ID is unique.
	ID string
	// Capacity is how many workers share its tasks; less than 1 counts as 1.
	Capacity int
	// Owned are the tasks it runs, or has not given up yet.
	Owned []plan.TaskID
	// Restored are the tasks whose state it holds on disk.
	Restored []Restored
	// Address is where it answers queries, "" when it does not; MaxAddress bytes at most.
	Address string
}

// MaxAddress is how long an address may be.
const MaxAddress = 512

// Owner says where the tasks of a member can be queried.
type Owner struct {
	Address string
	Tasks   []plan.TaskID
}

// Restored says how much of a task's state a member holds.
type Restored struct {
	Task plan.TaskID
	// Offset orders the holders of a task: the sum of the changelog offsets that
	// their stores hold, or another measure that grows with what is restored.
	Offset uint64
}

// Tasks is what a member is to run.
type Tasks struct {
	// Member is the member's ID.
	Member string
	// Tasks are ordered.
	Tasks []plan.TaskID
}

// Assign gives every task to one member, as evenly as the capacities allow. A
// task stays with its owner unless that owner has too many; a task without
// owner goes where most of its state is. Results are ordered by member.
func Assign(tasks []plan.TaskID, members []Member) []Tasks {
	if len(members) == 0 {
		return nil
	}
	a := newAssignment(tasks, members)
	a.keepOwned()
	a.giveRest()
	out := make([]Tasks, len(a.members))
	for i, m := range a.members {
		slices.SortFunc(m.tasks, CompareTasks)
		out[i] = Tasks{Member: m.ID, Tasks: m.tasks}
	}
	return out
}

// Cooperative is Assign in the steps of KIP-429: a task that moves is given to
// nobody while its owner still runs it. The owner gives it up and joins again,
// and the next assignment hands it over. moving counts those tasks.
func Cooperative(tasks []plan.TaskID, members []Member) (assigned []Tasks, moving int) {
	owner := make(map[plan.TaskID]string)
	for _, m := range sorted(members) {
		for _, t := range m.Owned {
			if _, taken := owner[t]; !taken {
				owner[t] = m.ID
			}
		}
	}
	assigned = Assign(tasks, members)
	for i := range assigned {
		assigned[i].Tasks = slices.DeleteFunc(assigned[i].Tasks, func(t plan.TaskID) bool {
			held, ok := owner[t]
			moves := ok && held != assigned[i].Member
			if moves {
				moving++
			}
			return moves
		})
	}
	return assigned, moving
}

// CompareTasks orders tasks by sub-topology and partition.
func CompareTasks(a, b plan.TaskID) int {
	if a.SubTopology != b.SubTopology {
		return a.SubTopology - b.SubTopology
	}
	return int(a.Partition) - int(b.Partition)
}

func sorted(members []Member) []Member {
	out := slices.Clone(members)
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// load is a member while tasks are dealt out.
type load struct {
	Member
	target   int // how many tasks it is to have
	tasks    []plan.TaskID
	bySub    map[int]int // tasks of each sub-topology
	restored map[plan.TaskID]uint64
}

func (m *load) give(t plan.TaskID) {
	m.tasks = append(m.tasks, t)
	m.bySub[t.SubTopology]++
}

type assignment struct {
	tasks   []plan.TaskID // ordered, each once
	members []*load       // ordered by ID
	given   map[plan.TaskID]bool
}

func newAssignment(tasks []plan.TaskID, members []Member) *assignment {
	a := &assignment{tasks: slices.Clone(tasks), given: make(map[plan.TaskID]bool, len(tasks))}
	slices.SortFunc(a.tasks, CompareTasks)
	a.tasks = slices.Compact(a.tasks)
	for _, m := range sorted(members) {
		l := &load{Member: m, bySub: make(map[int]int), restored: make(map[plan.TaskID]uint64)}
		l.Capacity = max(1, m.Capacity)
		for _, r := range m.Restored {
			l.restored[r.Task] = r.Offset
		}
		a.members = append(a.members, l)
	}
	a.setTargets()
	return a
}

// setTargets shares the number of tasks out in proportion to the capacities.
// What does not divide goes to the largest remainders and, among equals, to
// those who own more than their share already: fewer tasks move.
func (a *assignment) setTargets() {
	capacity := 0
	for _, m := range a.members {
		capacity += m.Capacity
	}
	left := len(a.tasks)
	byRemainder := slices.Clone(a.members)
	for _, m := range a.members {
		m.target = len(a.tasks) * m.Capacity / capacity
		left -= m.target
	}
	slices.SortStableFunc(byRemainder, func(x, y *load) int {
		rx, ry := len(a.tasks)*x.Capacity%capacity, len(a.tasks)*y.Capacity%capacity
		if rx != ry {
			return ry - rx
		}
		if mx, my := len(x.Owned) > x.target, len(y.Owned) > y.target; mx != my {
			if mx {
				return -1
			}
			return 1
		}
		return 0 // by ID: the sort is stable
	})
	for _, m := range byRemainder[:left] {
		m.target++
	}
}

// keepOwned leaves tasks where they are, up to each member's target. A member
// with too many gives up those of the sub-topologies it has most of.
func (a *assignment) keepOwned() {
	known := make(map[plan.TaskID]bool, len(a.tasks))
	for _, t := range a.tasks {
		known[t] = true
	}
	for _, m := range a.members {
		owned := slices.Clone(m.Owned)
		slices.SortFunc(owned, CompareTasks)
		owned = slices.DeleteFunc(slices.Compact(owned), func(t plan.TaskID) bool { return !known[t] || a.given[t] })
		counts := make(map[int]int)
		for _, t := range owned {
			counts[t.SubTopology]++
		}
		for len(owned) > m.target {
			drop := 0
			for i, t := range owned {
				if counts[t.SubTopology] >= counts[owned[drop].SubTopology] {
					drop = i // the last of the largest
				}
			}
			counts[owned[drop].SubTopology]--
			owned = slices.Delete(owned, drop, drop+1)
		}
		for _, t := range owned {
			a.given[t] = true
			m.give(t)
		}
	}
}

// giveRest deals out the tasks that nobody keeps: first those with state
// somewhere, so that they find their place free.
func (a *assignment) giveRest() {
	var warm, cold []plan.TaskID
	for _, t := range a.tasks {
		if a.given[t] {
			continue
		}
		if slices.ContainsFunc(a.members, func(m *load) bool { _, ok := m.restored[t]; return ok }) {
			warm = append(warm, t)
		} else {
			cold = append(cold, t)
		}
	}
	for _, t := range append(warm, cold...) {
		var best *load
		for _, m := range a.members {
			if len(m.tasks) < m.target && (best == nil || better(m, best, t)) {
				best = m
			}
		}
		a.given[t] = true
		best.give(t)
	}
}

// better says whether x suits task t better than y, which comes earlier by ID.
func better(x, y *load, t plan.TaskID) bool {
	if rx, ry := x.restored[t], y.restored[t]; rx != ry {
		return rx > ry
	}
	if sx, sy := x.bySub[t.SubTopology]*y.Capacity, y.bySub[t.SubTopology]*x.Capacity; sx != sy {
		return sx < sy
	}
	return len(x.tasks)*y.Capacity < len(y.tasks)*x.Capacity
}
