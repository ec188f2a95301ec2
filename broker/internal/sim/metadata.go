package sim

import (
	"hash/fnv"
	"time"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// metadataLog is the state machine of a node's quorum member: it turns entries into
// images, which the node acts on a little later.
type metadataLog struct {
	p         *process
	image     *metadata.Image // of all that is committed and applied
	published *metadata.Image // that the node has acted on
	leader    int32
	epoch     int32
	pending   []publication
	running   bool
	waiters   []waiter
}

type publication struct {
	image *metadata.Image
	delta *metadata.Delta
}

// waiter is called when an offset is published.
type waiter struct {
	offset int64
	call   func()
}

var _ quorum.StateMachine = (*metadataLog)(nil)

// Apply implements quorum.StateMachine.
func (m *metadataLog) Apply(e quorum.Entry) {
	c := m.p.node.c
	changes, err := metadata.Decode(e.Value)
	if err != nil {
		c.fail("I8: node %d cannot read the metadata at %d: %v", m.p.node.id, e.Offset, err)
		return
	}
	image, delta, err := m.image.Apply(e.Offset, e.Epoch, changes)
	if err != nil {
		c.fail("I8: node %d cannot apply the metadata at %d: %v", m.p.node.id, e.Offset, err)
		return
	}
	h := fnv.New64a()
	_, _ = h.Write(e.Value)
	c.checks.entry(m.p.node.id, e.Offset, e.Epoch, h.Sum64())
	c.s.note("metadata", int64(m.p.node.id), e.Offset, int64(h.Sum64()))
	m.publish(image, delta)
}

// Snapshot implements quorum.StateMachine.
func (m *metadataLog) Snapshot() []byte { return m.image.Encode() }

// Restore implements quorum.StateMachine.
func (m *metadataLog) Restore(_ int64, _ int32, snapshot []byte) error {
	image := metadata.Empty()
	if len(snapshot) > 0 {
		var err error
		if image, err = metadata.DecodeImage(snapshot); err != nil {
			return err
		}
		m.p.node.c.stats.SnapshotsRestored++
	}
	m.publish(image, metadata.Diff(m.image, image))
	return nil
}

// LeaderChanged implements quorum.StateMachine.
func (m *metadataLog) LeaderChanged(leader, epoch int32) {
	m.leader, m.epoch = leader, epoch
	self := leader == m.p.node.id
	if self {
		m.p.node.c.stats.ControllerElections++
		m.p.node.c.checks.controller(leader, epoch)
	}
	m.p.shell.leaderChanged(self, epoch, m.image)
}

func (m *metadataLog) publish(image *metadata.Image, delta *metadata.Delta) {
	m.image = image
	m.pending = append(m.pending, publication{image, delta})
	if !m.running {
		m.running = true
		m.p.life.after(m.p.node.c.s.between(0, 4*time.Millisecond), m.listen)
	}
}

// listen has the node act on the next image. It is soon told of those that follow.
func (m *metadataLog) listen() {
	next := m.pending[0]
	m.pending = m.pending[1:]
	m.p.manager.Apply(next.image, next.delta)
	m.published = next.image
	n := 0
	for n < len(m.waiters) && m.waiters[n].offset <= next.image.Offset() {
		n++
	}
	due := m.waiters[:n:n]
	m.waiters = m.waiters[n:]
	for _, w := range due {
		w.call()
	}
	if m.running = len(m.pending) > 0; m.running {
		m.p.life.after(m.p.node.c.s.between(0, 4*time.Millisecond), m.listen)
	}
}

// whenPublished has call called once the image of an offset is published.
func (m *metadataLog) whenPublished(offset int64, call func()) {
	if m.published.Offset() >= offset {
		call()
		return
	}
	m.waiters = append(m.waiters, waiter{offset, call})
}
