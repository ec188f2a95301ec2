// Package txn is the transaction coordinator: for each transactional id of a partition
// of `__transaction_state`, who its producer is, what partitions its open transaction
// has, and how that ends (KIP-98, KIP-360, KIP-890). The records are Kafka's, and so
// are the errors.
//
// A Shard decides and coordinator.Runtime drives it. A transaction that is to end is
// first made durable as prepared; then the markers are written to its partitions by
// whoever Config.Prepared tells, who comes back to Shard.Complete. A shard that is
// loaded tells of what was prepared before, so that an end once decided is carried out.
//
// Two protocols meet here. In the first, clients add partitions themselves and keep
// their epoch from transaction to transaction. In the second (KIP-890, transaction
// version 2) brokers add partitions as records arrive, and each end raises the epoch,
// so that nothing that is late can belong to another transaction.
package txn
