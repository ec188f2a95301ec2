package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// quorumOf asks for the quorum until it is as wanted, and returns the role of each node.
func quorumOf(t *testing.T, address string, fits func(roles map[int32]string) bool) map[int32]string {
	t.Helper()
	var out string
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if out, err = runCluster("quorum", "describe", "--json", "--bootstrap", address); err != nil {
			continue
		}
		var d quorumDescription
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatal(err)
		}
		roles := map[int32]string{}
		for _, m := range d.Members {
			roles[m.Node] = m.Role
			if m.Node == d.Leader && (m.Role != "leader" || m.Lag != 0) {
				t.Fatalf("the leader is %+v", m)
			}
		}
		if fits(roles) {
			return roles
		}
	}
	t.Fatalf("the quorum never was as wanted: %s, %v", out, err)
	return nil
}

func count(roles map[int32]string, role string) (n int) {
	for _, r := range roles {
		if r == role {
			n++
		}
	}
	return n
}

// TestQuorumCommands adds a fourth node to the voters of three, and takes votes away, that
// of the leader too.
func TestQuorumCommands(t *testing.T) {
	c := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk())
	address := c.Addrs()[0]
	joined := brokertest.Start(t, brokertest.Configure(func(b *broker.Config) {
		b.Gossip, b.Join = "127.0.0.1:0", []string{c.Node(2).Running().GossipAddr()}
	}))
	roles := quorumOf(t, address, func(roles map[int32]string) bool { return roles[4] == "observer" })
	if len(roles) != 4 || count(roles, "leader") != 1 || count(roles, "voter") != 2 {
		t.Fatalf("roles %v", roles)
	}
	out, err := runCluster("quorum", "describe", "--bootstrap", joined.Addr())
	if err != nil || !strings.Contains(out, "observer") || !strings.Contains(out, "CAUGHT UP") {
		t.Errorf("%v:\n%s", err, out)
	}
	if out, err := runCluster("quorum", "add", "4", "--bootstrap", address, "--timeout", "40s"); err != nil || out != "node 4 votes now\n" {
		t.Fatalf("%q, %v", out, err)
	}
	roles = quorumOf(t, joined.Addr(), func(roles map[int32]string) bool { return roles[4] == "voter" })
	if out, err := runCluster("quorum", "add", "4", "--bootstrap", address); err == nil || !strings.Contains(err.Error(), "no observer") {
		t.Errorf("added twice: %q, %v", out, err)
	}
	for node, role := range roles {
		if role != "leader" {
			continue
		}
		if out, err := runCluster("quorum", "remove", fmt.Sprint(node), "--bootstrap", joined.Addr(), "--json"); err != nil || !strings.Contains(out, "true") {
			t.Fatalf("%q, %v", out, err)
		}
		quorumOf(t, joined.Addr(), func(roles map[int32]string) bool {
			return roles[node] == "observer" && count(roles, "leader") == 1 && count(roles, "voter") == 2
		})
	}
	if _, err := runCluster("quorum", "remove", "9", "--bootstrap", address); err == nil || !strings.Contains(err.Error(), "no voter") {
		t.Errorf("removed a stranger: %v", err)
	}
	if _, err := runCluster("quorum", "remove", "x", "--bootstrap", address); err == nil {
		t.Error("removed a node without a number")
	}
}

// A cluster of one cannot lose its only voter.
func TestLastVoterStays(t *testing.T) {
	address := startBroker(t)
	if _, err := runCluster("quorum", "remove", "1", "--bootstrap", address); err == nil || !strings.Contains(err.Error(), "last voter") {
		t.Errorf("%v", err)
	}
}
