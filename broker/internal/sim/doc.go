// Package sim runs whole clusters in virtual time, from a seed: three nodes, each with
// the broker's own parts (quorum member, controller, request handlers, replicas with
// their fetchers, and storage on a disk in memory that can crash), clients that speak the
// protocol in encoded frames, a network, and somebody who does harm. One goroutine runs
// at any moment, so that a seed gives the same run each time: Result.Trace is a hash of
// every request, answer and metadata record with the time it came, and must repeat.
//
// What the simulator replaces are sockets, gossip, clocks, the scheduling of goroutines
// and the driver loops of package broker (session of the controller's queue, listener of
// the metadata, registration). A bug in those is not found here but by the tests of
// broker and by the processes under fire (broker/internal/fire).
//
// # What is checked
//
//   - I1: what was acknowledged is at its offset, on every replica after healing.
//   - I2: what was once seen committed, by a consumer or below the high watermark of any
//     replica, never changes, and is the same on all.
//   - I3: each producer's records are there once and in order, and no idempotent producer
//     is refused the sequence that follows what was acknowledged.
//   - I8: all nodes apply the same metadata, know in the end the topics whose creation was
//     acknowledged and none of those whose deletion was, an epoch of the quorum has one leader, and
//     one node at most acknowledges in a leader epoch.
//   - I9: producers get on while a minority stays away for good; after healing all
//     replicas are in sync.
//   - I10 and I11: no panic, no node that does not start, no log that cannot be read.
package sim
