package group

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

func (s *Shard) sortedIDs() []string {
	ids := make([]string, 0, len(s.groups))
	for id := range s.groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// List returns all groups, by id.
func (s *Shard) List() []Listing {
	list := make([]Listing, 0, len(s.groups))
	for _, id := range s.sortedIDs() {
		g := s.groups[id]
		one := Listing{GroupID: id, ProtocolType: g.protocolType, State: string(g.currentState()), Type: "classic"}
		if g.consumer != nil {
			one.ProtocolType, one.Type = "consumer", "consumer"
		}
		list = append(list, one)
	}
	return list
}

// Describe returns one group. One that is not there has state Dead, and from
// version 6 of the request on GROUP_ID_NOT_FOUND (KIP-1043).
func (s *Shard) Describe(groupID string) Description {
	g := s.groups[groupID]
	if g == nil || g.consumer != nil {
		return Description{Err: kerr.GroupIDNotFound, State: string(Dead)}
	}
	d := Description{State: string(g.state), ProtocolType: g.protocolType}
	if g.state == Stable {
		d.Protocol = g.protocol
	}
	for _, m := range g.sorted() {
		one := DescribedMember{MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost}
		one.Assignment = m.assignment // of the last generation, as Kafka shows it
		if g.state == Stable {
			one.Metadata = m.metadata(g.protocol)
		}
		d.Members = append(d.Members, one)
	}
	return d
}

// tombstones are the records that remove the group, its offsets excepted. That of a
// classic group is written even if the group never was: it is what tells a reader of
// the topic that the group is gone.
func (g *group) tombstones() []coordinator.Record {
	if g.consumer != nil {
		return g.consumer.tombstones(g.id)
	}
	return []coordinator.Record{{Key: groupKey(g.id)}}
}

// Delete handles DeleteGroups for one group.
func (s *Shard) Delete(groupID string, respond func(*kerr.Error)) coordinator.Result {
	g := s.groups[groupID]
	if g == nil {
		respond(kerr.GroupIDNotFound)
		return coordinator.Result{}
	}
	if g.currentState() != Empty {
		respond(kerr.NonEmptyGroup)
		return coordinator.Result{}
	}
	clear(g.pending)
	var records []coordinator.Record
	for _, p := range g.committed() {
		records = append(records, coordinator.Record{Key: offsetKey(groupID, p)})
	}
	records = append(records, g.tombstones()...)
	return coordinator.Result{Records: records, Several: true, Done: func(err error) coordinator.Result {
		if err != nil {
			respond(errorOf(err))
		} else {
			respond(nil)
		}
		return coordinator.Result{}
	}}
}
