package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Apply returns the image after an entry and what the entry changed. offset and
// epoch are the entry's place in the metadata log; offset may not go back. On an
// error (ErrInconsistent) the image stands as it was; a node that gets one from a
// committed entry must stop, since the others may have applied it.
func (i *Image) Apply(offset int64, epoch int32, changes []Change) (*Image, *Delta, error) {
	if offset < i.offset {
		return nil, nil, fmt.Errorf("%w: entry at offset %d applied after offset %d", ErrInconsistent, offset, i.offset)
	}
	a := newApplier(i, offset, epoch)
	for n, c := range changes {
		if err := a.apply(c); err != nil {
			return nil, nil, fmt.Errorf("entry at offset %d: change %d of %d, %s: %w", offset, n+1, len(changes), c.kind(), err)
		}
	}
	return a.finish()
}

// applier builds the next image: it copies a thing before its first change.
type applier struct {
	old, next *Image
	names     *edit[string, *Topic]
	ids       *edit[UUID, *Topic]
	ownTopic  map[UUID]bool // topics of next that this entry made and may write to
	ownConfig map[UUID]bool
	touched   []UUID // topics in the order of their first change
	seen      map[UUID]bool
	delta     *Delta
}

func newApplier(i *Image, offset int64, epoch int32) *applier {
	next := &Image{
		offset: offset, epoch: epoch, clusterID: i.clusterID,
		controllerID: i.controllerID, controllerEpoch: i.controllerEpoch,
		brokers: i.brokers, byName: i.byName, byID: i.byID, partitions: i.partitions,
		brokerConfigs: i.brokerConfigs, features: i.features,
		nextProducerID: i.nextProducerID, nextBrokerEpoch: i.nextBrokerEpoch,
	}
	return &applier{old: i, next: next, delta: &Delta{Offset: offset},
		ownTopic: map[UUID]bool{}, ownConfig: map[UUID]bool{}, seen: map[UUID]bool{}}
}

func (a *applier) apply(c Change) error {
	switch c := c.(type) {
	case *ClusterChange:
		return a.cluster(c)
	case *ControllerChange:
		a.next.controllerID, a.next.controllerEpoch = c.ID, c.Epoch
		a.delta.ControllerChanged = true
	case *BrokerChange:
		return a.broker(c)
	case *BrokerRemovedChange:
		return a.brokerRemoved(c)
	case *BrokerFenceChange:
		return a.brokerFence(c)
	case *TopicChange:
		return a.topic(c)
	case *TopicRemovedChange:
		return a.topicRemoved(c)
	case *PartitionChange:
		return a.partition(c)
	case *ConfigChange:
		return a.config(c)
	case *ProducerIDsChange:
		if c.Next < a.next.nextProducerID {
			return fmt.Errorf("%w: next producer id %d is below %d", ErrInconsistent, c.Next, a.next.nextProducerID)
		}
		a.next.nextProducerID = c.Next
	case *FeatureChange:
		a.feature(c)
	default:
		return fmt.Errorf("%w: change of type %T", ErrVersion, c)
	}
	return nil
}

func (a *applier) cluster(c *ClusterChange) error {
	if c.ID == "" || (a.next.clusterID != "" && a.next.clusterID != c.ID) {
		return fmt.Errorf("%w: cluster id %.40q, the cluster's is %q", ErrInconsistent, c.ID, a.next.clusterID)
	}
	a.next.clusterID = c.ID
	a.next.nextBrokerEpoch = max(a.next.nextBrokerEpoch, c.NextBrokerEpoch)
	a.delta.ClusterChanged = true
	return nil
}

func (a *applier) broker(c *BrokerChange) error {
	if c.ID < 0 {
		return fmt.Errorf("%w: broker id %d", ErrInconsistent, c.ID)
	}
	b := Broker{ID: c.ID, Incarnation: c.Incarnation, Epoch: c.Epoch, Rack: c.Rack, Listeners: c.Listeners, Roles: c.Roles, Fenced: c.Fenced,
		Directory: c.Directory, ControlledShutdown: c.ControlledShutdown, Features: c.Features, LogsEpoch: c.Epoch}
	if was, known := a.next.Broker(c.ID); known && c.Fenced && was.Directory == c.Directory {
		b.LogsEpoch = was.LogsEpoch
	}
	a.setBroker(b)
	a.next.nextBrokerEpoch = max(a.next.nextBrokerEpoch, c.Epoch+1)
	return nil
}

func (a *applier) setBroker(b Broker) {
	brokers := slices.Clone(a.next.brokers)
	n, ok := slices.BinarySearchFunc(brokers, b.ID, func(x Broker, id int32) int { return int(x.ID) - int(id) })
	if ok {
		brokers[n] = b
	} else {
		brokers = slices.Insert(brokers, n, b)
	}
	a.next.brokers = brokers
	a.delta.BrokersChanged = append(a.delta.BrokersChanged, b.ID)
}

func (a *applier) brokerRemoved(c *BrokerRemovedChange) error {
	if _, ok := a.next.Broker(c.ID); !ok {
		return fmt.Errorf("%w: broker %d is not registered", ErrInconsistent, c.ID)
	}
	a.next.brokers = slices.DeleteFunc(slices.Clone(a.next.brokers), func(b Broker) bool { return b.ID == c.ID })
	a.delta.BrokersChanged = append(a.delta.BrokersChanged, c.ID)
	return nil
}

func (a *applier) brokerFence(c *BrokerFenceChange) error {
	b, ok := a.next.Broker(c.ID)
	if !ok || b.Epoch != c.Epoch {
		return fmt.Errorf("%w: broker %d with epoch %d is not registered", ErrInconsistent, c.ID, c.Epoch)
	}
	changed := *b
	changed.Fenced, changed.ControlledShutdown = c.Fenced, c.ControlledShutdown
	if !c.Fenced {
		changed.LogsEpoch = c.Epoch
	}
	a.setBroker(changed)
	return nil
}

func (a *applier) feature(c *FeatureChange) {
	features := maps.Clone(a.next.features)
	if features == nil {
		features = map[string]int16{}
	}
	if c.Level == 0 {
		delete(features, c.Name)
	} else {
		features[c.Name] = c.Level
	}
	a.next.features = features
	a.delta.FeaturesChanged = true
}

func (a *applier) lookup(id UUID) (*Topic, bool) { return a.next.byID.get(hashID(id), id) }

// put makes t the topic of its name and id in the next image.
func (a *applier) put(t *Topic) {
	a.editTopics()
	a.names.set(hashName(t.Name), t.Name, t)
	a.ids.set(hashID(t.ID), t.ID, t)
	a.ownTopic[t.ID] = true
}

func (a *applier) editTopics() {
	if a.names == nil {
		a.names, a.ids = a.next.byName.edit(), a.next.byID.edit()
		a.next.byName, a.next.byID = a.names.next, a.ids.next
	}
}

func (a *applier) touch(id UUID) {
	if !a.seen[id] {
		a.seen[id] = true
		a.touched = append(a.touched, id)
	}
}

// own returns the topic for writing.
func (a *applier) own(id UUID) (*Topic, error) {
	t, ok := a.lookup(id)
	if !ok {
		return nil, fmt.Errorf("%w: no topic with id %s", ErrInconsistent, id)
	}
	a.touch(id)
	if !a.ownTopic[id] {
		copied := *t
		copied.Partitions = slices.Clone(t.Partitions)
		t = &copied
		a.put(t)
	}
	return t, nil
}

func (a *applier) topic(c *TopicChange) error {
	if err := ValidateTopicName(c.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrInconsistent, err)
	}
	if _, ok := a.next.Topic(c.Name); ok {
		return fmt.Errorf("%w: topic %q exists", ErrInconsistent, c.Name)
	}
	if _, ok := a.lookup(c.ID); ok || c.ID.IsZero() {
		return fmt.Errorf("%w: topic %q: id %s is taken or zero", ErrInconsistent, c.Name, c.ID)
	}
	a.touch(c.ID)
	a.put(&Topic{Name: c.Name, ID: c.ID})
	a.ownConfig[c.ID] = true
	return nil
}

func (a *applier) topicRemoved(c *TopicRemovedChange) error {
	t, ok := a.lookup(c.ID)
	if !ok {
		return fmt.Errorf("%w: no topic with id %s", ErrInconsistent, c.ID)
	}
	a.touch(c.ID)
	a.editTopics()
	a.names.remove(hashName(t.Name), t.Name)
	a.ids.remove(hashID(t.ID), t.ID)
	a.next.partitions -= len(t.Partitions)
	return nil
}

func (a *applier) partition(c *PartitionChange) error {
	t, err := a.own(c.Topic)
	if err != nil {
		return err
	}
	if len(c.Replicas) == 0 {
		return fmt.Errorf("%w: %s-%d has no replicas", ErrInconsistent, t.Name, c.Partition)
	}
	p := Partition{ID: c.Partition, Replicas: c.Replicas, ISR: c.ISR, ELR: c.ELR, LastKnownELR: c.LastKnownELR,
		Leader: c.Leader, LeaderEpoch: c.LeaderEpoch, PartitionEpoch: c.PartitionEpoch, Adding: c.Adding, Removing: c.Removing}
	switch n := int(c.Partition); {
	case n == len(t.Partitions):
		t.Partitions = append(t.Partitions, p)
		a.next.partitions++
	case n >= 0 && n < len(t.Partitions):
		if was := &t.Partitions[n]; p.LeaderEpoch < was.LeaderEpoch || p.PartitionEpoch < was.PartitionEpoch {
			return fmt.Errorf("%w: %s-%d: leader epoch %d, partition epoch %d go back from %d, %d", ErrInconsistent,
				t.Name, n, p.LeaderEpoch, p.PartitionEpoch, was.LeaderEpoch, was.PartitionEpoch)
		}
		t.Partitions[n] = p
	default:
		return fmt.Errorf("%w: partition %d of topic %q, which has %d", ErrInconsistent, n, t.Name, len(t.Partitions))
	}
	return nil
}

func (a *applier) config(c *ConfigChange) error {
	switch c.Resource {
	case TopicResource:
		named, ok := a.next.Topic(c.Name)
		if !ok {
			return fmt.Errorf("%w: no topic %q", ErrInconsistent, c.Name)
		}
		t, err := a.own(named.ID)
		if err != nil {
			return err
		}
		if !a.ownConfig[t.ID] {
			t.Config = maps.Clone(t.Config)
			a.ownConfig[t.ID] = true
		}
		t.Config = setConfig(t.Config, c)
	case BrokerResource:
		id := int64(-1)
		if c.Name != "" {
			var err error
			if id, err = strconv.ParseInt(c.Name, 10, 32); err != nil || id < 0 {
				return fmt.Errorf("%w: broker %.40q", ErrInconsistent, c.Name)
			}
		}
		configs := maps.Clone(a.next.brokerConfigs)
		if configs == nil {
			configs = map[int32]map[string]string{}
		}
		if config := setConfig(maps.Clone(configs[int32(id)]), c); len(config) > 0 {
			configs[int32(id)] = config
		} else {
			delete(configs, int32(id))
		}
		a.next.brokerConfigs = configs
		a.delta.BrokerConfigsChanged = append(a.delta.BrokerConfigsChanged, int32(id))
	default:
		return fmt.Errorf("%w: configuration of resource %.40q", ErrVersion, c.Resource)
	}
	return nil
}

func setConfig(config map[string]string, c *ConfigChange) map[string]string {
	if c.Value == nil {
		delete(config, c.Key)
		return config
	}
	if config == nil {
		config = map[string]string{}
	}
	config[c.Key] = *c.Value
	return config
}

func (a *applier) finish() (*Image, *Delta, error) {
	for _, id := range a.touched {
		before, _ := a.old.TopicByID(id)
		after, _ := a.next.TopicByID(id)
		a.delta.topic(before, after)
	}
	slices.Sort(a.delta.BrokersChanged)
	a.delta.BrokersChanged = slices.Compact(a.delta.BrokersChanged)
	slices.Sort(a.delta.BrokerConfigsChanged)
	a.delta.BrokerConfigsChanged = slices.Compact(a.delta.BrokerConfigsChanged)
	return a.next, a.delta, nil
}
