// Package record views, validates, builds and iterates Kafka's record batches
// of format version 2 (KIP-98). A batch is handled as the bytes it is: the
// accessors read in place, the setters patch in place, and none of them
// allocates. Only iterating opens a batch, and only then is it decompressed,
// into pooled buffers and up to a limit the caller gives.
//
// One batch, all integers big-endian:
//
//	 0  base offset             int64   outside the CRC: the broker assigns it
//	 8  length                  int32   of what follows this field
//	12  partition leader epoch  int32   outside the CRC: the broker assigns it
//	16  magic                   int8    2
//	17  CRC-32C                 uint32  of everything from 21 on
//	21  attributes              int16   bits 0-2 codec, 3 log append time,
//	                                    4 transactional, 5 control, 6 delete horizon
//	23  last offset delta       int32
//	27  base timestamp          int64   milliseconds; delete horizon if bit 6 is set
//	35  max timestamp           int64   milliseconds; the append time if bit 3 is set
//	43  producer id             int64   -1 without idempotence
//	51  producer epoch          int16
//	53  base sequence           int32
//	57  count                   int32   of records
//	61  records                         compressed together when a codec is set
//
// One record, lengths and deltas as zigzag varints:
//
//	length  attributes(1 byte)  timestamp delta  offset delta
//	key length (-1 null)  key  value length (-1 null)  value
//	header count, each: key length  key  value length (-1 null)  value
//
// The package decides only: no clock, no files, no goroutines.
package record
