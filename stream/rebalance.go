package stream

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

// groupProtocol names the assignor; a change of its messages needs a new name.
const groupProtocol = "leat-sticky-3"

// protocol is the assignor's name with what its tasks mean: the sub-topologies and the
// topics that each of them reads. The group admits members of one protocol at a time, so
// that programs whose tasks differ never share them.
func (a *App) protocol() string {
	h := fnv.New64a()
	for i := range a.plan.SubTopologies {
		var topics []string
		for _, s := range a.plan.SubTopologies[i].Sources {
			topics = append(topics, s.FullName(a.cfg.AppID))
		}
		slices.Sort(topics)
		fmt.Fprintln(h, i, topics)
	}
	return fmt.Sprintf("%s-%016x", groupProtocol, h.Sum64())
}

// awaitOthers tells that the group does not admit this process yet.
func (a *App) awaitOthers(err error) {
	err = fmt.Errorf("processes that run another topology, whose tasks differ, are in the group; this one waits until they have left: %w", err)
	a.log.Warn().Err(err).Msg("waiting for processes with another topology")
	a.status.report(err)
}

// newGroup makes the App's membership.
func (a *App) newGroup() *client.Group {
	topics := make(map[string]struct{})
	for i := range a.plan.SubTopologies {
		for _, s := range a.plan.SubTopologies[i].Sources {
			topics[s.FullName(a.cfg.AppID)] = struct{}{}
		}
	}
	names := make([]string, 0, len(topics))
	for name := range topics {
		names = append(names, name)
	}
	return a.client.NewGroup(client.GroupConfig{
		Group: a.cfg.AppID, InstanceID: a.cfg.InstanceID, Protocol: a.protocol(), Topics: names,
		SessionTimeout: a.cfg.SessionTimeout,
		UserData:       a.userData, Assign: a.assign, Assigned: a.assigned, Lost: a.lost,
		OtherProtocol: a.awaitOthers,
	})
}

// userData is what the group's leader learns of this process.
func (a *App) userData() []byte {
	a.status.setAssigned(false)
	m := assign.Member{Capacity: a.cfg.Workers, Address: a.queryAddress}
	a.mu.Lock()
	for id := range a.owned {
		m.Owned = append(m.Owned, id)
	}
	a.mu.Unlock()
	slices.SortFunc(m.Owned, assign.CompareTasks)
	m.Standbys, m.Restored = a.held()
	return assign.AppendMember(nil, m)
}

// held tells the tasks that this process follows, and how much it has of the state of each
// task: all, of those that run; what it has reached, of those that it follows; what is
// on disk of others.
func (a *App) held() (standbys []plan.TaskID, out []assign.Restored) {
	reached := make(map[plan.TaskID]uint64)
	for _, b := range a.standbys.following() {
		standbys = append(standbys, b.id)
		reached[b.id] = b.reached()
	}
	q := a.queries.Load()
	disk, _ := a.disk.(interface {
		Held(task, store string) (state.Position, bool)
	})
	for _, id := range a.layout.Tasks {
		specs := a.changelogged(id)
		if len(specs) == 0 {
			continue
		}
		sum, followed := reached[id]
		if !followed && disk != nil {
			for _, spec := range specs {
				if p, ok := disk.Held(id.String(), spec.Name); ok && !spec.InMemory {
					sum += uint64(max(0, p.Offset))
				}
			}
		}
		if q != nil && q.runs(id) {
			sum = assign.Current
		}
		if sum > 0 {
			out = append(out, assign.Restored{Task: id, Offset: sum})
		}
	}
	return standbys, out
}

// changelogged are the stores of a task that have a changelog: its state that can move.
func (a *App) changelogged(id plan.TaskID) []state.Spec {
	var out []state.Spec
	for _, spec := range a.plan.SubTopologies[id.SubTopology].Stores {
		if !spec.NoChangelog {
			out = append(out, spec)
		}
	}
	return out
}

// endsTimeout bounds how long an assignment waits for the ends of the changelogs.
const endsTimeout = 5 * time.Second

// changelogEnds returns, for each task that has state, the sum of the ends of its
// changelogs. When the cluster does not tell, it goes by who holds most.
func (a *App) changelogEnds(ctx context.Context, members []assign.Member) map[plan.TaskID]uint64 {
	ends := make(map[plan.TaskID]uint64)
	var partitions []client.Partition
	for _, id := range a.layout.Tasks {
		for _, spec := range a.changelogged(id) {
			ends[id] = 0
			partitions = append(partitions, a.changelogPartition(id, spec))
		}
	}
	if len(partitions) == 0 {
		return ends
	}
	ctx, cancel := context.WithTimeout(ctx, endsTimeout)
	defer cancel()
	offsets, err := a.client.ListOffsets(ctx, partitions, client.LatestOffset, true)
	if err != nil {
		a.log.Warn().Err(err).Msg("the ends of the changelogs are not known; assigning tasks by who holds most of their state")
		for _, m := range members {
			for _, r := range m.Restored {
				if _, stateful := ends[r.Task]; stateful && r.Offset != assign.Current {
					ends[r.Task] = max(ends[r.Task], r.Offset)
				}
			}
		}
		return ends
	}
	for _, id := range a.layout.Tasks {
		for _, spec := range a.changelogged(id) {
			ends[id] += uint64(max(0, offsets[a.changelogPartition(id, spec)]))
		}
	}
	return ends
}

// assign runs on the group's leader: it deals the tasks out.
func (a *App) assign(ctx context.Context, members []client.Member) ([]client.Assignment, error) {
	list := make([]assign.Member, len(members))
	for i, m := range members {
		decoded, err := assign.DecodeMember(m.UserData)
		if err != nil {
			return nil, fmt.Errorf("member %q of group %q: %w", m.ID, a.cfg.AppID, err)
		}
		decoded.ID = m.ID
		list[i] = decoded
	}
	shares, moving := assign.Cooperative(assign.Goal{
		Tasks: a.layout.Tasks, Ends: a.changelogEnds(ctx, list), Standbys: a.cfg.StandbyReplicas,
		AcceptableLag: uint64(a.cfg.AcceptableRecoveryLag), WarmUps: a.cfg.MaxWarmupReplicas,
	}, list)
	owners := assign.Owners(shares, list)
	out := make([]client.Assignment, len(shares))
	standbys := 0
	for i, s := range shares {
		standbys += len(s.Standbys)
		told := assign.Told{Tasks: s.Tasks, Standbys: s.Standbys, Owners: owners}
		out[i] = client.Assignment{Member: s.Member, UserData: assign.AppendTold(nil, told), Partitions: make(map[string][]int32)}
		for _, id := range s.Tasks {
			for _, p := range a.sourcePartitions(id) {
				if !slices.Contains(out[i].Partitions[p.Topic], p.Partition) {
					out[i].Partitions[p.Topic] = append(out[i].Partitions[p.Topic], p.Partition)
				}
			}
		}
	}
	a.log.Info().Int("members", len(members)).Int("tasks", len(a.layout.Tasks)).Int("moving", moving).Int("standbys", standbys).Msg("assigned the tasks")
	return out, nil
}

// sourcePartitions are the partitions that a task reads.
func (a *App) sourcePartitions(id plan.TaskID) []client.Partition {
	var out []client.Partition
	for _, s := range a.plan.SubTopologies[id.SubTopology].Sources {
		if name := s.FullName(a.cfg.AppID); id.Partition < a.layout.Partitions[name] {
			out = append(out, client.Partition{Topic: name, Partition: id.Partition})
		}
	}
	return out
}

// assigned takes up an assignment: tasks that leave are committed and closed
// first, everywhere, then those that come are opened, on their warm copies if there are, and
// then come the standbys, which may follow tasks that have left. It asks for another round
// when this process has given up tasks that wait for a new owner.
func (a *App) assigned(userData []byte) (rejoin bool, err error) {
	if a.stopping.Load() {
		return false, nil
	}
	told, err := assign.DecodeTold(userData)
	if err != nil {
		return false, err
	}
	a.queries.Load().setOwners(told.Owners)
	if err := a.knows(told); err != nil {
		return false, err
	}
	a.mu.Lock()
	before := a.owned
	a.mu.Unlock()
	placed := a.place(told.Tasks, before)
	closing := make(map[*worker]<-chan struct{})
	for _, w := range a.workers {
		var leave []plan.TaskID
		for id, at := range before {
			if to, stays := placed[id]; at == w.index && (!stays || to != at) {
				leave = append(leave, id)
			}
		}
		if len(leave) > 0 {
			closing[w] = w.revoke(leave)
		}
	}
	for w, done := range closing {
		w.await(done)
	}
	for id := range before {
		if _, stays := placed[id]; !stays {
			rejoin = true
		}
	}
	a.standbys.settle(told.Standbys, placed)
	a.mu.Lock()
	a.owned = placed
	a.mu.Unlock()
	for _, w := range a.workers {
		var come []plan.TaskID
		for id, to := range placed {
			if at, had := before[id]; to == w.index && (!had || at != to) {
				come = append(come, id)
			}
		}
		if len(come) > 0 {
			slices.SortFunc(come, assign.CompareTasks)
			a.status.addRestoring(len(come))
			w.add(come)
		}
	}
	a.standbys.follow(told.Standbys)
	a.metrics.tasks.Set(float64(len(placed)))
	a.log.Info().Int("tasks", len(placed)).Int("standbys", len(told.Standbys)).Bool("more_to_come", rejoin).Msg("took up the assignment")
	a.status.setAssigned(!rejoin)
	return rejoin, nil
}

// knows checks that an assignment is one of this topology.
func (a *App) knows(told assign.Told) error {
	tasks := slices.Clone(told.Tasks)
	for _, s := range told.Standbys {
		tasks = append(tasks, s.Task)
	}
	for _, id := range tasks {
		if _, found := slices.BinarySearchFunc(a.layout.Tasks, id, assign.CompareTasks); !found {
			return fmt.Errorf("the group's leader assigned task %s, which this program's topology does not have: "+
				"all processes of an app must run the same topology", id)
		}
	}
	return nil
}

// place spreads the process's tasks over its workers; it moves as few as it can.
func (a *App) place(tasks []plan.TaskID, before map[plan.TaskID]int) map[plan.TaskID]int {
	members := make([]assign.Member, len(a.workers))
	for i := range members {
		members[i].ID = fmt.Sprintf("%06d", i)
	}
	for id, at := range before {
		members[at].Owned = append(members[at].Owned, id)
	}
	placed := make(map[plan.TaskID]int, len(tasks))
	for _, share := range assign.Assign(tasks, members) {
		w, err := strconv.Atoi(share.Member)
		if err != nil {
			panic(err) // the name was made above
		}
		for _, id := range share.Tasks {
			placed[id] = w
		}
	}
	return placed
}

// lost gives up every task: the group has given them to others.
func (a *App) lost(err error) {
	a.log.Warn().Err(err).Msg("the group has dropped this process; its tasks start again from their last commit")
	a.status.report(err)
	a.status.setAssigned(false)
	closing := make([]<-chan struct{}, len(a.workers))
	for i, w := range a.workers {
		closing[i] = w.lose()
	}
	for i, w := range a.workers {
		w.await(closing[i])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owned = make(map[plan.TaskID]int)
}
