package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeGroups (key 15), versions 0 to 6: from version 6 on a group that does not
// exist is an error (KIP-1043). There are no authorized operations (KIP-430).
func describeGroups(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.DescribeGroups(request.Body.(*kmsg.DescribeGroupsRequest), bodyOf[*kmsg.DescribeGroupsResponse](respond))
}
