package broker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
// Images. The listener gets every image with its delta, in order, on a goroutine of
// its own, so that opening a thousand logs never holds raft up. Clients see an image
// only after that, so that they are never sent to a partition whose log is not open
// yet; and a request that changed metadata is answered after it, so that its client
// can use what it made.
//
// The driver of the quorum calls Apply, Snapshot, Restore and LeaderChanged; the
// rest is safe for concurrent use.
type metadataLog struct {
	image    atomic.Pointer[metadata.Image]
	logger   zerolog.Logger
	onLeader func(leader, epoch int32, image *metadata.Image) // called on the quorum's goroutine; must not block
	onFatal  func(error)

	pending   *mailbox[publication]
	published atomic.Pointer[metadata.Image]
	failed    bool         // an entry could not be applied; no later one is
	leader    atomic.Int64 // leader and epoch, as packed

	mu       sync.Mutex // guards waiters and watchers, and published against them
	waiters  []waiter   // by offset
	watchers []*watcher
}

// waiter is called when an offset is published.
type waiter struct {
	offset int64
	call   func()
}

// watcher is called when an image is published that is as wanted.
type watcher struct {
	wanted func(*metadata.Image) bool
	call   func(*metadata.Image)
	timer  *time.Timer
}

func newMetadataLog(logger zerolog.Logger) *metadataLog {
	m := &metadataLog{logger: logger, pending: newMailbox[publication]()}
	m.leader.Store(packLeader(-1, -1))
	m.image.Store(metadata.Empty())
	m.published.Store(metadata.Empty())
	return m
}

// Published returns the latest image that the listener has acted on: what clients see.
func (m *metadataLog) Published() *metadata.Image { return m.published.Load() }

// Image returns the image of all that is committed and applied.
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
func (m *metadataLog) LeaderChanged(leader, epoch int32) {
	m.leader.Store(packLeader(leader, epoch))
	m.onLeader(leader, epoch, m.Image())
}

// Leader returns the node that leads the metadata log, as far as this one knows, and
// the epoch; -1 when it knows of none.
func (m *metadataLog) Leader() (leader, epoch int32) {
	packed := m.leader.Load()
	return int32(packed >> 32), int32(packed)
}

func packLeader(leader, epoch int32) int64 { return int64(leader)<<32 | int64(uint32(epoch)) }

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
			m.mu.Lock()
			m.published.Store(p.image)
			n := 0
			for n < len(m.waiters) && m.waiters[n].offset <= p.image.Offset() {
				n++
			}
			due := m.waiters[:n:n]
			m.waiters = m.waiters[n:]
			content := m.takeContent(p.image)
			m.mu.Unlock()
			for _, w := range due {
				w.call()
			}
			for _, w := range content {
				w.call(p.image)
			}
		}
	}
}

// takeContent takes the watchers that wanted an image like this. The lock is held.
func (m *metadataLog) takeContent(image *metadata.Image) (content []*watcher) {
	m.watchers = slices.DeleteFunc(m.watchers, func(w *watcher) bool {
		if !w.wanted(image) || !w.timer.Stop() { // too late, it is called
			return false
		}
		content = append(content, w)
		return true
	})
	return content
}

// whenPublished has call called once the image of an offset that was applied is
// published, perhaps at once. It must not block.
func (m *metadataLog) whenPublished(offset int64, call func()) {
	m.mu.Lock()
	wait := m.Published().Offset() < offset
	if wait {
		m.waiters = append(m.waiters, waiter{offset, call})
	}
	m.mu.Unlock()
	if !wait {
		call()
	}
}

// whenWanted has call called with a published image that is as wanted, perhaps at once, or
// with the latest when none has been for so long. Neither function may block.
func (m *metadataLog) whenWanted(wanted func(*metadata.Image) bool, atMost time.Duration, call func(*metadata.Image)) {
	m.mu.Lock()
	image := m.Published()
	if wanted(image) {
		m.mu.Unlock()
		call(image)
		return
	}
	w := &watcher{wanted: wanted, call: call}
	w.timer = time.AfterFunc(atMost, func() {
		m.mu.Lock()
		m.watchers = slices.DeleteFunc(m.watchers, func(other *watcher) bool { return other == w })
		m.mu.Unlock()
		call(m.Published())
	})
	m.watchers = append(m.watchers, w)
	m.mu.Unlock()
}
