package handler

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
	"github.com/leatlog/leat/broker/internal/wire"
)

// replicas makes a replica.Manager the handlers' Partitions, as package broker does.
type replicas struct{ *replica.Manager }

func (r replicas) Partition(topic metadata.UUID, partition int32) (Partition, *kerr.Error) {
	p, err := r.Replica(topic, partition)
	if err != nil {
		return nil, err
	}
	return replicaPartition{p}, nil
}

func (r replicas) Schedule(at time.Time, expire func()) (cancel func()) {
	d := new(replica.Deadline)
	r.Deadlines().Set(d, at, expire)
	return func() { r.Deadlines().Cancel(d) }
}

type replicaPartition struct{ *replica.Replica }

func (p replicaPartition) AppendVerified(batch []byte, ended uint32, acks int16, deadline time.Time, tag int, sink AppendSink) bool {
	return p.Replica.AppendVerified(batch, ended, acks, deadline, tag, sink)
}

func (p replicaPartition) Append(batch []byte, acks int16, deadline time.Time, tag int, sink AppendSink) {
	p.Replica.Append(batch, acks, deadline, tag, sink)
}

func (p replicaPartition) Read(r ReadRequest) ReadResult {
	return ReadResult(p.Replica.Read(replica.ReadRequest(r)))
}

func (p replicaPartition) ReadFollower(r ReadRequest, id int32, brokerEpoch int64) ReadResult {
	return ReadResult(p.Replica.ReadFollower(replica.ReadRequest(r), id, brokerEpoch))
}

func (p replicaPartition) WaitEnd(w Waiter, end int64, epoch int32) uint64 {
	return p.Replica.WaitEnd(w, end, epoch)
}

func (p replicaPartition) Wait(w Waiter, position int64, epoch int32) uint64 {
	return p.Replica.Wait(w, position, epoch)
}

func (p replicaPartition) ListOffset(timestamp int64, committed bool, epoch int32) (Listed, *kerr.Error) {
	l, err := p.Replica.ListOffset(timestamp, committed, epoch)
	return Listed(l), err
}

// ids hands out producer ids in blocks of two.
type ids struct {
	Controller
	next atomic.Int64
}

func (c *ids) AllocateProducerIDs(done func(int64, int32, *kerr.Error)) {
	done(c.next.Add(2)-2, 2, nil)
}

// testBroker is a handler over real replicas on a file system in memory.
type testBroker struct {
	t         testing.TB
	directory *storage.Directory
	manager   *replica.Manager
	handler   *Handler
	image     atomic.Pointer[metadata.Image]
	conn      *wire.Conn
	ctx       context.Context
}

// latest is AwaitImage when no other image will come.
func (b *testBroker) latest(_ func(*metadata.Image) bool, _ time.Duration, call func(*metadata.Image)) {
	call(b.image.Load())
}

func startBroker(t testing.TB, fs vfs.FS, image *metadata.Image) *testBroker {
	t.Helper()
	directory, err := storage.OpenDirectory(storage.Env{FS: fs, Now: time.Now, Logger: zerolog.Nop()}, "data")
	if err != nil {
		t.Fatal(err)
	}
	manager, err := replica.NewManager(replica.Config{NodeID: 1, Directory: directory, RetentionInterval: -1, CleanerInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	b := &testBroker{t: t, directory: directory, manager: manager, ctx: context.Background(),
		conn: &wire.Conn{RemoteAddr: &net.TCPAddr{}, Listener: "PLAINTEXT"}}
	if image == nil {
		image, _, err = metadata.Empty().Apply(0, 0, []metadata.Change{
			&metadata.BrokerChange{ID: 1, Listeners: []metadata.Listener{{Name: "PLAINTEXT", Host: "one", Port: 9092}}},
			&metadata.BrokerChange{ID: 2, Epoch: 1, Listeners: []metadata.Listener{{Name: "PLAINTEXT", Host: "two", Port: 9093}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.image.Store(image)
	if err := manager.Start(image); err != nil {
		t.Fatal(err)
	}
	b.handler = New(Dependencies{NodeID: 1, Image: b.image.Load, AwaitImage: b.latest, Partitions: replicas{manager}, Controller: &ids{}, Now: time.Now, Logger: zerolog.Nop()})
	return b
}

func (b *testBroker) stop() {
	b.manager.Close()
	b.directory.Close()
}

func (b *testBroker) apply(changes ...metadata.Change) {
	b.t.Helper()
	before := b.image.Load()
	image, delta, err := before.Apply(before.Offset()+1, 0, changes)
	if err != nil {
		b.t.Fatal(err)
	}
	b.image.Store(image)
	b.manager.Apply(image, delta)
}

func idOf(topic string) (id metadata.UUID) {
	copy(id[:], topic+"----------------")
	return id
}

func led(topic string, partition, leader, leaderEpoch, partitionEpoch int32) *metadata.PartitionChange {
	return &metadata.PartitionChange{Topic: idOf(topic), Partition: partition, Replicas: []int32{1, 2}, ISR: []int32{leader},
		Leader: leader, LeaderEpoch: leaderEpoch, PartitionEpoch: partitionEpoch}
}

func (b *testBroker) create(topic string, partitions int32) {
	b.t.Helper()
	changes := []metadata.Change{&metadata.TopicChange{Name: topic, ID: idOf(topic)}}
	for p := range partitions {
		changes = append(changes, led(topic, p, 1, 0, 0))
	}
	b.apply(changes...)
}

// pendingCall is a request whose answer may be parked.
type pendingCall struct {
	b        *testBroker
	request  *wire.Request
	answered chan struct{}
	once     sync.Once
	response wire.Response
}

// send encodes a request, decodes it as the server does and hands it over.
func (b *testBroker) send(request kmsg.Request, version int16) *pendingCall {
	b.t.Helper()
	request.SetVersion(version)
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, 7)
	decoded, err := b.handler.Table().Decode(frame[4:])
	if err != nil {
		b.t.Fatal(err)
	}
	decoded.Conn = b.conn
	c := &pendingCall{b: b, request: decoded, answered: make(chan struct{})}
	b.handler.Handle(b.ctx, decoded, func(r wire.Response) {
		c.once.Do(func() {
			c.response = r
			close(c.answered)
		})
	})
	return c
}

// result waits for the answer and decodes its bytes; nil when nothing is sent.
func (c *pendingCall) result() kmsg.Response {
	c.b.t.Helper()
	<-c.answered
	if c.response.Empty() {
		return nil
	}
	frame, err := wire.AppendResponse(nil, c.request, &c.response)
	if err != nil {
		c.b.t.Fatal(err)
	}
	for i := range c.response.Chunks {
		chunk := &c.response.Chunks[i]
		data := chunk.Bytes
		if chunk.File != nil {
			data = make([]byte, chunk.Size)
			if _, err := chunk.File.ReadAt(data, chunk.Position); err != nil {
				c.b.t.Fatal(err)
			}
		}
		frame = append(frame, data...)
	}
	if c.response.Release != nil {
		c.response.Release()
	}
	header := 8
	if c.request.Body.IsFlexible() {
		header++
	}
	response := c.request.Body.ResponseKind()
	if err := response.ReadFrom(bytes.Clone(frame[header:])); err != nil {
		c.b.t.Fatal(err)
	}
	return response
}

func (c *pendingCall) pending() bool {
	select {
	case <-c.answered:
		return false
	default:
		return true
	}
}

// produced builds a batch of string records.
func produced(values ...string) []byte {
	b := record.NewBuilder(record.CodecNone)
	for _, v := range values {
		b.Append(time.Now().UnixMilli(), nil, []byte(v), nil)
	}
	return b.Build(nil)
}

// sequenced is produced by an idempotent producer.
func sequenced(id int64, epoch int16, sequence int32, values ...string) []byte {
	b := record.NewBuilder(record.CodecNone)
	b.SetProducer(id, epoch, sequence)
	for _, v := range values {
		b.Append(time.Now().UnixMilli(), nil, []byte(v), nil)
	}
	return b.Build(nil)
}

func produceRequest(topic string, acks int16, partition int32, records []byte) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic, idOf(topic)
	t.Partitions = []kmsg.ProduceRequestTopicPartition{{Partition: partition, Records: records}}
	r.Topics = append(r.Topics, t)
	return r
}

// produce produces to one partition at the highest version and returns its answer.
func (b *testBroker) produce(topic string, acks int16, partition int32, records []byte) *kmsg.ProduceResponseTopicPartition {
	b.t.Helper()
	response := b.send(produceRequest(topic, acks, partition, records), 13).result().(*kmsg.ProduceResponse)
	return &response.Topics[0].Partitions[0]
}

func (b *testBroker) mustProduce(topic string, partition int32, values ...string) {
	b.t.Helper()
	if p := b.produce(topic, -1, partition, produced(values...)); p.ErrorCode != 0 {
		b.t.Fatalf("produce %v: %v", values, kerr.ErrorForCode(p.ErrorCode))
	}
}

// wanted is one partition of a fetch.
type wanted struct {
	topic     string
	partition int32
	offset    int64
}

func fetchRequest(want ...wanted) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.MaxBytes, r.MinBytes, r.SessionEpoch = 1<<20, 1, finalEpoch
	for _, w := range want {
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = w.topic, idOf(w.topic)
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = w.partition, w.offset, 1<<20
		t.Partitions = append(t.Partitions, p)
		r.Topics = append(r.Topics, t)
	}
	return r
}

func (b *testBroker) fetch(r *kmsg.FetchRequest, version int16) *kmsg.FetchResponse {
	b.t.Helper()
	return b.send(r, version).result().(*kmsg.FetchResponse)
}

// valuesOf lists the values of record batches, separated by spaces.
func valuesOf(t testing.TB, data []byte) string {
	t.Helper()
	var list []string
	for len(data) > 0 {
		batch, rest, err := record.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := batch.Validate(); err != nil {
			t.Fatal(err)
		}
		if err := batch.Iterate(func(r *record.Record) error { list = append(list, string(r.Value)); return nil }); err != nil {
			t.Fatal(err)
		}
		data = rest
	}
	return strings.Join(list, " ")
}

// all reads a partition from an offset to its end.
func (b *testBroker) all(topic string, partition int32, offset int64) string {
	b.t.Helper()
	var list []string
	for {
		r := b.fetch(fetchRequest(wanted{topic, partition, offset}), 16)
		p := &r.Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			b.t.Fatalf("fetch at %d: %v", offset, kerr.ErrorForCode(p.ErrorCode))
		}
		if len(p.RecordBatches) == 0 {
			return strings.Join(list, " ")
		}
		list = append(list, valuesOf(b.t, p.RecordBatches))
		for data := p.RecordBatches; len(data) > 0; {
			batch, rest, _ := record.Parse(data)
			offset, data = batch.NextOffset(), rest
		}
	}
}
