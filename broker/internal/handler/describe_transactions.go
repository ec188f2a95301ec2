package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeTransactions (key 65), version 0: KIP-664.
func describeTransactions(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Transactions.DescribeTransactions(request.Body.(*kmsg.DescribeTransactionsRequest), bodyOf[*kmsg.DescribeTransactionsResponse](respond))
}

// ListTransactions (key 66), versions 0 to 2: KIP-664, KIP-994 (by duration), KIP-1152
// (by pattern).
func listTransactions(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Transactions.ListTransactions(request.Body.(*kmsg.ListTransactionsRequest), bodyOf[*kmsg.ListTransactionsResponse](respond))
}
