package metadata

import (
	"maps"
	"slices"
)

// Delta lists what differs between two images. Topics and partitions come in
// the order in which the changes named them, or sorted by name after Diff.
type Delta struct {
	Offset            int64            // of the later image
	TopicsCreated     []*Topic         // as they are now
	TopicsRemoved     []*Topic         // as they were
	PartitionsChanged []PartitionDelta // new and changed ones, those of created topics included
	TopicConfigs      []*Topic         // topics that were there before and whose Config changed, as they are now
	// BrokersChanged are the ids of brokers registered, fenced, unfenced or removed.
	BrokersChanged []int32
	// BrokerConfigsChanged are the ids whose dynamic configuration changed; -1 the default.
	BrokerConfigsChanged []int32
	ClusterChanged       bool // the cluster id was set
	ControllerChanged    bool
	FeaturesChanged      bool
}

// PartitionDelta is one partition that is new or changed.
type PartitionDelta struct {
	Topic *Topic     // as it is now
	Old   *Partition // nil when it is new
	New   *Partition
}

// topic adds what differs between two states of one topic; either may be nil.
func (d *Delta) topic(before, after *Topic) {
	switch {
	case before == nil && after == nil || before == after:
		return // created and removed by one entry, or not changed
	case after == nil:
		d.TopicsRemoved = append(d.TopicsRemoved, before)
		return
	case before == nil:
		d.TopicsCreated = append(d.TopicsCreated, after)
		before = &Topic{Config: after.Config}
	}
	for n := range after.Partitions {
		p := PartitionDelta{Topic: after, New: &after.Partitions[n]}
		if n < len(before.Partitions) {
			p.Old = &before.Partitions[n]
			if equalPartitions(p.Old, p.New) {
				continue
			}
		}
		d.PartitionsChanged = append(d.PartitionsChanged, p)
	}
	if !maps.Equal(before.Config, after.Config) {
		d.TopicConfigs = append(d.TopicConfigs, after)
	}
}

func equalPartitions(a, b *Partition) bool {
	return a.Leader == b.Leader && a.LeaderEpoch == b.LeaderEpoch && a.PartitionEpoch == b.PartitionEpoch &&
		slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) &&
		slices.Equal(a.ELR, b.ELR) && slices.Equal(a.LastKnownELR, b.LastKnownELR) &&
		slices.Equal(a.Adding, b.Adding) && slices.Equal(a.Removing, b.Removing)
}

// Diff compares two images that need not follow one another, as after the
// restore of a snapshot.
func Diff(before, after *Image) *Delta {
	d := &Delta{
		Offset:            after.offset,
		ClusterChanged:    before.clusterID != after.clusterID,
		ControllerChanged: before.controllerID != after.controllerID || before.controllerEpoch != after.controllerEpoch,
		FeaturesChanged:   !maps.Equal(before.features, after.features),
	}
	for _, t := range before.Topics() {
		if _, ok := after.TopicByID(t.ID); !ok {
			d.topic(t, nil)
		}
	}
	for _, t := range after.Topics() {
		was, _ := before.TopicByID(t.ID)
		d.topic(was, t)
	}
	d.BrokersChanged = diffBrokers(before, after)
	for _, id := range slices.Sorted(maps.Keys(mergeKeys(before.brokerConfigs, after.brokerConfigs))) {
		if !maps.Equal(before.brokerConfigs[id], after.brokerConfigs[id]) {
			d.BrokerConfigsChanged = append(d.BrokerConfigsChanged, id)
		}
	}
	return d
}

func diffBrokers(before, after *Image) []int32 {
	var ids []int32
	for n := range before.brokers {
		if _, ok := after.Broker(before.brokers[n].ID); !ok {
			ids = append(ids, before.brokers[n].ID)
		}
	}
	for n := range after.brokers {
		b := &after.brokers[n]
		was, ok := before.Broker(b.ID)
		if !ok || was.Epoch != b.Epoch || was.Fenced != b.Fenced || was.ControlledShutdown != b.ControlledShutdown || was.Incarnation != b.Incarnation {
			ids = append(ids, b.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func mergeKeys(a, b map[int32]map[string]string) map[int32]bool {
	keys := make(map[int32]bool, len(a)+len(b))
	for id := range a {
		keys[id] = true
	}
	for id := range b {
		keys[id] = true
	}
	return keys
}
