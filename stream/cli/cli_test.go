package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// leat runs commands against a cluster.
type leat struct {
	t    *testing.T
	addr string
}

func newLeat(t *testing.T) *leat {
	t.Helper()
	l := &leat{t: t, addr: os.Getenv("LEAT_TEST_KAFKA")}
	if l.addr == "" {
		l.addr = brokertest.Start(t).Addr()
	}
	return l
}

// try runs one command line and returns its output.
func (l *leat) try(ctx context.Context, stdin string, args ...string) (string, error) {
	root := &cobra.Command{Use: "leat", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands()...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(append(args, "--bootstrap", l.addr))
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

func (l *leat) run(stdin string, args ...string) string {
	l.t.Helper()
	out, err := l.try(l.t.Context(), stdin, args...)
	if err != nil {
		l.t.Fatalf("leat %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// join makes a member of a group that has partition 0 of a topic until the test ends.
func (l *leat) join(topic, group string) *client.Group {
	l.t.Helper()
	c, err := client.New(client.Config{Bootstrap: []string{l.addr}})
	if err != nil {
		l.t.Fatal(err)
	}
	assigned := make(chan struct{}, 10)
	g := c.NewGroup(client.GroupConfig{
		Group: group, Protocol: "test", Topics: []string{topic}, UserData: func() []byte { return nil },
		Assign: func(_ context.Context, members []client.Member) ([]client.Assignment, error) {
			return []client.Assignment{{Member: members[0].ID, Partitions: map[string][]int32{topic: {0}}}}, nil
		},
		Assigned: func([]byte) (bool, error) { assigned <- struct{}{}; return false, nil },
		Lost:     func(error) {},
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	l.t.Cleanup(func() {
		stop()
		<-ended
		c.Close()
	})
	<-assigned
	return g
}

func name(s string) string { return fmt.Sprintf("cli-%d-%s", time.Now().UnixNano(), s) }

func TestProduceAndConsume(t *testing.T) {
	l := newLeat(t)
	topic := name("greetings")
	if out := l.run("", "topic", "create", topic, "--partitions", "2", "--replication-factor", "1", "--config", "retention.ms=86400000"); out != "created topic "+topic+"\n" {
		t.Errorf("create says %q", out)
	}
	l.run("alice:hello\nbob:hi\nalice:how are you\nbob:\n", "produce", topic, "--key-separator", ":", "--compression", "zstd", "--header", "from=cli", "--null-value")
	out := l.run("", "consume", topic, "--from", "start", "--until-end", "--format", `%t %k: %s (%K %S) %h\n`)
	got := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(got)
	want := []string{
		topic + " alice: hello (5 5) from=cli", topic + " alice: how are you (5 11) from=cli",
		topic + " bob: NULL (3 -1) from=cli", topic + " bob: hi (3 2) from=cli",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if out := l.run("", "consume", topic, "--count", "3"); strings.Count(out, "\n") != 3 {
		t.Errorf("--count 3 gave %q", out)
	}
	if out := l.run("one\n", "produce", topic, "--json", "--partition", "1"); !strings.Contains(out, `"records": 1`) {
		t.Errorf("produce says %q", out)
	}
	var record recordJSON
	out = l.run("", "consume", topic, "--partition", "1", "--from", "-1", "--until-end", "--json")
	if err := json.Unmarshal([]byte(out), &record); err != nil || *record.Value != "one" || record.Key != nil || record.Partition != 1 {
		t.Errorf("json %q, %v", out, err)
	}
	if out := l.run("", "consume", topic, "--from", "end", "--until-end"); out != "" {
		t.Errorf("from the end came %q", out)
	}
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond) // as Ctrl-C
	defer stop()
	if _, err := l.try(ctx, "", "consume", topic, "--from", "end"); err != nil {
		t.Errorf("an interrupted consume says %v", err)
	}
}

func TestTopicCommands(t *testing.T) {
	l := newLeat(t)
	topic := name("orders")
	l.run("", "topic", "create", topic, "--partitions", "3", "--replication-factor", "1", "--config", "cleanup.policy=compact")
	var topics []topicJSON
	if err := json.Unmarshal([]byte(l.run("", "topic", "list", "--json")), &topics); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(topics, func(v topicJSON) bool { return v.Name == topic && len(v.Partitions) == 3 }) {
		t.Errorf("%s is not in %v", topic, topics)
	}
	if out := l.run("", "topic", "list"); !strings.Contains(out, topic+" ") {
		t.Errorf("list: %s", out)
	}
	if out := l.run("", "topic", "describe", topic); !strings.Contains(out, "cleanup.policy") || !strings.Contains(out, "PARTITION") {
		t.Errorf("describe: %s", out)
	}
	var view topicJSON
	if err := json.Unmarshal([]byte(l.run("", "topic", "describe", topic, "--json")), &view); err != nil || len(view.Partitions) != 3 || *view.Partitions[2].End != 0 {
		t.Errorf("describe --json: %+v, %v", view, err)
	}
	if out := l.run("", "topic", "delete", topic); out != "deleted topic "+topic+"\n" {
		t.Errorf("delete says %q", out)
	}
}

func TestGroupCommands(t *testing.T) {
	l := newLeat(t)
	topic, group := name("in"), name("group")
	l.run("", "topic", "create", topic, "--partitions", "1", "--replication-factor", "1")
	l.run("a\nb\nc\n", "produce", topic)
	g := l.join(topic, group)
	if err := g.Commit(t.Context(), map[client.Partition]client.Offset{{Topic: topic}: {Offset: 1, LeaderEpoch: -1}}); err != nil {
		t.Fatal(err)
	}
	if out := l.run("", "group", "list"); !strings.Contains(out, group) {
		t.Errorf("list: %s", out)
	}
	var view groupJSON
	if err := json.Unmarshal([]byte(l.run("", "group", "describe", group, "--json")), &view); err != nil {
		t.Fatal(err)
	}
	if len(view.Members) != 1 || len(view.Offsets) != 1 || view.Offsets[0].Lag != 2 || view.Offsets[0].Member != view.Members[0].ID {
		t.Errorf("describe: %+v", view)
	}
	if out := l.run("", "group", "describe", group); !strings.Contains(out, "LAG") || !strings.Contains(out, topic) {
		t.Errorf("describe: %s", out)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	l := &leat{t: t, addr: brokertest.Start(t, brokertest.Set("auto.create.topics.enable", "false")).Addr()}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"`leat topic list` shows", []string{"consume", "nothing-here"}},
		{"`leat topic list` shows", []string{"topic", "describe", "nothing-here"}},
		{"`leat topic list` shows", []string{"topic", "delete", "nothing-here"}},
		{"`leat group list` shows", []string{"group", "describe", "nothing-here"}},
		{"create it first", []string{"produce", "nothing-here", "--timeout", "300ms"}},
		{`%z is not known`, []string{"consume", "t", "--format", "%z"}},
		{"use name=value", []string{"topic", "create", "t", "--config", "retention"}},
		{"use none, gzip", []string{"produce", "t", "--compression", "rar"}},
		{"use 0 for all", []string{"consume", "t", "--count", "-3"}},
	} {
		if out, err := l.try(t.Context(), "", c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("leat %s: %v, want %q in it; output %q", strings.Join(c.args, " "), err, c.want, out)
		}
	}
	nobody := &leat{t: t, addr: "127.0.0.1:1"}
	if _, err := nobody.try(t.Context(), "", "topic", "list", "--timeout", "300ms"); err == nil || !strings.Contains(err.Error(), "leat broker") {
		t.Errorf("no broker: %v", err)
	}
}

// As Kafka's console producer, produce has the cluster create a topic.
func TestProduceCreatesTheTopic(t *testing.T) {
	l := newLeat(t)
	const topic = "made-by-produce"
	l.run("one\ntwo\n", "produce", topic)
	if out := l.run("", "consume", topic, "--until-end"); !strings.Contains(out, "one") || !strings.Contains(out, "two") {
		t.Errorf("%q", out)
	}
	l.run("", "topic", "delete", topic)
	if _, err := l.try(t.Context(), "", "produce", "no/name"); err == nil || !strings.Contains(err.Error(), "INVALID_TOPIC") {
		t.Errorf("%v", err)
	}
}

func TestFormats(t *testing.T) {
	r := &plan.Record{Offset: 7, Timestamp: 9, Key: []byte("k"), Headers: []plan.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}}}
	for format, want := range map[string]string{
		"%t-%p@%o %T": "t-3@7 9", `%k\t%s\n`: "k\tNULL\n", "%K %S": "1 -1", "%h": "a=1,b=NULL", `100%% \x41\\\0`: "100% A\\\x00",
	} {
		f, err := parseFormat(format)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(f.appendRecord(nil, "t", 3, r)); got != want {
			t.Errorf("%q gives %q, want %q", format, got, want)
		}
	}
	for _, wrong := range []string{"%", `\`, "%q", `\q`, `\x4`, `\xzz`} {
		if _, err := parseFormat(wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	line, err := appendJSON(nil, "t", 0, &plan.Record{Key: []byte{0xff}, Value: []byte("ü")})
	if err != nil || !strings.Contains(string(line), `"key_base64":"/w=="`) || !strings.Contains(string(line), `"value":"ü"`) {
		t.Errorf("json %s, %v", line, err)
	}
}
