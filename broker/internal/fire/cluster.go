package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// diskSize is the size of each node's disk in bytes, a tmpfs of its own.
const diskSize = 512 << 20

// node is a broker process and its disk.
type node struct {
	id    int
	dir   string
	log   string
	args  []string
	cmd   *exec.Cmd // nil while it does not run
	ended chan struct{}
}

// cluster is the nodes of a round.
type cluster struct {
	binary  string
	network *network
	nodes   []*node
	client  *kgo.Client
	admin   *kadm.Client
}

// startCluster starts the nodes on empty disks below dir.
func startCluster(binary, dir string, network *network, size int) (*cluster, error) {
	c := &cluster{binary: binary, network: network}
	for i := range size {
		n := &node{id: i + 1, dir: filepath.Join(dir, fmt.Sprint("node-", i+1)), log: filepath.Join(dir, fmt.Sprintf("node-%d.log", i+1))}
		own := network.address(n.id)
		n.args = []string{"broker", "--node-id", fmt.Sprint(n.id), "--data-dir", filepath.Join(n.dir, "data"), "--listen", own + ":9092",
			"--gossip", own + ":7946", "--bootstrap-expect", "3", "--admin", "", "--set", "inter.node.listener=" + own + ":9093",
			"--set", "broker.session.timeout.ms=3000", "--set", "broker.heartbeat.interval.ms=500", "--set", "replica.lag.time.max.ms=5000",
			"--set", "offsets.topic.num.partitions=3", "--set", "transaction.state.log.num.partitions=3", "--set", "group.initial.rebalance.delay.ms=0",
			"--set", "log.verify.interval.ms=1000"}
		if i > 0 {
			n.args = append(n.args, "--join", network.address(1)+":7946")
		}
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return c, err
		}
		if err := syscall.Mount("tmpfs", n.dir, "tmpfs", 0, fmt.Sprint("size=", diskSize)); err != nil {
			return c, fmt.Errorf("disk of node %d: %w", n.id, err)
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if err := c.start(n); err != nil {
			return c, err
		}
	}
	var err error
	c.client, err = kgo.NewClient(clientOptions(c.addresses())...)
	if err != nil {
		return c, err
	}
	c.admin = kadm.NewClient(c.client)
	return c, nil
}

func (c *cluster) addresses() []string {
	var list []string
	for _, n := range c.nodes {
		list = append(list, c.network.address(n.id)+":9092")
	}
	return list
}

func (c *cluster) start(n *node) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.network.command(n.id, c.binary, n.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait() // it is killed, or stopped
	}(n.ended)
	return nil
}

// signal sends a signal to a node that runs.
func (n *node) signal(s syscall.Signal) {
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s) // it may have ended just now
	}
}

// kill ends a node as kill -9 does.
func (n *node) kill() {
	if n.cmd != nil {
		n.signal(syscall.SIGKILL)
		<-n.ended
		n.cmd = nil
	}
}

// stop ends a node as an operator does.
func (n *node) stop() error {
	if n.cmd == nil {
		return nil
	}
	n.signal(syscall.SIGTERM)
	select {
	case <-n.ended:
		n.cmd = nil
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("node %d does not stop within a minute of SIGTERM", n.id)
	}
}

// diedAlone tells whether a node that should run does not.
func (n *node) diedAlone() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// remove kills the nodes and takes their disks away.
func (c *cluster) remove() {
	if c.client != nil {
		c.client.Close()
	}
	for _, n := range c.nodes {
		n.kill()
		_ = syscall.Unmount(n.dir, syscall.MNT_DETACH)
	}
}

// await calls what until it succeeds, and returns how long that took.
func await(limit time.Duration, what func(context.Context) error) (time.Duration, error) {
	began := time.Now()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		err := what(ctx)
		cancel()
		if err == nil {
			return time.Since(began), nil
		}
		if time.Since(began) > limit {
			return limit, fmt.Errorf("not within %v: %w", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// createTopic creates a topic with a replica on three nodes, of which two must be in sync.
func (c *cluster) createTopic(name string, partitions int32) error {
	two, segment := "2", "1048576"
	_, err := await(time.Minute, func(ctx context.Context) error {
		r, err := c.admin.CreateTopic(ctx, partitions, 3, map[string]*string{"min.insync.replicas": &two, "segment.bytes": &segment}, name)
		if err == nil && r.Err != nil && strings.Contains(r.Err.Error(), "TOPIC_ALREADY_EXISTS") {
			return nil
		}
		return errors.Join(err, r.Err)
	})
	return err
}

// inSync fails unless every partition has a leader and all of its replicas in sync, in
// the eyes of every node.
func (c *cluster) inSync(ctx context.Context) error {
	for _, n := range c.nodes {
		request := kmsg.NewPtrMetadataRequest()
		response, err := c.client.Broker(n.id).Request(ctx, request)
		if err != nil {
			return fmt.Errorf("node %d: %w", n.id, err)
		}
		for _, t := range response.(*kmsg.MetadataResponse).Topics {
			for _, p := range t.Partitions {
				if p.Leader < 0 || len(p.ISR) != len(p.Replicas) {
					return fmt.Errorf("node %d: %s-%d has leader %d, in sync %v of %v", n.id, *t.Topic, p.Partition, p.Leader, p.ISR, p.Replicas)
				}
			}
		}
	}
	return nil
}

// leader returns the node that leads a partition.
func (c *cluster) leader(topic string, partition int32) (*node, error) {
	var found *node
	_, err := await(time.Minute, func(ctx context.Context) error {
		topics, err := c.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		at := topics[topic].Partitions[partition].Leader
		if at < 1 || int(at) > len(c.nodes) {
			return fmt.Errorf("%s-%d is led by %d", topic, partition, at)
		}
		found = c.nodes[at-1]
		return nil
	})
	return found, err
}

// controller returns the node of the active controller.
func (c *cluster) controller() (*node, error) {
	var found *node
	_, err := await(time.Minute, func(ctx context.Context) error {
		request := kmsg.NewPtrDescribeQuorumRequest()
		request.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
		response, err := request.RequestWith(ctx, c.client)
		if err != nil {
			return err
		}
		if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
			return fmt.Errorf("quorum: %+v", response)
		}
		at := response.Topics[0].Partitions[0].LeaderID
		if at < 1 || int(at) > len(c.nodes) {
			return fmt.Errorf("the quorum's leader is %d", at)
		}
		found = c.nodes[at-1]
		return nil
	})
	return found, err
}
