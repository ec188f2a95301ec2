package controller

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// configTarget is a resource whose configuration is altered.
type configTarget struct {
	resource metadata.Resource
	name     string
	was      map[string]string
}

// target returns a resource as it is now. Topics and brokers can be altered; a broker
// without a name stands for all of them.
func (c *Controller) target(kind kmsg.ConfigResourceType, name string, count int) (configTarget, *refusal) {
	if count > 1 {
		return configTarget{}, refusef(kerr.InvalidRequest, "Each resource must appear at most once.")
	}
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		t, no := c.findTopic(&name, metadata.UUID{})
		if no != nil {
			return configTarget{}, no
		}
		return configTarget{metadata.TopicResource, name, t.Config}, nil
	case kmsg.ConfigResourceTypeBroker:
		if name == "" {
			return configTarget{metadata.BrokerResource, "", c.image.BrokerConfig(-1)}, nil
		}
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id < 0 {
			return configTarget{}, refusef(kerr.InvalidRequest, "Invalid broker name %.100s", name)
		}
		if _, ok := c.image.Broker(int32(id)); !ok {
			return configTarget{}, refusef(kerr.BrokerIDNotRegistered, "No broker with id %d found.", id)
		}
		return configTarget{metadata.BrokerResource, strconv.Itoa(int(id)), c.image.BrokerConfig(int32(id))}, nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		return configTarget{}, refusef(kerr.InvalidRequest, "The levels of loggers cannot be changed at run time: set the level at start.")
	}
	return configTarget{}, refusef(kerr.InvalidRequest, "Configurations of resource type %d are not supported by this version.", kind)
}

// key says whether a configuration may be altered on the target, whether it is a
// list, and what a list is without it.
func (t *configTarget) key(name string) (list bool, otherwise string, no *refusal) {
	if t.resource == metadata.TopicResource {
		key, ok := metadata.LookupTopicKey(name)
		if !ok {
			return false, "", refusef(kerr.InvalidConfig, "Unknown topic config name: %.100s", name)
		}
		return key.Type == metadata.ListConfig, key.Default, nil
	}
	key, ok := metadata.LookupDynamicKey(name)
	switch {
	case !ok:
		return false, "", refusef(kerr.InvalidRequest, "Cannot update these configs dynamically: Set(%.100s)", name)
	case key.ClusterOnly && t.name != "":
		return false, "", refusef(kerr.InvalidConfig, "Broker-level %s cannot be altered: set it for all brokers.", name)
	}
	return key.Type() == metadata.ListConfig, key.Default(), nil
}

// knows says whether there is such a configuration for the target.
func (t *configTarget) knows(name string) bool {
	_, ok := metadata.LookupDynamicKey(name)
	if t.resource == metadata.TopicResource {
		_, ok = metadata.LookupTopicKey(name)
	}
	return ok
}

// check checks the target's whole next configuration.
func (c *Controller) checkTargetConfig(t *configTarget, next map[string]string) *refusal {
	if t.resource == metadata.TopicResource {
		return c.checkConfig(next)
	}
	for _, name := range metadata.ConfigNames(next) {
		if _, _, no := t.key(name); no != nil {
			return no
		}
		if len(next[name]) > maxConfigBytes {
			return refusef(kerr.InvalidConfig, "The value of %.100s is %d bytes long, the most is %d.", name, len(next[name]), maxConfigBytes)
		}
		key, _ := metadata.LookupDynamicKey(name)
		if err := key.Validate(next[name]); err != nil {
			return refusef(kerr.InvalidConfig, "%s", strings.Replace(err.Error(), metadata.ErrConfig.Error()+": ", "", 1))
		}
	}
	const minInSync = "min.insync.replicas"
	_, has := next[minInSync]
	if _, had := t.was[minInSync]; had && !has && t.name == "" && c.image.FeatureLevel(metadata.ELRFeature) >= 1 {
		return refusef(kerr.InvalidConfig, "Cluster-level %s cannot be removed while ELR is enabled.", minInSync)
	}
	return nil
}

// proposeConfigs proposes changes of configurations with what they mean for
// partitions, in one entry: another min.insync.replicas ends who is eligible, since
// the high watermark may now move without them, and leaders may be elected uncleanly
// from when that is enabled.
func (c *Controller) proposeConfigs(changes []metadata.Change) {
	var topics []*metadata.Topic
	seen := map[string]bool{}
	for _, change := range changes {
		config, ok := change.(*metadata.ConfigChange)
		switch {
		case !ok:
		case config.Resource == metadata.BrokerResource && config.Name == "":
			for _, t := range c.image.Topics() {
				if !seen[t.Name] {
					seen[t.Name] = true
					topics = append(topics, t)
				}
			}
		case config.Resource == metadata.TopicResource:
			if t, ok := c.image.Topic(config.Name); ok && !seen[t.Name] {
				seen[t.Name] = true
				topics = append(topics, t)
			}
		}
	}
	before := make([]partitionRules, len(topics))
	for n, t := range topics {
		before[n] = c.rules(t)
	}
	was := c.image
	c.speculate(changes)
	var edits []metadata.Change
	for n, t := range topics {
		now, _ := c.image.TopicByID(t.ID)
		rules := c.rules(now)
		if rules.minInSync == before[n].minInSync && rules.unclean == before[n].unclean {
			continue
		}
		for m := range now.Partitions {
			p := &now.Partitions[m]
			edit := editPartition(now.ID, p, rules)
			if rules.minInSync != before[n].minInSync && len(p.ISR) > 0 {
				edit.next.ELR, edit.next.LastKnownELR = nil, nil
			}
			if change := edit.finish(); change != nil {
				edits = append(edits, change)
			}
		}
	}
	c.image = was
	c.propose(append(edits, changes...))
}

// minInSyncDefault says in the log what min.insync.replicas is for topics that do not
// say, since all nodes must agree on it where eligible leader replicas are kept.
func (c *Controller) minInSyncDefault() []metadata.Change {
	const name = "min.insync.replicas"
	if _, ok := c.image.BrokerConfig(-1)[name]; ok {
		return nil
	}
	value, ok := c.cfg.TopicDefaults[name]
	if !ok {
		key, _ := metadata.LookupTopicKey(name)
		value = key.Default
	}
	value = strings.TrimSpace(value)
	return []metadata.Change{&metadata.ConfigChange{Resource: metadata.BrokerResource, Key: name, Value: &value}}
}
