package brokertest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// kafkaTool runs a command-line tool of Apache Kafka, whose jars lie in the folder
// that LEAT_TEST_KAFKA_LIB names, and returns what it writes.
func kafkaTool(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
	defer cancel()
	java := []string{"-cp", filepath.Join(os.Getenv("LEAT_TEST_KAFKA_LIB"), "*"), "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"}
	cmd := exec.CommandContext(ctx, "java", append(java, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestKafkaTools runs Apache Kafka's own command-line tools, which are Java, against
// the broker, or against the Apache Kafka that LEAT_TEST_KAFKA names, which passes as
// well.
func TestKafkaTools(t *testing.T) {
	if os.Getenv("LEAT_TEST_KAFKA_LIB") == "" {
		t.Skip("LEAT_TEST_KAFKA_LIB names no folder with the jars of Apache Kafka's tools")
	}
	address := os.Getenv("LEAT_TEST_KAFKA")
	if address == "" {
		address = brokertest.Start(t).Addr()
	}
	topic := fmt.Sprintf("tools-%d", time.Now().UnixNano())
	group, next := topic+"-group", topic+"-next"
	file := func(name, format string, args ...any) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	all := "[1]" // brokers
	for n := 2; n <= nodes(); n++ {
		all = strings.Replace(all, "]", fmt.Sprintf(",%d]", n), 1)
	}
	records := file("delete.json", `{"partitions":[{"topic":%q,"partition":0,"offset":1}],"version":1}`, topic)
	moved := file("moved.json", `{"partitions":[{"topic":%q,"partition":1,"replicas":%s}],"version":1}`, topic, all)
	toMove := file("topics.json", `{"topics":[{"topic":%q}],"version":1}`, topic)
	const tools = "org.apache.kafka.tools."
	const groups, reassign = tools + "consumer.group.ConsumerGroupCommand", tools + "reassign.ReassignPartitionsCommand"
	var lines strings.Builder
	for i := range 20 {
		fmt.Fprintf(&lines, "key%d:value %d\n", i, i)
	}
	for _, step := range []struct {
		name, input string
		args        []string
		want        string // a regular expression
	}{
		{"create", "", []string{tools + "TopicCommand", "--create", "--topic", topic, "--partitions", "1"}, "Created topic " + topic},
		{"alter", "", []string{tools + "TopicCommand", "--alter", "--topic", topic, "--partitions", "2"}, "^$"},
		{"describe", "", []string{tools + "TopicCommand", "--describe", "--topic", topic}, `PartitionCount: 2(?s:.*)Partition: 1\s+Leader: \d+\s+Replicas: [\d,]+\s+Isr: [\d,]+\s+Elr: \s*LastKnownElr:`},
		{"list", "", []string{tools + "TopicCommand", "--list"}, topic},
		{"console-producer", lines.String(), []string{tools + "ConsoleProducer", "--topic", topic, "--property", "parse.key=true", "--property", "key.separator=:", "--compression-codec", "zstd"}, ""},
		{"console-consumer", "", []string{tools + "consumer.ConsoleConsumer", "--topic", topic, "--from-beginning", "--max-messages", "20", "--group", group, "--property", "print.key=true"}, `(?m)^key7\s+value 7$(?s:.*)Processed a total of 20 messages`},
		{"groups", "", []string{groups, "--list", "--state"}, group + `\s+Empty`},
		{"group", "", []string{groups, "--describe", "--group", group}, regexp.QuoteMeta(group) + `\s+` + topic + `\s+1\s+\d+\s+\d+\s+0\s`},
		{"group-members", "", []string{groups, "--describe", "--group", group, "--members", "--verbose"}, "no active members"},
		{"group-state", "", []string{groups, "--describe", "--group", group, "--state"}, `Empty\s+0`},
		{"reset-offsets", "", []string{groups, "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute"}, topic + `\s+1\s+0`},
		{"delete-offsets", "", []string{groups, "--delete-offsets", "--group", group, "--topic", topic}, topic + `\s+0\s+Successful`},
		{"delete-group", "", []string{groups, "--delete", "--group", group}, "was successful"},
		{"next-generation-consumer", "", []string{tools + "consumer.ConsoleConsumer", "--topic", topic, "--from-beginning", "--max-messages", "20", "--group", next, "--consumer-property", "group.protocol=consumer"}, `(?m)^value 7$(?s:.*)Processed a total of 20 messages`},
		{"next-generation-regex", "", []string{tools + "consumer.ConsoleConsumer", "--include", topic + ".*", "--from-beginning", "--max-messages", "20", "--group", next + "-regex", "--consumer-property", "group.protocol=consumer"}, `Processed a total of 20 messages`},
		{"next-generation-list", "", []string{groups, "--list", "--state", "--type"}, next + `\s+Consumer\s+Empty`},
		{"next-generation-group", "", []string{groups, "--describe", "--group", next}, regexp.QuoteMeta(next) + `\s+` + topic + `\s+1\s+\d+\s+\d+\s+0\s`},
		{"next-generation-state", "", []string{groups, "--describe", "--group", next, "--state"}, `uniform\s+Empty\s+0`},
		{"next-generation-delete", "", []string{groups, "--delete", "--group", next, "--group", next + "-regex"}, "was successful"},
		{"config-alter", "", []string{"kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "retention.ms=100000"}, "Completed updating config"},
		{"config-describe", "", []string{"kafka.admin.ConfigCommand", "--describe", "--entity-type", "topics", "--entity-name", topic}, "retention.ms=100000"},
		{"config-broker", "", []string{"kafka.admin.ConfigCommand", "--describe", "--entity-type", "brokers", "--entity-name", "1", "--all"}, "num.partitions=1"},
		{"offsets", "", []string{tools + "GetOffsetShell", "--topic", topic}, `(?m)^` + topic + `:1:\d+$`},
		{"offsets-earliest", "", []string{tools + "GetOffsetShell", "--topic", topic, "--time", "earliest"}, topic + `:1:0`},
		{"offsets-max-timestamp", "", []string{tools + "GetOffsetShell", "--topic", topic, "--time", "max-timestamp"}, topic + `:[01]:\d+`},
		{"log-dirs", "", []string{tools + "LogDirsCommand", "--describe", "--topic-list", topic}, `"partition":"` + topic + `-1","size":\d+,"offsetLag":0`},
		{"api-versions", "", []string{tools + "BrokerApiVersionsCommand"}, `Fetch\(1\): 4 to 18`},
		{"delete-records", "", []string{tools + "DeleteRecordsCommand", "--offset-json-file", records}, `low_watermark: 1`},
		{"reassign-generate", "", []string{reassign, "--generate", "--topics-to-move-json-file", toMove, "--broker-list", strings.Trim(all, "[]")}, `"topic":"` + topic + `","partition":1,"replicas":\[[\d,]+\]`},
		{"reassign-execute", "", []string{reassign, "--execute", "--reassignment-json-file", moved}, "Successfully started partition reassignment for " + topic + "-1"},
		{"reassign-verify", "", []string{reassign, "--verify", "--reassignment-json-file", moved}, "(?s)Reassignment of partition " + topic + "-1 is completed.*Clearing topic-level throttles on topic " + topic + "$"},
		{"reassign-list", "", []string{reassign, "--list"}, "No partition reassignments found"},
		{"leader-election", "", []string{tools + "LeaderElectionCommand", "--election-type", "preferred", "--topic", topic, "--partition", "1"}, "Valid replica already elected|Successfully completed leader election"},
		{"features", "", []string{tools + "FeatureCommand", "--bootstrap-server", address, "describe"}, `transaction.version\s+SupportedMinVersion: 0\s+SupportedMaxVersion: 2\s+FinalizedVersionLevel: 2`},
		{"quorum", "", []string{tools + "MetadataQuorumCommand", "--bootstrap-server", address, "describe", "--status"}, `(?s)LeaderId:\s+\d+.*CurrentVoters:\s+\[\{"id": \d+`},
		{"quorum-replication", "", []string{tools + "MetadataQuorumCommand", "--bootstrap-server", address, "describe", "--replication"}, `Leader`},
		{"config-brokers", "", []string{"kafka.admin.ConfigCommand", "--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.retention.ms=360000000"}, "Completed updating default config"},
		{"config-brokers-delete", "", []string{"kafka.admin.ConfigCommand", "--alter", "--entity-type", "brokers", "--entity-default", "--delete-config", "log.retention.ms"}, "Completed updating default config"},
		{"verifiable-producer", "", []string{tools + "VerifiableProducer", "--topic", topic, "--max-messages", "50"}, `"sent":50,"acked":50`},
		{"verifiable-consumer", "", []string{tools + "VerifiableConsumer", "--topic", topic, "--group-id", group + "-verifiable", "--max-messages", "50", "--reset-policy", "earliest"}, `"offsets_committed".*"success":true(?s:.*)shutdown_complete`},
		{"all-groups", "", []string{tools + "GroupsCommand", "--list"}, group + `-verifiable\s+Classic\s+consumer`},
		{"streams-resetter", "", []string{tools + "StreamsResetter", "--application-id", topic + "-app", "--input-topics", topic}, `Topic: ` + topic + ` Partition: 1 Offset: 0`},
		{"cluster-id", "", []string{tools + "ClusterTool", "cluster-id"}, `Cluster ID: \S{22}`},
		{"cluster-endpoints", "", []string{tools + "ClusterTool", "list-endpoints"}, `unfenced`},
		{"producer-performance", "", []string{tools + "ProducerPerformance", "--topic", topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1", "--producer-props", "acks=all", "bootstrap.servers=" + address}, "20000 records sent"},
		{"consumer-performance", "", []string{tools + "ConsumerPerformance", "--topic", topic, "--messages", "20000"}, `, 200\d\d, `},
		{"delete", "", []string{tools + "TopicCommand", "--delete", "--topic", topic}, "^$"},
	} {
		t.Run(step.name, func(t *testing.T) {
			args := step.args
			if step.name != "producer-performance" && !slices.Contains(args, "--bootstrap-server") { // which name it elsewhere
				args = append(args, "--bootstrap-server", address)
			}
			out, err := kafkaTool(t, step.input, args...)
			if err != nil || !regexp.MustCompile(step.want).MatchString(strings.TrimSpace(out)) {
				t.Errorf("%v, want %s in:\n%.2000s", err, step.want, out)
			}
		})
	}
}

// TestKafkaTransactionsTool runs Apache Kafka's tool for transactions.
func TestKafkaTransactionsTool(t *testing.T) {
	if os.Getenv("LEAT_TEST_KAFKA_LIB") == "" {
		t.Skip("LEAT_TEST_KAFKA_LIB names no folder with the jars of Apache Kafka's tools")
	}
	address := os.Getenv("LEAT_TEST_KAFKA")
	if address == "" {
		address = brokertest.Start(t).Addr()
	}
	topic := fmt.Sprintf("txn-%d", time.Now().UnixNano())
	id := topic + "-app"
	open := transactional(t, []string{address}, id, kgo.AllowAutoTopicCreation())
	if err := open.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := open.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	in := []string{"--topic", topic, "--partition", "0"}
	for _, step := range []struct {
		name string
		args []string
		want string // a regular expression
	}{
		{"list", []string{"list"}, id + `\s+\d+\s+\d+\s+Ongoing`},
		{"list by pattern", []string{"list", "--transactional-id-pattern", id[:8] + ".*"}, id + `\s+\d+\s+\d+\s+Ongoing`},
		{"list those of an hour", []string{"list", "--duration-filter", "3600000", "--transactional-id-pattern", id}, `^TransactionalId\s+Coordinator\s+ProducerId\s+TransactionState$`},
		{"describe", []string{"describe", "--transactional-id", id}, id + `\s+\d+\s+0\s+Ongoing\s+30000\s+\d+\s+\d+\s+` + topic + `-0`},
		{"describe the unknown", []string{"describe", "--transactional-id", id + "-absent"}, "the ID could not be found"},
		{"describe-producers", append([]string{"describe-producers"}, in...), `(?m)^\d+\s+0\s+-1\s+0\s+\d+\s+0\s*$`},
		{"find-hanging", append([]string{"find-hanging"}, in...), `^Topic\s.*Duration\(min\)$`},
		{"find-hanging by broker", []string{"find-hanging", "--broker-id", "1"}, `^Topic\s.*Duration\(min\)$`},
		{"abort", append([]string{"abort", "--start-offset", "0"}, in...), "^$"},
		{"describe-producers, after the abort", append([]string{"describe-producers"}, in...), `(?m)^\d+\s+0\s+0\s+0\s+\d+\s+None\s*$`},
		{"abort again", append([]string{"abort", "--start-offset", "0"}, in...), "Could not find any open transactions starting at offset 0"},
		{"force an end", []string{"forceTerminateTransaction", "--transactionalId", id}, "^$"},
		{"describe, after that", []string{"describe", "--transactional-id", id}, id + `\s+\d+\s+\d+\s+Empty`},
	} {
		t.Run(step.name, func(t *testing.T) {
			// What cannot be done is told with an exit status of its own.
			out, err := kafkaTool(t, "", append([]string{"org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", address}, step.args...)...)
			if !regexp.MustCompile(step.want).MatchString(strings.TrimSpace(out)) {
				t.Errorf("%v, want %s in:\n%.2000s", err, step.want, out)
			}
		})
	}
}
