package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// fault is something that happens to a cluster. It is over when inject returns: what was
// killed runs, what was cut is connected.
type fault struct {
	name   string
	inject func(c *cluster, random *rand.Rand) error
	calm   bool // it needs a cluster that has recovered from what was before
}

// faults are all kinds, in a fixed order: a seed means the same in every run.
var faults = []fault{
	{"kill a leader", func(c *cluster, random *rand.Rand) error {
		n, err := anyLeader(c, random)
		if err != nil {
			return err
		}
		n.kill()
		rest(random, 500, 5000)
		return c.start(n)
	}, false},
	{"kill the controller", func(c *cluster, random *rand.Rand) error {
		n, err := c.controller()
		if err != nil {
			return err
		}
		n.kill()
		rest(random, 500, 5000)
		return c.start(n)
	}, false},
	{"kill all", func(c *cluster, random *rand.Rand) error {
		for _, n := range c.nodes {
			n.signal(syscall.SIGKILL)
		}
		for _, n := range c.nodes {
			n.kill()
		}
		for _, i := range random.Perm(len(c.nodes)) {
			if err := c.start(c.nodes[i]); err != nil {
				return err
			}
			rest(random, 0, 500)
		}
		return nil
	}, false},
	{"pause and late wake", func(c *cluster, random *rand.Rand) error {
		n, err := anyLeader(c, random)
		if err != nil {
			return err
		}
		n.signal(syscall.SIGSTOP)
		rest(random, 4000, 7000) // the session ends after 3 s
		n.signal(syscall.SIGCONT)
		return nil
	}, false},
	{"short pause", func(c *cluster, random *rand.Rand) error {
		n := c.nodes[random.IntN(len(c.nodes))]
		n.signal(syscall.SIGSTOP)
		rest(random, 200, 2500)
		n.signal(syscall.SIGCONT)
		return nil
	}, false},
	{"cut off a node", func(c *cluster, random *rand.Rand) error { return cutNode(c, random, true, true) }, false},
	{"cut what a node sends", func(c *cluster, random *rand.Rand) error { return cutNode(c, random, true, false) }, false},
	{"cut what a node gets", func(c *cluster, random *rand.Rand) error { return cutNode(c, random, false, true) }, false},
	{"cut two nodes from each other", func(c *cluster, random *rand.Rand) error {
		two := random.Perm(len(c.nodes))
		if err := c.network.cut(two[0]+1, two[1]+1); err != nil {
			return err
		}
		if err := c.network.cut(two[1]+1, two[0]+1); err != nil {
			return err
		}
		rest(random, 1000, 7000)
		return c.network.heal()
	}, false},
	{"cut the clients from a node", func(c *cluster, random *rand.Rand) error {
		n := c.nodes[random.IntN(len(c.nodes))]
		if err := c.network.cut(clients, n.id); err != nil {
			return err
		}
		if random.IntN(2) == 0 {
			if err := c.network.cut(n.id, clients); err != nil {
				return err
			}
		}
		rest(random, 1000, 6000)
		return c.network.heal()
	}, false},
	{"full disk", func(c *cluster, random *rand.Rand) error { return fillDisk(c, random, 0) }, false},
	{"no room for records", func(c *cluster, random *rand.Rand) error { return fillDisk(c, random, 16<<20) }, false},
	{"torn tail", func(c *cluster, random *rand.Rand) error { return damage(c, random, tearTail) }, true},
	{"flipped bit", func(c *cluster, random *rand.Rand) error { return damage(c, random, flipBit) }, true},
	{"rolling restart", func(c *cluster, random *rand.Rand) error {
		for _, n := range c.nodes {
			if err := n.stop(); err != nil {
				return err
			}
			if err := c.start(n); err != nil {
				return err
			}
			if _, err := await(time.Minute, c.inSync); err != nil {
				return err
			}
		}
		return nil
	}, true},
}

// rest waits, from so many to so many milliseconds.
func rest(random *rand.Rand, least, most int) {
	time.Sleep(time.Duration(least+random.IntN(most-least)) * time.Millisecond)
}

// anyLeader returns the node that leads some partition.
func anyLeader(c *cluster, random *rand.Rand) (*node, error) {
	topics := sortedKeys(partitions)
	topic := topics[random.IntN(len(topics))]
	return c.leader(topic, random.Int32N(partitions[topic]))
}

// cutNode cuts a node from the other nodes, and not from the clients.
func cutNode(c *cluster, random *rand.Rand, sends, gets bool) error {
	n, err := anyLeader(c, random)
	if err != nil {
		return err
	}
	for _, other := range c.nodes {
		if other == n {
			continue
		}
		if sends {
			if err := c.network.cut(n.id, other.id); err != nil {
				return err
			}
		}
		if gets {
			if err := c.network.cut(other.id, n.id); err != nil {
				return err
			}
		}
	}
	rest(random, 1000, 7000)
	return c.network.heal()
}

// fillDisk fills a node's disk but for so many bytes, and makes room again.
func fillDisk(c *cluster, random *rand.Rand, left int) error {
	n := c.nodes[random.IntN(len(c.nodes))]
	ballast := filepath.Join(n.dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		var disk syscall.Statfs_t
		if err := syscall.Statfs(n.dir, &disk); err != nil {
			return err
		}
		if left > 0 && int(disk.Bavail)*int(disk.Bsize) <= left {
			break
		}
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // the last blocks, down to one byte
		}
	}
	rest(random, 2000, 6000)
	return os.Remove(ballast)
}

// damage kills a node, waits until others do without it, damages one of its replicas
// and starts it again.
func damage(c *cluster, random *rand.Rand, how func(file string, random *rand.Rand) error) error {
	n, err := anyLeader(c, random)
	if err != nil {
		return err
	}
	n.kill()
	if _, err := await(time.Minute, func(ctx context.Context) error { return c.without(ctx, n) }); err != nil {
		return err
	}
	topics := sortedKeys(partitions)
	topic := topics[random.IntN(len(topics))]
	files, err := filepath.Glob(filepath.Join(n.dir, "data", fmt.Sprintf("%s-%d", topic, random.Int32N(partitions[topic])), "*.log"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("node %d has no segment of %s to damage: %w", n.id, topic, err)
	}
	slices.Sort(files)
	if err := how(files[len(files)-1], random); err != nil {
		return err
	}
	return c.start(n)
}

// without fails while a partition still counts on a node.
func (c *cluster) without(ctx context.Context, dead *node) error {
	topics, err := c.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	for _, t := range topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			if p.Leader < 1 || slices.Contains(p.ISR, int32(dead.id)) {
				return fmt.Errorf("%s-%d: leader %d, in sync %v", t.Topic, p.Partition, p.Leader, p.ISR)
			}
		}
	}
	return nil
}

// used is how many bytes of a segment come before the zeros at its end.
func used(data []byte) int {
	for i := len(data); i > 0; i-- {
		if data[i-1] != 0 {
			return i
		}
	}
	return 0
}

// tearTail cuts off the end of what a segment holds, in the middle of a batch.
func tearTail(file string, random *rand.Rand) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	end := used(data)
	if end == 0 {
		return nil // a segment that was just begun
	}
	return os.Truncate(file, int64(end-1-random.IntN(min(end, 2000))))
}

// flipBit flips a bit of what a segment holds.
func flipBit(file string, random *rand.Rand) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	end := used(data)
	if end == 0 {
		return nil
	}
	at := random.IntN(end)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{data[at] ^ 1<<random.IntN(8)}, int64(at))
	return err
}
