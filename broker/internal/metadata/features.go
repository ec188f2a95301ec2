package metadata

import (
	"maps"
	"slices"
)

// Features whose level is finalised in the metadata log (KIP-584, KIP-1022).
const (
	// VersionFeature is the format of the metadata log. Its levels are numbered as
	// Kafka's, so that tools print a release for them: 26 is what the first version of
	// Leat wrote, 27 adds what the comments of the changes say.
	VersionFeature = "metadata.version"
	// ELRFeature at level 1 keeps eligible leader replicas (KIP-966).
	ELRFeature = "eligible.leader.replicas.version"
	// GroupFeature at level 1 lets groups use the consumer protocol (KIP-848).
	GroupFeature = "group.version"
	// TransactionFeature at level 2 has clients speak the second transaction protocol
	// (KIP-890).
	TransactionFeature = "transaction.version"
)

// Levels of metadata.version.
const (
	FirstMetadataVersion  int16 = 26
	LatestMetadataVersion int16 = 27
)

// Feature is a feature that this program supports.
type Feature struct {
	Name     string
	Min, Max int16 // levels; a level of 0 is the feature's absence
	Default  int16 // of a new cluster
}

// features is sorted by name.
var features = []Feature{
	{Name: ELRFeature, Max: 1, Default: 1},
	{Name: GroupFeature, Max: 1, Default: 1},
	{Name: VersionFeature, Min: FirstMetadataVersion, Max: LatestMetadataVersion, Default: LatestMetadataVersion},
	{Name: TransactionFeature, Max: 2, Default: 2},
}

// SupportedFeatures returns the features this program supports, by name.
func SupportedFeatures() []Feature { return slices.Clone(features) }

// FeatureRanges returns what this program supports, as a broker registers it.
func FeatureRanges() []FeatureRange {
	ranges := make([]FeatureRange, len(features))
	for n, f := range features {
		ranges[n] = FeatureRange{Name: f.Name, Min: f.Min, Max: f.Max}
	}
	return ranges
}

// LookupFeature returns the supported feature of that name.
func LookupFeature(name string) (Feature, bool) {
	n := slices.IndexFunc(features, func(f Feature) bool { return f.Name == name })
	if n < 0 {
		return Feature{}, false
	}
	return features[n], true
}

// FeatureLevel returns the finalised level of a feature, 0 when it is not
// finalised.
func (i *Image) FeatureLevel(name string) int16 { return i.features[name] }

// MetadataVersion returns the finalised metadata.version: the first one while a
// cluster has none.
func (i *Image) MetadataVersion() int16 { return max(i.features[VersionFeature], FirstMetadataVersion) }

// TopicConfigDefaults returns the topic configurations in force for topics that do
// not set them, by the topic configuration's name: a broker's dynamic configuration,
// over the cluster's dynamic default, over static, which is what the program was
// started with. broker -1 stands for no broker. The result may be static itself.
func (i *Image) TopicConfigDefaults(broker int32, static map[string]string) map[string]string {
	merged := static
	for _, layer := range []map[string]string{i.brokerConfigs[-1], i.brokerConfigs[broker]} {
		if len(layer) == 0 {
			continue
		}
		merged = maps.Clone(merged)
		if merged == nil {
			merged = map[string]string{}
		}
		for n := range topicKeys {
			if value, ok := topicKeys[n].defaultIn(layer); ok {
				merged[topicKeys[n].Name] = value
			}
		}
	}
	return merged
}

// defaultIn returns the default that a broker's configuration sets.
func (k *TopicKey) defaultIn(broker map[string]string) (string, bool) {
	for _, s := range k.Synonyms {
		if v, ok := broker[s.Name]; ok {
			if _, value, _, ok, err := TopicDefault(s.Name, v); ok && err == nil {
				return value, true
			}
		}
	}
	return "", false
}
