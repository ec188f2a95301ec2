package assign

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/topology/plan"
)

func drawTasks(t *rapid.T) []plan.TaskID {
	var tasks []plan.TaskID
	for sub := range rapid.IntRange(1, 4).Draw(t, "sub-topologies") {
		for p := range rapid.Int32Range(1, 12).Draw(t, "partitions") {
			tasks = append(tasks, plan.TaskID{SubTopology: sub, Partition: p})
		}
	}
	return tasks
}

func drawMembers(t *rapid.T, tasks []plan.TaskID) []Member {
	members := make([]Member, rapid.IntRange(1, 6).Draw(t, "members"))
	for i := range members {
		members[i] = Member{ID: fmt.Sprintf("m%d", i), Capacity: rapid.IntRange(1, 4).Draw(t, "capacity")}
	}
	for _, task := range tasks {
		if owner := rapid.IntRange(-1, len(members)-1).Draw(t, "owner"); owner >= 0 {
			members[owner].Owned = append(members[owner].Owned, task)
		}
		if holder := rapid.IntRange(-1, len(members)-1).Draw(t, "holder"); holder >= 0 {
			members[holder].Restored = append(members[holder].Restored, Restored{task, rapid.Uint64Range(1, 1000).Draw(t, "offset")})
		}
	}
	return members
}

func owners(assigned []Share) map[plan.TaskID]string {
	out := make(map[plan.TaskID]string)
	for _, a := range assigned {
		for _, t := range a.Tasks {
			out[t] += a.Member
		}
	}
	return out
}

func TestEveryTaskHasOneMemberAndSharesAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tasks := drawTasks(t)
		members := drawMembers(t, tasks)
		assigned := Assign(tasks, members)
		capacity := 0
		for _, m := range members {
			capacity += m.Capacity
		}
		total := 0
		for i, a := range assigned {
			total += len(a.Tasks)
			fair := float64(len(tasks)) * float64(members[i].Capacity) / float64(capacity)
			if d := float64(len(a.Tasks)) - fair; d >= 1 || d <= -1 {
				t.Errorf("%s has %d tasks, its share is %.2f", a.Member, len(a.Tasks), fair)
			}
		}
		if got := owners(assigned); len(got) != len(tasks) || total != len(tasks) {
			t.Errorf("%d tasks given %d times, want %d", len(got), total, len(tasks))
		}
	})
}

func TestOrderOfMembersDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tasks := drawTasks(t)
		members := drawMembers(t, tasks)
		shuffled := rapid.Permutation(members).Draw(t, "shuffled")
		moreTasks := rapid.Permutation(tasks).Draw(t, "tasks")
		if a, b := Assign(tasks, members), Assign(moreTasks, shuffled); !reflect.DeepEqual(a, b) {
			t.Errorf("%v != %v", a, b)
		}
	})
}

// A task leaves its owner only when the owner has more than its share.
func TestTasksStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tasks := drawTasks(t)
		members := drawMembers(t, tasks)
		assigned := Assign(tasks, members)
		now := owners(assigned)
		for i, m := range members {
			kept := 0
			for _, task := range m.Owned {
				if now[task] == m.ID {
					kept++
				}
			}
			if want := min(len(m.Owned), len(assigned[i].Tasks)); kept != want {
				t.Errorf("%s keeps %d of %d tasks, has %d in all", m.ID, kept, len(m.Owned), len(assigned[i].Tasks))
			}
		}
		// An assignment that is taken up is stable.
		for i := range members {
			members[i].Owned = assigned[i].Tasks
		}
		if again := Assign(tasks, members); !reflect.DeepEqual(again, assigned) {
			t.Errorf("again: %v, before: %v", again, assigned)
		}
	})
}

func TestTasksComeBackToTheirState(t *testing.T) {
	tasks := []plan.TaskID{{Partition: 0}, {Partition: 1}, {Partition: 2}, {Partition: 3}}
	members := []Member{
		{ID: "a", Restored: []Restored{{tasks[2], 10}, {tasks[3], 5}}},
		{ID: "b", Restored: []Restored{{tasks[3], 9}, {tasks[0], 1}}},
	}
	want := []Share{{Member: "a", Tasks: []plan.TaskID{tasks[1], tasks[2]}}, {Member: "b", Tasks: []plan.TaskID{tasks[0], tasks[3]}}}
	if got := Assign(tasks, members); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSubTopologiesSpread(t *testing.T) {
	var tasks []plan.TaskID
	for sub := range 3 {
		for p := range int32(4) {
			tasks = append(tasks, plan.TaskID{SubTopology: sub, Partition: p})
		}
	}
	for _, a := range Assign(tasks, []Member{{ID: "a"}, {ID: "b"}}) {
		bySub := make(map[int]int)
		for _, task := range a.Tasks {
			bySub[task.SubTopology]++
		}
		for sub, n := range bySub {
			if n != 2 {
				t.Errorf("%s has %d tasks of sub-topology %d", a.Member, n, sub)
			}
		}
	}
}

// Repeating "give up, join again" hands every task over without two owners.
func TestStatelessTasksAreHandedOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tasks := drawTasks(t)
		members := drawMembers(t, tasks)
		for round := 0; ; round++ {
			assigned, moving := Cooperative(Goal{Tasks: tasks}, members)
			owner := make(map[plan.TaskID]string)
			for _, m := range members {
				for _, task := range m.Owned {
					owner[task] = m.ID
				}
			}
			for task, member := range owners(assigned) {
				if held, ok := owner[task]; ok && held != member {
					t.Fatalf("%v goes to %s while %s runs it", task, member, held)
				}
			}
			for i := range members {
				members[i].Owned = assigned[i].Tasks
			}
			if moving == 0 {
				if got := owners(assigned); len(got) != len(tasks) {
					t.Fatalf("%d of %d tasks have an owner", len(got), len(tasks))
				}
				return
			}
			if round == 3 {
				t.Fatal("does not come to rest")
			}
		}
	})
}

func TestMessagesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tasks := drawTasks(t)
		m := drawMembers(t, tasks)[0]
		m.Standbys = tasks
		m.Address = rapid.StringN(0, 20, 80).Draw(t, "address")
		got, err := DecodeMember(AppendMember(nil, m))
		m.ID = ""
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("member %+v, %v; want %+v", got, err, m)
		}
		m.ID, m.Address = "m", "host:1"
		shares := []Share{{Member: "m", Tasks: tasks, Standbys: []Standby{{plan.TaskID{Partition: 99}, true}, {plan.TaskID{SubTopology: 300}, false}}}, {Member: "silent", Tasks: tasks}}
		owners := Owners(shares, []Member{m, {ID: "silent"}})
		if len(owners) != 1 || owners[0].Address != "host:1" || len(owners[0].Standbys) != 2 {
			t.Errorf("owners %v", owners)
		}
		told := Told{Tasks: tasks, Standbys: shares[0].Standbys, Owners: owners}
		if back, err := DecodeTold(AppendTold(nil, told)); err != nil || !reflect.DeepEqual(back, told) {
			t.Errorf("told %+v, %v; want %+v", back, err, told)
		}
	})
}

func FuzzDecodeMember(f *testing.F) {
	f.Add(AppendMember(nil, Member{Capacity: 2, Owned: []plan.TaskID{{SubTopology: 1, Partition: 2}}, Restored: []Restored{{Offset: 9}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeMember(b); err != nil && !errors.Is(err, ErrMessage) {
			t.Fatal(err)
		} else if err == nil && len(m.Owned)+len(m.Restored) > len(b) {
			t.Fatalf("%d tasks out of %d bytes", len(m.Owned)+len(m.Restored), len(b))
		}
		if _, err := DecodeTold(b); err != nil && !errors.Is(err, ErrMessage) {
			t.Fatal(err)
		}
	})
}

func source(name string, internal bool, partitions int32) plan.Source {
	return plan.Source{Topic: plan.Topic{Name: name, Internal: internal, Partitions: partitions}, Operator: "from-" + name}
}

func sink(name string, internal bool) plan.Sink {
	return plan.Sink{Topic: plan.Topic{Name: name, Internal: internal}, Operator: "to-" + name}
}

func TestLayoutOfInternalTopics(t *testing.T) {
	p := &plan.Plan{SubTopologies: []plan.SubTopology{
		{ID: 0, Sources: []plan.Source{source("orders", false, 0)}, Sinks: []plan.Sink{sink("by-user", true), sink("wide", true)}},
		{ID: 1, Sources: []plan.Source{source("by-user", true, 0), source("users", false, 0)},
			Copartitioned: [][]int{{0, 1}}, Sinks: []plan.Sink{sink("joined", true)}},
		{ID: 2, Sources: []plan.Source{source("wide", true, 9)}, Sinks: []plan.Sink{sink("out", false)}},
		{ID: 3, Sources: []plan.Source{source("joined", true, 0)}},
	}}
	l, err := NewLayout(p, "app", map[string]int32{"orders": 3, "users": 5, "out": 1})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int32{"orders": 3, "users": 5, "out": 1, "app-by-user-repartition": 5, "app-wide-repartition": 9, "app-joined-repartition": 5}
	if !reflect.DeepEqual(l.Partitions, want) {
		t.Errorf("partitions = %v, want %v", l.Partitions, want)
	}
	if len(l.Tasks) != 3+5+9+5 {
		t.Errorf("%d tasks", len(l.Tasks))
	}
}

func TestLayoutErrors(t *testing.T) {
	joined := &plan.Plan{SubTopologies: []plan.SubTopology{
		{Sources: []plan.Source{source("a", false, 0), source("b", false, 0)}, Copartitioned: [][]int{{0, 1}}},
	}}
	loop := &plan.Plan{SubTopologies: []plan.SubTopology{
		{Sources: []plan.Source{source("x", true, 0)}, Sinks: []plan.Sink{sink("x", true)}},
	}}
	for _, c := range []struct {
		name     string
		plan     *plan.Plan
		external map[string]int32
		want     string
	}{
		{"missing topic", joined, map[string]int32{"a": 1}, `topic "b", which is read by source "from-b", does not exist`},
		{"not co-partitioned", joined, map[string]int32{"a": 1, "b": 2}, "a has 1, b has 2"},
		{"loop", loop, nil, `internal topic "app-x-repartition"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := NewLayout(c.plan, "app", c.external); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q in it", err, c.want)
			}
		})
	}
}
