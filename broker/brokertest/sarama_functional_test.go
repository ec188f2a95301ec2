package brokertest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

const saramaModule = "github.com/IBM/sarama"

// saramaPorts is where sarama's functional tests look for their five brokers.
const saramaPorts = 29090

const wantsFive = "wants five brokers"

// saramaAlone are tests that need more brokers than one.
var saramaAlone = map[string]string{
	"TestFuncAdminListConsumerGroupOffsets":    "stops a coordinator and wants another one",
	"TestFuncAdminDescribeLogDirs":             wantsFive,
	"TestFuncAdminAlterPartitionReassignments": "moves replicas",
	"TestConsumerFetchFollowerFailover":        "reads from a follower",
	"TestFuncTxnProduceWithBrokerFailure":      "stops a coordinator and wants another one",
}

// saramaDeviations are tests that Apache Kafka passes and the broker does not, with a part
// of what they say.
var saramaDeviations = map[string]string{
	"TestFuncAdminQuotas":                  "The version of API is not supported",
	"TestFuncAdminIncrementalAlterConfigs": "failed to alter config",
}

// saramaSoon is what a test complains about that looks for a record right after acks=1:
// where Kafka has one replica it shows the record at once, here once it is fsynced.
var saramaSoon = []string{
	"unexpected latest offset for list-offsets-",
	"failed to delete records: kafka server: The requested offset is outside the range",
}

// TestSaramaFunctionalTests runs sarama's own functional tests, unmodified, with
// LEAT_SARAMA=5 on a cluster of five nodes as they expect, or 3, with LEAT_SARAMA=1 on one node,
// before which a relay makes all topics have one replica, and with LEAT_SARAMA=HOST:PORT
// so on that broker, which has to advertise 127.0.0.1:29091. Between tests and brokers are proxies that break connections and
// slow them down when tests ask for it, as sarama has them from Toxiproxy; nodes are
// stopped and started when a test asks docker for it.
//
// It needs the ports 29091 to 29095, and some ten minutes. LEAT_SARAMA_RUN is a regular
// expression for the tests to run.
func TestSaramaFunctionalTests(t *testing.T) {
	setting := os.Getenv("LEAT_SARAMA")
	if setting == "" {
		t.Skip("LEAT_SARAMA is not set")
	}
	address, upstreams := "", []string(nil)
	var nodes *brokertest.Cluster
	if count, err := strconv.Atoi(setting); err != nil {
		address, upstreams = setting, []string{setting}
	} else {
		nodes = saramaNodes(t, count)
		for i := range count {
			upstreams = append(upstreams, nodes.Node(i).Listening())
		}
	}
	api := serveToxics(t, upstreams)
	docker := serveDocker(t, nodes)
	folder, binary := buildTests(t, saramaModule, ".", "-tags", "functional")
	run := func(args ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, binary, args...)
		c.Dir = folder
		c.Env = append(os.Environ(), "TOXIPROXY_ADDR="+api, "KAFKA_VERSION=4.1.0", "PATH="+docker+string(os.PathListSeparator)+os.Getenv("PATH"))
		return c.CombinedOutput()
	}
	wanted := os.Getenv("LEAT_SARAMA_RUN")
	if wanted == "" {
		wanted = "^Test"
	}
	list, err := run("-test.list", wanted)
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(list))
	}
	for _, name := range strings.Fields(string(list)) {
		t.Run(name, func(t *testing.T) {
			if why, ok := saramaAlone[name]; ok && (len(upstreams) == 1 || len(upstreams) < 5 && why == wantsFive) {
				t.Skip(why)
			}
			out, err := run("-test.v", "-test.timeout", "5m", "-test.run", "^"+name+"$")
			deviation, deviates := saramaDeviations[name]
			deviates = deviates && address == ""
			switch {
			case bytes.Contains(out, []byte("--- SKIP: "+name)):
				t.Skipf("%s", tail(out))
			case err != nil && deviates && bytes.Contains(out, []byte(deviation)):
				t.Skipf("Apache Kafka passes it:\n%s", tail(out))
			case err != nil && address == "" && slices.ContainsFunc(saramaSoon, func(s string) bool { return bytes.Contains(out, []byte(s)) }):
				t.Skipf("records are seen when they are fsynced:\n%s", tail(out))
			case err == nil && deviates:
				t.Error("it passes, which saramaDeviations denies")
			case err != nil || !bytes.Contains(out, []byte("--- PASS: "+name)):
				t.Errorf("%v\n%s", err, tail(out))
			}
		})
	}
}

// saramaNodes starts nodes with the settings that sarama starts Kafka with.
func saramaNodes(t *testing.T, count int) *brokertest.Cluster {
	node := 0
	replicas := strconv.Itoa(min(count, 2))
	options := []brokertest.Option{brokertest.Configure(func(c *broker.Config) {
		node++
		c.NodeID, c.Advertise = int32(node), fmt.Sprintf("127.0.0.1:%d", saramaPorts+node)
		c.Cluster.Session = 6 * time.Second // five nodes are slow on a small machine
		if err := c.Set("broker.rack", strconv.Itoa(node)); err != nil {
			t.Fatal(err)
		}
	})}
	for name, value := range map[string]string{
		"default.replication.factor": replicas, "offsets.topic.replication.factor": replicas, "transaction.state.log.replication.factor": replicas,
		"auto.create.topics.enable": "false", "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
		"group.min.session.timeout.ms": "6000", "transaction.state.log.min.isr": "1",
	} {
		options = append(options, brokertest.Set(name, value))
	}
	return brokertest.StartCluster(t, count, options...)
}
