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
	return cmp.Or(cmp.Compare(d.deadline, other.deadline), cmp.Compare(d.side, other.side), strings.Compare(d.raw, other.raw)) < 0
}

// dueRecords is a heap, the next one first.
type dueRecords []dueRecord

func (h *dueRecords) push(d dueRecord) {
	*h = append(*h, d)
	list := *h
	for at := len(list) - 1; at > 0; {
		parent := (at - 1) / 2
		if !list[at].before(list[parent]) {
			return
		}
		list[at], list[parent] = list[parent], list[at]
		at = parent
	}
}

// pop removes the first one.
func (h *dueRecords) pop() dueRecord {
	list := *h
	first, last := list[0], len(list)-1
	list[0], list[last] = list[last], dueRecord{}
	list = list[:last]
	*h = list
	for at := 0; ; {
		least := at
		for child := 2*at + 1; child <= 2*at+2 && child < len(list); child++ {
			if list[child].before(list[least]) {
				least = child
			}
		}
		if least == at {
			return first
		}
		list[at], list[least] = list[least], list[at]
		at = least
	}
}
