package brokertest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// flipBit changes a bit in the middle of a record of a segment, which is read by nobody
// but its consumers, and returns what the file was before.
func flipBit(t *testing.T, segment string) (whole []byte) {
	t.Helper()
	whole, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(segment, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{whole[20_000] ^ 8}, 20_000); err != nil {
		t.Fatal(err)
	}
	return whole
}

// A flipped bit of one replica, be it the leader or a follower, stayed there for as long as
// nobody consumed the record: only a restart reads segments again, and of those the last
// one. By then the other replicas may be gone.
func TestFlippedBitIsFoundAndRepaired(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := brokertest.StartCluster(t, 3, brokertest.Dir(dir), brokertest.Set("log.verify.interval.ms", "100"))
			newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
			client := newSteady(t, c.Addrs(), "orders")
			client.produce()
			leader := leaderOf(t, admin(t, c.Addrs()...), c, "orders")
			damaged := leader
			if who == "follower" {
				damaged = (leader + 1) % 3
			}
			segment := filepath.Join(dir, fmt.Sprint("node-", damaged), "orders-0", "00000000000000000000.log")
			whole := flipBit(t, segment)
			shown := metadataAt(t, c.Addrs()[(damaged+2)%3])
			waitFor(t, "the file to be as it was, all replicas in sync, and another one to lead", func() bool {
				topics := shown("orders")
				again, err := os.ReadFile(segment)
				return err == nil && len(again) >= 60_000 && bytes.Equal(again[:60_000], whole[:60_000]) && topics != nil &&
					allInSync(topics[0].Partitions, 3) && topics[0].Partitions[0].Leader != c.Node(damaged).Running().NodeID()
			})
			client.produce()
			client.check()
		})
	}
}

// A partition without another replica to copy from stays in service: what is damaged is
// told, and everything else is good.
func TestFlippedBitOfTheOnlyReplicaIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := brokertest.Start(t, brokertest.Dir(dir), brokertest.Set("log.verify.interval.ms", "100"),
		brokertest.Configure(func(c *broker.Config) { c.Admin = "127.0.0.1:0" }))
	newTopic(t, "orders", 1, 1, nil, b.Addr())
	client := newSteady(t, []string{b.Addr()}, "orders")
	client.produce()
	flipBit(t, filepath.Join(dir, "orders-0", "00000000000000000000.log"))
	var metrics string
	waitFor(t, "the damage to be counted", func() bool {
		_, metrics = get(t, "http://"+b.Running().AdminAddr()+"/metrics")
		return !strings.Contains(metrics, "\nleat_verification_damage_total 0\n")
	})
	client.produce()
	if !strings.Contains(metrics, "\nleat_partitions_failed 0\n") {
		t.Error("a partition is out of service")
	}
}
