package broker

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
)

const (
	// controllerTimeout bounds a request to the active controller with all its
	// attempts, while there is none too.
	controllerTimeout = 30 * time.Second
	// attemptTimeout bounds one attempt at another node.
	attemptTimeout = 10 * time.Second
	// controllerPause is the time between two attempts.
	controllerPause = 20 * time.Millisecond
)

// controllerClient is the way to the active controller: in process when this node is
// it, over the inter-node listener of the node that is otherwise. What fails because
// the controller moved or cannot be reached is tried again, as Kafka's brokers do: so a
// change may be made twice, the second time in vain.
type controllerClient struct {
	broker *Broker
	// local asks the controller of this node only: the request came from another node,
	// which finds the active one.
	local bool
}

var _ handler.Controller = (*controllerClient)(nil)

// attempt is one request in both of its forms.
type attempt struct {
	event   func(id uint64) controller.Event // for the controller of this node
	request kmsg.Request                     // for that of another
	answer  func(kmsg.Response) (any, int16) // reads the other's answer: a controller.Answer's Response, or an error code
}

// ask submits a request whose answer is a T. done is called once and must not block.
func ask[T any](c *controllerClient, a attempt, done func(T, *kerr.Error)) {
	finish := func(answer any, err *kerr.Error) {
		response, _ := answer.(T) // nil with an error
		done(response, err)
	}
	b := c.broker
	if c.local || !b.cfg.clustered() {
		b.shell.submit(a.event, func(x controller.Answer) { finish(x.Response, x.Err) })
		return
	}
	if leader, _ := b.log.Leader(); leader == b.cfg.NodeID {
		b.shell.submit(a.event, func(x controller.Answer) {
			if x.Err == kerr.NotController {
				c.askAnywhere(a, finish)
				return
			}
			finish(x.Response, x.Err)
		})
		return
	}
	c.askAnywhere(a, finish)
}

// askAnywhere asks on a goroutine of its own, until the broker stops.
func (c *controllerClient) askAnywhere(a attempt, done func(any, *kerr.Error)) {
	b := c.broker
	if !b.asking.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, controllerTimeout)
		defer cancel()
		answer, err := c.call(ctx, a)
		var refused *kerr.Error
		switch {
		case err == nil:
			done(answer, nil)
		case errors.As(err, &refused):
			done(nil, refused)
		default:
			done(nil, kerr.NotController)
		}
	}) {
		done(nil, kerr.NotController)
	}
}

// call asks the active controller until it answers or ctx ends. Its error is a
// *kerr.Error or that of ctx.
func (c *controllerClient) call(ctx context.Context, a attempt) (any, error) {
	b := c.broker
	for {
		var answer any
		var err error
		leader, _ := b.log.Leader()
		switch {
		case leader == b.cfg.NodeID:
			answer, err = b.shell.call(ctx, a.event)
		case leader >= 0 && b.peers != nil:
			answer, err = c.callNode(ctx, leader, a)
		default:
			err = kerr.NotController
		}
		if err == nil {
			return answer, nil
		}
		var refused *kerr.Error
		if errors.As(err, &refused) && refused != kerr.NotController {
			return nil, refused
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		timer := time.NewTimer(controllerPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

func (c *controllerClient) callNode(ctx context.Context, node int32, a attempt) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	response, err := c.broker.peers.Request(ctx, node, a.request)
	if err != nil {
		c.broker.logger.Debug().Int32("controller", node).Err(err).Msg("the active controller did not answer; trying again")
		return nil, err
	}
	answer, code := a.answer(response)
	if code != 0 {
		if refused, ok := kerr.ErrorForCode(code).(*kerr.Error); ok {
			return nil, refused
		}
		return nil, kerr.UnknownServerError
	}
	return answer, nil
}

// asking runs what waits for the active controller, until it is stopped.
type asking struct {
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	mu     sync.Mutex
	closed bool
}

func newAsking() *asking {
	a := &asking{}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (a *asking) start(f func(ctx context.Context)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.tasks.Go(func() { f(a.ctx) })
	return true
}

func (a *asking) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.tasks.Wait()
}

func (c *controllerClient) CreateTopics(topics []kmsg.CreateTopicsRequestTopic, validateOnly bool, done func([]kmsg.CreateTopicsResponseTopic, *kerr.Error)) {
	ids := make([]metadata.UUID, len(topics))
	for n := range ids {
		var err error
		if ids[n], err = metadata.NewUUID(c.broker.env.Random); err != nil {
			c.broker.logger.Error().Err(err).Msg("no randomness for the ids of new topics")
			done(nil, kerr.UnknownServerError)
			return
		}
	}
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Topics, r.ValidateOnly, r.TimeoutMillis = topics, validateOnly, int32(attemptTimeout.Milliseconds())
	ask(c, attempt{
		event: func(id uint64) controller.Event {
			return controller.CreateTopics{ID: id, Topics: topics, ValidateOnly: validateOnly, TopicIDs: ids}
		},
		request: r,
		answer: func(x kmsg.Response) (any, int16) {
			results := x.(*kmsg.CreateTopicsResponse).Topics
			return results, moved(results, func(t *kmsg.CreateTopicsResponseTopic) int16 { return t.ErrorCode })
		},
	}, done)
}

// moved returns NOT_CONTROLLER when a result says so: then all do.
func moved[T any](results []T, code func(*T) int16) int16 {
	for n := range results {
		if code(&results[n]) == kerr.NotController.Code {
			return kerr.NotController.Code
		}
	}
	return 0
}

func (c *controllerClient) DeleteTopics(topics []kmsg.DeleteTopicsRequestTopic, done func([]kmsg.DeleteTopicsResponseTopic, *kerr.Error)) {
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.Topics, r.TimeoutMillis = topics, int32(attemptTimeout.Milliseconds())
	ask(c, attempt{
		event:   func(id uint64) controller.Event { return controller.DeleteTopics{ID: id, Topics: topics} },
		request: r,
		answer: func(x kmsg.Response) (any, int16) {
			results := x.(*kmsg.DeleteTopicsResponse).Topics
			return results, moved(results, func(t *kmsg.DeleteTopicsResponseTopic) int16 { return t.ErrorCode })
		},
	}, done)
}

func (c *controllerClient) CreatePartitions(topics []kmsg.CreatePartitionsRequestTopic, validateOnly bool, done func([]kmsg.CreatePartitionsResponseTopic, *kerr.Error)) {
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.Topics, r.ValidateOnly, r.TimeoutMillis = topics, validateOnly, int32(attemptTimeout.Milliseconds())
	ask(c, attempt{
		event: func(id uint64) controller.Event {
			return controller.CreatePartitions{ID: id, Topics: topics, ValidateOnly: validateOnly}
		},
		request: r,
		answer: func(x kmsg.Response) (any, int16) {
			results := x.(*kmsg.CreatePartitionsResponse).Topics
			return results, moved(results, func(t *kmsg.CreatePartitionsResponseTopic) int16 { return t.ErrorCode })
		},
	}, done)
}

func (c *controllerClient) IncrementalAlterConfigs(resources []kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool, done func([]kmsg.IncrementalAlterConfigsResponseResource, *kerr.Error)) {
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.Resources, r.ValidateOnly = resources, validateOnly
	ask(c, attempt{
		event: func(id uint64) controller.Event {
			return controller.IncrementalAlterConfigs{ID: id, Resources: resources, ValidateOnly: validateOnly}
		},
		request: r,
		answer: func(x kmsg.Response) (any, int16) {
			results := x.(*kmsg.IncrementalAlterConfigsResponse).Resources
			return results, moved(results, func(t *kmsg.IncrementalAlterConfigsResponseResource) int16 { return t.ErrorCode })
		},
	}, done)
}

func (c *controllerClient) AlterConfigs(resources []kmsg.AlterConfigsRequestResource, validateOnly bool, done func([]kmsg.AlterConfigsResponseResource, *kerr.Error)) {
	r := kmsg.NewPtrAlterConfigsRequest()
	r.Resources, r.ValidateOnly = resources, validateOnly
	ask(c, attempt{
		event: func(id uint64) controller.Event {
			return controller.AlterConfigs{ID: id, Resources: resources, ValidateOnly: validateOnly}
		},
		request: r,
		answer: func(x kmsg.Response) (any, int16) {
			results := x.(*kmsg.AlterConfigsResponse).Resources
			return results, moved(results, func(t *kmsg.AlterConfigsResponseResource) int16 { return t.ErrorCode })
		},
	}, done)
}

func (c *controllerClient) AllocateProducerIDs(done func(first int64, count int32, err *kerr.Error)) {
	broker, epoch := c.broker.cfg.NodeID, c.broker.liveness.epoch.Load()
	r := kmsg.NewPtrAllocateProducerIDsRequest()
	r.BrokerID, r.BrokerEpoch = broker, epoch
	ask(c, attempt{
		event: func(id uint64) controller.Event {
			return controller.AllocateProducerIDs{ID: id, Broker: broker, BrokerEpoch: epoch}
		},
		request: r,
		answer: func(x kmsg.Response) (any, int16) {
			a := x.(*kmsg.AllocateProducerIDsResponse)
			return controller.ProducerIDs{First: a.ProducerIDStart, Count: a.ProducerIDLen}, a.ErrorCode
		},
	}, func(block controller.ProducerIDs, err *kerr.Error) { done(block.First, block.Count, err) })
}

// registerBroker and heartbeat are what liveness asks; they wait for the answer.
func (c *controllerClient) registerBroker(ctx context.Context, e controller.RegisterBroker) (controller.Registration, error) {
	answer, err := c.call(ctx, attempt{
		event:   func(id uint64) controller.Event { e.ID = id; return e },
		request: controller.RegistrationRequest(&e),
		answer: func(x kmsg.Response) (any, int16) {
			a := x.(*kmsg.BrokerRegistrationResponse)
			return controller.Registration{BrokerEpoch: a.BrokerEpoch}, a.ErrorCode
		},
	})
	r, _ := answer.(controller.Registration) // zero with an error
	return r, err
}

func (c *controllerClient) heartbeat(ctx context.Context, e controller.BrokerHeartbeat) (controller.HeartbeatAnswer, error) {
	request := kmsg.NewPtrBrokerHeartbeatRequest()
	request.BrokerID, request.BrokerEpoch, request.CurrentMetadataOffset = e.Broker, e.BrokerEpoch, e.Offset
	request.WantFence, request.WantShutdown = e.WantFence, e.WantShutDown
	answer, err := c.call(ctx, attempt{
		event:   func(id uint64) controller.Event { e.ID = id; return e },
		request: request,
		answer: func(x kmsg.Response) (any, int16) {
			a := x.(*kmsg.BrokerHeartbeatResponse)
			return controller.HeartbeatAnswer{CaughtUp: a.IsCaughtUp, Fenced: a.IsFenced, ShouldShutDown: a.ShouldShutdown}, a.ErrorCode
		},
	})
	r, _ := answer.(controller.HeartbeatAnswer) // zero with an error
	return r, err
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
