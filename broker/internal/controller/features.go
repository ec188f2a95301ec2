package controller

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

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

// Types of a feature update.
const (
	upgrade         int8 = 1
	safeDowngrade   int8 = 2
	unsafeDowngrade int8 = 3
)

func (c *Controller) updateFeatures(e UpdateFeatures) {
	var changes []metadata.Change
	seen := map[string]bool{}
	for _, u := range e.Updates {
		if seen[u.Name] {
			c.answerWhenCommitted(e.ID, FeaturesUpdated{kerr.InvalidRequest, "The feature " + u.Name + " is in the request more than once."})
			return
		}
		seen[u.Name] = true
		if no := c.checkFeature(u); no != nil {
			c.answerWhenCommitted(e.ID, FeaturesUpdated{no.err, no.message})
			return
		}
		if u.Level == c.image.FeatureLevel(u.Name) {
			continue
		}
		changes = append(changes, c.leaveLevel(u)...)
		changes = append(changes, &metadata.FeatureChange{Name: u.Name, Level: u.Level})
	}
	if !e.ValidateOnly {
		c.propose(changes)
	}
	c.answerWhenCommitted(e.ID, FeaturesUpdated{})
}

func (c *Controller) checkFeature(u FeatureUpdate) *refusal {
	no := func(format string, args ...any) *refusal {
		return refusef(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %.100s. %s", u.Level, u.Name, fmt.Sprintf(format, args...))
	}
	f, known := metadata.LookupFeature(u.Name)
	now := c.image.FeatureLevel(u.Name)
	switch {
	case u.Type != upgrade && u.Type != safeDowngrade && u.Type != unsafeDowngrade:
		return no("The upgrade type %d is unknown.", u.Type)
	case !known:
		return no("Local controller %d does not support this feature.", c.cfg.NodeID)
	case u.Level < f.Min || u.Level > f.Max:
		return no("Local controller %d only supports versions %d-%d", c.cfg.NodeID, f.Min, f.Max)
	case u.Type == upgrade && u.Level < now:
		return no("Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.")
	case u.Type != upgrade && u.Level > now:
		return no("Can't downgrade to a newer version.")
	}
	for _, b := range c.image.Brokers() {
		if b.Features != nil && !supports(b.Features, u.Name, u.Level) {
			return no("Broker %d does not support this version.", b.ID)
		}
	}
	if u.Name == metadata.VersionFeature && u.Level < 27 && now >= 27 {
		if t, p := c.reassigning(); p != nil {
			return no("A reassignment is under way, which the older version cannot express: wait for %s, or cancel it.", partitionName(t.Name, p.ID))
		}
	}
	return nil
}

// reassigning returns a partition that is being reassigned, if there is one.
func (c *Controller) reassigning() (*metadata.Topic, *metadata.Partition) {
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			if p := &t.Partitions[n]; len(p.Adding) > 0 || len(p.Removing) > 0 {
				return t, p
			}
		}
	}
	return nil, nil
}

// leaveLevel takes out of the image what a lower level cannot express, and puts in what
// a higher one needs. It is
// committed together with the new level.
func (c *Controller) leaveLevel(u FeatureUpdate) []metadata.Change {
	var changes []metadata.Change
	switch {
	case u.Name == metadata.ELRFeature && u.Level > 0:
		return c.minInSyncDefault()
	case u.Name == metadata.VersionFeature && u.Level < 27:
		for n := range c.image.Brokers() {
			change := c.image.Brokers()[n].Change()
			if change.ControlledShutdown {
				change.Fenced = true
			}
			change.Directory, change.ControlledShutdown, change.Features = metadata.UUID{}, false, nil
			changes = append(changes, change)
		}
	case u.Name == metadata.ELRFeature && u.Level == 0:
		for _, t := range c.image.Topics() {
			for n := range t.Partitions {
				p := &t.Partitions[n]
				if len(p.ELR) == 0 && len(p.LastKnownELR) == 0 {
					continue
				}
				change := p.Change(t.ID)
				if len(p.ISR) == 0 {
					// Without eligible replicas only those in sync may lead.
					if change.ISR = p.ELR; len(p.ELR) == 0 {
						change.ISR = p.LastKnownELR
					}
				}
				change.ELR, change.LastKnownELR = nil, nil
				change.PartitionEpoch++
				changes = append(changes, change)
			}
		}
	}
	return changes
}
