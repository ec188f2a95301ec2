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
// # Replication
//
// A leader keeps what each follower has on disk, and asks the controller to shrink
// and grow the in-sync replicas (isr.go: KIP-497, KIP-903, KIP-966). A fetcher copies
// from one leader all that it leads and this broker follows:
//
//	next -> Fetch ------------------------> ReadFollower -> Partition.FollowerFetched
//	Follow <- records, diverging epoch, high watermark <-'        (high watermark, ISR)
//	  | truncated by epoch, appended as bytes
//	group commit of all partitions of the answer, then next: the synced offsets
//
// The fetch offset is the follower's synced offset, as it appends, syncs and only then
// asks on. No field of our own carries it, so no request says one thing and means
// another, and a leader cannot count what is merely in a page cache. The alternative,
// to fetch ahead of the sync and report the synced offset beside it, overlaps the
// transfer of one answer with the sync of the one before. It was not taken: leader
// and followers sync at the same time anyhow, since a leader sends what it has
// written and not yet synced; what arrives during a sync goes out as one larger
// answer, with one sync for all its partitions; and on the disks of DESIGN.md a sync
// (0.1-0.25 ms) is as short as a round trip.
//
// Fetches are incremental: a request names the partitions whose fetch point changed,
// an answer those that have something, so idle partitions cost nothing on either
// side. handler/fetch_replica.go has the leader's half and the wire's rules. A
// partition that cannot be fetched waits on its own, up to a second; the others go on.
//
// A log is cut only where the leader's epochs say so, never at a high watermark
// (KIP-101, KIP-279, KIP-595). A log that is given up, because it is damaged or the
// leader's retention passed it, is emptied only once the controller has taken the
// replica out of sync: until then it counts as a copy of what was acknowledged.
//
// # Locks
//
// In this order; none is ever taken while a later one is held:
//
//  1. Manager.applyMu: one metadata change, retention step or close at a time.
//  2. Replica.appendMu: serialises writers of one log, so that offsets and parked
//     appends are in the same order; held while the log writes.
//  3. Replica.mu: the core; never held during I/O.
//  4. fetcher.mu; calls replicas' FetchPoint, never with Replica.mu held by the caller.
//  5. Manager.mu, Deadlines.mu, alterer.mu, and the Committer's: maps, heap and queue; leaf locks.
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
