package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A producer snapshot holds the producers' state before the offset in its name,
// in Kafka's format, big-endian:
//
//	version int16 = 1
//	CRC-32C uint32 of what follows
//	number of entries int32, each:
//	  producer id int64 | epoch int16 | last sequence int32 | last offset int64 |
//	  offset delta of the last batch int32 | timestamp int64 | coordinator epoch int32 |
//	  first offset of the open transaction int64, -1 without
//
// Only a producer's last batch is kept. The ones before it, whose retries must be
// known after a restart too, are found again in the log (refill.go).
const (
	snapshotVersion   = 1
	snapshotHeader    = 10
	snapshotEntrySize = 46
	snapshotLimit     = 1 << 30
)

var errSnapshot = errors.New("storage: producer snapshot is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeSnapshot(list []*producer) []byte {
	b := make([]byte, snapshotHeader, snapshotHeader+len(list)*snapshotEntrySize)
	binary.BigEndian.PutUint16(b, snapshotVersion)
	binary.BigEndian.PutUint32(b[6:], uint32(len(list)))
	for _, p := range list {
		last := producerBatch{lastSequence: -1, lastOffset: -1}
		if p.count > 0 {
			last = p.batches[p.count-1]
		}
		b = binary.BigEndian.AppendUint64(b, uint64(p.id))
		b = binary.BigEndian.AppendUint16(b, uint16(p.epoch))
		b = binary.BigEndian.AppendUint32(b, uint32(last.lastSequence))
		b = binary.BigEndian.AppendUint64(b, uint64(last.lastOffset))
		b = binary.BigEndian.AppendUint32(b, uint32(last.offsetDelta))
		b = binary.BigEndian.AppendUint64(b, uint64(p.timestamp))
		b = binary.BigEndian.AppendUint32(b, uint32(p.coordinatorEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(p.txnStart))
	}
	binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
	return b
}

func decodeSnapshot(b []byte) ([]producer, error) {
	if len(b) < snapshotHeader {
		return nil, fmt.Errorf("%w: %d bytes", errSnapshot, len(b))
	}
	if v := binary.BigEndian.Uint16(b); v != snapshotVersion {
		return nil, fmt.Errorf("%w: version %d, want %d", errSnapshot, v, snapshotVersion)
	}
	if sum := crc32.Checksum(b[6:], castagnoli); sum != binary.BigEndian.Uint32(b[2:]) {
		return nil, fmt.Errorf("%w: checksum %#08x, computed %#08x", errSnapshot, binary.BigEndian.Uint32(b[2:]), sum)
	}
	count := int64(int32(binary.BigEndian.Uint32(b[6:])))
	b = b[snapshotHeader:]
	if count < 0 || count*snapshotEntrySize != int64(len(b)) {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", errSnapshot, count, len(b))
	}
	list := make([]producer, count)
	for i := range list {
		p := newProducer(int64(binary.BigEndian.Uint64(b)))
		p.epoch = int16(binary.BigEndian.Uint16(b[8:]))
		last := producerBatch{
			lastSequence: int32(binary.BigEndian.Uint32(b[10:])),
			lastOffset:   int64(binary.BigEndian.Uint64(b[14:])),
			offsetDelta:  int32(binary.BigEndian.Uint32(b[22:])),
			timestamp:    int64(binary.BigEndian.Uint64(b[26:])),
		}
		p.timestamp = last.timestamp
		p.coordinatorEpoch = int32(binary.BigEndian.Uint32(b[34:]))
		p.txnStart = int64(binary.BigEndian.Uint64(b[38:]))
		if p.id < 0 || last.offsetDelta < 0 || p.txnStart < -1 {
			return nil, fmt.Errorf("%w: entry %d: producer %d, offset delta %d, transaction at %d", errSnapshot, i, p.id, last.offsetDelta, p.txnStart)
		}
		if last.lastOffset >= 0 {
			p.batches[0], p.count = last, 1
		}
		list[i] = p
		b = b[snapshotEntrySize:]
	}
	return list, nil
}
