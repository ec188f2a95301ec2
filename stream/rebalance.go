package stream

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

// groupProtocol names the assignor; a change of its messages needs a new name.
const groupProtocol = "leat-sticky-2"

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
	a.mu.Lock()
	defer a.mu.Unlock()
	m := assign.Member{Capacity: a.cfg.Workers, Address: a.queryAddress}
	for id := range a.owned {
		m.Owned = append(m.Owned, id)
	}
	slices.SortFunc(m.Owned, assign.CompareTasks)
	m.Restored = a.held()
	return assign.AppendMember(nil, m)
}

// held tells the tasks whose stores are on this process's disk, as badgerstore
// lays them out: <task>/<store>/checkpoint. The time of the checkpoint stands for
// the offset: the later, the less is to be restored.
func (a *App) held() []assign.Restored {
	if a.cfg.StateDir == "" {
		return nil
	}
	var out []assign.Restored
	for _, id := range a.layout.Tasks {
		for _, spec := range a.plan.SubTopologies[id.SubTopology].Stores {
			info, err := os.Stat(filepath.Join(a.cfg.StateDir, id.String(), spec.Name, "checkpoint"))
			if err == nil {
				out = append(out, assign.Restored{Task: id, Offset: uint64(max(0, info.ModTime().UnixMilli()))})
				break
			}
		}
	}
	return out
}

// assign runs on the group's leader: it deals the tasks out.
func (a *App) assign(_ context.Context, members []client.Member) ([]client.Assignment, error) {
	list := make([]assign.Member, len(members))
	for i, m := range members {
		decoded, err := assign.DecodeMember(m.UserData)
		if err != nil {
			return nil, fmt.Errorf("member %q of group %q: %w", m.ID, a.cfg.AppID, err)
		}
		decoded.ID = m.ID
		list[i] = decoded
	}
	tasks, moving := assign.Cooperative(a.layout.Tasks, list)
	a.log.Info().Int("members", len(members)).Int("tasks", len(a.layout.Tasks)).Int("moving", moving).Msg("assigned the tasks")
	owners := assign.Owners(tasks, list)
	out := make([]client.Assignment, len(tasks))
	for i, t := range tasks {
		out[i] = client.Assignment{Member: t.Member, UserData: assign.AppendTasks(nil, t.Tasks, owners), Partitions: make(map[string][]int32)}
		for _, id := range t.Tasks {
			for _, p := range a.sourcePartitions(id) {
				if !slices.Contains(out[i].Partitions[p.Topic], p.Partition) {
					out[i].Partitions[p.Topic] = append(out[i].Partitions[p.Topic], p.Partition)
				}
			}
		}
	}
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
// first, everywhere, then those that come are opened. It asks for another round
// when this process has given up tasks that wait for a new owner.
func (a *App) assigned(userData []byte) (rejoin bool, err error) {
	if a.stopping.Load() {
		return false, nil
	}
	tasks, owners, err := assign.DecodeTasks(userData)
	if err != nil {
		return false, err
	}
	a.queries.Load().setOwners(owners)
	for _, id := range tasks {
		if _, found := slices.BinarySearchFunc(a.layout.Tasks, id, assign.CompareTasks); !found {
			return false, fmt.Errorf("the group's leader assigned task %s, which this program's topology does not have: "+
				"all processes of an app must run the same topology", id)
		}
	}
	a.mu.Lock()
	before := a.owned
	a.mu.Unlock()
	placed := a.place(tasks, before)
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
	a.metrics.tasks.Set(float64(len(placed)))
	a.log.Info().Int("tasks", len(placed)).Bool("more_to_come", rejoin).Msg("took up the assignment")
	a.status.setAssigned(!rejoin)
	return rejoin, nil
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
