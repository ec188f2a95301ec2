package handler

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Controller decides on changes of the cluster's metadata. Each method returns
// at once; done is called exactly once, on any goroutine, when the change is
// committed or refused, with results in the order of the request or with an error
// that stands for all of it. done must not block. The image of this node may be
// older than the result for a moment.
type Controller interface {
	CreateTopics(topics []kmsg.CreateTopicsRequestTopic, validateOnly bool, done func([]kmsg.CreateTopicsResponseTopic, *kerr.Error))
	// DeleteTopics deletes the topics named by Topic, or with a nil Topic by TopicID.
	DeleteTopics(topics []kmsg.DeleteTopicsRequestTopic, done func([]kmsg.DeleteTopicsResponseTopic, *kerr.Error))
	CreatePartitions(topics []kmsg.CreatePartitionsRequestTopic, validateOnly bool, done func([]kmsg.CreatePartitionsResponseTopic, *kerr.Error))
	IncrementalAlterConfigs(resources []kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool, done func([]kmsg.IncrementalAlterConfigsResponseResource, *kerr.Error))
	AlterConfigs(resources []kmsg.AlterConfigsRequestResource, validateOnly bool, done func([]kmsg.AlterConfigsResponseResource, *kerr.Error))
	// AllocateProducerIDs gives this broker the producer ids from first to
	// first+count-1.
	AllocateProducerIDs(done func(first int64, count int32, err *kerr.Error))
	// Decide answers a request of the APIs that the controller decides on alone, such
	// as ElectLeaders; done gets the response, which may be a refusal.
	Decide(request kmsg.Request, done func(response kmsg.Response))
}

// decide has the controller answer a request; expired makes the answer when it takes
// longer than the client waits.
func (h *Handler) decide(request kmsg.Request, timeoutMillis int32, expired func() kmsg.Response, respond wire.Responder) {
	finish := h.deadline(timeoutMillis, func() { respond(wire.Response{Body: expired()}) })
	h.Controller.Decide(request, func(response kmsg.Response) {
		if finish() {
			respond(wire.Response{Body: response})
		}
	})
}

// deadline has expired called at a time in milliseconds from now, unless finish
// was called first. finish says whether it came first.
func (h *Handler) deadline(timeoutMillis int32, expired func()) (finish func() bool) {
	var over atomic.Bool
	at := h.Now().Add(time.Duration(max(timeoutMillis, 0)) * time.Millisecond)
	cancel := h.Partitions.Schedule(at, func() {
		if over.CompareAndSwap(false, true) {
			expired()
		}
	})
	return func() bool {
		cancel()
		return over.CompareAndSwap(false, true)
	}
}

// creating is the set of topics whose automatic creation is under way, so that
// clients that ask again and again do not pile up requests for the controller.
type creating struct {
	mu    sync.Mutex
	names map[string]bool
}

// maxCreating bounds the set.
const maxCreating = 1000

// begin returns those of names that are not being created yet.
func (c *creating) begin(names []string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil {
		c.names = map[string]bool{}
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		if c.names[name] || len(c.names) >= maxCreating {
			return true
		}
		c.names[name] = true
		return false
	})
}

func (c *creating) end(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		delete(c.names, name)
	}
}

// createMissing begins to create topics because somebody asked for them. It does
// not wait: clients ask again.
func (h *Handler) createMissing(names []string) {
	names = h.creating.begin(names)
	if len(names) == 0 {
		return
	}
	topics := make([]kmsg.CreateTopicsRequestTopic, len(names))
	for i, name := range names {
		topics[i] = h.defaultTopic(name)
	}
	h.Controller.CreateTopics(topics, false, func(results []kmsg.CreateTopicsResponseTopic, err *kerr.Error) {
		h.creating.end(names)
		if err != nil {
			h.Logger.Debug().Err(err).Strs("topics", names).Msg("topics that clients asked for were not created")
			return
		}
		for i := range results {
			event := h.Logger.Info()
			if code := results[i].ErrorCode; code != 0 {
				event = h.Logger.Debug().Err(kerr.ErrorForCode(code))
			}
			event.Str("topic", results[i].Topic).Msg("automatic creation of a topic that a client asked for")
		}
	})
}

// defaultTopic is a topic as it is created when nobody says how.
func (h *Handler) defaultTopic(name string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	switch name {
	case metadata.OffsetsTopic:
		t.NumPartitions, t.ReplicationFactor = h.Config.OffsetsPartitions, h.internalReplication(h.Config.OffsetsReplication)
	case metadata.TransactionsTopic:
		t.NumPartitions, t.ReplicationFactor = h.Config.TransactionsPartitions, h.internalReplication(h.Config.TransactionsReplication)
	default:
		return t
	}
	configs := [][2]string{{"cleanup.policy", "compact"}, {"compression.type", "producer"}, {"segment.bytes", "104857600"}}
	if name == metadata.TransactionsTopic {
		configs[1] = [2]string{"compression.type", "uncompressed"}
		configs = append(configs, [2]string{"min.insync.replicas", strconv.Itoa(int(min(t.ReplicationFactor, h.Config.TransactionsMinISR)))},
			[2]string{"unclean.leader.election.enable", "false"})
	}
	for _, kv := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = kv[0], kmsg.StringPtr(kv[1])
		t.Configs = append(t.Configs, c)
	}
	return t
}
