package handler

import (
	"context"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// JoinGroup (key 11), versions 0 to 9: member ids handed out first (KIP-394),
// static members (KIP-345), the leader told to keep its assignment (KIP-814).
func joinGroup(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.JoinGroup(request.Body.(*kmsg.JoinGroupRequest), request.ClientID, clientHost(request), bodyOf[*kmsg.JoinGroupResponse](respond))
}

// clientHost is the client's address as groups tell it.
func clientHost(request *wire.Request) string {
	host := request.Conn.RemoteAddr.String()
	if address, _, err := net.SplitHostPort(host); err == nil {
		host = address
	}
	return "/" + host
}
