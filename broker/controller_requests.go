package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// Decide implements handler.Controller.
func (c *controllerClient) Decide(request kmsg.Request, done func(kmsg.Response)) {
	c.shell.submit(func(id uint64) controller.Event { return c.shell.event(request, id) },
		func(a controller.Answer) { done(controller.ResponseFor(request, a)) })
}

// event returns the event of a request; the handlers pass on only those that there is
// one for.
func (s *controllerShell) event(request kmsg.Request, id uint64) controller.Event {
	event, ok, err := controller.EventFor(request, id, func() (metadata.UUID, error) { return metadata.NewUUID(s.random) })
	if err != nil || !ok {
		s.logger.Error().Err(err).Msgf("request %s cannot be put to the controller", kmsg.NameForKey(request.Key()))
		return controller.Refused{ID: id, Err: kerr.UnknownServerError}
	}
	return event
}
