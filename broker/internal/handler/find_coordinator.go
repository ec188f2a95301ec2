package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Kinds of coordinator in FindCoordinator.
const (
	coordinatorGroup       = 0
	coordinatorTransaction = 1
)

// FindCoordinator (key 10), versions 0 to 6, several keys at once from version 4
// on (KIP-699). The topic that holds the groups or the transactional ids is made when
// one is first looked for.
func findCoordinator(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.FindCoordinatorRequest)
	keys := body.CoordinatorKeys
	if body.Version < 4 {
		keys = []string{body.CoordinatorKey}
	}
	answer := func() {
		out := body.ResponseKind().(*kmsg.FindCoordinatorResponse)
		for _, key := range keys {
			out.Coordinators = append(out.Coordinators, h.coordinator(body.CoordinatorType, key, request.Conn.Listener))
		}
		if body.Version < 4 {
			one := out.Coordinators[0]
			out.Coordinators = nil
			out.ErrorCode, out.ErrorMessage, out.NodeID, out.Host, out.Port = one.ErrorCode, one.ErrorMessage, one.NodeID, one.Host, one.Port
		}
		respond(wire.Response{Body: out})
	}
	topic, ok := coordinatorTopics[body.CoordinatorType]
	if _, exists := h.Image().Topic(topic); exists || !ok {
		answer()
		return
	}
	h.createInternalTopic(topic, answer)
}

// coordinatorTopics are the topics that hold what coordinators remember.
var coordinatorTopics = map[int8]string{coordinatorGroup: metadata.OffsetsTopic, coordinatorTransaction: metadata.TransactionsTopic}

// createInternalTopic has the topic made and calls done afterwards, whatever came
// of it: clients ask again until there is a coordinator.
func (h *Handler) createInternalTopic(name string, done func()) {
	topic := h.defaultTopic(name)
	h.Controller.CreateTopics([]kmsg.CreateTopicsRequestTopic{topic}, false, func(results []kmsg.CreateTopicsResponseTopic, err *kerr.Error) {
		for _, r := range results {
			if r.ErrorCode != 0 && r.ErrorCode != kerr.TopicAlreadyExists.Code {
				h.Logger.Warn().Int16("code", r.ErrorCode).AnErr("error", kerr.ErrorForCode(r.ErrorCode)).
					Msg("the topic " + name + " cannot be created, so what needs its coordinator does not work; check its replication factor in the configuration and the number of brokers")
			}
		}
		if err != nil {
			h.Logger.Debug().Err(err).Msg("creation of " + name + " refused")
		}
		done()
	})
}

// internalReplication resolves the replication factor that is set for an internal topic.
// When brokers that are about to register make the default more than can be placed now,
// the creation is refused, and clients try again.
func (h *Handler) internalReplication(set int16) int16 {
	if set != -1 {
		return set
	}
	return int16(max(1, min(3, h.Brokers())))
}

// coordinator says where the coordinator of one key is.
func (h *Handler) coordinator(kind int8, key, listener string) kmsg.FindCoordinatorResponseCoordinator {
	out := kmsg.NewFindCoordinatorResponseCoordinator()
	out.Key, out.NodeID, out.Port = key, -1, -1
	fail := func(err *kerr.Error, why string) kmsg.FindCoordinatorResponseCoordinator {
		out.ErrorCode, out.ErrorMessage = err.Code, &why
		return out
	}
	name, ok := coordinatorTopics[kind]
	switch {
	case !ok:
		return fail(kerr.InvalidRequest, "unknown kind of coordinator")
	case key == "" && kind == coordinatorGroup:
		return fail(kerr.InvalidGroupID, "the group id is empty")
	case key == "":
		return fail(kerr.InvalidRequest, "the transactional id is empty")
	}
	image := h.Image()
	topic, ok := image.Topic(name)
	if !ok || len(topic.Partitions) == 0 {
		return fail(kerr.CoordinatorNotAvailable, name+" is being created")
	}
	p := &topic.Partitions[h.Groups.PartitionFor(key, int32(len(topic.Partitions)))]
	host, port, ok := brokerAddress(image, p.Leader, listener)
	if !ok {
		return fail(kerr.CoordinatorNotAvailable, "the coordinator's partition has no leader")
	}
	out.NodeID, out.Host, out.Port = p.Leader, host, port
	return out
}

func brokerAddress(image *metadata.Image, id int32, listener string) (host string, port int32, ok bool) {
	b, ok := image.Broker(id)
	if !ok || b.Fenced {
		return "", 0, false
	}
	l, ok := b.Listener(listener)
	return l.Host, l.Port, ok
}
