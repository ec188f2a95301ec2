package client

import (
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fetched is what one fetch brought for one partition: whole batches as bytes,
// or an error, or only the news that there is nothing more. Used by one
// goroutine.
type Fetched struct {
	// Partition is where it came from.
	Partition Partition
	// HighWatermark is the end of what could be read at the time: the last stable
	// offset for readers of committed records. -1 when an error came.
	HighWatermark int64
	// Err is set when the partition cannot be read on: its fetching has stopped.
	Err error

	raw     []byte
	from    int64 // records below are not wanted
	next    int64 // offset after the last batch
	aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction
	skip    map[int64]struct{} // producers inside an aborted transaction
	size    int
	owner   *fetchPartition
}

// End returns the offset after everything in it.
func (f *Fetched) End() int64 { return f.next }

// Done says that everything was decoded.
func (f *Fetched) Done() bool { return len(f.raw) == 0 }

// Decode appends the records of the next batches to r until r holds at least
// want records or nothing is left, and moves r.Next behind what was decoded.
// Control batches, records below the offset asked for and, for readers of
// committed records, aborted ones are left out. The records alias the fetched
// bytes.
func (f *Fetched) Decode(r *Records, want int) error {
	if f.Done() && r.Next < f.next {
		r.Next = f.next
	}
	for len(f.raw) > 0 && len(r.Records) < want {
		b, rest, ok, err := splitBatch(f.raw)
		if err == nil && !ok {
			err = ErrCorrupt // wholeBatches left whole ones only
		}
		if err == nil && f.wanted(b) {
			err = r.addBatch(b, f.from)
		}
		if err != nil {
			return fmt.Errorf("client: partition %s: %w", f.Partition, err)
		}
		f.raw = rest
		r.Next, r.LeaderEpoch = b.lastOffset()+1, b.leaderEpoch()
	}
	return nil
}

// wanted says whether a batch holds records for the reader. It follows the
// producers' aborted transactions through the batches.
func (f *Fetched) wanted(b batchView) bool {
	for len(f.aborted) > 0 && f.aborted[0].FirstOffset <= b.lastOffset() {
		if f.skip == nil {
			f.skip = make(map[int64]struct{})
		}
		f.skip[f.aborted[0].ProducerID] = struct{}{}
		f.aborted = f.aborted[1:]
	}
	if b.isControl() {
		delete(f.skip, b.producerID()) // its transaction ends here
		return false
	}
	if !b.isTransaction() {
		return true
	}
	_, aborted := f.skip[b.producerID()]
	return !aborted
}

// Release gives the memory back to the fetcher's bound; the partition is
// fetched on. The decoded records must not be used any more.
func (f *Fetched) Release() {
	if f.owner == nil {
		return
	}
	f.owner.release(f.size)
	f.owner, f.raw = nil, nil
}

// Inbox receives what fetchers bring for one goroutine. The zero value is not
// ready: use NewInbox.
type Inbox struct {
	mu    sync.Mutex
	list  []*Fetched
	ready chan struct{}
}

// NewInbox returns an empty inbox.
func NewInbox() *Inbox { return &Inbox{ready: make(chan struct{}, 1)} }

// Ready is signalled when something came since the last Take.
func (q *Inbox) Ready() <-chan struct{} { return q.ready }

// Take appends what has come to dst, oldest first, and empties the inbox.
func (q *Inbox) Take(dst []*Fetched) []*Fetched {
	q.mu.Lock()
	defer q.mu.Unlock()
	dst = append(dst, q.list...)
	clear(q.list)
	q.list = q.list[:0]
	return dst
}

func (q *Inbox) put(f *Fetched) {
	q.mu.Lock()
	q.list = append(q.list, f)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
