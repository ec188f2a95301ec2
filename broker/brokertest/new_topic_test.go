package brokertest_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newTopic creates a topic in a cluster, and waits until each of the nodes shows all its
// partitions with a leader and all replicas in sync: a node may lag behind the
// controller, and what a client is told by one may be news to another.
func newTopic(t *testing.T, name string, partitions int32, replicas int, config map[string]*string, addrs ...string) {
	t.Helper()
	// Nodes that have not registered yet cannot hold replicas. One that dies between a
	// decision and its answer leaves the client to ask again.
	a := admin(t, addrs...)
	waitFor(t, fmt.Sprintf("topic %s with %d replicas", name, replicas), func() bool {
		_, err := a.CreateTopic(clusterContext(t), partitions, int16(replicas), config, name)
		return err == nil || errors.Is(err, kerr.TopicAlreadyExists)
	})
	for _, addr := range addrs {
		shown := metadataAt(t, addr)
		waitFor(t, fmt.Sprintf("all replicas of %s in sync at %s", name, addr), func() bool {
			found := shown(name)
			return found != nil && len(found[0].Partitions) == int(partitions) && allInSync(found[0].Partitions, replicas)
		})
	}
}

// metadataAt returns what tells of topics as the node at that address shows them, of all
// when none are named: nil when it does not answer. A client asks any node it has heard of.
func metadataAt(t *testing.T, addr string) func(names ...string) []kmsg.MetadataResponseTopic {
	t.Helper()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return func(names ...string) []kmsg.MetadataResponseTopic {
		request := kmsg.NewPtrMetadataRequest()
		for _, name := range names {
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = &name
			request.Topics = append(request.Topics, topic)
		}
		answer, err := client.SeedBrokers()[0].Request(clusterContext(t), request)
		if err != nil {
			return nil
		}
		return answer.(*kmsg.MetadataResponse).Topics
	}
}

func allInSync(partitions []kmsg.MetadataResponseTopicPartition, replicas int) bool {
	return !slices.ContainsFunc(partitions, func(p kmsg.MetadataResponseTopicPartition) bool {
		return len(p.Replicas) != replicas || len(p.ISR) != replicas || p.Leader < 0
	})
}

func minInSync(n int) map[string]*string {
	text := strconv.Itoa(n)
	return map[string]*string{"min.insync.replicas": &text}
}
