package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// NewTopic describes a topic to create.
type NewTopic struct {
	// Name is the topic's name.
	Name string
	// Partitions is their number; -1 takes the cluster's default.
	Partitions int32
	// Replication is the number of replicas; -1 takes the cluster's default.
	Replication int16
	// Config is the topic's configuration, by Kafka's names.
	Config map[string]string
}

// CreateTopics creates topics and waits until the cluster knows them, with a
// leader for every partition. The error joins those of every topic that was not
// created; a topic that exists gives ErrTopicExists.
func (c *Client) CreateTopics(ctx context.Context, topics ...NewTopic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15_000
	for _, t := range topics {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Name, t.Partitions, t.Replication
		for _, name := range sortedKeys(t.Config) {
			cfg := kmsg.NewCreateTopicsRequestTopicConfig()
			cfg.Name, cfg.Value = name, kmsg.StringPtr(t.Config[name])
			rt.Configs = append(rt.Configs, cfg)
		}
		req.Topics = append(req.Topics, rt)
	}
	if len(req.Topics) == 0 {
		return nil
	}
	resp, err := req.RequestWith(ctx, c.kgo)
	if err != nil {
		return fmt.Errorf("client: create topics: %w", c.closedOr(err))
	}
	var failed []error
	var created []string
	for i := range resp.Topics {
		if err := messageError(resp.Topics[i].ErrorCode, resp.Topics[i].ErrorMessage); err != nil {
			failed = append(failed, fmt.Errorf("client: create topic %q: %w", resp.Topics[i].Topic, err))
		} else {
			created = append(created, resp.Topics[i].Topic)
		}
	}
	if len(created) > 0 {
		failed = append(failed, c.awaitTopics(ctx, created, 1))
	}
	return errors.Join(failed...)
}

// askTimeout bounds the wait for one of several brokers that are asked the same.
const askTimeout = time.Second

// awaitTopics waits until all brokers that answer know topics that were just made with
// this many partitions and each of them with a leader: a cluster answers when its
// controller knows, and the next request may go to any broker.
func (c *Client) awaitTopics(ctx context.Context, names []string, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RetryTimeout)
	defer cancel()
	for try := 1; ; try++ {
		topics, brokers, err := metadataOf(ctx, c.kgo, false, names)
		if err != nil {
			return c.closedOr(err)
		}
		waiting := unfinished(topics, names, partitions)
		if waiting == "" && len(brokers) > 1 {
			waiting = c.unfinishedOnSome(ctx, brokers, names, partitions)
		}
		if waiting == "" {
			c.metadata.store(names, topics)
			return nil
		}
		if !c.sleep(ctx, backoff(try)/5) {
			return fmt.Errorf("client: topic %q was changed, but not all of its partitions have a leader: %w", waiting, ctx.Err())
		}
	}
}

// unfinished returns the name of a topic that has fewer partitions, or some without a
// leader; none when there is no such topic.
func unfinished(topics map[string]*Topic, names []string, partitions int) string {
	for _, name := range names {
		t, ok := topics[name]
		if !ok || len(t.Partitions) < partitions || slices.ContainsFunc(t.Partitions, func(p PartitionState) bool { return p.Leader < 0 }) {
			return name
		}
	}
	return ""
}

// unfinishedOnSome returns the name of a topic that is unfinished for one of the brokers.
// One that does not answer has to learn of it before it serves anybody.
func (c *Client) unfinishedOnSome(ctx context.Context, brokers []int32, names []string, partitions int) string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found := make(chan string, len(brokers))
	for _, id := range brokers {
		go func() {
			topics, _, err := metadataOf(ctx, c.kgo.Broker(int(id)), false, names)
			if err != nil {
				found <- ""
				return
			}
			found <- unfinished(topics, names, partitions)
		}()
	}
	waiting := ""
	for range brokers {
		waiting = cmp.Or(waiting, <-found)
	}
	return waiting
}

// DeleteTopics deletes topics; the error joins those of every topic that was
// not deleted.
func (c *Client) DeleteTopics(ctx context.Context, names ...string) error {
	responses, err := c.adm.DeleteTopics(ctx, names...)
	if err != nil && len(responses) == 0 {
		return fmt.Errorf("client: delete topics: %w", c.closedOr(err))
	}
	var failed []error
	for _, r := range responses.Sorted() {
		if r.Err != nil {
			failed = append(failed, fmt.Errorf("client: delete topic %q: %w", r.Topic, known(r.Err)))
		}
	}
	return errors.Join(failed...)
}

// known wraps a kerr error as codeError does.
func known(err error) error {
	var k *kerr.Error
	if errors.As(err, &k) {
		return codeError(k.Code)
	}
	return err
}

// AddPartitions gives topics this many partitions in all and waits until the cluster
// knows them. Keys may go to other partitions from then on.
func (c *Client) AddPartitions(ctx context.Context, total int, topics ...string) error {
	responses, err := c.adm.UpdatePartitions(ctx, total, topics...)
	if err != nil && len(responses) == 0 {
		return fmt.Errorf("client: add partitions: %w", c.closedOr(err))
	}
	var failed []error
	var grown []string
	for _, r := range responses.Sorted() {
		switch err := known(r.Err); {
		case err == nil:
			grown = append(grown, r.Topic)
		case r.ErrMessage != "":
			failed = append(failed, fmt.Errorf("client: add partitions to topic %q: %w: %s", r.Topic, err, r.ErrMessage))
		default:
			failed = append(failed, fmt.Errorf("client: add partitions to topic %q: %w", r.Topic, err))
		}
	}
	if len(grown) > 0 {
		failed = append(failed, c.awaitTopics(ctx, grown, total))
	}
	return errors.Join(failed...)
}

// DeleteRecords moves the start of partitions to these offsets: the records
// below are gone. It serves repartition topics, whose records are of no use
// once they are processed.
func (c *Client) DeleteRecords(ctx context.Context, before map[Partition]int64) error {
	if len(before) == 0 {
		return nil
	}
	offsets := make(kadm.Offsets)
	for p, o := range before {
		offsets.Add(kadm.Offset{Topic: p.Topic, Partition: p.Partition, At: o})
	}
	responses, err := c.adm.DeleteRecords(ctx, offsets)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		return fmt.Errorf("client: delete records: %w", c.closedOr(err))
	}
	return nil
}

// GroupInfo is a line of the list of groups.
type GroupInfo struct {
	Group        string
	State        string
	ProtocolType string
	Coordinator  int32
}

// Groups lists the cluster's groups, ordered by name.
func (c *Client) Groups(ctx context.Context) ([]GroupInfo, error) {
	listed, err := c.adm.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("client: list groups: %w", c.closedOr(err))
	}
	var out []GroupInfo
	for _, g := range listed.Sorted() {
		out = append(out, GroupInfo{Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Coordinator: g.Coordinator})
	}
	return out, nil
}

// GroupDescription is what the cluster says about a group.
type GroupDescription struct {
	Group, State, ProtocolType, Protocol string
	Coordinator                          int32
	Members                              []GroupMember
}

// GroupMember is a member of a described group.
type GroupMember struct {
	ID, InstanceID, ClientID, Host string
	Partitions                     []Partition
}

// DescribeGroup tells a group's state and members, of a group of the consumer protocol
// (KIP-848) too. A group that does not exist gives ErrUnknownGroup.
func (c *Client) DescribeGroup(ctx context.Context, group string) (*GroupDescription, error) {
	described, err := c.adm.DescribeGroups(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("client: describe group %q: %w", group, c.closedOr(err))
	}
	g, ok := described[group]
	switch {
	case !ok, g.State == "Dead", errors.Is(known(g.Err), ErrUnknownGroup):
		return c.describeConsumerGroup(ctx, group)
	case g.Err != nil:
		return nil, fmt.Errorf("client: describe group %q: %w", group, known(g.Err))
	}
	d := &GroupDescription{
		Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Protocol: g.Protocol, Coordinator: g.Coordinator.NodeID,
	}
	for i := range g.Members {
		m := &g.Members[i]
		member := GroupMember{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost}
		if m.InstanceID != nil {
			member.InstanceID = *m.InstanceID
		}
		if assigned, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range assigned.Topics {
				for _, p := range t.Partitions {
					member.Partitions = append(member.Partitions, Partition{t.Topic, p})
				}
			}
		}
		slices.SortFunc(member.Partitions, comparePartitions)
		d.Members = append(d.Members, member)
	}
	slices.SortFunc(d.Members, func(a, b GroupMember) int { return strings.Compare(a.ID, b.ID) })
	return d, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
