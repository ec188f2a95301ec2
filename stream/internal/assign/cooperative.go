package assign

import (
	"cmp"
	"slices"

	"github.com/leatlog/leat/topology/plan"
)

// Goal is what an assignment is to reach, besides an even share for each member.
type Goal struct {
	// Tasks are all tasks of the app.
	Tasks []plan.TaskID
	// Ends are, for the tasks that have state, the sums of the ends of their changelogs.
	Ends map[plan.TaskID]uint64
	// AcceptableLag is how many changelog offsets a copy may be behind and count as caught
	// up: a task may run there at once.
	AcceptableLag uint64
	// WarmUps is how many copies may catch up at a time for tasks that are to move.
	WarmUps int
	// Standbys is how many warm copies there are to be of each task that has state, besides
	// the stores of the task itself; fewer when there are not as many members.
	Standbys int
}

// Cooperative assigns tasks and standbys in the spirit of KIP-441, in the steps of
// KIP-429.
//
// A task goes where Assign has it go, unless that member has yet to restore its state
// while another has caught up with it: then it stays with, or goes to, the one that has,
// and the former gets a warm-up, a standby that the task follows when it has caught up.
//
// A task that moves is given to nobody while its owner still runs it. The owner gives it
// up and joins again, and the next assignment hands it over; meanwhile its next owner
// follows its changelogs. moving counts those tasks.
func Cooperative(goal Goal, members []Member) (shares []Share, moving int) {
	if len(members) == 0 {
		return nil, 0
	}
	a := newAssignment(goal, members)
	a.balance()
	a.waitForState()
	moving = a.withhold()
	a.placeStandbys()
	return a.shares(), moving
}

// stateful says whether a task has state to restore.
func (a *assignment) stateful(t plan.TaskID) bool {
	_, ok := a.goal.Ends[t]
	return ok
}

// lag is how far the copy of a member is behind, in changelog offsets.
func (a *assignment) lag(m *load, t plan.TaskID) uint64 {
	end, held := a.goal.Ends[t], m.restored[t]
	return end - min(end, held)
}

// caughtUp says that a task can run on a member at once.
func (a *assignment) caughtUp(m *load, t plan.TaskID) bool {
	return a.lag(m, t) <= a.goal.AcceptableLag
}

// waitForState gives tasks to members that have caught up with their state, where those
// they were dealt to have not, and has the latter warm up.
func (a *assignment) waitForState() {
	type move struct {
		task     plan.TaskID
		from, to *load
	}
	var moves []move
	for _, m := range a.members {
		for _, t := range m.tasks {
			if !a.stateful(t) || a.caughtUp(m, t) {
				continue
			}
			if warm := a.warmest(t); warm != nil {
				moves = append(moves, move{t, m, warm})
			}
		}
	}
	slices.SortFunc(moves, func(x, y move) int { return CompareTasks(x.task, y.task) })
	// Copies that are on their way go first: they would have been for nothing.
	byLag := slices.Clone(moves)
	slices.SortStableFunc(byLag, func(x, y move) int { return cmp.Compare(a.lag(x.from, x.task), a.lag(y.from, y.task)) })
	for _, v := range byLag[:min(len(byLag), a.goal.WarmUps)] {
		v.from.standbys = append(v.from.standbys, Standby{Task: v.task, WarmUp: true})
	}
	for _, v := range moves {
		v.from.tasks = slices.DeleteFunc(v.from.tasks, func(t plan.TaskID) bool { return t == v.task })
		v.to.tasks = append(v.to.tasks, v.task)
	}
}

// warmest returns the member that a task runs on while it waits for its own: its owner
// when that has caught up, or who has least to restore; nil when nobody has caught up.
func (a *assignment) warmest(t plan.TaskID) *load {
	if o := a.owner[t]; o != nil && a.caughtUp(o, t) {
		return o
	}
	var best *load
	for _, m := range a.members {
		if !a.caughtUp(m, t) {
			continue
		}
		if best == nil {
			best = m
			continue
		}
		if c := cmp.Or(cmp.Compare(a.lag(m, t), a.lag(best, t)), cmp.Compare(len(m.tasks)*best.Capacity, len(best.tasks)*m.Capacity)); c < 0 {
			best = m
		}
	}
	return best
}

// withhold takes back the tasks that others still run; it returns how many.
func (a *assignment) withhold() (moving int) {
	for _, m := range a.members {
		m.tasks = slices.DeleteFunc(m.tasks, func(t plan.TaskID) bool {
			o := a.owner[t]
			if o == nil || o == m {
				return false
			}
			moving++
			if a.stateful(t) {
				m.standbys = append(m.standbys, Standby{Task: t})
			}
			return true
		})
	}
	return moving
}

// placeStandbys spreads the standbys of all tasks evenly. A copy stays where it is as
// long as its member has not too many; one that is to be made goes where most of it is.
func (a *assignment) placeStandbys() {
	if a.goal.Standbys <= 0 {
		return
	}
	s := a.newStandbyPlaces()
	room := func(m *load) bool { return s.count[m] < s.limit[m] }
	for _, pass := range []func(m *load, t plan.TaskID) bool{
		func(m *load, t plan.TaskID) bool { return room(m) && slices.Contains(m.Standbys, t) },
		func(m *load, t plan.TaskID) bool { return room(m) && m.restored[t] > 0 && a.caughtUp(m, t) },
		func(m *load, t plan.TaskID) bool { return room(m) && m.restored[t] > 0 },
		func(m *load, _ plan.TaskID) bool { return room(m) },
		func(*load, plan.TaskID) bool { return true },
	} {
		for _, t := range s.tasks {
			for s.missing[t] > 0 {
				best := s.best(t, pass)
				if best == nil {
					break
				}
				s.give(best, t)
			}
		}
	}
}

// standbyPlaces is where standbys are while they are dealt out.
type standbyPlaces struct {
	a       *assignment
	tasks   []plan.TaskID // those with state, ordered
	missing map[plan.TaskID]int
	taken   map[plan.TaskID]map[*load]bool // who runs it, is to run it or follows it
	count   map[*load]int
	limit   map[*load]int // the even share
}

func (a *assignment) newStandbyPlaces() *standbyPlaces {
	s := &standbyPlaces{
		a: a, missing: make(map[plan.TaskID]int), taken: make(map[plan.TaskID]map[*load]bool),
		count: make(map[*load]int), limit: make(map[*load]int),
	}
	copies, capacity := 0, 0
	for _, t := range a.tasks {
		if a.stateful(t) {
			s.tasks = append(s.tasks, t)
			s.missing[t], s.taken[t] = a.goal.Standbys, make(map[*load]bool)
			copies += a.goal.Standbys
		}
	}
	for _, m := range a.members {
		capacity += m.Capacity
		for _, t := range m.tasks {
			if a.stateful(t) {
				s.taken[t][m] = true
			}
		}
		// Warm-ups come on top: they are to be the task's own stores soon.
		for _, b := range m.standbys {
			s.taken[b.Task][m] = true
		}
	}
	for _, m := range a.members {
		s.limit[m] = (copies*m.Capacity + capacity - 1) / capacity
	}
	return s
}

// best returns who is to follow a task next: who has least to restore, or, among equals,
// the least to follow and to run.
func (s *standbyPlaces) best(t plan.TaskID, suits func(*load, plan.TaskID) bool) *load {
	var best *load
	for _, m := range s.a.members {
		if s.taken[t][m] || !suits(m, t) {
			continue
		}
		if best == nil {
			best = m
			continue
		}
		c := cmp.Or(
			cmp.Compare(s.a.lag(m, t), s.a.lag(best, t)),
			cmp.Compare(s.count[m]*best.Capacity, s.count[best]*m.Capacity),
			cmp.Compare(len(m.tasks)*best.Capacity, len(best.tasks)*m.Capacity),
		)
		if c < 0 {
			best = m
		}
	}
	return best
}

func (s *standbyPlaces) give(m *load, t plan.TaskID) {
	m.standbys = append(m.standbys, Standby{Task: t})
	s.taken[t][m] = true
	s.missing[t]--
	s.count[m]++
}
