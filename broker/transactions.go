package broker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/group"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/txn"
)

// transactions is the transaction coordinator of this broker, and what it needs of the
// partitions and of the other nodes.
type transactions struct {
	*txn.Service
	broker *Broker

	mu     sync.Mutex
	epochs map[int32]int32 // leader epochs of the partitions of __transaction_state that are led here
}

var (
	_ handler.Transactions        = (*transactions)(nil)
	_ handler.TransactionVerifier = (*transactions)(nil)
)

// lead and resign follow the leadership of partitions of __transaction_state.
func (t *transactions) lead(partition, epoch int32) {
	t.mu.Lock()
	t.epochs[partition] = epoch
	t.mu.Unlock()
}

func (t *transactions) resign(partition int32) {
	t.mu.Lock()
	delete(t.epochs, partition)
	t.mu.Unlock()
}

// epoch returns the epoch in which this broker coordinates a partition's transactions.
func (t *transactions) epoch(partition int32) (int32, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	epoch, ok := t.epochs[partition]
	return epoch, ok
}

// AddPartitions implements handler.Transactions.
func (t *transactions) AddPartitions(e handler.Enlisting, done func(*kerr.Error)) {
	t.Service.AddPartitions(addRequest(e), done)
}

// VerifyPartitions implements handler.Transactions.
func (t *transactions) VerifyPartitions(e handler.Enlisting, done func(*kerr.Error, []*kerr.Error)) {
	t.Service.VerifyPartitions(addRequest(e), done)
}

func addRequest(e handler.Enlisting) *txn.AddRequest {
	r := &txn.AddRequest{TransactionalID: e.TransactionalID, ProducerID: e.ProducerID, Epoch: e.Epoch}
	if e.ByBroker {
		r.Version = txn.V2
	}
	for _, p := range e.Partitions {
		r.Partitions = append(r.Partitions, txn.TopicPartition(p))
	}
	return r
}

// ListTransactions implements handler.Transactions.
func (t *transactions) ListTransactions(r *kmsg.ListTransactionsRequest, respond func(*kmsg.ListTransactionsResponse)) {
	t.Service.ListTransactions(r, t.broker.env.Now().UnixMilli(), respond)
}

// VerifyPartition implements handler.TransactionVerifier: it asks the coordinator, here
// or over the inter-node listener of the node that is it.
func (t *transactions) VerifyPartition(id string, producerID int64, epoch int16, topic string, partition int32, add bool, done func(*kerr.Error)) {
	e := handler.Enlisting{TransactionalID: id, ProducerID: producerID, Epoch: epoch, ByBroker: add,
		Partitions: []handler.EnlistedPartition{{Topic: topic, Partition: partition}}}
	node := t.coordinator(id)
	// Answers come under the shard's lock, which who gets them must not care about.
	later := func(err *kerr.Error) {
		if !t.broker.asking.start(func(context.Context) { done(err) }) {
			go done(kerr.CoordinatorNotAvailable) // the broker stops
		}
	}
	switch {
	case node < 0 || node != t.broker.cfg.NodeID && t.broker.peers == nil:
		done(kerr.CoordinatorNotAvailable)
	case node != t.broker.cfg.NodeID:
		if !t.broker.asking.start(func(ctx context.Context) { done(t.ask(ctx, node, e)) }) {
			done(kerr.CoordinatorNotAvailable)
		}
	case add:
		t.AddPartitions(e, later)
	default:
		t.VerifyPartitions(e, func(err *kerr.Error, each []*kerr.Error) {
			if err == nil {
				err = each[0]
			}
			later(err)
		})
	}
}

// coordinator returns the node that coordinates a transactional id, -1 when none does.
func (t *transactions) coordinator(id string) int32 {
	topic, ok := t.broker.log.Published().Topic(metadata.TransactionsTopic)
	if !ok || len(topic.Partitions) == 0 {
		return -1
	}
	return topic.Partitions[group.PartitionFor(id, int32(len(topic.Partitions)))].Leader
}

// ask has another node add or verify one partition.
func (t *transactions) ask(ctx context.Context, node int32, e handler.Enlisting) *kerr.Error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	p := e.Partitions[0]
	r.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{{TransactionalID: e.TransactionalID, ProducerID: e.ProducerID, ProducerEpoch: e.Epoch,
		VerifyOnly: !e.ByBroker, Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: p.Topic, Partitions: []int32{p.Partition}}}}}
	answer, err := t.broker.peers.Request(ctx, node, r)
	if err != nil {
		return kerr.NetworkException
	}
	response := answer.(*kmsg.AddPartitionsToTxnResponse)
	code := response.ErrorCode
	for _, x := range response.Transactions {
		for _, topic := range x.Topics {
			for _, p := range topic.Partitions {
				code = max(code, p.ErrorCode)
			}
		}
	}
	return errorFor(code)
}

// errorFor returns the error of a code, nil for 0.
func errorFor(code int16) *kerr.Error {
	if code == 0 {
		return nil
	}
	if err, ok := kerr.ErrorForCode(code).(*kerr.Error); ok {
		return err
	}
	return kerr.UnknownServerError
}

// WriteMarker implements handler.Transactions.
func (t *transactions) WriteMarker(topic string, partition int32, m handler.Marker, done func(*kerr.Error)) {
	b := t.broker
	known, ok := b.log.Published().Topic(topic)
	if !ok {
		done(kerr.UnknownTopicOrPartition)
		return
	}
	r, err := b.replicas.Replica(known.ID, partition)
	if err != nil {
		done(err)
		return
	}
	batch := storage.AppendMarker(nil, m.ProducerID, m.Epoch, m.Commit, m.CoordinatorEpoch, b.env.Now().UnixMilli())
	r.AppendMarker(batch, m.Raised, markerSink(func(err *kerr.Error) {
		if err == nil && topic == metadata.OffsetsTopic {
			// Before anyone learns that the transaction is over.
			b.groups.CompleteTransaction(partition, m.ProducerID, m.Epoch, m.Commit)
		}
		done(err)
	}))
}

type markerSink func(*kerr.Error)

var _ replica.AppendSink = markerSink(nil)

func (done markerSink) Appended(_ int, err *kerr.Error, _, _, _ int64) { done(err) }

const (
	// markerPause is the time between two attempts at markers that could not be written.
	markerPause = 20 * time.Millisecond
	// completePause is the time between two attempts to record that all are.
	completePause = 20 * time.Millisecond
)

// prepared ends a transaction in its partitions, on a goroutine of its own, until all
// have the marker or this broker does not coordinate it any more. Who coordinates it
// next begins anew: a marker that is there already ends nothing a second time.
func (t *transactions) prepared(partition int32, p txn.Prepared) {
	epoch, ok := t.epoch(partition)
	if !ok {
		return
	}
	t.broker.asking.start(func(ctx context.Context) {
		w := markerWork{transactions: t, shard: partition, epoch: epoch, prepared: p, left: map[txn.TopicPartition]bool{}}
		for _, tp := range p.Partitions {
			w.left[tp] = true
		}
		w.run(ctx)
	})
}

// markerWork is one transaction whose markers are being written.
type markerWork struct {
	*transactions
	shard, epoch int32
	prepared     txn.Prepared

	mu   sync.Mutex
	left map[txn.TopicPartition]bool
}

func (w *markerWork) run(ctx context.Context) {
	for first := true; w.unfinished(); first = false {
		if !first && !pause(ctx, markerPause) || !w.current() {
			return
		}
		w.round(ctx)
	}
	for ctx.Err() == nil {
		finished := make(chan *kerr.Error, 1)
		w.Complete(w.shard, &w.prepared, func(err *kerr.Error) { finished <- err })
		select {
		case err := <-finished:
			if err == nil {
				return
			}
		case <-ctx.Done():
			return
		}
		// The shard is being loaded again, or is another node's by now.
		if !w.current() || !pause(ctx, completePause) {
			return
		}
	}
}

// current says that this broker coordinates the transaction in the epoch of its markers.
func (w *markerWork) current() bool {
	epoch, ok := w.transactions.epoch(w.shard)
	return ok && epoch == w.epoch
}

func (w *markerWork) unfinished() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.left) > 0
}

// pause waits, and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// round tries all partitions that are left once, and returns when all have answered
// or ctx ends.
func (w *markerWork) round(ctx context.Context) {
	byNode := w.byLeader()
	var answered sync.WaitGroup
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		if node != w.broker.cfg.NodeID {
			answered.Go(func() { w.send(ctx, node, byNode[node]) })
			continue
		}
		for _, tp := range byNode[node] {
			answered.Add(1)
			w.WriteMarker(tp.Topic, tp.Partition, w.marker(), func(err *kerr.Error) {
				w.written(tp, err)
				answered.Done()
			})
		}
	}
	all := make(chan struct{})
	go func() {
		answered.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done(): // the replicas answer when they are closed
	}
}

// byLeader returns the partitions that are left by the node that leads them.
func (w *markerWork) byLeader() map[int32][]txn.TopicPartition {
	w.mu.Lock()
	defer w.mu.Unlock()
	image := w.broker.log.Published()
	byNode := map[int32][]txn.TopicPartition{}
	for tp := range w.left {
		topic, ok := image.Topic(tp.Topic)
		switch {
		case !ok || int(tp.Partition) >= len(topic.Partitions):
			delete(w.left, tp) // deleted, and its records with it
		case topic.Partitions[tp.Partition].Leader >= 0:
			leader := topic.Partitions[tp.Partition].Leader
			byNode[leader] = append(byNode[leader], tp)
		}
	}
	return byNode
}

func (w *markerWork) marker() handler.Marker {
	return handler.Marker{ProducerID: w.prepared.ProducerID, Epoch: w.prepared.Epoch, Commit: w.prepared.Commit, CoordinatorEpoch: w.epoch, Raised: w.prepared.Raised}
}

// send has another node write markers to partitions that it leads.
func (w *markerWork) send(ctx context.Context, node int32, partitions []txn.TopicPartition) {
	if w.broker.peers == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.ProducerID, m.ProducerEpoch, m.Committed, m.CoordinatorEpoch = w.prepared.ProducerID, w.prepared.Epoch, w.prepared.Commit, w.epoch
	if w.prepared.Raised {
		m.TransactionVersion = int8(txn.V2)
	}
	for _, tp := range partitions {
		m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: tp.Topic, Partitions: []int32{tp.Partition}})
	}
	r := kmsg.NewPtrWriteTxnMarkersRequest()
	r.Markers = []kmsg.WriteTxnMarkersRequestMarker{m}
	answer, err := w.broker.peers.Request(ctx, node, r)
	if err != nil {
		return // tried again
	}
	for _, m := range answer.(*kmsg.WriteTxnMarkersResponse).Markers {
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				w.written(txn.TopicPartition{Topic: topic.Topic, Partition: p.Partition}, errorFor(p.ErrorCode))
			}
		}
	}
}

// written notes what became of a marker. What fails is tried again, but for a producer
// or a coordinator that the partition knows a newer one of: then somebody else has
// ended the transaction there.
func (w *markerWork) written(tp txn.TopicPartition, err *kerr.Error) {
	switch err {
	case nil, kerr.InvalidProducerEpoch, kerr.TransactionCoordinatorFenced:
		w.mu.Lock()
		delete(w.left, tp)
		w.mu.Unlock()
	default:
		w.broker.logger.Debug().Err(err).Str("topic", tp.Topic).Int32("partition", tp.Partition).Str("transactional_id", w.prepared.TransactionalID).
			Msg("the end of a transaction could not be written; trying again")
	}
}
