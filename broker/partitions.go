package broker

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/storage"
)

// partitions shows the replicas of this broker to the handlers. handler and
// replica stand on the same floor and state the same types of their own; here they
// meet.
type partitions struct {
	manager *replica.Manager
	cluster *clusterTopic
}

var _ handler.Partitions = partitions{}

func (p partitions) Partition(topic metadata.UUID, partition int32) (handler.Partition, *kerr.Error) {
	if topic == metadata.ClusterTopicID {
		if partition != 0 {
			return nil, kerr.UnknownTopicOrPartition
		}
		return p.cluster, nil
	}
	r, err := p.manager.Replica(topic, partition)
	if err != nil {
		return nil, err
	}
	return servedPartition{r}, nil
}

func (p partitions) Schedule(at time.Time, expire func()) (cancel func()) {
	d := new(replica.Deadline)
	p.manager.Deadlines().Set(d, at, expire)
	return func() { p.manager.Deadlines().Cancel(d) }
}

// servedPartition is one word, so that handing it out allocates nothing.
type servedPartition struct{ *replica.Replica }

func (p servedPartition) Append(batch []byte, acks int16, deadline time.Time, tag int, sink handler.AppendSink) {
	p.Replica.Append(batch, acks, deadline, tag, sink)
}

func (p servedPartition) AppendVerified(batch []byte, ended uint32, acks int16, deadline time.Time, tag int, sink handler.AppendSink) bool {
	return p.Replica.AppendVerified(batch, ended, acks, deadline, tag, sink)
}

func (p servedPartition) Read(r handler.ReadRequest) handler.ReadResult {
	return handler.ReadResult(p.Replica.Read(replica.ReadRequest(r)))
}

func (p servedPartition) ReadFollower(r handler.ReadRequest, id int32, brokerEpoch int64) handler.ReadResult {
	return handler.ReadResult(p.Replica.ReadFollower(replica.ReadRequest(r), id, brokerEpoch))
}

func (p servedPartition) WaitEnd(w handler.Waiter, end int64, leaderEpoch int32) uint64 {
	return p.Replica.WaitEnd(w, end, leaderEpoch)
}

func (p servedPartition) Wait(w handler.Waiter, position int64, leaderEpoch int32) uint64 {
	return p.Replica.Wait(w, position, leaderEpoch)
}

func (p servedPartition) ListOffset(timestamp int64, committed bool, currentLeaderEpoch int32) (handler.Listed, *kerr.Error) {
	listed, err := p.Replica.ListOffset(timestamp, committed, currentLeaderEpoch)
	return handler.Listed(listed), err
}

// coordinatorLog is a partition of __consumer_offsets as its coordinator sees it.
type coordinatorLog struct{ replica *replica.Replica }

var _ coordinator.TransactionalLog = coordinatorLog{}

func (l coordinatorLog) Append(batch []byte, done func(error)) {
	l.replica.Append(batch, -1, time.Time{}, 0, coordinatorSink(done))
}

func (l coordinatorLog) AppendInTransaction(batch []byte, ended uint32, done func(error)) error {
	err := l.replica.AppendOffsets(batch, ended, coordinatorSink(done))
	if errors.Is(err, replica.ErrTransactionEnded) {
		return fmt.Errorf("%w: %w", coordinator.ErrTransactionEnded, err)
	}
	return err
}

func (l coordinatorLog) TransactionState(producerID int64, epoch int16) (open bool, ended uint32) {
	state := l.replica.TransactionState(producerID, epoch)
	return state.Open, state.Ended
}

func (l coordinatorLog) Read(dst []byte, offset int64, maxBytes int) ([]byte, error) {
	log := l.replica.Log()
	return log.Read(dst, offset, log.EndOffset(), maxBytes, true)
}

// Offsets counts up to the end of the log: a new leader's high watermark may lag
// behind what earlier leaders committed, and all that it leads will be committed.
func (l coordinatorLog) Offsets() (start, end int64) {
	return l.replica.Log().StartOffset(), l.replica.Log().EndOffset()
}

type coordinatorSink func(error)

func (done coordinatorSink) Appended(_ int, err *kerr.Error, _, _, _ int64) {
	if err != nil {
		done(err)
		return
	}
	done(nil)
}

// logDirs describes the data directory for DescribeLogDirs.
func logDirs(directory *storage.Directory, manager *replica.Manager) func() []handler.LogDir {
	return func() []handler.LogDir {
		dir := handler.LogDir{Path: directory.Root(), Failed: directory.Damaged() != nil, Total: -1, Usable: -1}
		if absolute, err := filepath.Abs(dir.Path); err == nil {
			dir.Path = absolute
		}
		if free, total, err := directory.Space(); err == nil {
			dir.Usable, dir.Total = int64(free), int64(total)
		}
		manager.Each(func(r *replica.Replica) {
			if log := r.Log(); log != nil {
				dir.Logs = append(dir.Logs, handler.LogSize{Topic: r.Topic(), Partition: r.Index(), Bytes: log.Size()})
			}
		})
		return []handler.LogDir{dir}
	}
}
