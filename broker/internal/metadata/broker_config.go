package metadata

import (
	"slices"
	"strings"
)

// DynamicKey describes a broker configuration that can be changed at run time: for one
// broker, or for all that do not say otherwise.
type DynamicKey struct {
	Name  string
	Topic *TopicKey // the topic configuration whose default it sets; nil for others
	// ClusterOnly says that it is the same on all brokers: the controller decides by it.
	ClusterOnly bool
}

// dynamicKeys is sorted by name: the defaults of those topic configurations that
// this version honours, the rates of replication, and the cordon.
var dynamicKeys = makeDynamicKeys()

func makeDynamicKeys() []DynamicKey {
	var keys []DynamicKey
	for n := range topicKeys {
		k := &topicKeys[n]
		if k.Unused != "" {
			continue
		}
		for _, s := range k.Synonyms {
			keys = append(keys, DynamicKey{Name: s.Name, Topic: k,
				ClusterOnly: s.Name == "min.insync.replicas" || s.Name == "unclean.leader.election.enable"})
		}
	}
	for _, name := range []string{LeaderThrottle, FollowerThrottle, CordonedLogDirs} {
		keys = append(keys, DynamicKey{Name: name})
	}
	slices.SortFunc(keys, func(a, b DynamicKey) int { return strings.Compare(a.Name, b.Name) })
	return keys
}

// LookupDynamicKey returns the description of a broker configuration that can be
// changed at run time.
func LookupDynamicKey(name string) (*DynamicKey, bool) {
	n, ok := slices.BinarySearchFunc(dynamicKeys, name, func(k DynamicKey, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return nil, false
	}
	return &dynamicKeys[n], true
}

// Type is the type of its values.
func (k *DynamicKey) Type() ConfigType {
	switch {
	case k.Topic != nil:
		return k.Topic.Type
	case k.Name == CordonedLogDirs:
		return ListConfig
	}
	return LongConfig
}

// Default is what holds without it, in the topic configuration's unit.
func (k *DynamicKey) Default() string {
	switch {
	case k.Topic != nil:
		return k.Topic.Default
	case k.Name == CordonedLogDirs:
		return ""
	}
	return maxInt64
}

// Doc says what it is.
func (k *DynamicKey) Doc() string {
	switch {
	case k.Topic != nil:
		return "The default of topics' " + k.Topic.Name + ". " + k.Topic.Doc
	case k.Name == CordonedLogDirs:
		return "'*' on a broker that gets no further replicas, as one that is drained; those it has stay."
	case k.Name == LeaderThrottle:
		return "Bytes a second that the broker sends to throttled replicas that are not in sync, together."
	}
	return "Bytes a second that the broker fetches for throttled replicas that are not in sync, together."
}

// Validate checks a value for the configuration.
func (k *DynamicKey) Validate(value string) error {
	if k.Name == CordonedLogDirs {
		return validateCordon(value)
	}
	if k.Topic == nil {
		return (&TopicKey{Name: k.Name, Type: LongConfig}).Validate(value)
	}
	_, _, _, _, err := TopicDefault(k.Name, value)
	return err
}
