package controller

import (
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// maxConfigBytes bounds one configuration value.
const maxConfigBytes = 64 << 10

// checkConfig checks a topic's whole configuration.
func (c *Controller) checkConfig(config map[string]string) *refusal {
	for _, name := range metadata.ConfigNames(config) {
		if len(config[name]) > maxConfigBytes {
			return refusef(kerr.InvalidConfig, "The value of %.100s is %d bytes long, the most is %d.", name, len(config[name]), maxConfigBytes)
		}
	}
	if _, err := metadata.ParseTopicConfig(c.topicDefaults(), config); err != nil {
		return refusef(kerr.InvalidConfig, "%s", strings.TrimPrefix(err.Error(), metadata.ErrConfig.Error()+": "))
	}
	return nil
}

// resourceKey tells resources of one request apart.
type resourceKey struct {
	kind kmsg.ConfigResourceType
	name string
}

func (c *Controller) incrementalAlterConfigs(e IncrementalAlterConfigs) {
	results := make([]kmsg.IncrementalAlterConfigsResponseResource, len(e.Resources))
	counts := map[resourceKey]int{}
	for _, r := range e.Resources {
		counts[resourceKey{r.ResourceType, r.ResourceName}]++
	}
	left := newBudget()
	var all []metadata.Change
	for n := range e.Resources {
		r := &e.Resources[n]
		result := kmsg.NewIncrementalAlterConfigsResponseResource()
		result.ResourceType, result.ResourceName = r.ResourceType, r.ResourceName
		was, no := c.target(r.ResourceType, r.ResourceName, counts[resourceKey{r.ResourceType, r.ResourceName}])
		var next map[string]string
		if no == nil {
			next, no = was.alter(r.Configs)
		}
		changes, no := c.replaceConfig(&was, next, left, no)
		if no != nil {
			result.ErrorCode, result.ErrorMessage = no.err.Code, &no.message
		}
		all = append(all, changes...)
		results[n] = result
	}
	if !e.ValidateOnly {
		c.proposeConfigs(all)
	}
	c.answerWhenCommitted(e.ID, results)
}

// alter returns the target's configuration after the operations.
func (t *configTarget) alter(ops []kmsg.IncrementalAlterConfigsRequestResourceConfig) (map[string]string, *refusal) {
	next := maps.Clone(t.was)
	if next == nil {
		next = map[string]string{}
	}
	seen := map[string]bool{}
	for _, op := range ops {
		if seen[op.Name] {
			return nil, refusef(kerr.InvalidRequest, "Error due to duplicate config keys: %.100s", op.Name)
		}
		seen[op.Name] = true
		if op.Op == kmsg.IncrementalAlterConfigOpDelete && !t.knows(op.Name) {
			continue // nothing to remove: Kafka's tools remove throttles that nobody has set
		}
		list, otherwise, no := t.key(op.Name)
		if no != nil {
			return nil, no
		}
		if op.Op == kmsg.IncrementalAlterConfigOpDelete {
			delete(next, op.Name)
			continue
		}
		if op.Value == nil {
			return nil, refusef(kerr.InvalidRequest, "Null value not supported for : %s", op.Name)
		}
		switch op.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			next[op.Name] = *op.Value
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			if !list {
				return nil, refusef(kerr.InvalidConfig, "Can't APPEND or SUBTRACT to key %s because its type is not LIST.", op.Name)
			}
			current, ok := next[op.Name]
			if !ok {
				current = otherwise
			}
			next[op.Name] = alterList(current, *op.Value, op.Op == kmsg.IncrementalAlterConfigOpAppend)
		default:
			return nil, refusef(kerr.InvalidRequest, "Unknown operation %d for %s", op.Op, op.Name)
		}
	}
	return next, nil
}

// alterList adds items to a list value, or takes them out.
func alterList(current, items string, add bool) string {
	list := metadata.SplitList(current)
	for _, item := range metadata.SplitList(items) {
		n := slices.Index(list, item)
		switch {
		case add && n < 0:
			list = append(list, item)
		case !add && n >= 0:
			list = slices.Delete(list, n, n+1)
		}
	}
	return strings.Join(list, ",")
}

func (c *Controller) alterConfigs(e AlterConfigs) {
	results := make([]kmsg.AlterConfigsResponseResource, len(e.Resources))
	counts := map[resourceKey]int{}
	for _, r := range e.Resources {
		counts[resourceKey{r.ResourceType, r.ResourceName}]++
	}
	left := newBudget()
	var all []metadata.Change
	for n := range e.Resources {
		r := &e.Resources[n]
		result := kmsg.NewAlterConfigsResponseResource()
		result.ResourceType, result.ResourceName = r.ResourceType, r.ResourceName
		was, no := c.target(r.ResourceType, r.ResourceName, counts[resourceKey{r.ResourceType, r.ResourceName}])
		next := map[string]string{}
		for _, kv := range r.Configs {
			if kv.Value == nil {
				if no == nil {
					no = refusef(kerr.InvalidRequest, "Null value not supported for : %.100s", kv.Name)
				}
				continue
			}
			next[kv.Name] = *kv.Value
		}
		changes, no := c.replaceConfig(&was, next, left, no)
		if no != nil {
			result.ErrorCode, result.ErrorMessage = no.err.Code, &no.message
		}
		all = append(all, changes...)
		results[n] = result
	}
	if !e.ValidateOnly {
		c.proposeConfigs(all)
	}
	c.answerWhenCommitted(e.ID, results)
}

// replaceConfig returns the changes from the configuration of a target to another one,
// unless it was refused before or is to be.
func (c *Controller) replaceConfig(t *configTarget, next map[string]string, left *budget, no *refusal) ([]metadata.Change, *refusal) {
	if no != nil {
		return nil, no
	}
	if no := c.checkTargetConfig(t, next); no != nil {
		return nil, no
	}
	var changes []metadata.Change
	for _, key := range metadata.ConfigNames(t.was) {
		if _, ok := next[key]; !ok {
			changes = append(changes, &metadata.ConfigChange{Resource: t.resource, Name: t.name, Key: key})
		}
	}
	for _, key := range metadata.ConfigNames(next) {
		value := next[key]
		if old, ok := t.was[key]; !ok || old != value {
			changes = append(changes, &metadata.ConfigChange{Resource: t.resource, Name: t.name, Key: key, Value: &value})
		}
	}
	return changes, left.take(changes)
}
