package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// AlterPartitionReassignments (key 45), versions 0 and 1: KIP-455, KIP-860 (refuse
// another replication factor).

func alterPartitionReassignments(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.AlterPartitionAssignmentsRequest)
	h.decide(body, body.TimeoutMillis, func() kmsg.Response {
		response := body.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
		response.ErrorCode = kerr.RequestTimedOut.Code
		return response
	}, respond)
}
