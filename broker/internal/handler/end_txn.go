package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// EndTxn (key 26), versions 0 to 5: KIP-98; from version 5 on the end raises the
// producer's epoch, which the answer tells (KIP-890).
func endTxn(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.EndTxnRequest)
	if body.TransactionalID == "" {
		out := body.ResponseKind().(*kmsg.EndTxnResponse)
		out.ErrorCode, out.ProducerID, out.ProducerEpoch = kerr.InvalidRequest.Code, -1, -1
		respond(wire.Response{Body: out})
		return
	}
	h.Transactions.EndTxn(body, bodyOf[*kmsg.EndTxnResponse](respond))
}
