package broker

import (
	"io"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// controllerClient is the way from the handlers to the active controller: in this
// version always that of the own node.
type controllerClient struct {
	shell    *controllerShell
	liveness *liveness
	random   io.Reader
}

var _ handler.Controller = (*controllerClient)(nil)

// ask submits a request whose answer is a T.
func ask[T any](s *controllerShell, request func(id uint64) controller.Event, done func(T, *kerr.Error)) {
	s.submit(request, func(a controller.Answer) {
		response, _ := a.Response.(T) // nil with an error
		done(response, a.Err)
	})
}

func (c *controllerClient) CreateTopics(topics []kmsg.CreateTopicsRequestTopic, validateOnly bool, done func([]kmsg.CreateTopicsResponseTopic, *kerr.Error)) {
	ids := make([]metadata.UUID, len(topics))
	for n := range ids {
		var err error
		if ids[n], err = metadata.NewUUID(c.random); err != nil {
			c.shell.logger.Error().Err(err).Msg("no randomness for the ids of new topics")
			done(nil, kerr.UnknownServerError)
			return
		}
	}
	ask(c.shell, func(id uint64) controller.Event {
		return controller.CreateTopics{ID: id, Topics: topics, ValidateOnly: validateOnly, TopicIDs: ids}
	}, done)
}

func (c *controllerClient) DeleteTopics(topics []kmsg.DeleteTopicsRequestTopic, done func([]kmsg.DeleteTopicsResponseTopic, *kerr.Error)) {
	ask(c.shell, func(id uint64) controller.Event { return controller.DeleteTopics{ID: id, Topics: topics} }, done)
}

func (c *controllerClient) CreatePartitions(topics []kmsg.CreatePartitionsRequestTopic, validateOnly bool, done func([]kmsg.CreatePartitionsResponseTopic, *kerr.Error)) {
	ask(c.shell, func(id uint64) controller.Event {
		return controller.CreatePartitions{ID: id, Topics: topics, ValidateOnly: validateOnly}
	}, done)
}

func (c *controllerClient) IncrementalAlterConfigs(resources []kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool, done func([]kmsg.IncrementalAlterConfigsResponseResource, *kerr.Error)) {
	ask(c.shell, func(id uint64) controller.Event {
		return controller.IncrementalAlterConfigs{ID: id, Resources: resources, ValidateOnly: validateOnly}
	}, done)
}

func (c *controllerClient) AlterConfigs(resources []kmsg.AlterConfigsRequestResource, validateOnly bool, done func([]kmsg.AlterConfigsResponseResource, *kerr.Error)) {
	ask(c.shell, func(id uint64) controller.Event {
		return controller.AlterConfigs{ID: id, Resources: resources, ValidateOnly: validateOnly}
	}, done)
}

func (c *controllerClient) AllocateProducerIDs(done func(first int64, count int32, err *kerr.Error)) {
	ask(c.shell, func(id uint64) controller.Event {
		return controller.AllocateProducerIDs{ID: id, Broker: c.liveness.register.Broker, BrokerEpoch: c.liveness.epoch.Load()}
	}, func(block controller.ProducerIDs, err *kerr.Error) { done(block.First, block.Count, err) })
}

// lockedReader lets several goroutines draw from one source of randomness.
type lockedReader struct {
	mu     sync.Mutex
	reader io.Reader
}

func (r *lockedReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reader.Read(p)
}
