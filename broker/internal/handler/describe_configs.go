package handler

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeConfigs (key 32), versions 1 to 4: KIP-133, KIP-226 (sources and
// synonyms), KIP-569 (types and documentation).

// Sources of a configuration value.
const (
	dynamicBrokerSource  int8 = 2
	dynamicClusterSource int8 = 3
	staticBrokerSource   int8 = 4
	defaultConfigSource  int8 = 5
)

func describeConfigs(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DescribeConfigsRequest)
	response := body.ResponseKind().(*kmsg.DescribeConfigsResponse)
	image := h.Image()
	type key struct {
		kind kmsg.ConfigResourceType
		name string
	}
	seen := map[key]bool{} // an answer is far larger than its question: once is enough
	for i := range body.Resources {
		asked := &body.Resources[i]
		if seen[key{asked.ResourceType, asked.ResourceName}] {
			continue
		}
		seen[key{asked.ResourceType, asked.ResourceName}] = true
		r := kmsg.NewDescribeConfigsResponseResource()
		r.ResourceType, r.ResourceName = asked.ResourceType, asked.ResourceName
		configs, err, message := h.describeResource(image, asked)
		if err != nil {
			r.ErrorCode, r.ErrorMessage = err.Code, &message
		}
		for n := range configs {
			c := &configs[n]
			if len(asked.ConfigNames) > 0 && !slices.Contains(asked.ConfigNames, c.Name) {
				continue
			}
			if !body.IncludeSynonyms {
				c.ConfigSynonyms = nil
			}
			if !body.IncludeDocumentation {
				c.Documentation = nil
			}
			r.Configs = append(r.Configs, *c)
		}
		response.Resources = append(response.Resources, r)
	}
	respond(wire.Response{Body: response})
}

// describeResource returns all configurations of a resource, in full.
func (h *Handler) describeResource(image *metadata.Image, r *kmsg.DescribeConfigsRequestResource) ([]kmsg.DescribeConfigsResponseResourceConfig, *kerr.Error, string) {
	switch r.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		if err := metadata.ValidateTopicName(r.ResourceName); err != nil {
			return nil, kerr.InvalidTopicException, err.Error()
		}
		t, ok := image.Topic(r.ResourceName)
		if !ok {
			return nil, kerr.UnknownTopicOrPartition, "This server does not host this topic-partition."
		}
		return topicConfigs(image.TopicLayers(t.Config, h.NodeID, h.Config.TopicDefaults)), nil, ""
	case kmsg.ConfigResourceTypeBroker:
		if r.ResourceName == "" {
			return clusterConfigs(image.BrokerConfig(-1)), nil, ""
		}
		id, err := strconv.ParseInt(r.ResourceName, 10, 32)
		if err != nil {
			return nil, kerr.InvalidRequest, fmt.Sprintf("Broker id must be an integer, but it is: %.100s", r.ResourceName)
		}
		if int32(id) != h.NodeID {
			return nil, kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %d", h.NodeID, id)
		}
		return brokerConfigs(h.Config.Broker, image.BrokerConfig(h.NodeID), image.BrokerConfig(-1)), nil, ""
	}
	return nil, kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", r.ResourceType)
}

func topicConfigs(layers metadata.ConfigLayers) []kmsg.DescribeConfigsResponseResourceConfig {
	entries := metadata.DescribeTopicConfig(layers)
	configs := make([]kmsg.DescribeConfigsResponseResourceConfig, len(entries))
	for i := range entries {
		e, c := &entries[i], &configs[i]
		c.Default()
		c.Name, c.Value, c.Source = e.Key.Name, &e.Value, kmsg.ConfigSource(e.Source)
		c.ConfigType, c.Documentation = kmsg.ConfigType(e.Key.Type), documentation(e.Key)
		for _, s := range e.Synonyms {
			synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			synonym.Name, synonym.Value, synonym.Source = s.Name, &s.Value, kmsg.ConfigSource(s.Source)
			c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
		}
	}
	return configs
}

func documentation(k *metadata.TopicKey) *string {
	text := k.Doc
	if k.Unused != "" {
		text += " Setting it changes nothing: " + k.Unused + "."
	}
	return &text
}

// brokerConfigs shows the broker's settings, and what was set at run time: on the
// broker, and for all brokers.
func brokerConfigs(settings []BrokerSetting, broker, cluster map[string]string) []kmsg.DescribeConfigsResponseResourceConfig {
	configs := make([]kmsg.DescribeConfigsResponseResourceConfig, 0, len(settings))
	shown := map[string]bool{}
	for i := range settings {
		s := &settings[i]
		shown[s.Name] = true
		_, dynamic := metadata.LookupDynamicKey(s.Name)
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.ReadOnly, c.ConfigType, c.Documentation = s.Name, !dynamic, kmsg.ConfigType(s.Type), &s.Doc
		addSynonym(&c, broker, dynamicBrokerSource)
		addSynonym(&c, cluster, dynamicClusterSource)
		if s.Value != s.Default {
			addSynonym(&c, map[string]string{s.Name: s.Value}, staticBrokerSource)
		}
		addSynonym(&c, map[string]string{s.Name: s.Default}, defaultConfigSource)
		c.Value, c.Source = c.ConfigSynonyms[0].Value, c.ConfigSynonyms[0].Source
		configs = append(configs, c)
	}
	for _, layer := range []map[string]string{broker, cluster} {
		for _, name := range metadata.ConfigNames(layer) {
			if !shown[name] { // another unit of a setting, such as log.retention.hours
				shown[name] = true
				configs = append(configs, dynamicConfig(name, broker, cluster))
			}
		}
	}
	return configs
}

// clusterConfigs shows what was set at run time for all brokers.
func clusterConfigs(cluster map[string]string) []kmsg.DescribeConfigsResponseResourceConfig {
	var configs []kmsg.DescribeConfigsResponseResourceConfig
	for _, name := range metadata.ConfigNames(cluster) {
		configs = append(configs, dynamicConfig(name, nil, cluster))
	}
	return configs
}

func dynamicConfig(name string, broker, cluster map[string]string) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name = name
	if key, ok := metadata.LookupDynamicKey(name); ok {
		text := key.Doc()
		c.ConfigType, c.Documentation = kmsg.ConfigType(key.Type()), &text
	}
	addSynonym(&c, broker, dynamicBrokerSource)
	addSynonym(&c, cluster, dynamicClusterSource)
	c.Value, c.Source = c.ConfigSynonyms[0].Value, c.ConfigSynonyms[0].Source
	return c
}

// addSynonym adds the value that a layer gives, if it gives one.
func addSynonym(c *kmsg.DescribeConfigsResponseResourceConfig, layer map[string]string, source int8) {
	value, ok := layer[c.Name]
	if !ok {
		return
	}
	s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
	s.Name, s.Value, s.Source = c.Name, &value, kmsg.ConfigSource(source)
	c.ConfigSynonyms = append(c.ConfigSynonyms, s)
}
