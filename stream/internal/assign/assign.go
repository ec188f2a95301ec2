// Package assign says which member of an app's group runs which task, and how
// many partitions the app's internal topics have. It is pure: equal arguments
// give equal answers, in any order of members.
//
// What members tell when they join, and what the leader tells them, travels as
// bytes (integers are unsigned varints):
//
//	joining:   version (1) | capacity | n | n × task | s | s × task | m | m × { task, restored } | address
//	assigned:  version (1) | n | n × task | s | s × { task, warm-up (0, 1) } | m | m × { address, n | n × task, s | s × task }
//	task:      sub-topology | partition
//	address:   length | bytes
package assign

import (
	"math"
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
	// Standbys are the tasks that it follows.
	Standbys []plan.TaskID
	// Restored are the tasks whose state it holds, whether it runs or follows them or has
	// them on disk.
	Restored []Restored
	// Address is where it answers queries, "" when it does not; MaxAddress bytes at most.
	Address string
}

// MaxAddress is how long an address may be.
const MaxAddress = 512

// Owner says where the tasks of a member, and its copies of others, can be queried.
type Owner struct {
	Address  string
	Tasks    []plan.TaskID
	Standbys []plan.TaskID
}

// Current is a Restored.Offset: the member runs the task, so that it has all of its state.
const Current = math.MaxUint64

// Restored says how much of a task's state a member holds.
type Restored struct {
	Task plan.TaskID
	// Offset is the sum of the changelog offsets that its stores hold, or Current.
	Offset uint64
}

// Standby is a task whose changelogs a member follows, to have a warm copy of its stores.
type Standby struct {
	Task plan.TaskID
	// WarmUp says that the task is to run on this member as soon as the copy has caught up:
	// the member asks for another assignment then.
	WarmUp bool
}

// Share is what a member is to run and to follow.
type Share struct {
	// Member is the member's ID.
	Member string
	// Tasks and Standbys are ordered; no task is in both.
	Tasks    []plan.TaskID
	Standbys []Standby
}

// Assign gives every task to one member, as evenly as the capacities allow. A
// task stays with its owner unless that owner has too many; a task without
// owner goes where most of its state is. Results are ordered by member.
func Assign(tasks []plan.TaskID, members []Member) []Share {
	if len(members) == 0 {
		return nil
	}
	a := newAssignment(Goal{Tasks: tasks}, members)
	a.balance()
	return a.shares()
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
	standbys []Standby
}

func (m *load) give(t plan.TaskID) {
	m.tasks = append(m.tasks, t)
	m.bySub[t.SubTopology]++
}

// assignment deals tasks out.
type assignment struct {
	goal    Goal
	tasks   []plan.TaskID // ordered, each once
	members []*load       // ordered by ID
	given   map[plan.TaskID]bool
	owner   map[plan.TaskID]*load // who runs a task, or has not given it up yet

	capacity int         // of all members
	bySub    map[int]int // tasks of each sub-topology
}

func newAssignment(goal Goal, members []Member) *assignment {
	a := &assignment{
		goal: goal, tasks: slices.Clone(goal.Tasks),
		given: make(map[plan.TaskID]bool, len(goal.Tasks)), owner: make(map[plan.TaskID]*load), bySub: make(map[int]int),
	}
	slices.SortFunc(a.tasks, CompareTasks)
	a.tasks = slices.Compact(a.tasks)
	for _, t := range a.tasks {
		a.bySub[t.SubTopology]++
	}
	for _, m := range sorted(members) {
		l := &load{Member: m, bySub: make(map[int]int), restored: make(map[plan.TaskID]uint64)}
		l.Capacity = max(1, m.Capacity)
		for _, r := range m.Restored {
			l.restored[r.Task] = r.Offset
		}
		for _, t := range m.Owned {
			if a.owner[t] == nil {
				a.owner[t] = l
			}
		}
		a.members = append(a.members, l)
	}
	a.setTargets()
	return a
}

// balance deals all tasks out, wherever their state is.
func (a *assignment) balance() {
	a.keepOwned()
	a.giveRest()
}

// shares returns what was dealt out.
func (a *assignment) shares() []Share {
	out := make([]Share, len(a.members))
	for i, m := range a.members {
		slices.SortFunc(m.tasks, CompareTasks)
		slices.SortFunc(m.standbys, func(x, y Standby) int { return CompareTasks(x.Task, y.Task) })
		out[i] = Share{Member: m.ID, Tasks: m.tasks, Standbys: m.standbys}
	}
	return out
}

// setTargets shares the number of tasks out in proportion to the capacities.
// What does not divide goes to the largest remainders and, among equals, to
// those who own more than their share already: fewer tasks move.
func (a *assignment) setTargets() {
	for _, m := range a.members {
		a.capacity += m.Capacity
	}
	capacity := a.capacity
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
// with too many gives up those of the sub-topologies it has most of, and of these
// first those that members with room have a warm copy of.
func (a *assignment) keepOwned() {
	known := make(map[plan.TaskID]bool, len(a.tasks))
	for _, t := range a.tasks {
		known[t] = true
	}
	for _, m := range a.members {
		owned := slices.Clone(m.Owned)
		slices.SortFunc(owned, CompareTasks)
		owned = slices.DeleteFunc(slices.Compact(owned), func(t plan.TaskID) bool { return !known[t] || a.owner[t] != m })
		counts := make(map[int]int)
		for _, t := range owned {
			counts[t.SubTopology]++
		}
		for len(owned) > m.target {
			drop, dropWarm := 0, false
			for i, t := range owned {
				warm, more := a.warmElsewhere(t), counts[t.SubTopology]-counts[owned[drop].SubTopology]
				if more > 0 || more == 0 && (warm || !dropWarm) {
					drop, dropWarm = i, warm // the last of the largest
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

// warmElsewhere says that a member which is to have more tasks than it owns has caught up
// with the state of a task that it does not run.
func (a *assignment) warmElsewhere(t plan.TaskID) bool {
	return a.stateful(t) && slices.ContainsFunc(a.members, func(m *load) bool {
		return m != a.owner[t] && len(m.Owned) < m.target && m.restored[t] > 0 && a.caughtUp(m, t)
	})
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
			if len(m.tasks) < m.target && (best == nil || a.better(m, best, t)) {
				best = m
			}
		}
		a.given[t] = true
		best.give(t)
	}
}

// better says whether x suits task t better than y, which comes earlier by ID. Of members
// that have all caught up with its state, one that has its share of the sub-topology comes
// last: state, and the work of keeping it, is to be spread as well as tasks are.
func (a *assignment) better(x, y *load, t plan.TaskID) bool {
	if a.stateful(t) && a.caughtUp(x, t) && a.caughtUp(y, t) {
		if cx, cy := a.crowded(x, t), a.crowded(y, t); cx != cy {
			return cy
		}
	}
	if rx, ry := x.restored[t], y.restored[t]; rx != ry {
		return rx > ry
	}
	if sx, sy := x.bySub[t.SubTopology]*y.Capacity, y.bySub[t.SubTopology]*x.Capacity; sx != sy {
		return sx < sy
	}
	return len(x.tasks)*y.Capacity < len(y.tasks)*x.Capacity
}

// crowded says that a member has its share, rounded up, of a task's sub-topology.
func (a *assignment) crowded(m *load, t plan.TaskID) bool {
	return m.bySub[t.SubTopology]*a.capacity >= a.bySub[t.SubTopology]*m.Capacity
}
