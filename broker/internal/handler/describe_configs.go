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
	staticBrokerSource  int8 = 4
	defaultConfigSource int8 = 5
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
		return topicConfigs(t.Config, h.Config.TopicDefaults), nil, ""
	case kmsg.ConfigResourceTypeBroker:
		if r.ResourceName == "" {
			return nil, nil, "" // no dynamic default is ever set
		}
		id, err := strconv.ParseInt(r.ResourceName, 10, 32)
		if err != nil {
			return nil, kerr.InvalidRequest, fmt.Sprintf("Broker id must be an integer, but it is: %.100s", r.ResourceName)
		}
		if int32(id) != h.NodeID {
			return nil, kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %d", h.NodeID, id)
		}
		return brokerConfigs(h.Config.Broker), nil, ""
	}
	return nil, kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", r.ResourceType)
}

func topicConfigs(config, defaults map[string]string) []kmsg.DescribeConfigsResponseResourceConfig {
	entries := metadata.DescribeTopicConfig(config, defaults)
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

// brokerConfigs shows the broker's settings. They are fixed while it runs.
func brokerConfigs(settings []BrokerSetting) []kmsg.DescribeConfigsResponseResourceConfig {
	configs := make([]kmsg.DescribeConfigsResponseResourceConfig, len(settings))
	for i := range settings {
		s, c := &settings[i], &configs[i]
		c.Default()
		c.Name, c.Value, c.ReadOnly = s.Name, &s.Value, true
		c.ConfigType, c.Documentation = kmsg.ConfigType(s.Type), &s.Doc
		source := staticBrokerSource
		if s.Value == s.Default {
			source = defaultConfigSource
		}
		c.Source = kmsg.ConfigSource(source)
		synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
		synonym.Name, synonym.Value, synonym.Source = s.Name, &s.Value, kmsg.ConfigSource(source)
		c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
		if source != defaultConfigSource {
			synonym.Value, synonym.Source = &s.Default, kmsg.ConfigSource(defaultConfigSource)
			c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
		}
	}
	return configs
}
