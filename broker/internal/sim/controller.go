package sim

import (
	"errors"
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// controllerShell drives the controller's core as the broker's shell does: one entry is
// in flight at a time, and what is proposed meanwhile goes into the next one.
type controllerShell struct {
	p          *process
	core       *controller.Controller
	answers    map[uint64]func(controller.Answer)
	lastID     uint64
	queue      []controller.Proposal
	inFlight   bool
	generation int
	epoch      int32
	alarm      int // of the deadline that is waited for
}

func newControllerShell(p *process, core *controller.Controller) *controllerShell {
	return &controllerShell{p: p, core: core, answers: map[uint64]func(controller.Answer){}}
}

// soon runs f as a message of the shell's inbox.
func (s *controllerShell) soon(f func()) {
	s.p.life.after(s.p.node.c.s.between(0, 100*time.Microsecond), func() {
		f()
		s.propose()
		s.arm()
	})
}

func (s *controllerShell) arm() {
	s.alarm++
	mine := s.alarm
	if deadline := s.core.NextDeadline(); !deadline.IsZero() {
		s.p.life.after(deadline.Sub(s.p.node.c.s.time()), func() {
			if s.alarm == mine {
				s.step(controller.Tick{})
				s.propose()
				s.arm()
			}
		})
	}
}

func (s *controllerShell) leaderChanged(self bool, epoch int32, image *metadata.Image) {
	id, _ := metadata.NewUUID(reader{s.p.node.c.s})
	s.soon(func() {
		s.queue, s.inFlight = nil, false
		s.generation++
		if !self {
			s.step(controller.Resigned{})
			return
		}
		s.epoch = epoch
		s.step(controller.BecameLeader{Epoch: epoch, Image: image, ClusterID: id})
	})
}

// submit hands a request to the controller.
func (s *controllerShell) submit(request kmsg.Request, answer func(controller.Answer)) {
	s.soon(func() {
		s.lastID++
		event, ok, err := controller.EventFor(request, s.lastID, func() (metadata.UUID, error) { return metadata.NewUUID(reader{s.p.node.c.s}) })
		if err != nil || !ok {
			panic("sim: a request that the controller does not know: " + kmsg.NameForKey(request.Key()))
		}
		s.answers[s.lastID] = answer
		s.step(event)
	})
}

func (s *controllerShell) step(e controller.Event) {
	fx := s.core.Step(s.p.node.c.s.time(), e)
	s.queue = append(s.queue, fx.Proposals...)
	for _, a := range fx.Answers {
		if answer := s.answers[a.ID]; answer != nil {
			delete(s.answers, a.ID)
			answer(a)
		}
	}
}

// propose commits what is queued as one entry when none is in flight.
func (s *controllerShell) propose() {
	if s.inFlight || len(s.queue) == 0 {
		return
	}
	var changes []metadata.Change
	for _, p := range s.queue {
		changes = append(changes, p.Changes...)
	}
	last, generation, epoch := s.queue[len(s.queue)-1].ID, s.generation, s.epoch
	s.queue, s.inFlight = nil, true
	value := metadata.Encode(changes)
	s.p.run(func() {
		s.p.member.Propose(epoch, value, func(offset int64, err error) {
			image := s.p.log.image
			settle := func() { s.soon(func() { s.settle(generation, last, image, err) }) }
			if err != nil {
				settle()
				return
			}
			s.p.log.whenPublished(offset, settle)
		})
	})
}

func (s *controllerShell) settle(generation int, last uint64, image *metadata.Image, err error) {
	if generation != s.generation {
		return
	}
	s.inFlight = false
	if err == nil {
		s.step(controller.Committed{Proposal: last, Image: image})
		return
	}
	s.queue = nil
	s.step(controller.Failed{Image: image})
}

// askController asks the active controller until it answers. It returns the error that
// stands for all of the answer.
func (p *process) askController(request kmsg.Request) (kmsg.Response, error) {
	c := p.node.c
	request.SetVersion(request.MaxVersion())
	for giveUp := c.s.now + controllerTimeout; c.s.now < giveUp; c.s.sleep(controllerPause) {
		var response kmsg.Response
		var err error
		switch leader := p.log.leader; {
		case leader == p.node.id:
			c.s.park(func(wake func()) {
				p.shell.submit(request, func(a controller.Answer) {
					response = controller.ResponseFor(request, a)
					wake()
				})
			})
		case leader > 0:
			response, err = c.net.wait(stream{p.node.id, leader, "controller"}, c.nodes[leader], true, request, attemptTimeout)
		default:
			continue
		}
		if err != nil {
			continue
		}
		if refused := controllerError(response); refused != nil {
			if refused == kerr.NotController {
				continue
			}
			return response, refused
		}
		return response, nil
	}
	return nil, kerr.NotController
}

// controllerError is the error that stands for all of a response; NOT_CONTROLLER is
// also told item by item.
func controllerError(response kmsg.Response) error {
	if err := controller.ErrorOf(response); err != nil {
		return err
	}
	var code int16
	switch r := response.(type) {
	case *kmsg.CreateTopicsResponse:
		for i := range r.Topics {
			code = r.Topics[i].ErrorCode
		}
	case *kmsg.DeleteTopicsResponse:
		for i := range r.Topics {
			code = r.Topics[i].ErrorCode
		}
	case *kmsg.AlterPartitionAssignmentsResponse:
		code = r.ErrorCode
	case *kmsg.ElectLeadersResponse:
		code = r.ErrorCode
	}
	if code == kerr.NotController.Code {
		return kerr.NotController
	}
	return nil
}

// controllerClient implements handler.Controller: the way to the active controller, or
// with local to that of this node.
type controllerClient struct {
	p     *process
	local bool
}

var _ handler.Controller = (*controllerClient)(nil)

// Decide implements handler.Controller.
func (c *controllerClient) Decide(request kmsg.Request, done func(kmsg.Response)) {
	version := request.GetVersion()
	if c.local {
		c.p.shell.submit(request, func(a controller.Answer) {
			response := controller.ResponseFor(request, a)
			response.SetVersion(version)
			done(response)
		})
		return
	}
	copied := reflect.New(reflect.TypeOf(request).Elem()) // which goes at a version of its own
	copied.Elem().Set(reflect.ValueOf(request).Elem())
	request = copied.Interface().(kmsg.Request)
	c.p.life.Go(func() {
		response, err := c.p.askController(request)
		if response == nil {
			var refused *kerr.Error
			errors.As(err, &refused)
			response = controller.Refuse(request, refused)
		}
		response.SetVersion(version)
		done(response)
	})
}

// CreateTopics implements handler.Controller.
func (c *controllerClient) CreateTopics(topics []kmsg.CreateTopicsRequestTopic, validateOnly bool, done func([]kmsg.CreateTopicsResponseTopic, *kerr.Error)) {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Topics, r.ValidateOnly = topics, validateOnly
	c.Decide(r, func(x kmsg.Response) { done(x.(*kmsg.CreateTopicsResponse).Topics, nil) })
}

// DeleteTopics implements handler.Controller.
func (c *controllerClient) DeleteTopics(topics []kmsg.DeleteTopicsRequestTopic, done func([]kmsg.DeleteTopicsResponseTopic, *kerr.Error)) {
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.Topics = topics
	c.Decide(r, func(x kmsg.Response) { done(x.(*kmsg.DeleteTopicsResponse).Topics, nil) })
}

// CreatePartitions implements handler.Controller.
func (c *controllerClient) CreatePartitions(topics []kmsg.CreatePartitionsRequestTopic, validateOnly bool, done func([]kmsg.CreatePartitionsResponseTopic, *kerr.Error)) {
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.Topics, r.ValidateOnly = topics, validateOnly
	c.Decide(r, func(x kmsg.Response) { done(x.(*kmsg.CreatePartitionsResponse).Topics, nil) })
}

// IncrementalAlterConfigs implements handler.Controller.
func (c *controllerClient) IncrementalAlterConfigs(resources []kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool, done func([]kmsg.IncrementalAlterConfigsResponseResource, *kerr.Error)) {
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.Resources, r.ValidateOnly = resources, validateOnly
	c.Decide(r, func(x kmsg.Response) { done(x.(*kmsg.IncrementalAlterConfigsResponse).Resources, nil) })
}

// AlterConfigs implements handler.Controller.
func (c *controllerClient) AlterConfigs(resources []kmsg.AlterConfigsRequestResource, validateOnly bool, done func([]kmsg.AlterConfigsResponseResource, *kerr.Error)) {
	r := kmsg.NewPtrAlterConfigsRequest()
	r.Resources, r.ValidateOnly = resources, validateOnly
	c.Decide(r, func(x kmsg.Response) { done(x.(*kmsg.AlterConfigsResponse).Resources, nil) })
}

// AllocateProducerIDs implements handler.Controller.
func (c *controllerClient) AllocateProducerIDs(done func(first int64, count int32, err *kerr.Error)) {
	r := kmsg.NewPtrAllocateProducerIDsRequest()
	r.BrokerID, r.BrokerEpoch = c.p.node.id, c.p.epoch
	c.Decide(r, func(x kmsg.Response) {
		a := x.(*kmsg.AllocateProducerIDsResponse)
		if a.ErrorCode != 0 {
			done(-1, 0, kerr.TypedErrorForCode(a.ErrorCode))
			return
		}
		done(a.ProducerIDStart, a.ProducerIDLen, nil)
	})
}
