// Package quorum replicates the metadata log `__cluster_metadata` among the
// controllers with raft (go.etcd.io/raft/v3, a RawNode), and stores it with the
// broker's own log engine.
//
// # What is where
//
// Raft index i is offset i-1 of the log and the raft term is the batch's leader
// epoch, so a raft entry is exactly one record batch and any consumer can read
// the topic. Raft's members are replicas, not nodes: see Replica.
//
//	<dir>/quorum-state                      term and vote, replaced atomically
//	<dir>/<offset>-<epoch>.checkpoint       a snapshot of the state machine
//	<dir>/__cluster_metadata-0/*.log ...    the entries
//
// A normal entry is the batch that its proposer built: one record whose value is
// the proposed value. Entries of raft itself are control batches, which
// consumers skip: a leader change (key type 2, as in Kafka) and a change of
// voters (key type 100, the value is raft's ConfChange). A checkpoint is two
// batches: a control batch with raft's ConfState, then one with the snapshot.
//
// # Order of writes
//
// quorum-state, then entries, then fsync, then messages and application, as
// raft demands. The first start writes a checkpoint of the empty state that
// names the first voters; all of them write the same one. A replica that joins later
// starts with nothing, and gets everything from the leader once that took it in.
//
// # Messages
//
// What members send one another is one byte that says what it is, 1, and raft's
// message.
//
// Member is the core: it is driven by Tick, Step and Propose, and owns no
// goroutine and no clock. Node is the shell around it.
package quorum

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/broker/internal/vfs"
	"github.com/rs/zerolog"
)

// Topic is the name of the metadata topic; it has one partition, 0.
const Topic = "__cluster_metadata"

// AnyEpoch proposes in whatever epoch this node leads.
const AnyEpoch int32 = -1

// Errors callers branch on.
var (
	// ErrNotLeader says that this node is not the active controller; nothing was
	// proposed.
	ErrNotLeader = errors.New("quorum: this node is not the leader")
	// ErrLeadershipLost says that leadership ended before the proposal was committed;
	// whether it will be is unknown.
	ErrLeadershipLost = errors.New("quorum: leadership lost before the entry was committed; its outcome is unknown")
	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("quorum: node is closed")
	// ErrTooLarge says that a value does not fit into one entry.
	ErrTooLarge = errors.New("quorum: value is too large for one entry")
)

// Entry is a committed value.
type Entry struct {
	// Offset is the entry's offset in the metadata topic.
	Offset int64
	// Epoch is the leader epoch in which it was proposed.
	Epoch int32
	// Timestamp is when the proposer built it, in ms since the Unix epoch.
	Timestamp int64
	// Value is the proposed value; it must not be modified.
	Value []byte
}

// StateMachine is what the quorum replicates. Its methods are called by one
// goroutine (the member's driver), never concurrently, and must not block on
// the quorum.
type StateMachine interface {
	// Apply applies a committed entry. Entries come in order, each once per start.
	Apply(Entry)
	// Snapshot encodes the state as of the last applied entry.
	Snapshot() []byte
	// Restore replaces the state by a snapshot that covers all entries below offset.
	// An empty snapshot is the initial state.
	Restore(offset int64, epoch int32, snapshot []byte) error
	// LeaderChanged says who leads in which epoch; leader is -1 when unknown. On the
	// leader itself it comes after every earlier epoch's entry was applied.
	LeaderChanged(leader int32, epoch int32)
}

// Transport carries messages to the members of other nodes, which give them to
// Receive. Send must not block and may lose, repeat and reorder messages; it must not
// change them. A quorum of one needs none.
type Transport interface {
	Send(node int32, message []byte)
}

// Config configures a Member and its Node. Zero fields take the defaults named.
type Config struct {
	// NodeID is this node's id, 0 or more.
	NodeID int32
	// Directory names the data directory. Default 0: that of a quorum of one which an
	// earlier version made.
	Directory Directory
	// Voters are the first quorum; they matter on the very first start only. Default:
	// this replica alone.
	Voters []Replica
	// Joining says that the first start makes no quorum: the replica waits to be taken
	// in, see Member.Join. Voters is ignored.
	Joining bool
	// Dir is the directory of the metadata log; created when missing.
	Dir string
	// FS is the file system. Required.
	FS vfs.FS
	// Now is the clock for the timestamps of entries. Required.
	Now func() time.Time
	// StateMachine is driven with what is committed. Required.
	StateMachine StateMachine
	// Transport reaches the other voters. Default: none.
	Transport Transport
	// Logger gets what happens. Default: nothing is logged.
	Logger zerolog.Logger
	// ElectionTicks is the number of ticks without a leader before an election.
	// Default 10.
	ElectionTicks int
	// SnapshotEntries is the number of entries after which a checkpoint is written.
	// Default 10,000.
	SnapshotEntries int
	// SnapshotBytes is the size of entries after which a checkpoint is written, in
	// bytes. Default 20 MiB, as Kafka's metadata.log.max.record.bytes.between.snapshots.
	SnapshotBytes int64
	// KeepEntries is the number of entries before a checkpoint that stay in memory for
	// members that are a little behind; those that are more get the checkpoint. Default
	// 2,000, at most 16 MiB of them.
	KeepEntries int
	// MaxEntryBytes bounds one entry, in bytes. Default 8 MiB.
	MaxEntryBytes int
}

func (c *Config) validate() error {
	if c.NodeID < 0 {
		return fmt.Errorf("quorum: node id %d: must be 0 or more", c.NodeID)
	}
	if c.FS == nil || c.Now == nil || c.StateMachine == nil || c.Dir == "" {
		return errors.New("quorum: FS, Now, StateMachine and Dir are required")
	}
	if len(c.Voters) == 0 {
		c.Voters = []Replica{{c.NodeID, c.Directory}}
	}
	if c.ElectionTicks == 0 {
		c.ElectionTicks = 10
	}
	if c.ElectionTicks < 2 {
		return fmt.Errorf("quorum: election ticks %d: must be 2 or more", c.ElectionTicks)
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 10_000
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 20 << 20
	}
	if c.KeepEntries == 0 {
		c.KeepEntries = 2000
	}
	if c.MaxEntryBytes == 0 {
		c.MaxEntryBytes = 8 << 20
	}
	return nil
}
