// Package replica holds this broker's replicas of partitions.
//
// Partition is the core: it decides who may append and read, where the high
// watermark is, and whom a change answers. It is pure: no clock, no log, no lock,
// no goroutine. Replica is its shell around one storage.Log, and Manager keeps
// the replicas of the broker in line with the metadata Image.
//
// # An append's way
//
//	Replica.Append -> Partition.CheckAppend -> storage.Log.Append -> Partition.Appended
//	                                                                     | parked
//	Committer (group commit, one fsync for many) -> Partition.Synced -> Effects -> AppendSink
//
// The high watermark counts synced offsets only: it is the least synced offset of
// the in-sync replicas. With flush=interval and flush=os written counts as synced,
// which is what Apache Kafka does.
//
// # Locks
//
// In this order; none is ever taken while a later one is held:
//
//  1. Manager.applyMu: one metadata change, retention step or close at a time.
//  2. Replica.appendMu: serialises writers of one log, so that offsets and parked
//     appends are in the same order; held while the log writes.
//  3. Replica.mu: the core; never held during I/O.
//  4. Manager.mu, Deadlines.mu, and the Committer's: maps, heap and queue; leaf locks.
//
// Sinks and waiters are called with no lock held. Work handed to them must not
// block: they run on the group commit's goroutine.
//
// # Deadlines
//
// A parked append or fetch owns no timer and no goroutine. Deadlines keeps one
// heap and one timer for all of them. A replica is in the heap at most once, for
// the earliest deadline of its parked appends.
package replica
