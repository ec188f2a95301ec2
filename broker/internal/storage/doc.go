// Package storage keeps partitions on disk. A Log is one partition: an append-only
// sequence of record batches, cut into segments, found again after any crash. A
// Directory holds the logs of a disk, and its Committer makes them durable in
// groups.
//
// # Files
//
// A directory and its logs are laid out as Kafka does it, and Kafka's tools read
// the files; sparse indexes, snapshots and checkpoints are drawn where they are
// coded.
//
//	.lock                                     keeps other processes out
//	.kafka_cleanshutdown                      there while the directory is closed cleanly
//	<topic>-<partition>/
//	  partition.metadata                      the topic's id
//	  leader-epoch-checkpoint                 which leader epoch begins where
//	  recovery-point-offset-checkpoint        below it all is durable, indexes too
//	  log-start-offset-checkpoint             below it all is deleted
//	  00000000000000000042.log                batches from offset 42 on, back to back
//	  00000000000000000042.index              offset -> position, sparse
//	  00000000000000000042.timeindex          time -> offset, sparse
//	  00000000000000000042.txnindex           aborted transactions, if there are any
//	  00000000000000000042.snapshot           idempotent producers before offset 42
//	<topic>-<partition>.<unique>-delete/      a deleted log on its way out
//
// The active segment is preallocated, so that a sync writes no file system
// metadata: a tail of zeros follows its last batch, and at the very end of the file
// lies the sync mark (mark.go). The tail is trimmed when a segment is full or
// the log is closed.
//
// # What is durable
//
// SyncedOffset is the promise: what is below is found again after any crash.
// Only Sync, a roll and a clean close move it, each after the fsync. These orders
// carry it:
//
//   - A new segment's file is created after all of the segment before it, with
//     indexes, producer snapshot and epochs, has been synced, and its name is synced
//     before it takes a batch. So: a segment that is followed by another is
//     durable as a whole, and an fsync of the active file is all that a Sync takes.
//   - The names of a new log become durable with its first sync, so that making
//     one is cheap and what was acknowledged is never without a name.
//   - Retention and AdvanceStart make the new start durable before they remove
//     segments, oldest first; TruncateTo and ResetTo remove newest first, each
//     removal durable before the next. So a crash leaves no gap that was not there.
//   - What tells that data is durable (mark, recovery point) is lowered, durably,
//     before such data is cut, and raised after it has been synced.
//
// A failed fsync fences the log and its directory for the life of the process:
// the kernel may have dropped the bytes and call them clean. For the same reason
// recovery writes the unsynced tail again before it syncs it, instead of trusting
// that a sync of clean pages means anything.
//
// # Torn tail or damage
//
// After a crash the active segment ends in whatever reached the disk of the
// writes since the last sync: of 4 KiB blocks, any may be there or not. Recovery
// reads the batches of the last segment from the recovery point on, checksums
// included, up to the first that is not good, or not the successor of the one
// before. Where that lies decides:
//
//   - At or after the last synced position it is a torn tail. Nothing of it was
//     acknowledged; it is cut off, with a line in the log.
//   - Before it, it is damage: bytes that were durable are wrong. Nothing is cut.
//     The log opens fenced, Damaged returns a DamageError with file, position and
//     offset, what precedes it can be read, and only ResetTo leads out.
//
// The last synced position comes from the sync mark, a few bytes at the end of
// the preallocated file. It is written right after each successful sync, without
// a sync of its own: the next one takes it along. After a killed process the mark
// is therefore exact, since the page cache survives. After a power loss it may
// lag by one sync: damage to the bytes of the very last sync before a power loss
// looks like a torn tail. It never errs to the other side, as it names only what
// was synced. In a trimmed segment the recovery point takes its place, and a
// segment with a successor needs neither. What lies beyond the last good batch and
// is not zero is cut off, so that no later recovery takes it for batches.
//
// Indexes are caches: checked against their segment when first used, verified at
// each jump, and made anew from the segment when missing or wrong.
//
// # Costs
//
// An append is one CRC pass, one pwrite and no allocation; a sync is one fdatasync
// and a 40-byte write; a read is one pread, and mostly one more to find where to
// stop. A roll costs about ten file operations under the appender's lock; with lax
// flushing it also waits for the segment's unsynced bytes. Idle logs cost neither
// goroutine nor timer nor open file.
package storage
