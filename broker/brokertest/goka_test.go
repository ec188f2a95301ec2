package brokertest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// gokaTests is the package whose tests need a Kafka cluster.
const gokaTests = "github.com/lovoo/goka/systemtest"

// topicManager is a test that fails on Apache Kafka 4.1 too, in this way: the
// connection is closed upon a version that KIP-896 has removed.
const topicManager = "TestTopicManager_v11"

var describeConfigs = regexp.MustCompile(`Error getting config for topic [0-9a-f]+: EOF`)

// goka's own system tests, unmodified, run against the broker; each is a process
// of its own, several at a time. Eight of them create topics with two replicas: a
// relay before the broker, which has no peers, makes that one.
//
// They take a minute of waiting and so run with LEAT_GOKA=1 only, best with
// -parallel 4. With LEAT_TEST_NODES=3 they run on a cluster of three, and with
// LEAT_GOKA=HOST:PORT on that one, of two brokers or more, without a relay.
func TestGokaSystemTests(t *testing.T) {
	address := os.Getenv("LEAT_GOKA")
	if address == "" {
		t.Skip("LEAT_GOKA is not set")
	}
	switch {
	case address == "1" && nodes() > 1:
		address = strings.Join(brokertest.StartCluster(t, nodes()).Addrs(), ",")
	case address == "1":
		relay := listenRelay(t)
		b := brokertest.Start(t, brokertest.Configure(func(c *broker.Config) { c.Advertise = relay.address() }))
		relay.serve(b.Listening())
		address = relay.address()
	}
	binary := filepath.Join(t.TempDir(), "goka.test")
	if out, err := exec.Command("go", "test", "-c", "-o", binary, gokaTests).CombinedOutput(); err != nil {
		t.Fatalf("build the tests of goka: %v\n%s", err, out)
	}
	list, err := exec.Command(binary, "-test.list", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(list))
	if len(names) < 10 {
		t.Fatalf("%s has only the tests %v", gokaTests, names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			c := exec.CommandContext(ctx, binary, "-test.v", "-test.run", "^"+name+"$")
			c.Env = append(os.Environ(), "GOKA_SYSTEMTEST=1", "GOKA_SYSTEMTEST_BROKERS="+address)
			out, err := c.CombinedOutput()
			if name == topicManager && err != nil && describeConfigs.Match(out) {
				t.Skip("it asks for version 0 of DescribeConfigs, which is refused as by Apache Kafka 4")
			}
			if err != nil || !bytes.Contains(out, []byte("--- PASS: "+name)) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// relay passes connections on and makes the replication factor of topics to be
// created 1.
type relay struct {
	t        *testing.T
	listener net.Listener
}

func listenRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &relay{t, l}
}

func (r *relay) address() string { return r.listener.Addr().String() }

// serve relays until the test ends.
func (r *relay) serve(to string) {
	var wait sync.WaitGroup
	r.t.Cleanup(func() {
		r.listener.Close()
		wait.Wait()
	})
	wait.Go(func() {
		for {
			client, err := r.listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				r.t.Error(err)
				client.Close()
				return
			}
			closeBoth := sync.OnceFunc(func() {
				client.Close()
				server.Close()
			})
			r.t.Cleanup(closeBoth)
			wait.Go(func() {
				defer closeBoth()
				_, _ = io.Copy(client, server) // ends with either connection
			})
			wait.Go(func() {
				defer closeBoth()
				if err := relayRequests(server, client); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
					r.t.Logf("relay: %v", err)
				}
			})
		}
	})
}

func relayRequests(server io.Writer, client io.Reader) error {
	for {
		var size [4]byte
		if _, err := io.ReadFull(client, size[:]); err != nil {
			return err
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(client, frame); err != nil {
			return err
		}
		if len(frame) > 10 && kmsg.Key(binary.BigEndian.Uint16(frame)) == kmsg.CreateTopics {
			oneReplica(frame)
		}
		if _, err := server.Write(append(size[:], frame...)); err != nil {
			return err
		}
	}
}

// oneReplica changes a CreateTopics request without tagged fields.
func oneReplica(frame []byte) {
	version := int16(binary.BigEndian.Uint16(frame[2:]))
	header := 10 + max(0, int(int16(binary.BigEndian.Uint16(frame[8:])))) // key, version, correlation id, client id
	request := kmsg.CreateTopicsRequest{Version: version}
	if request.IsFlexible() {
		header++ // that there are no tagged fields in it
	}
	if len(frame) < header || request.ReadFrom(frame[header:]) != nil {
		return
	}
	for i := range request.Topics {
		request.Topics[i].ReplicationFactor = min(request.Topics[i].ReplicationFactor, 1)
	}
	copy(frame[header:], request.AppendTo(nil)) // of the same length
}
