package metadata

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Image is the state that all metadata entries up to an offset add up to. It is
// immutable; everything it returns is shared and must not be changed.
type Image struct {
	offset          int64
	epoch           int32
	clusterID       string
	controllerID    int32
	controllerEpoch int32
	brokers         []Broker // by id
	byName          *shards[string, *Topic]
	byID            *shards[UUID, *Topic]
	partitions      int
	brokerConfigs   map[int32]map[string]string // -1: the default of all brokers
	features        map[string]int16
	nextProducerID  int64
	nextBrokerEpoch int64

	sortOnce sync.Once
	sorted   []*Topic
}

// Topic is a topic of an Image.
type Topic struct {
	Name       string
	ID         UUID
	Partitions []Partition       // by id, without gaps
	Config     map[string]string // what was set on the topic, by Kafka's names; defaults are not in it
}

// Partition is one partition of a topic.
type Partition struct {
	ID             int32
	Replicas       []int32 // in order of preference
	ISR            []int32 // in-sync replicas
	ELR            []int32 // eligible leader replicas (KIP-966)
	LastKnownELR   []int32
	Leader         int32   // -1: none
	LeaderEpoch    int32   // rises with every change of leader
	PartitionEpoch int32   // rises with every change
	Adding         []int32 // of Replicas: to join the in-sync replicas (reassignment)
	Removing       []int32 // of Replicas: to leave when those have joined
}

// Broker is a registered broker.
type Broker struct {
	ID          int32
	Incarnation UUID  // drawn at each start of the process
	Epoch       int64 // of the registration; requests of an older one are stale
	Rack        string
	Listeners   []Listener
	Roles       []string
	Fenced      bool // leads nothing and is hidden from clients
	Directory   UUID // of its data directory; zero when it did not say
	// ControlledShutdown says that the broker is stopping: it leads nothing and joins
	// no in-sync replicas, but still answers.
	ControlledShutdown bool
	Features           []FeatureRange // that its program supports
	// LogsEpoch is the epoch since which the broker's logs may have changed: that of the
	// last registration under which it was not fenced. A broker that was never told of a
	// later one, because the answer was lost and then the broker, has the logs of this one.
	// It is no part of snapshots: behind one it is Epoch, which allows less.
	LogsEpoch int64
}

// Listener is an address under which a broker is reached.
type Listener struct {
	Name string `json:"name"`
	Host string `json:"host"`
	Port int32  `json:"port"`
}

// Listener returns the listener of that name.
func (b *Broker) Listener(name string) (Listener, bool) {
	for _, l := range b.Listeners {
		if l.Name == name {
			return l, true
		}
	}
	return Listener{}, false
}

// Empty returns the image before the first entry: offset -1.
func Empty() *Image {
	return &Image{
		offset: -1, controllerID: -1, controllerEpoch: -1,
		byName: &shards[string, *Topic]{},
		byID:   &shards[UUID, *Topic]{},
	}
}

// Offset is that of the last entry applied, -1 when there is none.
func (i *Image) Offset() int64 { return i.offset }

// Epoch is the metadata leader's epoch of the last entry applied.
func (i *Image) Epoch() int32 { return i.epoch }

// ClusterID is the cluster's id in Kafka's text form, empty until it is made.
func (i *Image) ClusterID() string { return i.clusterID }

// Controller returns the node that last became the active controller and the
// epoch it did so in; -1, -1 when none did.
func (i *Image) Controller() (id, epoch int32) { return i.controllerID, i.controllerEpoch }

// NextProducerID is the first producer id not given to any broker yet.
func (i *Image) NextProducerID() int64 { return i.nextProducerID }

// NextBrokerEpoch is larger than the epoch of every registration so far.
func (i *Image) NextBrokerEpoch() int64 { return i.nextBrokerEpoch }

// TopicCount is the number of topics.
func (i *Image) TopicCount() int { return i.byName.count }

// PartitionCount is the number of partitions of all topics.
func (i *Image) PartitionCount() int { return i.partitions }

// Brokers returns all registered brokers, fenced ones included, by id.
func (i *Image) Brokers() []Broker { return i.brokers }

// Broker returns the broker with that id.
func (i *Image) Broker(id int32) (*Broker, bool) {
	n, ok := slices.BinarySearchFunc(i.brokers, id, func(b Broker, id int32) int { return int(b.ID) - int(id) })
	if !ok {
		return nil, false
	}
	return &i.brokers[n], true
}

// Alive says that the broker is registered and not fenced.
func (i *Image) Alive(id int32) bool {
	b, ok := i.Broker(id)
	return ok && !b.Fenced
}

// Active says that the broker may lead and be in sync: registered, not fenced and
// not in controlled shutdown.
func (i *Image) Active(id int32) bool {
	b, ok := i.Broker(id)
	return ok && !b.Fenced && !b.ControlledShutdown
}

// Topic returns the topic of that name.
func (i *Image) Topic(name string) (*Topic, bool) { return i.byName.get(hashName(name), name) }

// TopicByID returns the topic with that id.
func (i *Image) TopicByID(id UUID) (*Topic, bool) { return i.byID.get(hashID(id), id) }

// Topics returns all topics by name. The slice is made at the first call.
func (i *Image) Topics() []*Topic {
	i.sortOnce.Do(func() {
		i.sorted = make([]*Topic, 0, i.byName.count)
		for _, part := range i.byName.part {
			for _, t := range part {
				i.sorted = append(i.sorted, t)
			}
		}
		slices.SortFunc(i.sorted, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	})
	return i.sorted
}

// TopicConfig returns what was set on the topic, nil when nothing was.
func (i *Image) TopicConfig(name string) map[string]string {
	if t, ok := i.Topic(name); ok {
		return t.Config
	}
	return nil
}

// BrokerConfig returns the dynamic configuration of a broker by Kafka's broker
// configuration names; id -1 is the default of all brokers.
func (i *Image) BrokerConfig(id int32) map[string]string { return i.brokerConfigs[id] }

// Features returns the finalised features and their levels.
func (i *Image) Features() map[string]int16 { return i.features }

// FeatureNames returns the finalised features by name.
func (i *Image) FeatureNames() []string { return slices.Sorted(maps.Keys(i.features)) }

// ConfigNames returns the names set in a configuration, sorted.
func ConfigNames(config map[string]string) []string { return slices.Sorted(maps.Keys(config)) }

// changes returns the changes that build the image from nothing.
func (i *Image) changes() []Change {
	var cs []Change
	if i.clusterID != "" {
		cs = append(cs, &ClusterChange{ID: i.clusterID, NextBrokerEpoch: i.nextBrokerEpoch})
	}
	if i.controllerID >= 0 {
		cs = append(cs, &ControllerChange{ID: i.controllerID, Epoch: i.controllerEpoch})
	}
	for _, name := range i.FeatureNames() {
		cs = append(cs, &FeatureChange{Name: name, Level: i.features[name]})
	}
	for _, b := range i.brokers {
		cs = append(cs, b.Change())
	}
	for _, id := range slices.Sorted(maps.Keys(i.brokerConfigs)) {
		cs = appendConfig(cs, BrokerResource, brokerConfigName(id), i.brokerConfigs[id])
	}
	if i.nextProducerID > 0 {
		cs = append(cs, &ProducerIDsChange{Broker: -1, BrokerEpoch: -1, Next: i.nextProducerID})
	}
	for _, t := range i.Topics() {
		cs = append(cs, &TopicChange{Name: t.Name, ID: t.ID})
		for n := range t.Partitions {
			cs = append(cs, t.Partitions[n].Change(t.ID))
		}
		cs = appendConfig(cs, TopicResource, t.Name, t.Config)
	}
	return cs
}

// Change returns the change that states b as it is; its slices are shared with b.
func (b *Broker) Change() *BrokerChange {
	return &BrokerChange{ID: b.ID, Incarnation: b.Incarnation, Epoch: b.Epoch, Rack: b.Rack, Listeners: b.Listeners,
		Roles: b.Roles, Fenced: b.Fenced, Directory: b.Directory, ControlledShutdown: b.ControlledShutdown, Features: b.Features}
}

// Change returns the change that states p as it is, to be altered by the caller;
// its slices are shared with p and must be replaced, not written to.
func (p *Partition) Change(topic UUID) *PartitionChange {
	return &PartitionChange{Topic: topic, Partition: p.ID, Replicas: p.Replicas, ISR: p.ISR, ELR: p.ELR,
		LastKnownELR: p.LastKnownELR, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
		Adding: p.Adding, Removing: p.Removing}
}

func appendConfig(cs []Change, r Resource, name string, config map[string]string) []Change {
	for _, key := range ConfigNames(config) {
		value := config[key]
		cs = append(cs, &ConfigChange{Resource: r, Name: name, Key: key, Value: &value})
	}
	return cs
}

// brokerConfigName is how a ConfigChange names a broker: "" for the default.
func brokerConfigName(id int32) string {
	if id < 0 {
		return ""
	}
	return strconv.Itoa(int(id))
}
