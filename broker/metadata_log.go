package broker

import (
	"fmt"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// publication is an image and what led to it.
type publication struct {
	image *metadata.Image
	delta *metadata.Delta
}

// metadataLog is the state machine of the quorum: it turns committed entries into
// Images. Readers take the latest from an atomic pointer. Listeners get every
// image with its delta, in order, on a goroutine of their own, so that opening a
// thousand logs never holds raft up.
//
// The driver of the quorum calls Apply, Snapshot, Restore and LeaderChanged; the
// rest is safe for concurrent use.
type metadataLog struct {
	image    atomic.Pointer[metadata.Image]
	logger   zerolog.Logger
	onLeader func(leader, epoch int32, image *metadata.Image) // called on the quorum's goroutine; must not block
	onFatal  func(error)

	pending  *mailbox[publication]
	listened atomic.Int64 // see Listened
	failed   bool         // an entry could not be applied; no later one is
}

func newMetadataLog(logger zerolog.Logger) *metadataLog {
	m := &metadataLog{logger: logger, pending: newMailbox[publication]()}
	m.listened.Store(-1)
	m.image.Store(metadata.Empty())
	return m
}

// Image returns the latest image.
func (m *metadataLog) Image() *metadata.Image { return m.image.Load() }

// Apply implements quorum.StateMachine. An entry that this program cannot read or
// that does not fit stops the node: the others may have applied it.
func (m *metadataLog) Apply(e quorum.Entry) {
	if m.failed {
		return
	}
	changes, err := metadata.Decode(e.Value)
	if err != nil {
		m.fail(fmt.Errorf("metadata entry at offset %d: %w", e.Offset, err))
		return
	}
	image, delta, err := m.Image().Apply(e.Offset, e.Epoch, changes)
	if err != nil {
		m.fail(fmt.Errorf("metadata: %w", err))
		return
	}
	m.publish(image, delta)
}

func (m *metadataLog) fail(err error) {
	m.failed = true
	m.logger.Error().Err(err).Msg("the metadata log cannot be applied; this node stops")
	m.onFatal(err)
}

// Snapshot implements quorum.StateMachine.
func (m *metadataLog) Snapshot() []byte { return m.Image().Encode() }

// Restore implements quorum.StateMachine.
func (m *metadataLog) Restore(offset int64, epoch int32, snapshot []byte) error {
	image := metadata.Empty()
	if len(snapshot) > 0 {
		var err error
		if image, err = metadata.DecodeImage(snapshot); err != nil {
			return err
		}
	}
	m.publish(image, metadata.Diff(m.Image(), image))
	return nil
}

// LeaderChanged implements quorum.StateMachine.
func (m *metadataLog) LeaderChanged(leader, epoch int32) { m.onLeader(leader, epoch, m.Image()) }

func (m *metadataLog) publish(image *metadata.Image, delta *metadata.Delta) {
	m.image.Store(image)
	m.pending.put(publication{image, delta})
}

// listen hands every publication to the listener until stop is closed.
func (m *metadataLog) listen(stop <-chan struct{}, listener func(*metadata.Image, *metadata.Delta)) {
	for {
		select {
		case <-stop:
			return
		case <-m.pending.wake:
		}
		for _, p := range m.pending.take() {
			listener(p.image, p.delta)
			m.listened.Store(p.image.Offset())
		}
	}
}

// Listened returns the offset of the last image that the listeners have acted on;
// -1 when there is none.
func (m *metadataLog) Listened() int64 { return m.listened.Load() }
