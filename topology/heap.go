package topology

// ordered is what a minHeap holds: before is a strict order.
type ordered[T any] interface{ before(T) bool }

// minHeap is a heap, the first one in the order on top.
type minHeap[T ordered[T]] []T

func (h *minHeap[T]) push(item T) {
	*h = append(*h, item)
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
func (h *minHeap[T]) pop() T {
	list := *h
	var none T
	first, last := list[0], len(list)-1
	list[0], list[last] = list[last], none
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
