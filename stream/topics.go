package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

// changelogSlack is added to the retention of a window or session store in its changelog, as
// Kafka Streams does: the broker deletes by its own clock.
const changelogSlack = 24 * time.Hour

// purgeInterval is how often processed records of repartition topics are
// deleted.
const purgeInterval = 30 * time.Second

// prepareTopics lays the plan over the cluster's topics, compares it with the one that ran
// last and makes the internal topics that are missing. The plan is written down before, so
// that no internal topic is there without.
func (a *App) prepareTopics(ctx context.Context) error {
	ran, err := a.layOut(ctx)
	if err != nil {
		return err
	}
	if err := a.settlePlan(ctx, ran); err != nil {
		return err
	}
	return a.createInternal(ctx, a.internalTopics())
}

// layOut lays the plan over the cluster's topics; ran says that an app has left its plan
// there.
func (a *App) layOut(ctx context.Context) (ran bool, err error) {
	manifest := plan.ManifestTopicName(a.cfg.AppID)
	external := make(map[string]struct{})
	for i := range a.plan.SubTopologies {
		s := &a.plan.SubTopologies[i]
		for _, source := range s.Sources {
			if !source.Internal {
				external[source.Name] = struct{}{}
			}
		}
		for _, sink := range s.Sinks {
			if !sink.Internal {
				external[sink.Name] = struct{}{}
			}
		}
	}
	if _, taken := external[manifest]; taken {
		return false, fmt.Errorf("topic %q is read or written by the topology, but holds the app's plan: use another topic or AppID", manifest)
	}
	topics, err := a.client.Topics(ctx, append(slices.Sorted(maps.Keys(external)), manifest)...)
	if err != nil {
		return false, err
	}
	_, ran = topics[manifest]
	counts := make(map[string]int32)
	for name := range external {
		if t, ok := topics[name]; ok {
			counts[name] = int32(len(t.Partitions))
		}
	}
	a.layout, err = assign.NewLayout(a.plan, a.cfg.AppID, counts)
	return ran, err
}

// internalTopics describes the repartition and changelog topics, ordered by name.
func (a *App) internalTopics() []client.NewTopic {
	byName := make(map[string]client.NewTopic)
	add := func(name string, partitions int32, config map[string]string) {
		byName[name] = client.NewTopic{Name: name, Partitions: partitions, Replication: a.cfg.ReplicationFactor, Config: config}
	}
	repartition := func(t plan.Topic) {
		if name := t.FullName(a.cfg.AppID); t.Internal {
			// What is processed is deleted record by record (purge), never by age: a late
			// reader must find all of it.
			a.repartition[name] = true
			add(name, a.layout.Partitions[name], map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"})
		}
	}
	for i := range a.plan.SubTopologies {
		s := &a.plan.SubTopologies[i]
		for _, source := range s.Sources {
			repartition(source.Topic)
		}
		for _, sink := range s.Sinks {
			repartition(sink.Topic)
		}
		for _, spec := range s.Stores {
			if !spec.NoChangelog {
				add(plan.ChangelogTopic(a.cfg.AppID, spec.Name), a.taskCount(s.ID), changelogConfig(spec))
			}
		}
	}
	out := make([]client.NewTopic, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

func changelogConfig(spec state.Spec) map[string]string {
	if spec.Kind.Expires() {
		return map[string]string{
			"cleanup.policy": "compact,delete",
			"retention.ms":   strconv.FormatInt((spec.Retention + changelogSlack).Milliseconds(), 10),
		}
	}
	return map[string]string{"cleanup.policy": "compact"}
}

// taskCount is the number of tasks of a sub-topology.
func (a *App) taskCount(sub int) int32 {
	var n int32
	for _, t := range a.layout.Tasks {
		if t.SubTopology == sub {
			n++
		}
	}
	return n
}

// createInternal makes what is missing and checks the partitions of what is
// there. Members that start together may race: whoever comes second finds it.
func (a *App) createInternal(ctx context.Context, wanted []client.NewTopic) error {
	if len(wanted) == 0 {
		return nil
	}
	names := make([]string, len(wanted))
	for i, t := range wanted {
		names[i] = t.Name
	}
	for try := 0; ; try++ {
		topics, err := a.client.Topics(ctx, names...)
		if err != nil {
			return err
		}
		var missing []client.NewTopic
		for _, w := range wanted {
			t, ok := topics[w.Name]
			if !ok {
				missing = append(missing, w)
				continue
			}
			if n := int32(len(t.Partitions)); n != w.Partitions {
				return fmt.Errorf("internal topic %q has %d partitions, the topology needs %d: its input has changed; "+
					"run under another AppID, or delete the app's internal topics and start it from its inputs", w.Name, n, w.Partitions)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		if try > 100 {
			return fmt.Errorf("internal topic %q was created but does not show up", missing[0].Name)
		}
		for _, t := range missing {
			err := a.client.CreateTopics(ctx, t)
			if errors.Is(err, client.ErrTopicExists) { // another member has just made it
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
				continue
			}
			if err != nil {
				return err
			}
			a.log.Info().Str("topic", t.Name).Int32("partitions", t.Partitions).Msg("created an internal topic")
		}
	}
}

// purge deletes, now and then, the records of repartition topics that are
// processed and committed.
func (a *App) purge(ctx context.Context) {
	ticker := time.NewTicker(purgeInterval)
	defer ticker.Stop()
	done := make(map[client.Partition]int64)
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		before := make(map[client.Partition]int64)
		for _, w := range a.workers {
			for p, offset := range w.takePurgeable() {
				if offset > done[p] {
					before[p], done[p] = offset, offset
				}
			}
		}
		if err := a.client.DeleteRecords(ctx, before); err != nil && ctx.Err() == nil {
			a.log.Debug().Err(err).Msg("deleting processed records of repartition topics failed; trying again later")
		}
	}
}
