package handler

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kerr"
)

// fetchHead is the part of a Fetch response that is not about one partition.
type fetchHead struct {
	version   int16
	err       *kerr.Error
	sessionID int32
	brokers   []endpoint // where the leaders named in the items are (KIP-951)
}

// appendFetchResponse appends the body of a Fetch response without the records:
// cuts gets, for every item that has some, the position in the result at which
// item's records belong. It encodes what kmsg.FetchResponse does, without holding
// the records in memory.
//
//	throttle, error, session id,
//	[topic, [partition, error, offsets, aborted, preferred replica, RECORDS, tags]], tags
func appendFetchResponse(dst []byte, head *fetchHead, items []fetchItem, cuts []int) ([]byte, []int) {
	flexible := head.version >= 12
	dst = appendInt32(dst, 0) // throttle
	if head.version >= 7 {
		dst = appendInt16(dst, errorCode(head.err))
		dst = appendInt32(dst, head.sessionID)
	}
	dst = appendArrayLen(dst, countTopics(items), flexible)
	for at := 0; at < len(items); {
		end := topicEnd(items, at)
		switch {
		case head.version >= 13:
			dst = append(dst, items[at].id[:]...)
		case flexible:
			dst = binary.AppendUvarint(dst, uint64(len(items[at].name))+1)
			dst = append(dst, items[at].name...)
		default:
			dst = appendInt16(dst, int16(len(items[at].name)))
			dst = append(dst, items[at].name...)
		}
		dst = appendArrayLen(dst, end-at, flexible)
		for ; at < end; at++ {
			dst, cuts = appendFetchPartition(dst, head.version, &items[at], cuts)
		}
		if flexible {
			dst = append(dst, 0)
		}
	}
	if flexible {
		dst = appendFetchTail(dst, head)
	}
	return dst, cuts
}

func appendFetchPartition(dst []byte, version int16, item *fetchItem, cuts []int) ([]byte, []int) {
	r := &item.result
	flexible := version >= 12
	high, stable, start := r.HighWatermark, r.LastStableOffset, r.LogStart
	if r.Err != nil {
		high, stable = -1, -1
		if !item.follower {
			start = -1
		}
	}
	dst = appendInt32(dst, item.fetchKey.partition)
	dst = appendInt16(dst, errorCode(r.Err))
	dst = appendInt64(dst, high)
	dst = appendInt64(dst, stable)
	if version >= 5 {
		dst = appendInt64(dst, start)
	}
	dst = appendAborted(dst, flexible, item)
	if version >= 11 {
		preferred := r.Preferred
		if preferred == 0 {
			preferred = -1
		}
		dst = appendInt32(dst, preferred)
	}
	size := r.Slice.Size
	if flexible {
		dst = binary.AppendUvarint(dst, uint64(size)+1)
	} else {
		dst = appendInt32(dst, int32(size))
	}
	if size > 0 {
		cuts = append(cuts, len(dst))
	}
	if flexible {
		dst = appendFetchPartitionTags(dst, version, item)
	}
	return dst, cuts
}

// appendAborted writes the aborted transactions: null to a reader of uncommitted
// records and with an error.
func appendAborted(dst []byte, flexible bool, item *fetchItem) []byte {
	switch {
	case item.committed && item.result.Err == nil:
		dst = appendArrayLen(dst, len(item.result.Aborted), flexible)
	case flexible:
		return append(dst, 0)
	default:
		return appendInt32(dst, -1)
	}
	for _, t := range item.result.Aborted {
		dst = appendInt64(dst, t.ProducerID)
		dst = appendInt64(dst, t.FirstOffset)
		if flexible {
			dst = append(dst, 0)
		}
	}
	return dst
}

// appendFetchPartitionTags writes the diverging epoch (tag 0) and from version 16
// on the leader to ask instead (tag 1).
func appendFetchPartitionTags(dst []byte, version int16, item *fetchItem) []byte {
	r := &item.result
	diverges := r.Err == nil && r.DivergingEpoch >= 0
	moved := version >= 16 && movedLeader(r.Err)
	n := 0
	if diverges {
		n++
	}
	if moved {
		n++
	}
	dst = append(dst, byte(n))
	if diverges {
		dst = append(dst, 0, 13) // tag, size
		dst = appendInt32(dst, r.DivergingEpoch)
		dst = appendInt64(dst, r.DivergingEnd)
		dst = append(dst, 0)
	}
	if moved {
		dst = append(dst, 1, 9)
		dst = appendInt32(dst, item.leaderID)
		dst = appendInt32(dst, r.LeaderEpoch)
		dst = append(dst, 0)
	}
	return dst
}

// movedLeader says that clients are told the current leader with err.
func movedLeader(err *kerr.Error) bool {
	return err == kerr.NotLeaderForPartition || err == kerr.FencedLeaderEpoch
}

func appendFetchTail(dst []byte, head *fetchHead) []byte {
	if len(head.brokers) == 0 || head.version < 16 {
		return append(dst, 0)
	}
	var brokers []byte
	brokers = appendArrayLen(brokers, len(head.brokers), true)
	for _, b := range head.brokers {
		brokers = appendInt32(brokers, b.id)
		brokers = binary.AppendUvarint(brokers, uint64(len(b.host))+1)
		brokers = append(brokers, b.host...)
		brokers = appendInt32(brokers, b.port)
		if b.rack == nil {
			brokers = append(brokers, 0)
		} else {
			brokers = binary.AppendUvarint(brokers, uint64(len(*b.rack))+1)
			brokers = append(brokers, *b.rack...)
		}
		brokers = append(brokers, 0)
	}
	dst = append(dst, 1, 0) // one tag, number 0
	dst = binary.AppendUvarint(dst, uint64(len(brokers)))
	return append(dst, brokers...)
}

// topicEnd returns the end of the run of items that share the topic of items[at].
func topicEnd(items []fetchItem, at int) int {
	end := at + 1
	for end < len(items) && items[end].id == items[at].id && items[end].name == items[at].name {
		end++
	}
	return end
}

func countTopics(items []fetchItem) (n int) {
	for at := 0; at < len(items); at = topicEnd(items, at) {
		n++
	}
	return n
}

func errorCode(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}

func appendArrayLen(dst []byte, n int, flexible bool) []byte {
	if flexible {
		return binary.AppendUvarint(dst, uint64(n)+1)
	}
	return appendInt32(dst, int32(n))
}

func appendInt16(dst []byte, v int16) []byte { return binary.BigEndian.AppendUint16(dst, uint16(v)) }
func appendInt32(dst []byte, v int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(v)) }
func appendInt64(dst []byte, v int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(v)) }
