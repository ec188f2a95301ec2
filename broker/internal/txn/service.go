package txn

import (
	"errors"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Service answers the transaction APIs from the shards of a runtime: it finds the
// shard of a transactional id and translates. Each method answers through respond,
// exactly once. Safe for concurrent use.
type Service struct {
	runtime *coordinator.Runtime
	cfg     ServiceConfig
}

// ServiceConfig is what a Service needs of the broker. All fields are required.
type ServiceConfig struct {
	// Partitions says how many partitions `__transaction_state` has.
	Partitions func() int32
	// PartitionFor is the partition of a transactional id among so many.
	PartitionFor func(id string, partitions int32) int32
	// AfterFunc is time.AfterFunc.
	AfterFunc func(d time.Duration, f func())
	// NewProducerID fetches a producer id that nobody has.
	NewProducerID func(done func(id int64, err *kerr.Error))
}

// NewService returns a service.
func NewService(runtime *coordinator.Runtime, cfg ServiceConfig) *Service {
	return &Service{runtime: runtime, cfg: cfg}
}

// on runs an event on the shard of a partition, or says why it cannot.
func (s *Service) on(partition int32, event func(shard *Shard, now time.Time) coordinator.Result) *kerr.Error {
	err := s.runtime.Do(partition, func(shard coordinator.Shard, now time.Time) coordinator.Result {
		return event(shard.(*Shard), now)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, coordinator.ErrLoading):
		return kerr.CoordinatorLoadInProgress
	}
	return kerr.NotCoordinator
}

// do runs an event on the shard of a transactional id.
func (s *Service) do(id string, event func(shard *Shard, now time.Time) coordinator.Result) *kerr.Error {
	n := s.cfg.Partitions()
	if n <= 0 {
		return kerr.CoordinatorNotAvailable
	}
	return s.on(s.cfg.PartitionFor(id, n), event)
}

const (
	// patience is how long a request waits for the end of the transaction before. Kafka's
	// clients try again after pauses that are longer than most ends take.
	patience = 200 * time.Millisecond
	// patiencePoll is the time between two looks.
	patiencePoll = 2 * time.Millisecond
)

// again repeats an attempt while its answer is CONCURRENT_TRANSACTIONS, for a while,
// and with a fresh producer id when it needs one.
func (s *Service) again(attempt func(fresh int64, answer func(*kerr.Error)), give func(*kerr.Error)) {
	tries := int(patience / patiencePoll)
	var try func(fresh int64)
	try = func(fresh int64) {
		attempt(fresh, func(err *kerr.Error) {
			switch {
			case err == errNeedsID:
				// Not under the shard's lock, under which this is.
				s.cfg.AfterFunc(0, func() {
					s.cfg.NewProducerID(func(id int64, err *kerr.Error) {
						if err != nil {
							give(err)
							return
						}
						try(id)
					})
				})
			case err == kerr.ConcurrentTransactions && tries > 0:
				tries--
				s.cfg.AfterFunc(patiencePoll, func() { try(fresh) })
			default:
				give(err)
			}
		})
	}
	try(-1)
}

func code(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}

// fenced is what a fenced producer is told: older clients know another error.
func fenced(err *kerr.Error, old bool) *kerr.Error {
	if err == kerr.ProducerFenced && old {
		return kerr.InvalidProducerEpoch
	}
	return err
}

// InitProducerID handles an InitProducerId request with a transactional id.
func (s *Service) InitProducerID(r *kmsg.InitProducerIDRequest, respond func(*kmsg.InitProducerIDResponse)) {
	var got InitAnswer
	request := InitRequest{TransactionalID: *r.TransactionalID, Timeout: time.Duration(r.TransactionTimeoutMillis) * time.Millisecond, ProducerID: -1, Epoch: -1}
	if r.Version >= 3 {
		request.ProducerID, request.Epoch = r.ProducerID, r.ProducerEpoch
	}
	attempt := func(fresh int64, answer func(*kerr.Error)) {
		try := request
		try.Fresh = fresh
		if err := s.do(try.TransactionalID, func(shard *Shard, now time.Time) coordinator.Result {
			return shard.InitProducerID(&try, now, func(a InitAnswer) {
				got = a
				answer(a.Err)
			})
		}); err != nil {
			answer(err)
		}
	}
	s.again(attempt, func(err *kerr.Error) {
		out := r.ResponseKind().(*kmsg.InitProducerIDResponse)
		out.ErrorCode, out.ProducerID, out.ProducerEpoch = code(fenced(err, r.Version < 4)), -1, -1
		if err == nil {
			out.ProducerID, out.ProducerEpoch = got.ProducerID, got.Epoch
		}
		respond(out)
	})
}

// AddPartitions adds partitions to a transaction.
func (s *Service) AddPartitions(r *AddRequest, done func(*kerr.Error)) {
	s.again(func(_ int64, answer func(*kerr.Error)) {
		if err := s.do(r.TransactionalID, func(shard *Shard, now time.Time) coordinator.Result {
			return shard.AddPartitions(r, now, answer)
		}); err != nil {
			answer(err)
		}
	}, done)
}

// VerifyPartitions says whether partitions are part of a transaction: see
// Shard.VerifyPartitions.
func (s *Service) VerifyPartitions(r *AddRequest, done func(err *kerr.Error, each []*kerr.Error)) {
	var got []*kerr.Error
	s.again(func(_ int64, answer func(*kerr.Error)) {
		if err := s.do(r.TransactionalID, func(shard *Shard, _ time.Time) coordinator.Result {
			return shard.VerifyPartitions(r, func(err *kerr.Error, each []*kerr.Error) {
				got = each
				answer(err)
			})
		}); err != nil {
			answer(err)
		}
	}, func(err *kerr.Error) { done(err, got) })
}

// EndTxn handles an EndTxn request.
func (s *Service) EndTxn(r *kmsg.EndTxnRequest, respond func(*kmsg.EndTxnResponse)) {
	request := EndRequest{TransactionalID: r.TransactionalID, ProducerID: r.ProducerID, Epoch: r.ProducerEpoch, Commit: r.Commit}
	if r.Version >= 5 {
		request.Version = V2
	}
	got := EndAnswer{ProducerID: -1, Epoch: -1}
	attempt := func(fresh int64, answer func(*kerr.Error)) {
		try := request
		try.Fresh = fresh
		if err := s.do(try.TransactionalID, func(shard *Shard, now time.Time) coordinator.Result {
			return shard.End(&try, now, func(a EndAnswer) {
				got = a
				answer(a.Err)
			})
		}); err != nil {
			answer(err)
		}
	}
	s.again(attempt, func(err *kerr.Error) {
		out := r.ResponseKind().(*kmsg.EndTxnResponse)
		out.ErrorCode, out.ProducerID, out.ProducerEpoch = code(fenced(err, r.Version < 2)), -1, -1
		if err == nil {
			out.ProducerID, out.ProducerEpoch = got.ProducerID, got.Epoch
		}
		respond(out)
	})
}

// Complete says that the markers of a prepared transaction of a partition are written.
// done is called with nil when that is recorded or was before, or with why it is not
// for this node to record.
func (s *Service) Complete(partition int32, p *Prepared, done func(*kerr.Error)) {
	if err := s.on(partition, func(shard *Shard, now time.Time) coordinator.Result {
		return shard.Complete(p, now, func() { done(nil) })
	}); err != nil {
		done(err)
	}
}

// DescribeTransactions handles a DescribeTransactions request.
func (s *Service) DescribeTransactions(r *kmsg.DescribeTransactionsRequest, respond func(*kmsg.DescribeTransactionsResponse)) {
	out := r.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	for _, id := range r.TransactionalIDs {
		var d Description
		if id == "" {
			d = Description{Err: kerr.InvalidRequest}
		} else if err := s.do(id, func(shard *Shard, _ time.Time) coordinator.Result {
			d = shard.Describe(id)
			return coordinator.Result{}
		}); err != nil {
			d = Description{Err: err}
		}
		one := kmsg.NewDescribeTransactionsResponseTransactionState()
		one.ErrorCode, one.TransactionalID = code(d.Err), id
		if d.Err == nil {
			one.State, one.ProducerID, one.ProducerEpoch = d.State.String(), d.ProducerID, d.Epoch
			one.TimeoutMillis, one.StartTimestamp = int32(d.Timeout.Milliseconds()), d.Started
			for _, p := range d.Partitions {
				if n := len(one.Topics); n == 0 || one.Topics[n-1].Topic != p.Topic {
					topic := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
					topic.Topic = p.Topic
					one.Topics = append(one.Topics, topic)
				}
				last := &one.Topics[len(one.Topics)-1]
				last.Partitions = append(last.Partitions, p.Partition)
			}
		}
		out.TransactionStates = append(out.TransactionStates, one)
	}
	respond(out)
}

// Shards returns the partitions of `__transaction_state` that this node coordinates,
// in order.
func (s *Service) Shards() []int32 {
	partitions := s.runtime.Partitions()
	slices.Sort(partitions)
	return partitions
}

// List describes all transactional ids that this node coordinates.
func (s *Service) List() ([]Description, *kerr.Error) {
	var list []Description
	for _, p := range s.Shards() {
		err := s.on(p, func(shard *Shard, _ time.Time) coordinator.Result {
			list = append(list, shard.List()...)
			return coordinator.Result{}
		})
		if err == kerr.CoordinatorLoadInProgress {
			return nil, err
		}
	}
	return list, nil
}

// ListTransactions handles a ListTransactions request; now in ms.
func (s *Service) ListTransactions(r *kmsg.ListTransactionsRequest, now int64, respond func(*kmsg.ListTransactionsResponse)) {
	out := r.ResponseKind().(*kmsg.ListTransactionsResponse)
	for _, f := range r.StateFilters {
		if !slices.Contains(stateNames, f) {
			out.UnknownStateFilters = append(out.UnknownStateFilters, f)
		}
	}
	list, err := s.List()
	matches, invalid := matcher(r)
	if invalid != nil {
		err = kerr.InvalidRegularExpression
	}
	if err != nil {
		out.ErrorCode = err.Code
		respond(out)
		return
	}
	for _, d := range list {
		switch {
		case len(r.StateFilters) > 0 && !slices.Contains(r.StateFilters, d.State.String()),
			len(r.ProducerIDFilters) > 0 && !slices.Contains(r.ProducerIDFilters, d.ProducerID),
			!matches(d.TransactionalID),
			r.Version >= 1 && r.DurationFilterMillis >= 0 && (d.Started < 0 || now-d.Started <= r.DurationFilterMillis):
			continue
		}
		one := kmsg.NewListTransactionsResponseTransactionState()
		one.TransactionalID, one.ProducerID, one.TransactionState = d.TransactionalID, d.ProducerID, d.State.String()
		out.TransactionStates = append(out.TransactionStates, one)
	}
	respond(out)
}

// matcher returns what the pattern of a request lets through (KIP-1152).
func matcher(r *kmsg.ListTransactionsRequest) (func(id string) bool, error) {
	if r.Version < 2 || r.TransactionalIDPattern == nil || *r.TransactionalIDPattern == "" {
		return func(string) bool { return true }, nil
	}
	pattern, err := regexp.Compile(`^(?:` + *r.TransactionalIDPattern + `)$`)
	if err != nil {
		return nil, err
	}
	return pattern.MatchString, nil
}
