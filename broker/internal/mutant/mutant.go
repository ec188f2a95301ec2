// Package mutant names known bugs of systems of this kind, which the simulator must
// catch (go run -tags mutant ./broker/internal/sim/mutants). The code has each of them
// where it would be made, behind mutant.Is. Without the build tag "mutant" Is is constant
// false, so that the compiler leaves nothing of them.
package mutant

// Name names a bug; the comment says what goes wrong.
type Name string

// The bugs.
const (
	// AckBeforeSync: a leader counts what it wrote and did not sync.
	AckBeforeSync Name = "ack-before-sync"
	// FollowerAckBeforeSync: a follower fetches on from what it did not sync.
	FollowerAckBeforeSync Name = "follower-ack-before-sync"
	// NoEpochCheck: a leader does not look whether a follower's log fits its own.
	NoEpochCheck Name = "no-epoch-check"
	// TruncateByHighWatermark: a follower cuts its log to its high watermark (before KIP-101).
	TruncateByHighWatermark Name = "truncate-by-high-watermark"
	// ReadBeyondHighWatermark: consumers read what is not committed.
	ReadBeyondHighWatermark Name = "read-beyond-high-watermark"
	// OldLeaderAcknowledges: a deposed leader answers what was parked as it follows.
	OldLeaderAcknowledges Name = "old-leader-acknowledges"
	// ProposedReplicaIgnored: the high watermark passes a replica that joins (KIP-497).
	ProposedReplicaIgnored Name = "proposed-replica-ignored"
	// ProposalTakenForCommitted: it passes one that is to leave, before the controller knows.
	ProposalTakenForCommitted Name = "proposal-taken-for-committed"
	// CommitsBelowMinISR: the high watermark moves with too few in sync (KIP-966).
	CommitsBelowMinISR Name = "commits-below-min-isr"
	// OutOfSyncElected: any live replica may lead.
	OutOfSyncElected Name = "out-of-sync-elected"
	// LeaderEpochStays: another leader, the same epoch.
	LeaderEpochStays Name = "leader-epoch-stays"
	// LostLogKeptInSync: a broker with a new disk stays in sync.
	LostLogKeptInSync Name = "lost-log-kept-in-sync"
	// ControllerAnswersBeforeCommit: what was answered may never have been.
	ControllerAnswersBeforeCommit Name = "controller-answers-before-commit"
	// DuplicateAppended: a leader does not know a batch again.
	DuplicateAppended Name = "duplicate-appended"
	// FollowerForgetsProducers: only leaders keep track of producers.
	FollowerForgetsProducers Name = "follower-forgets-producers"
	// MetadataNotSynced: a controller answers for entries before they are synced.
	MetadataNotSynced Name = "metadata-not-synced"
	// ComparisonDropped: the checker itself leaves out every tenth comparison. The
	// simulation cannot see that; the checker's own test does.
	ComparisonDropped Name = "comparison-dropped"
)
