package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// cluster is three members on one goroutine: messages are lost and reordered,
// members crash and come back from what their disks kept.
type cluster struct {
	t        *testing.T
	random   *rand.Rand
	loss     int // percent
	disks    [3]*vfs.Mem
	members  [3]*Member
	machines [3]*listMachine
	inFlight []*raftpb.Message
}

func (c *cluster) Send(messages []*raftpb.Message) { c.inFlight = append(c.inFlight, messages...) }

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{t: t, random: rand.New(rand.NewPCG(seed, 0))}
	for i := range c.members {
		c.disks[i] = vfs.NewMem()
		c.open(i)
	}
	return c
}

func (c *cluster) open(i int) {
	c.t.Helper()
	c.machines[i] = &listMachine{}
	cfg := testConfig(c.disks[i], int32(i), c.machines[i])
	cfg.Voters, cfg.Transport, cfg.SnapshotEntries = []int32{0, 1, 2}, c, 20
	m, err := OpenMember(cfg)
	if err != nil {
		c.t.Fatalf("open member %d: %v", i, err)
	}
	c.members[i] = m
}

// crash loses what member i did not sync and starts it again.
func (c *cluster) crash(i int) {
	c.t.Helper()
	c.disks[i] = c.disks[i].Crash(c.random)
	c.members[i].abandon(errors.New("crashed"))
	c.open(i)
}

// step lets everything happen once: a tick now and then, deliveries, readies.
func (c *cluster) step() {
	c.t.Helper()
	for _, m := range c.members {
		if c.random.IntN(3) == 0 {
			m.Tick()
		}
	}
	messages := c.inFlight
	c.inFlight = nil
	c.random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	for _, message := range messages {
		if c.random.IntN(100) >= c.loss {
			// A message to a crashed term is refused with an error; raft goes on.
			_ = c.members[nodeID(message.GetTo())].Step(message)
		}
	}
	for i, m := range c.members {
		if err := m.Process(); err != nil {
			c.t.Fatalf("member %d: %v", i, err)
		}
	}
}

func (c *cluster) leader() *Member {
	for i, m := range c.members {
		if leader, _ := m.Leader(); leader == int32(i) {
			return m
		}
	}
	return nil
}

// until steps until the condition holds.
func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for range 20_000 {
		if holds() {
			return
		}
		c.step()
	}
	c.t.Fatalf("never saw: %s", what)
}

func TestThreeVotersKeepWhatWasCommitted(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := newCluster(t, seed)
			var committed []string
			c.loss = 10
			for i := range 80 {
				c.until("a leader", func() bool { return c.leader() != nil })
				value := fmt.Sprint("value ", i)
				answered := false
				c.leader().Propose(AnyEpoch, []byte(value), func(_ int64, err error) {
					answered = true
					if err == nil {
						committed = append(committed, value)
					}
				})
				if i%7 == 3 {
					c.crash(c.random.IntN(3))
				}
				for range c.random.IntN(20) {
					c.step()
				}
				if i%4 == 0 {
					c.until("an answer", func() bool { return answered })
				}
			}
			c.loss = 0
			c.until("a leader", func() bool { return c.leader() != nil })
			propose := func() (done bool) {
				c.leader().Propose(AnyEpoch, []byte("end"), func(_ int64, err error) { done = err == nil })
				c.until("the end", func() bool { return done || c.leader() == nil })
				return done
			}
			c.until("a last value", func() bool { return c.leader() != nil && propose() })
			c.until("all to catch up", func() bool {
				return slices.Equal(c.machines[0].values, c.machines[1].values) && slices.Equal(c.machines[1].values, c.machines[2].values) &&
					slices.Contains(c.machines[0].values, "end")
			})
			if len(committed) < 20 {
				t.Fatalf("only %d of 80 proposals were committed; the test shows nothing", len(committed))
			}
			at := -1
			for _, v := range committed {
				i := slices.Index(c.machines[0].values, v)
				if i <= at {
					t.Fatalf("%q was committed but is at %d after %d", v, i, at)
				}
				at = i
			}
			for _, m := range c.members {
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
