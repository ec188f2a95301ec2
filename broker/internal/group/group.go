package group

import (
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// State is a group's state.
type State string

// The states, as Kafka spells them.
const (
	Empty               State = "Empty"
	PreparingRebalance  State = "PreparingRebalance"
	CompletingRebalance State = "CompletingRebalance"
	Stable              State = "Stable"
	Dead                State = "Dead"
)

// group is one group.
type group struct {
	id           string
	state        State
	stateSince   int64 // ms since the epoch; durable
	generation   int32
	protocolType string
	protocol     string
	leader       string

	members  map[string]*member
	static   map[string]string    // instance id -> member id
	pending  map[string]time.Time // ids handed out by KIP-394, until when they may join
	joined   int64                // members joined so far, for member.order
	offsets  map[TopicPartition]Offset
	unstable map[TopicPartition]int // how many open transactions have an offset of it
	// consumer is set while the group is one of the consumer protocol. Then what is above
	// is that of an empty group, the offsets excepted.
	consumer *consumerGroup
	deadline time.Time // the earliest thing due in this group
	heapAt   int       // place in Shard.deadlines, -1 for none

	// joinBy is when the current join phase ends whatever happens, zero for none. A
	// group that was empty first waits for more members: initial is set, and
	// initialLeft is what remains of the rebalance timeout for that.
	joinBy      time.Time
	initial     bool
	initialLeft time.Duration
	newMember   bool // a member was added since the initial wait began or was extended
	// syncBy is when members that did not sync are removed, zero for never.
	syncBy time.Time
}

func newGroup(id string) *group {
	return &group{
		id: id, state: Empty, heapAt: -1,
		members: map[string]*member{}, static: map[string]string{}, pending: map[string]time.Time{}, offsets: map[TopicPartition]Offset{},
		unstable: map[TopicPartition]int{},
	}
}

// becomeConsumer makes the group an empty one of the consumer protocol.
// What members of the classic protocol wait for is answered: they join again.
func (g *group) becomeConsumer() {
	for _, m := range g.sorted() {
		m.answerJoin(JoinResponse{Err: kerr.RebalanceInProgress, Generation: -1, MemberID: m.id})
		m.answerSync(SyncResponse{Err: kerr.RebalanceInProgress})
	}
	clear(g.members)
	clear(g.static)
	clear(g.pending)
	g.joinBy, g.syncBy, g.initial = time.Time{}, time.Time{}, false
	g.consumer = newConsumerGroup()
	g.state, g.generation, g.protocolType, g.protocol, g.leader = Empty, 0, "", "", ""
}

// currentState is the state of the group, of whichever protocol.
func (g *group) currentState() State {
	if g.consumer != nil {
		return g.consumer.state()
	}
	return g.state
}

// become changes the state.
func (g *group) become(s State, now time.Time) {
	g.state, g.stateSince = s, now.UnixMilli()
}

// sorted returns the members in the order in which they joined.
func (g *group) sorted() []*member {
	list := make([]*member, 0, len(g.members))
	for _, m := range g.members {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *member) int {
		if a.order != b.order {
			return int(a.order - b.order)
		}
		return strings.Compare(a.id, b.id)
	})
	return list
}

func (g *group) add(m *member) {
	m.order = g.joined
	g.joined++
	if len(g.members) == 0 {
		g.leader = m.id
	}
	g.members[m.id] = m
	if m.instanceID != nil {
		g.static[*m.instanceID] = m.id
	}
}

func (g *group) remove(m *member) {
	delete(g.members, m.id)
	if m.instanceID != nil && g.static[*m.instanceID] == m.id {
		delete(g.static, *m.instanceID)
	}
	if g.leader == m.id {
		g.leader = ""
		if rest := g.sorted(); len(rest) > 0 {
			g.leader = rest[0].id
		}
	}
}

// rebalanceTimeout is the longest of the members'. Clients may send nonsense, so
// it may be zero.
func (g *group) rebalanceTimeout() time.Duration {
	var longest time.Duration
	for _, m := range g.members {
		longest = max(longest, m.rebalanceTimeout)
	}
	return longest
}

// accepts says that a member with these protocols can be in the group: it has
// the group's type and one protocol that all members have, too.
func (g *group) accepts(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	if protocolType != g.protocolType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p Protocol) bool {
		for _, m := range g.members {
			if !m.supports(p.Name) {
				return false
			}
		}
		return true
	})
}

// choose returns the protocol that most members prefer among those all support;
// among equals the one that the earliest member names first.
func (g *group) choose() string {
	members := g.sorted()
	votes := map[string]int{}
	candidate := func(name string) bool {
		return !slices.ContainsFunc(members, func(m *member) bool { return !m.supports(name) })
	}
	var order []string
	for _, m := range members {
		for _, p := range m.protocols {
			if candidate(p.Name) {
				if votes[p.Name] == 0 {
					order = append(order, p.Name)
				}
				votes[p.Name]++
				break
			}
		}
	}
	best := ""
	for _, name := range order {
		if best == "" || votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// allJoined says that nobody is missing in the join phase.
func (g *group) allJoined() bool {
	for _, m := range g.members {
		if m.joining == nil {
			return false
		}
	}
	return len(g.pending) == 0
}

// nextDeadline returns the earliest time at which something is due, zero for never.
func (g *group) nextDeadline() time.Time {
	var next time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if g.consumer != nil {
		consider(g.consumer.nextDeadline())
	}
	consider(g.joinBy)
	consider(g.syncBy)
	for _, m := range g.members {
		if !m.waiting() || m.isNew {
			consider(m.expires)
		}
	}
	for _, t := range g.pending {
		consider(t)
	}
	return next
}

// joinMembers is the list of members that the leader gets.
func (g *group) joinMembers() []JoinMember {
	list := make([]JoinMember, 0, len(g.members))
	for _, m := range g.sorted() {
		list = append(list, JoinMember{MemberID: m.id, InstanceID: m.instanceID, Metadata: m.metadata(g.protocol)})
	}
	return list
}

// joinAnswer is the answer to a member of the current generation.
func (g *group) joinAnswer(m *member) JoinResponse {
	protocolType, protocol := g.protocolType, g.protocol
	r := JoinResponse{Generation: g.generation, ProtocolType: &protocolType, Protocol: &protocol, Leader: g.leader, MemberID: m.id}
	if m.id == g.leader {
		r.Members = g.joinMembers()
	}
	return r
}

// syncAnswer is the answer with a member's assignment.
func (g *group) syncAnswer(m *member) SyncResponse {
	protocolType, protocol := g.protocolType, g.protocol
	return SyncResponse{ProtocolType: &protocolType, Protocol: &protocol, Assignment: m.assignment}
}
