// Package client is the data plane of the processors: it moves record batches,
// not records, over kgo's connections to any Kafka-compatible broker.
//
//   - Fetcher long-polls each broker for the partitions it leads and hands raw
//     batches to an Inbox; the goroutine that owns the Inbox decodes them into
//     reused memory (Records).
//   - Producer builds record batches in pooled memory and sends them in order,
//     idempotently, with one request in flight per broker.
//   - Group is a member of a classic consumer group: join, sync, heartbeat,
//     commit, with the assignment left to the caller.
//   - Client has the metadata and what an app needs of the admin APIs.
//
// It is the only package that imports kgo: everything above it sees bytes,
// offsets and the errors of this package.
//
// A record batch, version 2 (all integers big endian; KIP-98):
//
//	 0  base offset          int64
//	 8  length               int32   bytes after this field
//	12  leader epoch         int32
//	16  magic                int8    2
//	17  crc                  uint32  CRC-32C of all that follows
//	21  attributes           int16   bits 0-2 codec, 3 log append time, 4 transactional, 5 control
//	23  last offset delta    int32
//	27  base timestamp       int64
//	35  max timestamp        int64
//	43  producer id          int64
//	51  producer epoch       int16
//	53  base sequence        int32
//	57  records              int32   count
//	61  records, compressed as a whole
//
// A record (integers are zigzag varints):
//
//	length | attributes int8 | timestamp delta | offset delta |
//	key length (-1 null) | key | value length (-1 null) | value |
//	header count | { key length | key | value length (-1 null) | value }
package client
