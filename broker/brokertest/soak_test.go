package brokertest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	soakTopic      = "soak"
	soakPartitions = 4
	soakProducers  = 2
)

// TestSoak kills nodes under idempotent producers with acks=all, and then looks at every
// replica: each record that was acknowledged is there at its offset, none is there twice,
// and all replicas are alike. The nodes are processes that are killed as by kill -9: the
// leader of a partition again and again, then all at once.
//
// It kills two leaders and the active controller; with LEAT_SOAK=5m the leader of a
// partition every ten seconds for five minutes, or what LEAT_SOAK_VICTIM says: leader,
// controller, or all.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	long, pause := time.Duration(0), time.Duration(0)
	if s := os.Getenv("LEAT_SOAK"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		pause = 10 * time.Second
	}
	victims := map[string]func(*soak, int){
		"leader":     func(s *soak, n int) { s.killLeader(int32(n % soakPartitions)) },
		"controller": func(s *soak, _ int) { s.killController() },
		"all":        func(s *soak, _ int) { s.killAll() },
	}
	victim := os.Getenv("LEAT_SOAK_VICTIM")
	if victim == "" {
		victim = "leader"
	}
	kill, ok := victims[victim]
	if !ok {
		t.Fatalf("LEAT_SOAK_VICTIM=%s: must be leader, controller or all", victim)
	}
	s := newSoak(t)
	end := time.Now().Add(long)
	kills := 0
	for ; kills < 2 || time.Now().Before(end); kills++ {
		next := time.After(pause)
		s.inSync()
		s.progress()
		kill(s, kills)
		<-next
	}
	s.inSync()
	s.progress()
	s.killController()
	s.inSync()
	s.progress()
	s.killAll()
	s.progress()
	t.Logf("killed %d times (%s), the active controller and all nodes once more", kills, victim)
	s.stop()
	s.inSync()
	s.verify()
}

// soak is a cluster with producers.
type soak struct {
	t       *testing.T
	nodes   *processes
	admin   *kadm.Client
	topicID [16]byte

	halt      atomic.Bool
	producers sync.WaitGroup
	mu        sync.Mutex
	acked     [soakPartitions]map[int64]uint64 // offset -> value
	count     int
	failed    error
}

func newSoak(t *testing.T) *soak {
	s := &soak{t: t, nodes: startProcesses(t)}
	s.nodes.dumpOnFailure()
	for i := range s.nodes.nodes {
		s.nodes.waitReady(i)
	}
	s.admin = admin(t, s.nodes.addrs()...)
	two := "2"
	waitFor(t, "a topic", func() bool {
		r, err := s.admin.CreateTopic(clusterContext(t), soakPartitions, 3, map[string]*string{"min.insync.replicas": &two}, soakTopic)
		return err == nil && (r.Err == nil || r.Err == kerr.TopicAlreadyExists)
	})
	for p := range s.acked {
		s.acked[p] = map[int64]uint64{}
	}
	for n := range soakProducers {
		client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(s.nodes.addrs()...), kgo.DefaultProduceTopic(soakTopic),
			kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.MetadataMinAge(50*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err != nil {
			t.Fatal(err)
		}
		s.producers.Go(func() {
			defer client.Close()
			s.produce(client, uint64(n)<<40)
		})
	}
	t.Cleanup(func() {
		s.halt.Store(true)
		for i := range s.nodes.nodes {
			if s.nodes.nodes[i].cmd == nil {
				s.nodes.start(i) // so that the producers can end
			}
		}
		s.producers.Wait()
	})
	return s
}

// produce writes records with values of its own, ten at a time, and notes where they are.
func (s *soak) produce(client *kgo.Client, value uint64) {
	for !s.halt.Load() {
		var records []*kgo.Record
		for range 10 {
			value++
			records = append(records, &kgo.Record{Value: binary.BigEndian.AppendUint64(nil, value)})
		}
		for _, r := range client.ProduceSync(context.Background(), records...) {
			s.mu.Lock()
			switch at, twice := s.acked[r.Record.Partition][r.Record.Offset]; {
			case r.Err != nil:
				s.failed = r.Err
			case twice:
				s.failed = fmt.Errorf("values %d and %d were both acknowledged at offset %d of partition %d", at, value, r.Record.Offset, r.Record.Partition)
			default:
				s.acked[r.Record.Partition][r.Record.Offset] = binary.BigEndian.Uint64(r.Record.Value)
				s.count++
			}
			bad := s.failed != nil
			s.mu.Unlock()
			if bad {
				return
			}
		}
	}
}

// progress waits until records of each producer were acknowledged from now on.
func (s *soak) progress() {
	s.t.Helper()
	acknowledged := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failed != nil {
			s.t.Fatalf("a producer failed: %v", s.failed)
		}
		return s.count
	}
	before := acknowledged()
	waitFor(s.t, "more records", func() bool { return acknowledged() > before+100 })
}

// killLeader kills the node that leads a partition, and starts it again when records
// are acknowledged without it.
func (s *soak) killLeader(partition int32) {
	s.t.Helper()
	meta, err := s.admin.Metadata(clusterContext(s.t), soakTopic)
	if err != nil {
		s.t.Fatal(err)
	}
	s.killNode(meta, meta.Topics[soakTopic].Partitions[partition].Leader)
}

// killController kills the active controller.
func (s *soak) killController() {
	s.t.Helper()
	client := clusterClient(s.t, s.nodes.addrs()...)
	defer client.Close()
	leader := describeQuorum(s.t, client).LeaderID
	meta, err := s.admin.BrokerMetadata(clusterContext(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	s.killNode(meta, leader)
}

func (s *soak) killNode(meta kadm.Metadata, node int32) {
	s.t.Helper()
	at, ok := s.nodes.place(meta, node)
	if !ok {
		s.t.Fatalf("node %d is none of %+v", node, meta.Brokers)
	}
	s.nodes.kill(at)
	s.progress()
	s.nodes.start(at)
}

// killAll kills all nodes at once, and starts them again.
func (s *soak) killAll() {
	s.t.Helper()
	for i := range s.nodes.nodes {
		s.nodes.signal(i, os.Kill)
	}
	for i := range s.nodes.nodes {
		s.nodes.kill(i)
	}
	for i := range s.nodes.nodes {
		s.nodes.start(i)
	}
}

func (s *soak) inSync() {
	s.t.Helper()
	waitFor(s.t, "all in sync", func() bool { return replicated(s.t, s.admin, soakTopic, 3) })
}

// stop stops the producers when what they wrote is acknowledged.
func (s *soak) stop() {
	s.t.Helper()
	s.halt.Store(true)
	s.producers.Wait()
	if s.failed != nil {
		s.t.Fatalf("a producer failed: %v", s.failed)
	}
}

// verify reads every replica.
func (s *soak) verify() {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(s.nodes.addrs()...))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	var ends kadm.ListedOffsets
	waitFor(s.t, "the ends of all partitions", func() (known bool) {
		ends, err = s.admin.ListEndOffsets(clusterContext(s.t), soakTopic)
		return err == nil && ends.Error() == nil
	})
	meta, err := s.admin.Metadata(clusterContext(s.t), soakTopic)
	if err != nil {
		s.t.Fatal(err)
	}
	s.topicID = meta.Topics[soakTopic].ID
	where := map[uint64]string{} // of the first replica that is read
	var first int32
	for _, b := range s.brokers() {
		for p := range int32(soakPartitions) {
			end, _ := ends.Lookup(soakTopic, p)
			values := s.readReplica(client, b, p, end.Offset)
			for offset, want := range s.acked[p] {
				if got, ok := values[offset]; !ok || got != want {
					s.t.Fatalf("broker %d: offset %d of partition %d holds %d (found: %t); acknowledged was %d", b, offset, p, got, ok, want)
				}
			}
			for offset, value := range values {
				at := fmt.Sprintf("%d-%d", p, offset)
				before, known := where[value]
				if first == 0 || first == b {
					if known {
						s.t.Fatalf("broker %d: value %d is at %s and at %s", b, value, before, at)
					}
					where[value] = at
				} else if before != at {
					s.t.Fatalf("value %d is at %q in the first replica and at %s on broker %d", value, before, at, b)
				}
			}
		}
		if first == 0 {
			first = b
		}
	}
	s.t.Logf("%d records were acknowledged, %d are there, alike on three replicas", s.count, len(where))
}

func (s *soak) brokers() (ids []int32) {
	list, err := s.admin.ListBrokers(clusterContext(s.t))
	if err != nil || len(list) != 3 {
		s.t.Fatalf("brokers %v, %v", list, err)
	}
	return list.NodeIDs()
}

// readReplica reads what a broker has of a partition, up to end, as a consumer that is
// close to it does (KIP-392).
func (s *soak) readReplica(client *kgo.Client, broker, partition int32, end int64) map[int64]uint64 {
	s.t.Helper()
	values := map[int64]uint64{}
	deadline := time.Now().Add(time.Minute)
	for offset := int64(0); offset < end; {
		request := kmsg.NewPtrFetchRequest()
		request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 500, 1, 8<<20
		request.SessionEpoch = -1
		topic, p := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, offset, 8<<20, -1
		topic.Topic, topic.TopicID, topic.Partitions = soakTopic, s.topicID, append(topic.Partitions, p)
		request.Topics = append(request.Topics, topic)
		response, err := client.Broker(int(broker)).Request(clusterContext(s.t), request)
		if err != nil {
			s.t.Fatalf("fetch from broker %d: %v", broker, err)
		}
		answer := &response.(*kmsg.FetchResponse).Topics[0].Partitions[0]
		fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: offset, Topic: soakTopic, Partition: partition},
			answer, kgo.DefaultDecompressor(), func(kgo.FetchBatchMetrics) {})
		for _, r := range fetched.Records {
			values[r.Offset] = binary.BigEndian.Uint64(r.Value)
		}
		if next > offset {
			offset = next
		}
		if time.Now().After(deadline) || fetched.Err != nil && fetched.Err != kerr.NotLeaderForPartition {
			s.t.Fatalf("broker %d, partition %d: read to %d of %d: %v", broker, partition, offset, end, fetched.Err)
		}
	}
	return values
}
