// Package group is the consumer group coordinator, of the classic protocol (JoinGroup,
// SyncGroup, Heartbeat and LeaveGroup) and of the consumer protocol (KIP-848,
// ConsumerGroupHeartbeat), with committed offsets, also those of transactions, pure:
// a Shard holds the groups of one partition of `__consumer_offsets`, takes
// requests with the time, and answers with records and through callbacks. It
// follows Apache Kafka 4: KIP-62 (rebalance timeout), KIP-134 (initial delay),
// KIP-345 (static members), KIP-394 (member id required), KIP-559 (protocol in
// SyncGroup), KIP-211 (expiry of offsets), KIP-518 (states in ListGroups).
//
// States of a classic group, as Kafka names them:
//
//	Empty --join--> PreparingRebalance --all joined or timeout--> CompletingRebalance
//	  ^                ^      |                                        |
//	  |                |      | nobody left                            | leader's sync is committed
//	  +----------------|------+                                        v
//	                   +-- join, leave, expiry ------------------- Stable
//
// and Dead once it is deleted. What is durable (members of a generation, its
// assignment, offsets) changes in Replay only; who waits, and until when, is not
// durable and starts anew when a shard is loaded.
//
// A group of the consumer protocol has an epoch that grows when its members or what
// they read changes, a target assignment that the broker makes for that epoch, and
// members that are led
// towards it by their heartbeats, each in an epoch of its own (reconcile). All of it is
// durable and changes in Replay only; an event computes what will be in an edit.
package group
