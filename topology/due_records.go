package topology

import (
	"cmp"
	"strings"
)

// dueRecord stands for the records of a key, a stream and a timestamp whose own result is
// due when time has passed the deadline.
type dueRecord struct {
	deadline, timestamp int64
	side                int
	// start and raw say which row has them.
	start int64
	raw   string
}

func (d dueRecord) before(other dueRecord) bool {
	return cmp.Or(cmp.Compare(d.deadline, other.deadline), cmp.Compare(d.side, other.side), strings.Compare(d.raw, other.raw), cmp.Compare(d.start, other.start)) < 0
}

// dueRecords is a heap, the next one first.
type dueRecords = minHeap[dueRecord]
