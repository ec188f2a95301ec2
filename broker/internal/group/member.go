package group

import (
	"bytes"
	"slices"
	"time"
)

// member is a member of a group.
type member struct {
	id                   string
	instanceID           *string
	clientID, clientHost string
	sessionTimeout       time.Duration
	rebalanceTimeout     time.Duration
	protocols            []Protocol
	assignment           []byte

	// expires is when the member is given up unless it is heard of; while it waits
	// for an answer it is alive, except for a new one, whose client may have gone
	// without anybody noticing.
	expires time.Time
	isNew   bool
	// joining and syncing answer the parked request, nil when there is none.
	joining func(JoinResponse)
	syncing func(SyncResponse)
	// syncPending says that the member has not synced since the join ended.
	syncPending bool
	// order is the member's place in the order of joining, for choosing a leader.
	order int64
}

func (m *member) waiting() bool { return m.joining != nil || m.syncing != nil }

// heard notes that the member is alive.
func (m *member) heard(now time.Time) { m.expires = now.Add(m.sessionTimeout) }

// sameProtocols says that the member supports the same as before.
func (m *member) sameProtocols(other []Protocol) bool {
	return slices.EqualFunc(m.protocols, other, func(a, b Protocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// metadata returns what the member said under a protocol.
func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return []byte{}
}

func (m *member) supports(protocol string) bool {
	return slices.ContainsFunc(m.protocols, func(p Protocol) bool { return p.Name == protocol })
}

func (m *member) answerJoin(r JoinResponse) {
	if answer := m.joining; answer != nil {
		m.joining = nil
		answer(r)
	}
}

func (m *member) answerSync(r SyncResponse) {
	if answer := m.syncing; answer != nil {
		m.syncing = nil
		answer(r)
	}
}
