package controller

import (
	"github.com/leatlog/leat/broker/internal/metadata"
)

// newClusterFeatures finalises the default levels.
func newClusterFeatures() []metadata.Change {
	var changes []metadata.Change
	for _, f := range metadata.SupportedFeatures() {
		if f.Default > 0 {
			changes = append(changes, &metadata.FeatureChange{Name: f.Name, Level: f.Default})
		}
	}
	return changes
}

// supportsAll says that a program with these features can take part: it knows the
// finalised level of each.
func supportsAll(ranges []metadata.FeatureRange, image *metadata.Image) bool {
	for _, name := range image.FeatureNames() {
		if !supports(ranges, name, image.FeatureLevel(name)) {
			return false
		}
	}
	return true
}

func supports(ranges []metadata.FeatureRange, name string, level int16) bool {
	for _, r := range ranges {
		if r.Name == name {
			return level >= r.Min && level <= r.Max
		}
	}
	return level == 0
}
