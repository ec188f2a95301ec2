package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
)

// clusterFlags are what the cluster commands are told.
type clusterFlags struct {
	bootstrap []string
	json      bool
	timeout   time.Duration
	plan, run bool
	atOnce    int
}

// ClusterCommand returns `leat cluster`: what an operator does to a cluster's brokers.
func ClusterCommand() *cobra.Command {
	var f clusterFlags
	c := &cobra.Command{Use: "cluster", Short: "Move replicas, take brokers out, change the quorum and features, watch metadata"}
	p := c.PersistentFlags()
	p.StringSliceVar(&f.bootstrap, "bootstrap", []string{"127.0.0.1:9092"}, "address of a broker, `HOST:PORT`; several with commas")
	p.BoolVar(&f.json, "json", false, "write JSON")
	p.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long to wait for a broker to answer")

	rebalance := &cobra.Command{
		Use:   "rebalance {--plan|--run}",
		Short: "Spread replicas and leaders evenly, as after adding brokers",
		Long: `Spread replicas and leaders evenly over the brokers that are alive, as after
adding some. No partition ends up in fewer racks than it was in, and as little as
possible is copied.

--plan only says what would move. --run moves it, some partitions at a time, and
waits until all are copied; ended early, what was begun goes on.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.connected(c, -1, (*mover).move) },
	}
	drain := &cobra.Command{
		Use:   "drain BROKER",
		Short: "Move all replicas off a broker, before it is removed",
		Long: `Move all replicas off a broker, which may be down if the others have what it had.
It is cordoned first (cordoned.log.dirs=*) and gets no new ones. "undrain" ends that,
and so does "unregister".`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := brokerID(args[0])
			if err != nil {
				return err
			}
			f.run = !f.plan
			return f.connected(c, id, (*mover).move)
		},
	}
	undrain := &cobra.Command{
		Use:   "undrain BROKER",
		Short: "Have a broker that was to be drained get replicas again",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := brokerID(args[0])
			if err != nil {
				return err
			}
			return f.connected(c, id, (*mover).undrain)
		},
	}
	unregister := &cobra.Command{
		Use:   "unregister BROKER",
		Short: "Forget a broker that was drained and stopped for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := brokerID(args[0])
			if err != nil {
				return err
			}
			return f.connected(c, id, (*mover).unregister)
		},
	}
	for _, sub := range []*cobra.Command{rebalance, drain} {
		sub.Flags().BoolVar(&f.plan, "plan", false, "only say what would move")
		sub.Flags().IntVar(&f.atOnce, "at-once", 20, "partitions that are moved at the same time")
	}
	rebalance.Flags().BoolVar(&f.run, "run", false, "move the replicas")
	rebalance.MarkFlagsOneRequired("plan", "run")
	rebalance.MarkFlagsMutuallyExclusive("plan", "run")
	c.AddCommand(rebalance, drain, undrain, unregister, quorumCommand(&f), featuresCommand(&f), watchCommand(&f))
	return c
}

func brokerID(text string) (int32, error) {
	id, err := strconv.ParseInt(text, 10, 32)
	if err != nil || id < 0 {
		return 0, fmt.Errorf("broker %.40q: must be the id of a broker", text)
	}
	return int32(id), nil
}

// connected connects and calls do, which ends with the command's context.
func (f *clusterFlags) connected(c *cobra.Command, broker int32, do func(*mover, context.Context) error) error {
	if f.atOnce < 1 && f.run {
		return fmt.Errorf("at-once=%d: must be 1 or more", f.atOnce)
	}
	ctx, stop := interruptible(c.Context())
	defer stop()
	a, err := dialAny(ctx, f.bootstrap, f.timeout)
	if err != nil {
		return err
	}
	defer a.close()
	return do(&mover{asker: a, clusterFlags: f, drained: broker, out: c.OutOrStdout()}, ctx)
}

// interruptible returns a context that ends with ctx, which may be nil, with Ctrl-C and
// with SIGTERM.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil {
		ctx = context.Background()
	}
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// mover plans and carries out moves.
type mover struct {
	*asker
	*clusterFlags
	drained int32 // the broker the command is about, -1 for none
	out     io.Writer
}

// outcome is what move prints as JSON.
type outcome struct {
	Moves  []controller.Move `json:"moves"`
	Copies int               `json:"copies"` // replicas that are copied
	Done   bool              `json:"done"`   // all was moved
}

func (m *mover) move(ctx context.Context) error {
	moves, err := m.makePlan(ctx)
	if err != nil {
		return err
	}
	if m.run && m.drained >= 0 {
		// Only now is it known that it can be drained; what was created meanwhile counts, too.
		if err := m.cordon(ctx, true); err != nil {
			return err
		}
		if moves, err = m.makePlan(ctx); err != nil {
			return err
		}
	}
	o := outcome{Moves: append([]controller.Move{}, moves...)}
	for n := range moves {
		o.Copies += moves[n].Copies()
	}
	if !m.json {
		for n := range moves {
			x := &moves[n]
			fmt.Fprintf(m.out, "%s-%d: %v to %v\n", x.Topic, x.Partition, x.From, x.To)
		}
		fmt.Fprintf(m.out, "%d partitions to change, %d replicas to copy\n", len(moves), o.Copies)
	}
	if m.run {
		for part := range slices.Chunk(moves, m.atOnce) {
			if err := m.carryOut(ctx, part); err != nil {
				return err
			}
		}
		o.Done = true
		if !m.json && len(moves) > 0 {
			fmt.Fprintln(m.out, "done")
		}
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(o)
	}
	return nil
}

// makePlan reads the cluster and plans. Brokers that are down keep what they have,
// unless they are drained.
func (m *mover) makePlan(ctx context.Context) ([]controller.Move, error) {
	list := kmsg.NewPtrListPartitionReassignmentsRequest()
	list.Topics, list.TimeoutMillis = nil, int32(m.timeout.Milliseconds())
	answer, err := m.ask(list, 0, m.timeout)
	if err != nil {
		return nil, err
	}
	if under := answer.(*kmsg.ListPartitionReassignmentsResponse).Topics; len(under) > 0 {
		return nil, fmt.Errorf("topic %q is being reassigned already: wait until that is done, or cancel it", under[0].Topic)
	}
	brokers, err := m.brokers()
	if err != nil {
		return nil, err
	}
	answer, err = m.ask(kmsg.NewPtrMetadataRequest(), 12, m.timeout)
	if err != nil {
		return nil, err
	}
	cordoned, err := m.cordoned(ctx, brokers)
	if err != nil {
		return nil, err
	}
	return m.planFrom(brokers, cordoned, answer.(*kmsg.MetadataResponse).Topics)
}

// brokers returns all brokers of the cluster, those that are down, too.
func (m *mover) brokers() ([]kmsg.DescribeClusterResponseBroker, error) {
	describe := kmsg.NewPtrDescribeClusterRequest()
	describe.EndpointType, describe.IncludeFencedBrokers = 1, true
	answer, err := m.ask(describe, 2, m.timeout)
	if err != nil {
		return nil, err
	}
	cluster := answer.(*kmsg.DescribeClusterResponse)
	if err := kerr.ErrorForCode(cluster.ErrorCode); err != nil {
		return nil, fmt.Errorf("describe the cluster: %w", err)
	}
	return cluster.Brokers, nil
}

func (m *mover) planFrom(brokers []kmsg.DescribeClusterResponseBroker, cordoned map[int32]bool, topics []kmsg.MetadataResponseTopic) ([]controller.Move, error) {
	known := false
	down := map[int32]bool{}
	var usable []controller.PlanBroker
	for _, b := range brokers {
		known = known || b.NodeID == m.drained
		down[b.NodeID] = b.IsFenced
		if b.NodeID == m.drained || b.IsFenced {
			continue
		}
		x := controller.PlanBroker{ID: b.NodeID, Cordoned: cordoned[b.NodeID]}
		if b.Rack != nil {
			x.Rack = *b.Rack
		}
		usable = append(usable, x)
	}
	if m.drained >= 0 && !known {
		return nil, fmt.Errorf("broker %d is not registered in this cluster", m.drained)
	}
	var partitions []controller.PlanPartition
	for _, t := range topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, fmt.Errorf("topic %s: %w", *t.Topic, err)
		}
		for _, p := range t.Partitions {
			for _, id := range p.Replicas {
				if down[id] && id != m.drained {
					return nil, fmt.Errorf("broker %d is down and has a replica of %s-%d: start it, or drain it first", id, *t.Topic, p.Partition)
				}
			}
			partitions = append(partitions, controller.PlanPartition{Topic: *t.Topic, Partition: p.Partition, Replicas: p.Replicas})
		}
	}
	if m.drained >= 0 {
		return controller.PlanDrain(usable, partitions)
	}
	return controller.Plan(usable, partitions)
}

// carryOut moves some partitions, waits until that is done, and has the first
// replicas lead.
func (m *mover) carryOut(ctx context.Context, moves []controller.Move) error {
	request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	request.TimeoutMillis = int32(m.timeout.Milliseconds())
	for _, x := range moves {
		t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		t.Topic = x.Topic
		p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		p.Partition, p.Replicas = x.Partition, x.To
		t.Partitions = append(t.Partitions, p)
		request.Topics = append(request.Topics, t)
	}
	answer, err := m.ask(request, 0, 2*m.timeout)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.AlterPartitionAssignmentsResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("reassign partitions: %w", err)
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("reassign %s-%d: %w%s", t.Topic, p.Partition, err, reason(p.ErrorMessage))
			}
		}
	}
	if err := m.waitCopied(ctx, moves); err != nil {
		return err
	}
	return m.elect(moves)
}

func reason(message *string) string {
	if message == nil {
		return ""
	}
	return ": " + *message
}

// copyPoll is the time between two looks at partitions that are being copied.
const copyPoll = 200 * time.Millisecond

// waitCopied waits until the partitions have the replicas they were to get. The broker
// that is asked may be a moment behind the controller, so that no reassignment under
// way is no proof of it.
func (m *mover) waitCopied(ctx context.Context, moves []controller.Move) error {
	request := kmsg.NewPtrMetadataRequest()
	want := map[string]map[int32][]int32{}
	for _, x := range moves {
		if want[x.Topic] == nil {
			want[x.Topic] = map[int32][]int32{}
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(x.Topic)
			request.Topics = append(request.Topics, t)
		}
		want[x.Topic][x.Partition] = x.To
	}
	ticker := time.NewTicker(copyPoll)
	defer ticker.Stop()
	settled := time.Now().Add(m.timeout)
	for {
		answer, err := m.ask(request, 12, m.timeout)
		if err != nil {
			return err
		}
		left := 0
		for _, t := range answer.(*kmsg.MetadataResponse).Topics {
			for _, p := range t.Partitions {
				if to, moved := want[*t.Topic][p.Partition]; moved && !slices.Equal(to, p.Replicas) {
					left++
					if len(p.Replicas) > len(to) {
						settled = time.Now().Add(m.timeout) // it is being copied
					}
				}
			}
		}
		switch {
		case left == 0:
			return nil
		case time.Now().After(settled):
			return fmt.Errorf("%d partitions did not get the replicas they were to get: somebody else has cancelled that", left)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.New("ended before all was copied: what was begun goes on; run the command again for the rest")
		}
	}
}

// elect has the first replicas lead, where they can.
func (m *mover) elect(moves []controller.Move) error {
	request := kmsg.NewPtrElectLeadersRequest()
	request.TimeoutMillis = int32(m.timeout.Milliseconds())
	for _, x := range moves {
		request.Topics = append(request.Topics, kmsg.ElectLeadersRequestTopic{Topic: x.Topic, Partitions: []int32{x.Partition}})
	}
	answer, err := m.ask(request, 2, 2*m.timeout)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(answer.(*kmsg.ElectLeadersResponse).ErrorCode); err != nil {
		return fmt.Errorf("elect leaders: %w", err)
	}
	return nil
}

func (m *mover) unregister(context.Context) error {
	request := kmsg.NewPtrUnregisterBrokerRequest()
	request.BrokerID = m.drained
	answer, err := m.ask(request, 0, m.timeout)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.UnregisterBrokerResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("unregister broker %d: %w", m.drained, err)
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(map[string]int32{"unregistered": m.drained})
	}
	fmt.Fprintf(m.out, "broker %d is unregistered\n", m.drained)
	return nil
}
