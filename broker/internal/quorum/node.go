package quorum

import (
	"context"
	"fmt"
	"sync"

	"github.com/leatlog/leat/broker/internal/storage"
)

// message is something to do on the member's goroutine. It is called with a nil
// member and ErrClosed when the node stopped before.
type message func(m *Member, err error)

// Node runs a Member: one goroutine, fed through channels. All methods are safe
// for concurrent use.
type Node struct {
	inbox   chan message
	ticks   <-chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
	member  *Member
	err     error // why run ended, set before stopped is closed
}

// Start opens a member and runs it. Each value received from ticks is one tick
// of raft's clock (50 ms in production: ElectionTicks of them make an election
// timeout). The caller must Close the node.
func Start(cfg Config, ticks <-chan struct{}) (*Node, error) {
	m, err := OpenMember(cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{
		inbox:   make(chan message, 256),
		ticks:   ticks,
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		member:  m,
	}
	go n.run()
	return n, nil
}

func (n *Node) run() {
	defer close(n.stopped)
	for {
		if err := n.member.Process(); err != nil {
			n.err = err
			n.member.cfg.Logger.Error().Err(err).Msg("the metadata log failed; this controller stops. Check the disk, then restart the node")
			n.member.abandon(err)
			return
		}
		select {
		case <-n.stop:
			return
		case <-n.ticks:
			n.member.Tick()
		case f := <-n.inbox:
			f(n.member, nil)
			for range len(n.inbox) { // one fsync for all that wait
				(<-n.inbox)(n.member, nil)
			}
		}
	}
}

// do sends f to the member's goroutine; f is always called once.
func (n *Node) do(f message) {
	select {
	case n.inbox <- f:
	case <-n.stopped:
		f(nil, ErrClosed)
		return
	}
	select {
	case <-n.stopped: // it may have stopped between the check and the send
		n.drain()
	default:
	}
}

// drain refuses what was sent to a node that has stopped.
func (n *Node) drain() {
	for {
		select {
		case f := <-n.inbox:
			f(nil, ErrClosed)
		default:
			return
		}
	}
}

// ProposeAsync offers a value and returns at once. done is called exactly once,
// on the node's goroutine or, when the node has stopped, on the caller's: it must
// not block. See Member.Propose for its errors.
func (n *Node) ProposeAsync(epoch int32, value []byte, done func(offset int64, err error)) {
	n.do(func(m *Member, err error) {
		if err != nil {
			done(-1, err)
			return
		}
		m.Propose(epoch, value, done)
	})
}

// Propose offers a value and waits until it is committed and applied here. When
// ctx ends first, the outcome is unknown.
func (n *Node) Propose(ctx context.Context, epoch int32, value []byte) (offset int64, err error) {
	type result struct {
		offset int64
		err    error
	}
	answer := make(chan result, 1)
	n.ProposeAsync(epoch, value, func(offset int64, err error) { answer <- result{offset, err} })
	select {
	case r := <-answer:
		return r.offset, r.err
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// Receive takes a message from another member; it never blocks for long. The slice
// must not be changed any more.
func (n *Node) Receive(message []byte) {
	n.do(func(m *Member, closed error) {
		if closed != nil {
			return
		}
		if err := m.Receive(message); err != nil {
			m.cfg.Logger.Debug().Err(err).Msg("message of the metadata quorum refused")
		}
	})
}

// wait calls f on the member's goroutine and waits until its done was called.
func (n *Node) wait(ctx context.Context, f func(m *Member, done func(error))) error {
	answer := make(chan error, 1)
	n.do(func(m *Member, closed error) {
		if closed != nil {
			answer <- closed
			return
		}
		f(m, func(err error) { answer <- err })
	})
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Join is Member.Join; it returns at once, and done must not block. ErrClosed comes on
// the caller's goroutine.
func (n *Node) Join(r JoinRequest, done func(Replica, error)) {
	n.do(func(m *Member, closed error) {
		if closed != nil {
			done(Replica{}, closed)
			return
		}
		m.Join(r, done)
	})
}

// AddVoter is Member.AddVoter; when ctx ends first, the outcome is unknown.
func (n *Node) AddVoter(ctx context.Context, r Replica) error {
	return n.wait(ctx, func(m *Member, done func(error)) { m.AddVoter(r, done) })
}

// RemoveVoter is Member.RemoveVoter; when ctx ends first, the outcome is unknown.
func (n *Node) RemoveVoter(ctx context.Context, r Replica) error {
	return n.wait(ctx, func(m *Member, done func(error)) { m.RemoveVoter(r, done) })
}

// Forget is Member.Forget; when ctx ends first, the outcome is unknown.
func (n *Node) Forget(ctx context.Context, r Replica) error {
	return n.wait(ctx, func(m *Member, done func(error)) { m.Forget(r, done) })
}

// Status describes the quorum as this node sees it.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	err := n.wait(ctx, func(m *Member, done func(error)) {
		s = m.Status()
		done(nil)
	})
	if err != nil {
		return Status{}, err
	}
	return s, nil
}

// Role is what this replica is in the quorum, as applied.
func (n *Node) Role() Role { return n.member.Role() }

// Voted says that this replica was a voter, as applied, at some time since its start.
func (n *Node) Voted() bool { return n.member.voted.Load() }

// TransferLeadership is Member.TransferLeadership; it does not wait for its success.
func (n *Node) TransferLeadership(ctx context.Context) (bool, error) {
	begun := false
	err := n.wait(ctx, func(m *Member, done func(error)) {
		begun = m.TransferLeadership()
		done(nil)
	})
	return err == nil && begun, err
}

// Offsets returns the first offset of the metadata topic on this node and the
// end of what is committed and applied.
func (n *Node) Offsets() (start, end int64) { return n.member.Offsets() }

// Slice returns where batches of committed entries lie, from offset on: at most
// maxBytes of them, but with atLeastOne the first whatever its size. It is empty
// when there is none. The caller releases it.
func (n *Node) Slice(offset int64, maxBytes int, atLeastOne bool) (storage.Slice, error) {
	_, end := n.Offsets()
	if offset > end {
		return storage.Slice{}, fmt.Errorf("%w: %d, %d is the end of what is committed", storage.ErrOffsetOutOfRange, offset, end)
	}
	return n.member.disk.log.Slice(offset, end, maxBytes, atLeastOne)
}

// OffsetForTimestamp returns the first committed entry that is not older than
// timestamp, in ms since the epoch, with its time and leader epoch; -1 for none.
func (n *Node) OffsetForTimestamp(timestamp int64) (offset, at int64, epoch int32, err error) {
	offset, at, epoch, err = n.member.disk.log.OffsetForTimestamp(timestamp)
	if _, end := n.Offsets(); err == nil && offset >= end {
		return -1, -1, -1, nil
	}
	return offset, at, epoch, err
}

// EndOffsetForEpoch returns the largest leader epoch that is not larger than
// epoch, and the offset where it ends; -1, -1 when there is none.
func (n *Node) EndOffsetForEpoch(epoch int32) (found int32, end int64) {
	return n.member.disk.log.EndOffsetForEpoch(epoch)
}

// Done is closed when the node stopped, by Close or because its disk failed.
func (n *Node) Done() <-chan struct{} { return n.stopped }

// Err returns why the node stopped by itself, nil before that and after Close.
func (n *Node) Err() error {
	select {
	case <-n.stopped:
		return n.err
	default:
		return nil
	}
}

// Close stops the node and closes its log. Open proposals fail with ErrClosed.
func (n *Node) Close() error {
	var err error
	n.once.Do(func() {
		close(n.stop)
		<-n.stopped
		err = n.member.Close()
		n.drain()
	})
	return err
}
