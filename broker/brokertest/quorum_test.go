package brokertest_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

func describeQuorum(t *testing.T, c *kgo.Client) kmsg.DescribeQuorumResponseTopicPartition {
	t.Helper()
	request := kmsg.NewPtrDescribeQuorumRequest()
	request.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	response, err := request.RequestWith(clusterContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if response.ErrorCode != 0 || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 || response.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("describe the quorum: %v, %+v", kerr.ErrorForCode(response.ErrorCode), response.Topics)
	}
	return response.Topics[0].Partitions[0]
}

func clusterClient(t *testing.T, addrs ...string) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A vote that was taken from a node stays taken, though nodes are set to become voters by
// themselves and though it starts again, until it is added.
func TestRemovedVoterStaysRemoved(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3, brokertest.Configure(func(c *broker.Config) { c.AutoJoin = true }))
	client := clusterClient(t, c.Addrs()...)
	quorum := describeQuorum(t, client)
	removed := -1
	var replica kmsg.DescribeQuorumResponseTopicPartitionReplicaState
	for i := range 3 {
		for _, r := range quorum.CurrentVoters {
			if r.ReplicaID == c.Node(i).Running().NodeID() && r.ReplicaID != quorum.LeaderID {
				removed, replica = i, r
			}
		}
	}
	if removed < 0 {
		t.Fatalf("no follower votes: %+v", quorum)
	}
	waitFor(t, "the node knows that it votes", func() bool { return c.Node(removed).Running().Voter() })
	ask := func(request kmsg.Request) {
		t.Helper()
		response, err := client.Request(clusterContext(t), request)
		if err != nil {
			t.Fatal(err)
		}
		var code int16
		switch r := response.(type) {
		case *kmsg.RemoveRaftVoterResponse:
			code = r.ErrorCode
		case *kmsg.AddRaftVoterResponse:
			code = r.ErrorCode
		}
		if code != 0 {
			t.Fatalf("%s: %v", kmsg.NameForKey(request.Key()), kerr.ErrorForCode(code))
		}
	}
	remove := kmsg.NewPtrRemoveRaftVoterRequest()
	remove.VoterID, remove.VoterDirectoryID = replica.ReplicaID, replica.ReplicaDirectoryID
	ask(remove)
	for range 2 {
		time.Sleep(1200 * time.Millisecond) // a node asks for a vote twice a second
		if n := len(describeQuorum(t, client).CurrentVoters); n != 2 {
			t.Fatalf("%d voters after one was removed", n)
		}
		c.Restart(removed)
	}
	add := kmsg.NewPtrAddRaftVoterRequest()
	add.VoterID, add.VoterDirectoryID, add.TimeoutMillis = replica.ReplicaID, replica.ReplicaDirectoryID, 40_000
	ask(add)
	waitFor(t, "it votes again", func() bool { return c.Node(removed).Running().Voter() })
	if n := len(describeQuorum(t, client).CurrentVoters); n != 3 {
		t.Errorf("%d voters, want 3", n)
	}
}

// Requests about the quorum that make no sense are refused as Kafka does.
func TestQuorumRequestsAreChecked(t *testing.T) {
	oneNodeOnly(t, "it removes the last voter")
	t.Parallel()
	b := brokertest.Start(t)
	client := newClient(t, b)
	voters := describeQuorum(t, client).CurrentVoters
	if len(voters) != 1 || voters[0].LogEndOffset <= 0 || voters[0].LastCaughtUpTimestamp <= 0 {
		t.Fatalf("voters %+v", voters)
	}
	other := "another-cluster"
	for _, c := range []struct {
		change func(*kmsg.AddRaftVoterRequest)
		want   *kerr.Error
	}{
		{func(r *kmsg.AddRaftVoterRequest) {}, kerr.DuplicateVoter},
		{func(r *kmsg.AddRaftVoterRequest) { r.ClusterID = &other }, kerr.InconsistentClusterID},
		{func(r *kmsg.AddRaftVoterRequest) { r.VoterDirectoryID[0]++ }, kerr.VoterNotFound},
		{func(r *kmsg.AddRaftVoterRequest) { r.VoterID, r.TimeoutMillis = 7, 100 }, kerr.RequestTimedOut},
	} {
		request := kmsg.NewPtrAddRaftVoterRequest()
		request.VoterID, request.VoterDirectoryID = voters[0].ReplicaID, voters[0].ReplicaDirectoryID
		c.change(request)
		response, err := client.SeedBrokers()[0].Request(testContext(t), request)
		if err != nil {
			t.Fatal(err)
		}
		if r := response.(*kmsg.AddRaftVoterResponse); r.ErrorCode != c.want.Code || r.ErrorMessage == nil {
			t.Errorf("%v, want %v", kerr.ErrorForCode(r.ErrorCode), c.want)
		}
	}
	for _, c := range []struct {
		change func(*kmsg.RemoveRaftVoterRequest)
		want   *kerr.Error
	}{
		{func(r *kmsg.RemoveRaftVoterRequest) {}, kerr.InvalidRequest}, // the last one
		{func(r *kmsg.RemoveRaftVoterRequest) { r.ClusterID = &other }, kerr.InconsistentClusterID},
		{func(r *kmsg.RemoveRaftVoterRequest) { r.VoterID = 7 }, kerr.VoterNotFound},
	} {
		request := kmsg.NewPtrRemoveRaftVoterRequest()
		request.VoterID, request.VoterDirectoryID = voters[0].ReplicaID, voters[0].ReplicaDirectoryID
		c.change(request)
		response, err := request.RequestWith(testContext(t), client)
		if err != nil {
			t.Fatal(err)
		}
		if response.ErrorCode != c.want.Code || response.ErrorMessage == nil {
			t.Errorf("%v, want %v", kerr.ErrorForCode(response.ErrorCode), c.want)
		}
	}
	strange := kmsg.NewPtrDescribeQuorumRequest()
	strange.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "orders", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	response, err := strange.RequestWith(testContext(t), client)
	if err != nil || response.Topics[0].Partitions[0].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("the quorum of a topic: %+v, %v", response, err)
	}
}
