package broker

import (
	"reflect"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// Decide implements handler.Controller.
func (c *controllerClient) Decide(request kmsg.Request, done func(kmsg.Response)) {
	if c.askQuorum(request, done) {
		return
	}
	asked := request.GetVersion()
	remote := request
	if !c.local {
		remote = copyOf(request) // which goes at a version of its own
	}
	ask(c, attempt{
		event:   func(id uint64) controller.Event { return c.broker.shell.event(request, id) },
		request: remote,
		answer:  func(response kmsg.Response) (any, int16) { return response, movedCode(response) },
	}, func(answer any, err *kerr.Error) {
		response, forwarded := answer.(kmsg.Response)
		if !forwarded {
			response = controller.ResponseFor(request, controller.Answer{Response: answer, Err: err})
		}
		response.SetVersion(asked)
		done(response)
	})
}

// copyOf returns a request of its own with the same content.
func copyOf(request kmsg.Request) kmsg.Request {
	copied := reflect.New(reflect.TypeOf(request).Elem())
	copied.Elem().Set(reflect.ValueOf(request).Elem())
	return copied.Interface().(kmsg.Request)
}

// movedCode returns NOT_CONTROLLER when that is what a response says as a whole.
func movedCode(response kmsg.Response) int16 {
	field := reflect.ValueOf(response).Elem().FieldByName("ErrorCode")
	if field.IsValid() && int16(field.Int()) == kerr.NotController.Code {
		return kerr.NotController.Code
	}
	return 0
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
