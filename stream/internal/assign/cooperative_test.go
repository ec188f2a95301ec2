package assign

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/topology/plan"
)

// fleet is the members of an app over several assignments: they give up, restore and
// follow what they are told to.
type fleet struct {
	goal    Goal
	members []Member
	last    []Share
}

func drawFleet(t *rapid.T) *fleet {
	f := &fleet{goal: Goal{
		Tasks: drawTasks(t), Ends: make(map[plan.TaskID]uint64), AcceptableLag: 100,
		WarmUps: rapid.IntRange(1, 4).Draw(t, "warm-ups"), Standbys: rapid.IntRange(0, 3).Draw(t, "standbys"),
	}}
	for _, task := range f.goal.Tasks {
		if rapid.Bool().Draw(t, "stateful") {
			f.goal.Ends[task] = rapid.SampledFrom([]uint64{0, 50, 1000, 100_000}).Draw(t, "end")
		}
	}
	f.members = drawMembers(t, f.goal.Tasks)
	return f
}

// assign makes an assignment, checks what each has to keep, and has the members take it up.
func (f *fleet) assign(t *rapid.T) (moving int) {
	t.Helper()
	shares, moving := Cooperative(f.goal, f.members)
	owner := make(map[plan.TaskID]string)
	caughtUp := make(map[plan.TaskID]bool)
	held := make(map[string]map[plan.TaskID]uint64)
	for _, m := range f.members {
		held[m.ID] = make(map[plan.TaskID]uint64)
		for _, r := range m.Restored {
			held[m.ID][r.Task] = r.Offset
			caughtUp[r.Task] = caughtUp[r.Task] || r.Offset+f.goal.AcceptableLag >= f.goal.Ends[r.Task] || r.Offset == Current
		}
		for _, task := range m.Owned {
			owner[task] = m.ID
		}
	}
	given := make(map[plan.TaskID]bool)
	warmUps := 0
	for _, s := range shares {
		here := make(map[plan.TaskID]bool)
		for _, task := range s.Tasks {
			if given[task] {
				t.Fatalf("%v is given twice", task)
			}
			given[task], here[task] = true, true
			if o := owner[task]; o != "" && o != s.Member {
				t.Fatalf("%v goes to %s while %s runs it", task, s.Member, o)
			}
			if at := held[s.Member][task]; owner[task] != s.Member && caughtUp[task] && at+f.goal.AcceptableLag < f.goal.Ends[task] {
				t.Fatalf("%v starts on %s, which has %d of %d, though another has caught up", task, s.Member, at, f.goal.Ends[task])
			}
		}
		for _, b := range s.Standbys {
			if here[b.Task] {
				t.Fatalf("%s has %v twice", s.Member, b.Task)
			}
			here[b.Task] = true
			if _, stateful := f.goal.Ends[b.Task]; !stateful {
				t.Fatalf("%s follows %v, which has no state", s.Member, b.Task)
			}
			if b.WarmUp {
				warmUps++
			}
		}
	}
	if warmUps > f.goal.WarmUps {
		t.Fatalf("%d copies warm up, not %d", warmUps, f.goal.WarmUps)
	}
	if len(given)+moving != len(f.goal.Tasks) {
		t.Fatalf("%d tasks are given and %d move, of %d", len(given), moving, len(f.goal.Tasks))
	}
	for i := range f.members {
		m := &f.members[i]
		at := slices.IndexFunc(shares, func(s Share) bool { return s.Member == m.ID })
		f.takeUp(m, shares[at], held[m.ID])
	}
	f.last = shares
	return moving
}

// takeUp gives up and takes what a member was told to; everything catches up.
func (f *fleet) takeUp(m *Member, s Share, held map[plan.TaskID]uint64) {
	for _, task := range m.Owned {
		if _, stateful := f.goal.Ends[task]; stateful {
			held[task] = f.goal.Ends[task]
		}
	}
	m.Owned, m.Standbys = s.Tasks, nil
	for _, task := range s.Tasks {
		held[task] = Current
	}
	for _, b := range s.Standbys {
		m.Standbys = append(m.Standbys, b.Task)
		held[b.Task] = f.goal.Ends[b.Task]
	}
	m.Restored = nil
	for _, task := range slices.SortedFunc(maps.Keys(held), CompareTasks) {
		if at := held[task]; at != Current || slices.Contains(s.Tasks, task) {
			m.Restored = append(m.Restored, Restored{task, at})
		}
	}
}

// settle assigns until nothing changes any more.
func (f *fleet) settle(t *rapid.T) {
	t.Helper()
	for round := 0; ; round++ {
		before := f.last
		moving := f.assign(t)
		warmUps := 0
		for _, s := range f.last {
			for _, b := range s.Standbys {
				if b.WarmUp {
					warmUps++
				}
			}
		}
		if moving == 0 && warmUps == 0 && reflect.DeepEqual(f.last, before) {
			return
		}
		if round > 3*len(f.goal.Tasks)+3 {
			t.Fatalf("does not come to rest: %d move, %d warm up", moving, warmUps)
		}
	}
}

// Whatever members own and hold: no task has two owners at any time, none waits for its
// state while somebody has it, and in the end shares are even and standbys complete.
func TestCooperativeConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.settle(t)
		capacity, copies := 0, make(map[plan.TaskID]int)
		for _, m := range f.members {
			capacity += m.Capacity
		}
		for i, s := range f.last {
			fair := float64(len(f.goal.Tasks)) * float64(f.members[i].Capacity) / float64(capacity)
			if d := float64(len(s.Tasks)) - fair; d >= 1 || d <= -1 {
				t.Errorf("%s has %d tasks, its share is %.2f", s.Member, len(s.Tasks), fair)
			}
			for _, b := range s.Standbys {
				copies[b.Task]++
			}
		}
		for task := range f.goal.Ends {
			if want := min(f.goal.Standbys, len(f.members)-1); copies[task] != want {
				t.Errorf("%v has %d copies, want %d", task, copies[task], want)
			}
		}
	})
}

// Who joins gets no more than its share, and nobody else anything; what a member that
// leaves has run is all that moves, and goes to copies of it first.
func TestJoiningAndLeavingMoveNoMoreThanNeeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		for i := range f.members {
			f.members[i].Capacity = 2
		}
		f.settle(t)
		before := owners(f.last)
		f.members = append(f.members, Member{ID: "new", Capacity: 2})
		f.settle(t)
		moved := 0
		for task, owner := range owners(f.last) {
			if owner == before[task] {
				continue
			}
			if moved++; owner != "new" {
				t.Errorf("%v went from %s to %s when another joined", task, before[task], owner)
			}
		}
		if most := (len(f.goal.Tasks) + len(f.members) - 1) / len(f.members); moved > most {
			t.Errorf("%d tasks moved, the share is %d", moved, most)
		}
		before = owners(f.last)
		gone := rapid.IntRange(0, len(f.members)-1).Draw(t, "gone")
		left := f.members[gone].ID
		f.members = slices.Delete(f.members, gone, gone+1)
		if len(f.members) == 0 {
			return
		}
		f.assign(t)
		for task, owner := range owners(f.last) {
			if owner != before[task] && before[task] != left {
				t.Errorf("%v went from %s to %s when %s left", task, before[task], owner, left)
			}
		}
	})
}

func TestOrderOfMembersDoesNotMatterToCopies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		first, _ := Cooperative(f.goal, f.members)
		again, _ := Cooperative(f.goal, rapid.Permutation(f.members).Draw(t, "shuffled"))
		if !reflect.DeepEqual(first, again) {
			t.Errorf("%v != %v", first, again)
		}
	})
}

// A member that comes empty-handed warms up before its tasks move, as many at a time as
// are allowed; when it has caught up, they move, in two steps.
func TestTasksWaitForWarmCopies(t *testing.T) {
	goal := Goal{Ends: make(map[plan.TaskID]uint64), AcceptableLag: 10, WarmUps: 1}
	a := Member{ID: "a"}
	for p := range int32(4) {
		task := plan.TaskID{Partition: p}
		goal.Tasks, goal.Ends[task] = append(goal.Tasks, task), 1000
		a.Owned, a.Restored = append(a.Owned, task), append(a.Restored, Restored{task, Current})
	}
	b := Member{ID: "b"}
	step := func(want string) []Share {
		t.Helper()
		shares, moving := Cooperative(goal, []Member{a, b})
		text := fmt.Sprintf("a %v %v, b %v %v, %d moving", shares[0].Tasks, shares[0].Standbys, shares[1].Tasks, shares[1].Standbys, moving)
		if text != want {
			t.Fatalf("got  %s\nwant %s", text, want)
		}
		return shares
	}
	step("a [0_0 0_1 0_2 0_3] [], b [] [{0_2 true}], 0 moving")
	b.Restored = []Restored{{goal.Tasks[2], 500}}
	step("a [0_0 0_1 0_2 0_3] [], b [] [{0_2 true}], 0 moving")
	b.Restored[0].Offset = 995
	a.Owned = step("a [0_0 0_1 0_3] [], b [] [{0_2 false} {0_3 true}], 1 moving")[0].Tasks
	a.Restored[2].Offset = 1000
	b.Owned = step("a [0_0 0_1 0_3] [], b [0_2] [{0_3 true}], 0 moving")[1].Tasks
	b.Restored = []Restored{{goal.Tasks[2], Current}, {goal.Tasks[3], 1000}}
	a.Owned = step("a [0_0 0_1] [], b [0_2] [{0_3 false}], 1 moving")[0].Tasks
	step("a [0_0 0_1] [], b [0_2 0_3] [], 0 moving")
}

// The tasks of a member that has gone run on at once where their copies are, even beyond
// an even share.
func TestTasksGoToTheirCopies(t *testing.T) {
	goal := Goal{Ends: make(map[plan.TaskID]uint64), AcceptableLag: 10, WarmUps: 2, Standbys: 1}
	b := Member{ID: "b"}
	for p := range int32(4) {
		task := plan.TaskID{Partition: p}
		goal.Tasks, goal.Ends[task] = append(goal.Tasks, task), 1000
		b.Restored = append(b.Restored, Restored{task, 998})
	}
	shares, moving := Cooperative(goal, []Member{b, {ID: "c"}})
	if want := goal.Tasks; !slices.Equal(shares[0].Tasks, want) || len(shares[1].Tasks) != 0 || moving != 0 {
		t.Fatalf("shares are %v", shares)
	}
	var warmUps, standbys int
	for _, s := range shares[1].Standbys {
		if s.WarmUp {
			warmUps++
		} else {
			standbys++
		}
	}
	if warmUps != 2 || standbys != 2 { // what warms up is a copy already
		t.Errorf("c follows %v", shares[1].Standbys)
	}
}

// After both processes of an app had lost their tasks, one of them by a death and the other
// by a suspension, the one with a little more of everything on disk got all tasks with
// state, and the other all those without: its stores and its memory did nothing.
func TestStateIsSpreadThoughOneHasABitMoreOfIt(t *testing.T) {
	goal := Goal{Ends: map[plan.TaskID]uint64{}, AcceptableLag: 10_000}
	ahead, behind := Member{ID: "a", Capacity: 2}, Member{ID: "b", Capacity: 2}
	for p := range int32(8) {
		stateless, stateful := plan.TaskID{SubTopology: 0, Partition: p}, plan.TaskID{SubTopology: 1, Partition: p}
		goal.Tasks = append(goal.Tasks, stateless, stateful)
		goal.Ends[stateful] = 1000
		ahead.Restored = append(ahead.Restored, Restored{stateful, 900})
		behind.Restored = append(behind.Restored, Restored{stateful, 850})
	}
	shares, moving := Cooperative(goal, []Member{ahead, behind})
	if moving != 0 {
		t.Errorf("%d tasks move", moving)
	}
	for _, s := range shares {
		counts := map[int]int{}
		for _, task := range s.Tasks {
			counts[task.SubTopology]++
		}
		if counts[0] != 4 || counts[1] != 4 {
			t.Errorf("%s runs %d tasks without state and %d with", s.Member, counts[0], counts[1])
		}
	}
}

// A process that comes back keeps what it has all of, while the other has a little less.
func TestStateStaysWhereMostOfItIs(t *testing.T) {
	goal := Goal{Ends: map[plan.TaskID]uint64{}, AcceptableLag: 10_000}
	members := []Member{{ID: "a"}, {ID: "b"}}
	for p := range int32(8) {
		task := plan.TaskID{SubTopology: 1, Partition: p}
		goal.Tasks, goal.Ends[task] = append(goal.Tasks, task), 1000
		for i := range members {
			at := uint64(800)
			if (p < 4) == (i == 1) {
				at = 1000
			}
			members[i].Restored = append(members[i].Restored, Restored{task, at})
		}
	}
	shares, _ := Cooperative(goal, members)
	for i, s := range shares {
		if len(s.Tasks) != 4 || slices.ContainsFunc(s.Tasks, func(task plan.TaskID) bool { return (task.Partition < 4) != (i == 1) }) {
			t.Errorf("%s runs %v", s.Member, s.Tasks)
		}
	}
}
