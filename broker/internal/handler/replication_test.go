package handler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
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

// replicated is three brokers whose followers fetch through the handlers, and a
// controller that obeys the rules of AlterPartition.
type replicated struct {
	t     testing.TB
	nodes [4]*replicatedNode // by id; 0 is not used

	mu          sync.Mutex
	image       *metadata.Image
	undelivered []func(*testBroker) // what the nodes have not been told of
	epochs      [4]atomic.Int64     // of the brokers
	alters      atomic.Int32
}

type replicatedNode struct {
	*testBroker
	c    *replicated
	id   int32
	disk *vfs.Mem
	up   context.Context // of the connections to it
	down context.CancelFunc
	mu   sync.Mutex
}

func startReplicated(t testing.TB) *replicated {
	c := &replicated{t: t}
	var changes []metadata.Change
	for id := int32(1); id <= 3; id++ {
		c.epochs[id].Store(int64(id))
		changes = append(changes, &metadata.BrokerChange{ID: id, Epoch: int64(id), Listeners: []metadata.Listener{{Name: "PLAINTEXT", Host: "h", Port: 9000 + id}}})
	}
	image, _, err := metadata.Empty().Apply(0, 0, changes)
	if err != nil {
		t.Fatal(err)
	}
	c.image = image
	for id := int32(1); id <= 3; id++ {
		c.nodes[id] = &replicatedNode{c: c, id: id, disk: vfs.NewMem()}
		c.nodes[id].start()
	}
	return c
}

func (c *replicated) stop() {
	for _, n := range c.nodes[1:] {
		n.kill()
	}
}

// start opens the node on its disk with the metadata of now.
func (n *replicatedNode) start() {
	t := n.c.t
	directory, err := storage.OpenDirectory(storage.Env{FS: n.disk, Now: time.Now, Logger: zerolog.Nop()}, "data")
	if err != nil {
		t.Fatal(err)
	}
	manager, err := replica.NewManager(replica.Config{NodeID: n.id, Directory: directory, RetentionInterval: -1, CleanerInterval: -1, Cluster: clusterOf{n.c, n.id}, Lag: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b := &testBroker{t: t, directory: directory, manager: manager, ctx: context.Background(), conn: &wire.Conn{RemoteAddr: &net.TCPAddr{}, Listener: "PLAINTEXT"}}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.c.deliver()
	b.image.Store(n.c.image)
	if err := manager.Start(n.c.image); err != nil {
		t.Fatal(err)
	}
	b.handler = New(Dependencies{NodeID: n.id, InterNode: "INTERNAL", Image: b.image.Load, AwaitImage: b.latest, Partitions: replicas{manager}, Controller: &ids{}, Now: time.Now, Logger: zerolog.Nop()})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.testBroker = b
	n.up, n.down = context.WithCancel(context.Background())
}

// broker returns the running broker, nil while it is down.
func (n *replicatedNode) broker() (*testBroker, context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.testBroker, n.up
}

func (n *replicatedNode) kill() {
	n.mu.Lock()
	b := n.testBroker
	n.testBroker = nil
	if b != nil {
		n.down()
	}
	n.mu.Unlock()
	if b != nil {
		b.stop()
	}
}

// crash kills the node as a power cut does and leaves what its disk kept.
func (n *replicatedNode) crash(random *rand.Rand) {
	kept := n.disk.Crash(random)
	n.kill()
	n.disk = kept
}

// change commits metadata and brings it to the nodes that are up.
func (c *replicated) change(changes ...metadata.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commit(changes)
}

func (c *replicated) commit(changes []metadata.Change) {
	c.decide(changes)
	c.deliver()
}

// decide commits metadata that the nodes learn of with the next deliver.
func (c *replicated) decide(changes []metadata.Change) {
	image, delta, err := c.image.Apply(c.image.Offset()+1, 0, changes)
	if err != nil {
		panic(err)
	}
	c.image = image
	c.undelivered = append(c.undelivered, func(b *testBroker) {
		b.image.Store(image)
		b.manager.Apply(image, delta)
	})
}

// deliver brings what was decided to the nodes that are up, in order.
func (c *replicated) deliver() {
	for _, to := range c.undelivered {
		for _, n := range c.nodes[1:] {
			if b, _ := n.broker(); b != nil {
				to(b)
			}
		}
	}
	c.undelivered = nil
}

func (c *replicated) partition(topic string, partition int32) *metadata.Partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, _ := c.image.TopicByID(idOf(topic))
	return &t.Partitions[partition]
}

func (c *replicated) create(topic string, partitions int32, config map[string]string) {
	changes := []metadata.Change{&metadata.TopicChange{Name: topic, ID: idOf(topic)}}
	for p := range partitions {
		changes = append(changes, &metadata.PartitionChange{Topic: idOf(topic), Partition: p, Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}, Leader: 1})
	}
	for key, value := range config {
		changes = append(changes, &metadata.ConfigChange{Resource: metadata.TopicResource, Name: topic, Key: key, Value: &value})
	}
	c.change(changes...)
}

// lead moves the leadership of all of a topic's partitions; who is not in isr
// leaves it.
func (c *replicated) lead(topic string, leader int32, isr ...int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, _ := c.image.TopicByID(idOf(topic))
	var changes []metadata.Change
	for i := range t.Partitions {
		change := t.Partitions[i].Change(t.ID)
		change.ISR, change.Leader = isr, leader
		change.LeaderEpoch++
		change.PartitionEpoch++
		changes = append(changes, change)
	}
	c.commit(changes)
}

// clusterOf is the other nodes as one of them sees them.
type clusterOf struct {
	c    *replicated
	from int32
}

func (c clusterOf) BrokerEpoch() int64 { return c.c.epochs[c.from].Load() }

var errDown = errors.New("the node is down")

func (c clusterOf) Request(ctx context.Context, node int32, _ string, request kmsg.Request) (kmsg.Response, error) {
	b, up := c.c.nodes[node].broker()
	if b == nil {
		return nil, errDown
	}
	request.SetVersion(request.MaxVersion())
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, request, 7)
	decoded, err := b.handler.Table().Decode(frame[4:])
	if err != nil {
		return nil, err
	}
	decoded.Conn = &wire.Conn{RemoteAddr: &net.TCPAddr{}, Listener: "INTERNAL"}
	call := &pendingCall{b: b, request: decoded, answered: make(chan struct{})}
	b.handler.Handle(up, decoded, func(r wire.Response) {
		call.once.Do(func() { call.response = r; close(call.answered) })
	})
	select {
	case <-call.answered:
		return call.result(), nil
	case <-up.Done():
		return nil, errDown
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c clusterOf) AlterPartition(_ context.Context, request *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	c.c.alters.Add(1)
	response := request.ResponseKind().(*kmsg.AlterPartitionResponse)
	var changes []metadata.Change
	for i := range request.Topics {
		asked := &request.Topics[i]
		topic, _ := c.c.image.TopicByID(asked.TopicID)
		answers := kmsg.NewAlterPartitionResponseTopic()
		answers.TopidID = asked.TopicID
		for j := range asked.Partitions {
			p := &asked.Partitions[j]
			now := topic.Partitions[p.Partition]
			answer := kmsg.NewAlterPartitionResponseTopicPartition()
			answer.Partition = p.Partition
			switch {
			case p.LeaderEpoch != now.LeaderEpoch || request.BrokerID != now.Leader:
				answer.ErrorCode = kerr.FencedLeaderEpoch.Code
			case p.PartitionEpoch != now.PartitionEpoch:
				answer.ErrorCode = kerr.InvalidUpdateVersion.Code
			default:
				change := now.Change(topic.ID)
				change.ISR = nil
				change.PartitionEpoch++
				for _, m := range p.NewEpochISR {
					change.ISR = append(change.ISR, m.BrokerID)
				}
				changes = append(changes, change)
				answer.LeaderID, answer.LeaderEpoch, answer.PartitionEpoch, answer.ISR = now.Leader, now.LeaderEpoch, change.PartitionEpoch, change.ISR
			}
			answers.Partitions = append(answers.Partitions, answer)
		}
		response.Topics = append(response.Topics, answers)
	}
	if len(changes) > 0 {
		c.c.decide(changes)
		// As in a cluster, the answer may come before the metadata and after it.
		go func() {
			c.c.mu.Lock()
			defer c.c.mu.Unlock()
			c.c.deliver()
		}()
	}
	return response, nil
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// logBytes returns all of a node's log.
func (n *replicatedNode) logBytes(topic string, partition int32) []byte {
	r, err := n.manager.Replica(idOf(topic), partition)
	if err != nil || r.Log() == nil {
		return nil
	}
	var data []byte
	for offset := r.Log().StartOffset(); offset < r.Log().EndOffset(); {
		batch, readErr := r.Log().Read(nil, offset, r.Log().EndOffset(), 1<<30, true)
		if readErr != nil || len(batch) == 0 {
			return nil
		}
		data = append(data, batch...)
		offset = nextOffset(batch)
	}
	return data
}

func (c *replicated) equalLogs(topic string, partitions int32) bool {
	for p := range partitions {
		one := c.nodes[1].logBytes(topic, p)
		if one == nil || !bytes.Equal(one, c.nodes[2].logBytes(topic, p)) || !bytes.Equal(one, c.nodes[3].logBytes(topic, p)) {
			return false
		}
	}
	return true
}

func (n *replicatedNode) high(topic string, partition int32) int64 {
	r, err := n.manager.Replica(idOf(topic), partition)
	if err != nil {
		return -1
	}
	return r.HighWatermark()
}

func TestFollowersCopyTheLeader(t *testing.T) {
	c := startReplicated(t)
	defer c.stop()
	c.create("orders", 20, map[string]string{"min.insync.replicas": "3"})
	for i := range 100 {
		c.nodes[1].mustProduce("orders", int32(i%20), fmt.Sprint(i))
	}
	eventually(t, "equal logs", func() bool { return c.equalLogs("orders", 20) })
	// Consumers read from followers up to what is committed (KIP-392).
	eventually(t, "the high watermark of followers", func() bool { return c.nodes[2].high("orders", 7) == 5 && c.nodes[3].high("orders", 7) == 5 })
	if got := c.nodes[3].all("orders", 7, 0); got != "7 27 47 67 87" {
		t.Errorf("read from a follower: %q", got)
	}
}

func TestFollowerThatFailsIsDroppedAndComesBack(t *testing.T) {
	c := startReplicated(t)
	defer c.stop()
	c.create("orders", 1, map[string]string{"min.insync.replicas": "2"})
	c.nodes[1].mustProduce("orders", 0, "a")
	c.nodes[3].crash(rand.New(rand.NewPCG(1, 1)))
	c.nodes[1].mustProduce("orders", 0, "b") // waits until 3 is out
	eventually(t, "3 is out of sync", func() bool { return !slices.Contains(c.partition("orders", 0).ISR, 3) })
	c.nodes[2].kill()
	if p := c.nodes[1].produce("orders", -1, 0, produced("lost")); p.ErrorCode != kerr.NotEnoughReplicasAfterAppend.Code {
		t.Fatalf("produced with one replica: %v", kerr.ErrorForCode(p.ErrorCode))
	}
	if p := c.nodes[1].produce("orders", -1, 0, produced("lost")); p.ErrorCode != kerr.NotEnoughReplicas.Code {
		t.Fatalf("produced with one replica: %v", kerr.ErrorForCode(p.ErrorCode))
	}
	c.nodes[2].start()
	c.nodes[3].start()
	eventually(t, "all are in sync again", func() bool { return len(c.partition("orders", 0).ISR) == 3 })
	c.nodes[1].mustProduce("orders", 0, "c")
	if got := c.nodes[1].all("orders", 0, 0); got != "a b lost c" {
		t.Errorf("read %q", got)
	}
	eventually(t, "equal logs", func() bool { return c.equalLogs("orders", 1) })
}

func TestLeaderCrash(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		c := startReplicated(t)
		c.create("orders", 2, map[string]string{"min.insync.replicas": "2"})
		acknowledged := []string{}
		for i := range 5 + random.IntN(10) {
			c.nodes[1].mustProduce("orders", 0, fmt.Sprint(i))
			acknowledged = append(acknowledged, fmt.Sprint(i))
		}
		// What nobody was told may stay or go, but alike everywhere.
		for range random.IntN(4) {
			c.nodes[1].produce("orders", 1, 0, produced("maybe"))
		}
		c.nodes[1].crash(random)
		leader := 2 + int32(random.IntN(2))
		c.lead("orders", leader, 2, 3)
		if random.IntN(2) == 0 {
			c.nodes[leader].mustProduce("orders", 0, "next")
			acknowledged = append(acknowledged, "next")
		}
		c.epochs[1].Add(10)
		c.nodes[1].start()
		eventually(t, "the old leader is in sync", func() bool { return len(c.partition("orders", 0).ISR) == 3 })
		c.nodes[leader].mustProduce("orders", 0, "last")
		acknowledged = append(acknowledged, "last")
		got := strings.ReplaceAll(c.nodes[leader].all("orders", 0, 0), "maybe ", "")
		if got != strings.Join(acknowledged, " ") {
			t.Errorf("seed %d: %q, want %q", seed, got, acknowledged)
		}
		// One that was slow may have been dropped before the last record was acknowledged.
		eventually(t, fmt.Sprintf("seed %d: equal logs", seed), func() bool { return c.equalLogs("orders", 1) })
		c.stop()
	}
}

func TestDamagedFollowerIsCopiedAgain(t *testing.T) {
	c := startReplicated(t)
	defer c.stop()
	c.create("orders", 2, map[string]string{"min.insync.replicas": "2"})
	for i := range 10 {
		c.nodes[1].mustProduce("orders", 0, fmt.Sprint(i))
		c.nodes[1].mustProduce("orders", 1, fmt.Sprint(i))
	}
	c.nodes[3].crash(rand.New(rand.NewPCG(1, 1)))
	f, err := c.nodes[3].disk.OpenReadWrite("data/orders-0/00000000000000000000.log")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("flipped"), 100); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	c.nodes[3].start()
	r, _ := c.nodes[3].manager.Replica(idOf("orders"), 0)
	eventually(t, "the damage is noticed and mended", func() bool {
		return c.alters.Load() >= 2 && r.Failure() == nil && len(c.partition("orders", 0).ISR) == 3
	})
	eventually(t, "the copy is equal", func() bool { return c.equalLogs("orders", 2) })
}

// TestReplicaOfNobody says who may call itself a follower, and where.
func TestReplicaOfNobody(t *testing.T) {
	c := startReplicated(t)
	defer c.stop()
	c.create("orders", 1, nil)
	c.nodes[1].mustProduce("orders", 0, "a")
	ask := func() *kmsg.FetchRequest {
		r := fetchRequest(wanted{"orders", 0, 0})
		r.SessionEpoch = initialEpoch
		r.ReplicaState.ID, r.ReplicaState.Epoch = 9, 1
		return r
	}
	if p := c.nodes[1].fetch(ask(), 17).Topics[0].Partitions[0]; p.ErrorCode != kerr.ClusterAuthorizationFailed.Code {
		t.Errorf("on the clients' listener: %v", kerr.ErrorForCode(p.ErrorCode))
	}
	response, err := clusterOf{c, 2}.Request(context.Background(), 1, "", ask())
	if err != nil {
		t.Fatal(err)
	}
	if p := response.(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != kerr.NotLeaderForPartition.Code || len(p.RecordBatches) > 0 {
		t.Errorf("a broker that is no replica: %v", kerr.ErrorForCode(p.ErrorCode))
	}
}

// nextOffset returns the offset after the last batch.
func nextOffset(data []byte) (next int64) {
	for len(data) > 0 {
		batch, rest, err := record.Parse(data)
		if err != nil {
			return -1
		}
		next, data = batch.NextOffset(), rest
	}
	return next
}
