package metadata

import (
	"slices"
	"strings"
)

// DynamicKey describes a broker configuration that can be changed at run time: for one
// broker, or for all that do not say otherwise.
type DynamicKey struct {
	Name  string
	Topic *TopicKey // the topic configuration whose default it sets
	// ClusterOnly says that it is the same on all brokers: the controller decides by it.
	ClusterOnly bool
}

// dynamicKeys is sorted by name: the defaults of those topic configurations that
// this version honours.
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

// Validate checks a value for the configuration.
func (k *DynamicKey) Validate(value string) error {
	_, _, _, _, err := TopicDefault(k.Name, value)
	return err
}
