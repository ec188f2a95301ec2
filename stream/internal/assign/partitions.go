package assign

import (
	"errors"
	"fmt"
	"slices"

	"github.com/leatlog/leat/topology/plan"
)

// Layout is a plan laid over the topics of a cluster.
type Layout struct {
	// Partitions is the number of partitions of every topic of the plan, by full
	// name, the app's own topics included.
	Partitions map[string]int32
	// Tasks are all tasks, ordered. The task of a sub-topology and a partition reads
	// that partition of every source that has it: co-partitioned sources meet there.
	Tasks []plan.TaskID
}

// NewLayout works out how many partitions the app's internal topics have and
// which tasks there are. external holds the counts of the topics that are not
// the app's own; a topic that is missing is an error that names its operators.
//
// An internal topic has, in this order: the count it asks for, the count of the
// topics that it is co-partitioned with, the count of the tasks that write it.
func NewLayout(p *plan.Plan, app string, external map[string]int32) (*Layout, error) {
	l := &Layout{Partitions: make(map[string]int32)}
	if err := l.takeExternal(p, app, external); err != nil {
		return nil, err
	}
	l.askedFor(p, app)
	for l.step(p, app) {
	}
	if err := l.check(p, app); err != nil {
		return nil, err
	}
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		for n := range l.taskCount(s, app) {
			l.Tasks = append(l.Tasks, plan.TaskID{SubTopology: s.ID, Partition: n})
		}
	}
	slices.SortFunc(l.Tasks, CompareTasks)
	return l, nil
}

func (l *Layout) takeExternal(p *plan.Plan, app string, external map[string]int32) error {
	var missing []error
	take := func(t plan.Topic, role, operator string) {
		if t.Internal {
			return
		}
		n, ok := external[t.Name]
		if !ok || n < 1 {
			missing = append(missing, fmt.Errorf("topic %q, which %s %q, does not exist: create it first", t.Name, role, operator))
			return
		}
		l.Partitions[t.FullName(app)] = n
	}
	for i := range p.SubTopologies {
		for _, s := range p.SubTopologies[i].Sources {
			take(s.Topic, "is read by source", s.Operator)
		}
		for _, s := range p.SubTopologies[i].Sinks {
			take(s.Topic, "is written by sink", s.Operator)
		}
	}
	return errors.Join(missing...)
}

// askedFor takes the counts that internal topics ask for themselves.
func (l *Layout) askedFor(p *plan.Plan, app string) {
	ask := func(t plan.Topic) {
		if t.Internal && t.Partitions > 0 {
			l.Partitions[t.FullName(app)] = max(t.Partitions, l.Partitions[t.FullName(app)])
		}
	}
	for i := range p.SubTopologies {
		for _, s := range p.SubTopologies[i].Sources {
			ask(s.Topic)
		}
		for _, s := range p.SubTopologies[i].Sinks {
			ask(s.Topic)
		}
	}
}

// step works out counts that follow from those known; false when none did.
// Co-partitioning goes before the writers: it is a demand, they are a default.
func (l *Layout) step(p *plan.Plan, app string) bool {
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		for _, group := range s.Copartitioned {
			if l.fillGroup(s, group, app) {
				return true
			}
		}
	}
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		if !l.known(s, app) {
			continue
		}
		n := l.taskCount(s, app)
		changed := false
		for _, sink := range s.Sinks {
			if name := sink.FullName(app); sink.Internal && l.Partitions[name] == 0 && n > 0 {
				l.Partitions[name] = n
				changed = true
			}
		}
		if changed {
			return true
		}
	}
	return false
}

// fillGroup gives the internal topics of a co-partitioned group the count of the
// others, once one is known.
func (l *Layout) fillGroup(s *plan.SubTopology, group []int, app string) bool {
	var n int32
	for _, i := range group {
		n = max(n, l.Partitions[s.Sources[i].FullName(app)])
	}
	if n == 0 {
		return false
	}
	changed := false
	for _, i := range group {
		if name := s.Sources[i].FullName(app); s.Sources[i].Internal && l.Partitions[name] == 0 {
			l.Partitions[name] = n
			changed = true
		}
	}
	return changed
}

func (l *Layout) known(s *plan.SubTopology, app string) bool {
	for _, source := range s.Sources {
		if l.Partitions[source.FullName(app)] == 0 {
			return false
		}
	}
	return true
}

// taskCount is the largest number of partitions among the sources.
func (l *Layout) taskCount(s *plan.SubTopology, app string) int32 {
	var n int32
	for _, source := range s.Sources {
		n = max(n, l.Partitions[source.FullName(app)])
	}
	return n
}

func (l *Layout) check(p *plan.Plan, app string) error {
	var wrong []error
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		for _, source := range s.Sources {
			if l.Partitions[source.FullName(app)] == 0 {
				wrong = append(wrong, fmt.Errorf("the number of partitions of internal topic %q (source %q) cannot be worked out: give it one",
					source.FullName(app), source.Operator))
			}
		}
		for _, group := range s.Copartitioned {
			if err := l.checkGroup(s, group, app); err != nil {
				wrong = append(wrong, err)
			}
		}
	}
	return errors.Join(wrong...)
}

func (l *Layout) checkGroup(s *plan.SubTopology, group []int, app string) error {
	list, equal := "", true
	var first int32
	for k, i := range group {
		name := s.Sources[i].FullName(app)
		n := l.Partitions[name]
		if k == 0 {
			first = n
		} else {
			list += ", "
		}
		equal = equal && n == first
		list += fmt.Sprintf("%s has %d", name, n)
	}
	if equal {
		return nil
	}
	return fmt.Errorf("sub-topology %d joins topics by key that must have equal numbers of partitions: %s: repartition one of them", s.ID, list)
}
