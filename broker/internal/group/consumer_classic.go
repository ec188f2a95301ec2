package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// joinConsumers handles JoinGroup for a group of the consumer protocol. One without
// members gives way to a classic group.
func (s *Shard) joinConsumers(g *group, r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	if len(g.consumer.members) > 0 {
		respond(JoinResponse{Err: kerr.InconsistentGroupProtocol, Generation: -1, MemberID: r.MemberID})
		return coordinator.Result{}
	}
	if r.ProtocolType == "" || len(r.Protocols) == 0 {
		respond(JoinResponse{Err: kerr.InconsistentGroupProtocol, Generation: -1, MemberID: r.MemberID})
		return coordinator.Result{}
	}
	if r.MemberID != "" {
		respond(JoinResponse{Err: kerr.UnknownMemberID, Generation: -1, MemberID: r.MemberID})
		return coordinator.Result{}
	}
	records := g.consumer.tombstones(g.id)
	g.consumer = nil
	result := s.Join(r, now, respond)
	result.Records = append(records, result.Records...)
	return result
}
