package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Resource is something of a cluster that has a configuration. Make one with
// TopicResource, BrokerResource or BrokersResource.
type Resource struct {
	kind kmsg.ConfigResourceType
	name string
}

// TopicResource is a topic.
func TopicResource(name string) Resource { return Resource{kmsg.ConfigResourceTypeTopic, name} }

// BrokerResource is a broker.
func BrokerResource(id int32) Resource {
	return Resource{kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(id))}
}

// BrokersResource is what all brokers have that do not say otherwise.
func BrokersResource() Resource { return Resource{kmsg.ConfigResourceTypeBroker, ""} }

// String names the resource for errors and logs.
func (r Resource) String() string {
	switch {
	case r.kind == kmsg.ConfigResourceTypeTopic:
		return fmt.Sprintf("topic %q", r.name)
	case r.name == "":
		return "all brokers"
	}
	return "broker " + r.name
}

// ConfigEntry is one setting of a resource.
type ConfigEntry struct {
	// Name is Kafka's name of the setting. Value is its value, empty when the
	// cluster keeps it to itself.
	Name, Value string
	// Default says that the resource does not set it itself.
	Default bool
	// Source tells where the value is from: "topic", "broker", "all
	// brokers", "broker's start" or "default".
	Source string
	// ReadOnly settings change with a restart only. The value of Sensitive ones is
	// not shown.
	ReadOnly, Sensitive bool
}

var configSources = map[kmsg.ConfigSource]string{
	kmsg.ConfigSourceDynamicTopicConfig:         "topic",
	kmsg.ConfigSourceDynamicBrokerConfig:        "broker",
	kmsg.ConfigSourceDynamicDefaultBrokerConfig: "all brokers",
	kmsg.ConfigSourceStaticBrokerConfig:         "broker's start",
	kmsg.ConfigSourceDefaultConfig:              "default",
}

// ownSource is the source of what a resource of the kind sets itself.
func (r Resource) ownSource() kmsg.ConfigSource {
	switch {
	case r.kind == kmsg.ConfigResourceTypeTopic:
		return kmsg.ConfigSourceDynamicTopicConfig
	case r.name == "":
		return kmsg.ConfigSourceDynamicDefaultBrokerConfig
	}
	return kmsg.ConfigSourceDynamicBrokerConfig
}

// Configs returns a resource's settings, ordered by name.
func (c *Client) Configs(ctx context.Context, resource Resource) ([]ConfigEntry, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	asked := kmsg.NewDescribeConfigsRequestResource()
	asked.ResourceType, asked.ResourceName = resource.kind, resource.name
	req.Resources = append(req.Resources, asked)
	resp, err := req.RequestWith(ctx, c.kgo)
	if err != nil {
		return nil, fmt.Errorf("client: configuration of %s: %w", resource, known(c.closedOr(err)))
	}
	var entries []ConfigEntry
	for i := range resp.Resources {
		r := &resp.Resources[i]
		if err := messageError(r.ErrorCode, r.ErrorMessage); err != nil {
			return nil, fmt.Errorf("client: configuration of %s: %w", resource, err)
		}
		for j := range r.Configs {
			rc := &r.Configs[j]
			e := ConfigEntry{
				Name: rc.Name, Default: rc.Source != resource.ownSource(), Source: configSources[rc.Source],
				ReadOnly: rc.ReadOnly, Sensitive: rc.IsSensitive,
			}
			if rc.Value != nil {
				e.Value = *rc.Value
			}
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b ConfigEntry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

// TopicConfig returns a topic's settings, ordered by name.
func (c *Client) TopicConfig(ctx context.Context, topic string) ([]ConfigEntry, error) {
	return c.Configs(ctx, TopicResource(topic))
}

// AlterConfigs sets and removes settings of a resource, all of them or none. A
// removed setting has its default again.
func (c *Client) AlterConfigs(ctx context.Context, resource Resource, set map[string]string, remove ...string) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	asked := kmsg.NewIncrementalAlterConfigsRequestResource()
	asked.ResourceType, asked.ResourceName = resource.kind, resource.name
	for _, name := range sortedKeys(set) {
		cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		cfg.Name, cfg.Op, cfg.Value = name, kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr(set[name])
		asked.Configs = append(asked.Configs, cfg)
	}
	for _, name := range remove {
		cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		cfg.Name, cfg.Op = name, kmsg.IncrementalAlterConfigOpDelete
		asked.Configs = append(asked.Configs, cfg)
	}
	req.Resources = append(req.Resources, asked)
	resp, err := req.RequestWith(ctx, c.kgo)
	if err != nil {
		return fmt.Errorf("client: change the configuration of %s: %w", resource, known(c.closedOr(err)))
	}
	var failed []error
	for i := range resp.Resources {
		if err := messageError(resp.Resources[i].ErrorCode, resp.Resources[i].ErrorMessage); err != nil {
			failed = append(failed, fmt.Errorf("client: change the configuration of %s: %w", resource, err))
		}
	}
	return errors.Join(failed...)
}
