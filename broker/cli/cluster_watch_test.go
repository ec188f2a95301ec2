package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// watchCluster runs `leat cluster watch` and returns its lines, and how it ended.
func watchCluster(t *testing.T, args ...string) (lines <-chan string, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	c := ClusterCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(w)
	c.SetArgs(append([]string{"watch"}, args...))
	list, done := make(chan string, 1000), make(chan error, 1)
	go func() {
		err := c.ExecuteContext(ctx)
		w.Close()
		done <- err
	}()
	scanned := make(chan struct{})
	go func() {
		defer close(scanned)
		for s := bufio.NewScanner(r); s.Scan(); {
			list <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		r.Close()
		<-scanned
	})
	return list, done
}

func createTopicAt(t *testing.T, address, name string) {
	t.Helper()
	a, err := dialAny(t.Context(), []string{address}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 30_000
	answer, err := a.ask(create, 7, 40*time.Second)
	if err != nil || answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
		t.Fatalf("create %s: %+v, %v", name, answer, err)
	}
}

// awaitLine returns the first line that has all the words.
func awaitLine(t *testing.T, lines <-chan string, words ...string) string {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case line := <-lines:
			missing := false
			for _, word := range words {
				missing = missing || !strings.Contains(line, word)
			}
			if !missing {
				return line
			}
		case <-limit:
			t.Fatalf("no line has %q", words)
		}
	}
}

// TestWatchGoesOnWithAnotherBroker sees what is decided, before and after the broker it
// reads from died.
func TestWatchGoesOnWithAnotherBroker(t *testing.T) {
	c := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk())
	lines, ended := watchCluster(t, "--json", "--from", "start", "--bootstrap", strings.Join(c.Addrs(), ","))
	awaitLine(t, lines, `"type":"broker"`, `"id":1`)
	createTopicAt(t, c.Addrs()[1], "first")
	var change watchedChange
	if err := json.Unmarshal([]byte(awaitLine(t, lines, `"type":"topic"`, `"name":"first"`)), &change); err != nil || change.Offset <= 0 || change.Time.IsZero() {
		t.Errorf("%+v, %v", change, err)
	}
	c.Kill(0) // it reads from the first that answers
	awaitLine(t, lines, `"type":"broker-fence"`, `"fenced":true`)
	createTopicAt(t, c.Addrs()[2], "second")
	awaitLine(t, lines, `"name":"second"`)
	select {
	case err := <-ended:
		t.Errorf("it ended: %v", err)
	default:
	}
}

// TestWatchEnds sees as many changes as it was told to, in words.
func TestWatchEnds(t *testing.T) {
	address := startBroker(t)
	lines, ended := watchCluster(t, "--from", "start", "--count", "3", "--bootstrap", address)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	first := awaitLine(t, lines, "cluster id=")
	var offset int
	if _, err := fmt.Sscan(first, &offset); err != nil || offset < 0 {
		t.Errorf("%q", first)
	}
	for _, args := range [][]string{{"--from", "yesterday"}, {"--count", "-1"}, {"--from", "99999"}} {
		if out, err := runCluster(append([]string{"watch", "--bootstrap", address}, args...)...); err == nil {
			t.Errorf("%v: %q", args, out)
		}
	}
}
