// Package controller decides what changes in the cluster: topics, partitions,
// replicas, configurations, brokers. It is pure: Step takes the time and an event
// and returns the changes to commit and the answers to give.
//
// # How a request is answered
//
// The active controller keeps a speculative image: what is committed plus what it
// has proposed. An event is decided against it, so that a second request sees the
// first one's topic though it is not committed yet; a refusal is answered at once
// unless it rests on something that is still uncommitted, and an acceptance when
// its changes are committed. The shell
// commits proposals in their order and reports each with Committed. When that
// fails, or leadership ends, every answer that waits becomes NOT_CONTROLLER and the
// speculation is dropped: nobody is told of what may never have happened.
//
// # Liveness of brokers
//
// A broker registers with an incarnation drawn at its start and gets an epoch.
// It is fenced until it heartbeats with a metadata offset that covers its
// registration, and again when it is silent for a session. Fencing takes its
// leaderships away and takes it out of the in-sync replicas, unless it is the last
// one. Sessions are deadlines, soft state of the active controller; the fence
// itself is in the metadata log. A controller that was itself asleep gives every
// broker a new session, since it cannot know who was silent.
//
// Messages and error codes follow Apache Kafka's ReplicationControlManager and
// ConfigurationControlManager (KIP-500, KIP-631).
package controller
