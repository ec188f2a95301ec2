package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TransactionInfo is a line of the list of transactional ids.
type TransactionInfo struct {
	TransactionalID string
	// State is Kafka's name: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit
	// or CompleteAbort.
	State       string
	ProducerID  int64
	Coordinator int32
}

// openStates are those with an open transaction.
var openStates = []string{"Ongoing", "PrepareCommit", "PrepareAbort"}

// TransactionFilter narrows a list of transactional ids. The zero value lets all
// through.
type TransactionFilter struct {
	// States and ProducerIDs are those to list; none means all.
	States      []string
	ProducerIDs []int64
	// OpenFor lists only those with a transaction that is open for longer (KIP-994).
	OpenFor time.Duration
}

// Transactions lists the cluster's transactional ids, ordered by name. A state that
// the cluster does not know is an error.
func (c *Client) Transactions(ctx context.Context, filter TransactionFilter) ([]TransactionInfo, error) {
	req := kmsg.NewPtrListTransactionsRequest()
	req.StateFilters, req.ProducerIDFilters = filter.States, filter.ProducerIDs
	if filter.OpenFor > 0 {
		req.DurationFilterMillis = filter.OpenFor.Milliseconds()
		if len(filter.States) == 0 {
			req.StateFilters = openStates // the cluster remembers when those began that ended
		}
	}
	var list []TransactionInfo
	err := c.sharded(ctx, req, func() { list = nil }, func(broker int32, resp kmsg.Response) error {
		r := resp.(*kmsg.ListTransactionsResponse)
		if len(r.UnknownStateFilters) > 0 {
			return fmt.Errorf("the cluster knows no state %q: use Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit or CompleteAbort",
				strings.Join(r.UnknownStateFilters, ", "))
		}
		for _, t := range r.TransactionStates {
			list = append(list, TransactionInfo{t.TransactionalID, t.TransactionState, t.ProducerID, broker})
		}
		return codeError(r.ErrorCode)
	})
	if err != nil {
		return nil, fmt.Errorf("client: list transactions: %w", err)
	}
	slices.SortFunc(list, func(a, b TransactionInfo) int { return strings.Compare(a.TransactionalID, b.TransactionalID) })
	return list, nil
}

// TransactionDescription is what the coordinator of a transactional id knows of it.
type TransactionDescription struct {
	TransactionInfo
	ProducerEpoch int16
	// Timeout is how long a transaction may be open before the cluster aborts it.
	Timeout time.Duration
	// Started is when the open transaction began, the zero time without one.
	Started time.Time
	// Partitions are those of the open transaction, in order; those of
	// `__consumer_offsets` stand for committed offsets.
	Partitions []Partition
}

// DescribeTransaction describes a transactional id. One that does not exist gives
// ErrUnknownTransaction.
func (c *Client) DescribeTransaction(ctx context.Context, id string) (*TransactionDescription, error) {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{id}
	var d *TransactionDescription
	err := c.sharded(ctx, req, func() { d = nil }, func(broker int32, resp kmsg.Response) error {
		for _, t := range resp.(*kmsg.DescribeTransactionsResponse).TransactionStates {
			if err := codeError(t.ErrorCode); err != nil {
				return err
			}
			d = &TransactionDescription{TransactionInfo: TransactionInfo{id, t.State, t.ProducerID, broker}, ProducerEpoch: t.ProducerEpoch,
				Timeout: time.Duration(t.TimeoutMillis) * time.Millisecond}
			if t.StartTimestamp >= 0 && slices.Contains(openStates, t.State) {
				d.Started = time.UnixMilli(t.StartTimestamp)
			}
			for _, topic := range t.Topics {
				for _, p := range topic.Partitions {
					d.Partitions = append(d.Partitions, Partition{topic.Topic, p})
				}
			}
			slices.SortFunc(d.Partitions, comparePartitions)
		}
		return nil
	})
	if err == nil && d == nil {
		err = ErrUnknownTransaction
	}
	if err != nil {
		return nil, fmt.Errorf("client: describe transactional id %q: %w", id, err)
	}
	return d, nil
}

// ProducerState is a producer that the leader of a partition remembers.
type ProducerState struct {
	Partition Partition
	ID        int64
	Epoch     int16
	// LastSequence is that of its last record, -1 for none. LastTimestamp is when that
	// was, by the record's timestamp.
	LastSequence  int32
	LastTimestamp time.Time
	// CoordinatorEpoch is that of the last end of a transaction of it here, -1 for none.
	CoordinatorEpoch int32
	// Start is the first offset of its open transaction here, -1 without one.
	Start int64
}

// Producers lists the producers of partitions, ordered by partition and id. A partition
// that does not exist gives ErrUnknownTopic.
func (c *Client) Producers(ctx context.Context, partitions ...Partition) ([]ProducerState, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	for _, p := range slices.SortedFunc(slices.Values(partitions), comparePartitions) {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != p.Topic {
			t := kmsg.NewDescribeProducersRequestTopic()
			t.Topic = p.Topic
			req.Topics = append(req.Topics, t)
		}
		last := &req.Topics[len(req.Topics)-1]
		last.Partitions = append(last.Partitions, p.Partition)
	}
	var list []ProducerState
	err := c.sharded(ctx, req, func() { list = nil }, func(_ int32, resp kmsg.Response) error {
		for _, t := range resp.(*kmsg.DescribeProducersResponse).Topics {
			for _, p := range t.Partitions {
				partition := Partition{t.Topic, p.Partition}
				if err := messageError(p.ErrorCode, p.ErrorMessage); err != nil {
					return fmt.Errorf("%s: %w", partition, err)
				}
				for _, a := range p.ActiveProducers {
					list = append(list, ProducerState{partition, a.ProducerID, int16(a.ProducerEpoch), a.LastSequence,
						time.UnixMilli(a.LastTimestamp), a.CoordinatorEpoch, a.CurrentTxnStartOffset})
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("client: describe producers: %w", err)
	}
	slices.SortFunc(list, func(a, b ProducerState) int {
		if n := comparePartitions(a.Partition, b.Partition); n != 0 {
			return n
		}
		return int(min(max(a.ID-b.ID, -1), 1))
	})
	return list, nil
}

// AbortInPartition ends the open transaction of a producer in its partition, and there
// only, as aborted (KIP-664). It is for transactions that hang: that no coordinator
// knows, so that nobody else ends them. p is what Producers says about it.
func (c *Client) AbortInPartition(ctx context.Context, p ProducerState) error {
	topic := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
	topic.Topic, topic.Partitions = p.Partition.Topic, []int32{p.Partition.Partition}
	marker := kmsg.NewWriteTxnMarkersRequestMarker()
	marker.ProducerID, marker.ProducerEpoch = p.ID, p.Epoch
	marker.CoordinatorEpoch = max(0, p.CoordinatorEpoch) // -1: it has never ended one here
	marker.Topics = append(marker.Topics, topic)
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Markers = append(req.Markers, marker)
	answers := 0
	err := c.sharded(ctx, req, func() { answers = 0 }, func(_ int32, resp kmsg.Response) error {
		for _, m := range resp.(*kmsg.WriteTxnMarkersResponse).Markers {
			for _, t := range m.Topics {
				for _, rp := range t.Partitions {
					answers++
					if err := codeError(rp.ErrorCode); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err == nil && answers != 1 {
		err = fmt.Errorf("the broker answered for %d partitions instead of one", answers)
	}
	if err != nil {
		return fmt.Errorf("client: abort the transaction of producer %d in %s: %w", p.ID, p.Partition, err)
	}
	return nil
}

// FenceTransaction aborts the open transaction of a transactional id, in all of its
// partitions, and fences the producer that has the id, as a new producer with that id
// would. It returns when the abort is done. An id that does not exist gives
// ErrUnknownTransaction.
func (c *Client) FenceTransaction(ctx context.Context, id string) error {
	d, err := c.DescribeTransaction(ctx, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RetryTimeout)
	defer cancel()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = kmsg.StringPtr(id), int32(d.Timeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	for try := 1; ; try++ {
		resp, err := req.RequestWith(ctx, c.kgo)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			return nil
		}
		// CONCURRENT_TRANSACTIONS says that the abort is under way.
		if !errors.Is(err, kerr.ConcurrentTransactions) && !kerr.IsRetriable(err) || !c.sleep(ctx, backoff(try)) {
			return fmt.Errorf("client: fence the producer of transactional id %q: %w", id, c.closedOr(err))
		}
	}
}

// sharded sends a request to all brokers that it concerns and hands their answers to
// each. What passes is tried again, all of it, after reset.
func (c *Client) sharded(ctx context.Context, req kmsg.Request, reset func(), each func(broker int32, resp kmsg.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RetryTimeout)
	defer cancel()
	for try := 1; ; try++ {
		reset()
		err := c.shardedOnce(ctx, req, each)
		if err == nil || !kerr.IsRetriable(err) || errors.Is(err, ErrUnknownTopic) || !c.sleep(ctx, backoff(try)) {
			return err
		}
	}
}

func (c *Client) shardedOnce(ctx context.Context, req kmsg.Request, each func(broker int32, resp kmsg.Response) error) error {
	for _, s := range c.kgo.RequestSharded(ctx, req) {
		if s.Err != nil {
			return c.closedOr(known(s.Err))
		}
		if err := each(s.Meta.NodeID, s.Resp); err != nil {
			return err
		}
	}
	return nil
}
