package metadata

// Change is one fact that a metadata entry states. The set is closed: the types
// of this file. Changes are plain data; they do not alias an Image.
type Change interface {
	kind() string
	clearType()
}

// typed carries the "type" member of a change's JSON form through decoding.
type typed struct {
	Type string `json:"type,omitempty"`
}

func (t *typed) clearType() { t.Type = "" }

// ClusterChange states the cluster's id; it is written once in a cluster's life.
// In a snapshot it also carries the broker epoch counter.
type ClusterChange struct {
	typed
	ID              string `json:"id"`
	NextBrokerEpoch int64  `json:"next_broker_epoch,omitempty"`
}

// ControllerChange states which node became the active controller, and in which
// leader epoch of the metadata log. Every new controller commits one before it
// decides anything, and so knows that it has seen all that was committed before.
type ControllerChange struct {
	typed
	ID    int32 `json:"id"`
	Epoch int32 `json:"epoch"`
}

// BrokerChange registers a broker, or registers it again under a new incarnation.
type BrokerChange struct {
	typed
	ID          int32      `json:"id"`
	Incarnation UUID       `json:"incarnation"`
	Epoch       int64      `json:"epoch"` // larger than that of every earlier registration in the cluster
	Rack        string     `json:"rack,omitempty"`
	Listeners   []Listener `json:"listeners"`
	Roles       []string   `json:"roles,omitempty"` // "broker", "controller"
	Fenced      bool       `json:"fenced"`
	// Since metadata.version 27:
	Directory          UUID           `json:"directory,omitzero"`            // of its data directory; a new one has lost what the broker held
	ControlledShutdown bool           `json:"controlled_shutdown,omitempty"` // it is stopping and leads nothing; the next registration ends that
	Features           []FeatureRange `json:"features,omitempty"`            // that the broker's program supports
}

// FeatureRange is what a program supports of a feature.
type FeatureRange struct {
	Name string `json:"name"`
	Min  int16  `json:"min"`
	Max  int16  `json:"max"`
}

// BrokerRemovedChange unregisters a broker.
type BrokerRemovedChange struct {
	typed
	ID int32 `json:"id"`
}

// BrokerFenceChange fences a broker (it leads nothing, clients do not see it) or
// lifts the fence.
type BrokerFenceChange struct {
	typed
	ID     int32 `json:"id"`
	Epoch  int64 `json:"epoch"`
	Fenced bool  `json:"fenced"`
	// ControlledShutdown says that the broker is stopping: it is not fenced yet, and
	// leads nothing any more. Since metadata.version 27.
	ControlledShutdown bool `json:"controlled_shutdown,omitempty"`
}

// TopicChange creates a topic without partitions; they follow in the same entry.
type TopicChange struct {
	typed
	Name string `json:"name"`
	ID   UUID   `json:"id"`
}

// TopicRemovedChange deletes a topic with its partitions and configuration.
type TopicRemovedChange struct {
	typed
	ID UUID `json:"id"`
}

// PartitionChange states the whole of one partition: the next one of its topic,
// or a new state of an existing one.
type PartitionChange struct {
	typed
	Topic          UUID    `json:"topic"`
	Partition      int32   `json:"partition"`
	Replicas       []int32 `json:"replicas"` // in order of preference
	ISR            []int32 `json:"isr"`
	ELR            []int32 `json:"elr,omitempty"`            // KIP-966: eligible leader replicas
	LastKnownELR   []int32 `json:"last_known_elr,omitempty"` // KIP-966
	Leader         int32   `json:"leader"`                   // -1: none
	LeaderEpoch    int32   `json:"leader_epoch"`
	PartitionEpoch int32   `json:"partition_epoch"`
	// A reassignment under way: those of Replicas that are to join the in-sync
	// replicas, and those that leave when they have. Since metadata.version 27.
	Adding   []int32 `json:"adding,omitempty"`
	Removing []int32 `json:"removing,omitempty"`
}

// ConfigChange sets one configuration value, or with a nil Value removes it.
type ConfigChange struct {
	typed
	Resource Resource `json:"resource"`
	Name     string   `json:"name"` // topic name; broker id, or "" for the default of all brokers
	Key      string   `json:"key"`
	Value    *string  `json:"value"`
}

// Resource is what a configuration value belongs to.
type Resource string

// The resources that carry configuration.
const (
	TopicResource  Resource = "topic"
	BrokerResource Resource = "broker"
)

// ProducerIDsChange gives a block of producer ids to a broker: those from the
// image's NextProducerID up to but excluding Next.
type ProducerIDsChange struct {
	typed
	Broker      int32 `json:"broker"`
	BrokerEpoch int64 `json:"broker_epoch"`
	Next        int64 `json:"next"`
}

// FeatureChange finalises the level of a feature; level 0 removes it.
type FeatureChange struct {
	typed
	Name  string `json:"name"`
	Level int16  `json:"level"`
}

func (*ClusterChange) kind() string       { return "cluster" }
func (*ControllerChange) kind() string    { return "controller" }
func (*BrokerChange) kind() string        { return "broker" }
func (*BrokerRemovedChange) kind() string { return "broker-removed" }
func (*BrokerFenceChange) kind() string   { return "broker-fence" }
func (*TopicChange) kind() string         { return "topic" }
func (*TopicRemovedChange) kind() string  { return "topic-removed" }
func (*PartitionChange) kind() string     { return "partition" }
func (*ConfigChange) kind() string        { return "config" }
func (*ProducerIDsChange) kind() string   { return "producer-ids" }
func (*FeatureChange) kind() string       { return "feature" }

// newChange returns an empty change of the named type, nil when there is none.
func newChange(kind string) Change {
	switch kind {
	case "cluster":
		return &ClusterChange{}
	case "controller":
		return &ControllerChange{}
	case "broker":
		return &BrokerChange{}
	case "broker-removed":
		return &BrokerRemovedChange{}
	case "broker-fence":
		return &BrokerFenceChange{}
	case "topic":
		return &TopicChange{}
	case "topic-removed":
		return &TopicRemovedChange{}
	case "partition":
		return &PartitionChange{}
	case "config":
		return &ConfigChange{}
	case "producer-ids":
		return &ProducerIDsChange{}
	case "feature":
		return &FeatureChange{}
	}
	return nil
}
