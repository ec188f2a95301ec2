package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/internal/controller"
)

// startBroker starts a cluster of one and returns its address.
func startBroker(t *testing.T) string {
	t.Helper()
	c := broker.DefaultConfig()
	c.DataDir, c.Listen, c.Admin = t.TempDir(), "127.0.0.1:0", ""
	b, err := broker.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return b.Addr()
}

func runCluster(args ...string) (string, error) {
	c := ClusterCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.Execute()
	return out.String(), err
}

// TestClusterCommands runs the commands on a cluster of one, which has nothing to
// move and nowhere to move it to.
func TestClusterCommands(t *testing.T) {
	address := startBroker(t)
	a, err := dialAny(t.Context(), []string{"127.0.0.1:1", address}, 5e9)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "orders", 3, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 5000
	if answer, err := a.ask(create, 7, 5e9); err != nil || answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
		t.Fatalf("create: %+v, %v", answer, err)
	}
	out, err := runCluster("rebalance", "--run", "--json", "--bootstrap", address)
	var got outcome
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || got.Moves == nil || len(got.Moves) != 0 || !got.Done {
		t.Errorf("rebalance: %q, %v", out, err)
	}
	if out, err := runCluster("rebalance", "--plan", "--bootstrap", address); err != nil || out != "0 partitions to change, 0 replicas to copy\n" {
		t.Errorf("plan: %q, %v", out, err)
	}
	for _, x := range []struct {
		args string
		want string
	}{
		{"rebalance", "at least one of the flags"},
		{"drain 1", "orders-0 has 1 replicas, and 0 broker(s) would be left"},
		{"drain 9", "broker 9 is not registered"},
		{"drain one", `broker "one": must be the id of a broker`},
		{"unregister 9", "BROKER_ID_NOT_REGISTERED"},
	} {
		_, err := runCluster(append(strings.Fields(x.args), "--bootstrap", address)...)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.args, err, x.want)
		}
	}
	if _, err := runCluster("rebalance", "--plan", "--bootstrap", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "--bootstrap") {
		t.Errorf("no broker: %v", err)
	}
}

// TestMoverPlans turns what a cluster says of itself into moves.
func TestMoverPlans(t *testing.T) {
	rack := func(name string) *string { return &name }
	brokers := []kmsg.DescribeClusterResponseBroker{{NodeID: 1, Rack: rack("a")}, {NodeID: 2, Rack: rack("b")}, {NodeID: 3, Rack: rack("b")}}
	orders := "orders"
	topics := []kmsg.MetadataResponseTopic{{Topic: &orders, Partitions: []kmsg.MetadataResponseTopicPartition{
		{Partition: 0, Replicas: []int32{1, 2}}, {Partition: 1, Replicas: []int32{2, 1}}}}}
	plan := func(drained int32) []controller.Move {
		t.Helper()
		m := &mover{clusterFlags: &clusterFlags{}, drained: drained}
		moves, err := m.planFrom(brokers, nil, topics)
		if err != nil {
			t.Fatal(err)
		}
		return moves
	}
	// Broker 1 is alone in its rack and stays; 3 takes one from 2.
	if moves := plan(-1); len(moves) != 1 || moves[0].Copies() != 1 || len(moves[0].To) != 2 || moves[0].To[0] != 1 && moves[0].To[1] != 1 {
		t.Errorf("rebalance: %+v", moves)
	}
	for _, x := range plan(2) {
		if x.To[0] == 2 || x.To[1] == 2 {
			t.Errorf("drain: %+v", x)
		}
	}
	brokers[1].IsFenced = true
	m := &mover{clusterFlags: &clusterFlags{}, drained: -1}
	if _, err := m.planFrom(brokers, nil, topics); err == nil || !strings.Contains(err.Error(), "broker 2 is down") {
		t.Errorf("with a broker down: %v", err)
	}
	if moves := plan(2); len(moves) != 2 {
		t.Errorf("drain what is down: %+v", moves)
	}
}

// waitUntil waits until holds says so; a minute later it fails the test.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never saw %s", what)
		}
	}
}
