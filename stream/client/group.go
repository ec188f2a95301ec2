package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// GroupConfig says how to be a member of a consumer group (the classic
// protocol). The assignment is the caller's: every member tells user data when
// it joins, the leader's Assign turns them into an assignment.
type GroupConfig struct {
	// Group is the group's name. Required.
	Group string
	// InstanceID makes the member static (KIP-345); "" for none.
	InstanceID string
	// Protocol names the assignor; members of a group must have it in common.
	Protocol string
	// Topics is what the group's tools are told it reads.
	Topics []string
	// SessionTimeout is how long the group waits for a heartbeat before it drops
	// the member; RebalanceTimeout, how long it waits for members to join again.
	// Defaults 10 s and 60 s. Heartbeats, by which members learn of a rebalance, go
	// every second, or every third of a shorter session timeout.
	SessionTimeout, RebalanceTimeout time.Duration

	// UserData is asked before every join.
	UserData func() []byte
	// Assign is called on the leader with every member, ordered by id.
	Assign func(ctx context.Context, members []Member) ([]Assignment, error)
	// Assigned is called with each new assignment of this member. Heartbeats go on
	// meanwhile. True makes the member join again at once, which is how it says that
	// it has given up what it was told to.
	Assigned func(userData []byte) (rejoin bool, err error)
	// OtherProtocol is called each time the group refuses this member because those that it
	// has follow another Protocol: it goes on trying, and joins when they have left. Without
	// it Run fails.
	OtherProtocol func(err error)
	// Lost is called when the group has dropped this member: what it owned belongs
	// to others, commits are refused.
	Lost func(err error)
}

// Member is what the leader knows of a member.
type Member struct {
	ID, InstanceID string
	Topics         []string
	UserData       []byte
}

// Assignment is what the leader gives to a member.
type Assignment struct {
	Member string
	// Partitions is what tools show; UserData is what the member is told.
	Partitions map[string][]int32
	UserData   []byte
}

// Group is a membership. Run drives it; the other methods are safe for
// concurrent use.
type Group struct {
	client *Client
	cfg    GroupConfig
	rejoin chan struct{}

	mu         sync.Mutex
	changed    *sync.Cond
	member     string
	generation int32
	stable     bool  // joined and synced: commits go through
	ended      error // Run has returned, or the client fenced
}

// NewGroup returns a membership that has not joined yet. A Client has one at a
// time: a join waits on the connection until every member has joined, and would
// keep another member of the same client from doing so.
func (c *Client) NewGroup(cfg GroupConfig) *Group {
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = 10 * time.Second
	}
	if cfg.RebalanceTimeout <= 0 {
		cfg.RebalanceTimeout = time.Minute
	}
	g := &Group{client: c, cfg: cfg, rejoin: make(chan struct{}, 1), generation: -1}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// Rejoin asks for a new assignment, for example because topics have changed.
func (g *Group) Rejoin() {
	select {
	case g.rejoin <- struct{}{}:
	default:
	}
}

// errRejoin ends a generation: the group rebalances.
var errRejoin = errors.New("the group rebalances")

// Run joins the group and stays in it until ctx ends; it does not leave (see
// Leave). It returns ctx's error, or why membership is not possible.
func (g *Group) Run(ctx context.Context) error {
	err := g.run(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended == nil {
		g.ended = err
	}
	g.changed.Broadcast()
	return err
}

func (g *Group) run(ctx context.Context) error {
	for try := 0; ; {
		err := g.generationOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil, errors.Is(err, errRejoin):
			try = 0
			continue
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration):
			g.lose(fmt.Errorf("%w: %w", ErrFenced, err))
		case errors.Is(err, kerr.RebalanceInProgress):
			continue
		case errors.Is(err, kerr.InconsistentGroupProtocol) && g.cfg.OtherProtocol != nil:
			g.cfg.OtherProtocol(fmt.Errorf("client: group %q: %w", g.cfg.Group, err))
		case isTransport(err), kerr.IsRetriable(err):
			g.client.log.Warn().Err(err).Str("group", g.cfg.Group).Msg("group: joining failed; trying again")
		case errors.Is(err, kerr.FencedInstanceID):
			err = fmt.Errorf("%w: instance %q runs elsewhere: %w", ErrFenced, g.cfg.InstanceID, err)
			g.lose(err)
			return err
		default:
			return fmt.Errorf("client: group %q: %w", g.cfg.Group, err)
		}
		try++
		if !g.client.sleep(ctx, backoff(try)) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return ErrClosed
		}
	}
}

// lose forgets the membership and tells the owner.
func (g *Group) lose(err error) {
	g.mu.Lock()
	g.member, g.generation, g.stable = "", -1, false
	g.changed.Broadcast()
	g.mu.Unlock()
	g.cfg.Lost(err)
}

// generationOnce joins, syncs and lives through one generation. Its error says
// why the generation ended.
func (g *Group) generationOnce(ctx context.Context) error {
	g.setStable(false)
	select { // a wish to join again is fulfilled by this join
	case <-g.rejoin:
	default:
	}
	join, err := g.join(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.member, g.generation = join.MemberID, join.Generation
	g.mu.Unlock()
	userData, err := g.sync(ctx, join)
	if err != nil {
		return err
	}
	g.setStable(true)

	// The heartbeat goes on while the owner takes up its assignment, which may have
	// to close tasks first.
	beat, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.heartbeat(beat) }()
	again, err := g.cfg.Assigned(userData)
	switch {
	case err != nil:
	case again:
		err = errRejoin
	default:
		select {
		case err = <-ended:
			stop()
			return err
		case <-g.rejoin:
			err = errRejoin
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	stop()
	if beatErr := <-ended; errors.Is(beatErr, kerr.UnknownMemberID) {
		return beatErr
	}
	return err
}

func (g *Group) setStable(stable bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stable = stable
	g.changed.Broadcast()
}

func (g *Group) instance() *string {
	if g.cfg.InstanceID == "" {
		return nil
	}
	return &g.cfg.InstanceID
}

// join asks for a place in the next generation.
func (g *Group) join(ctx context.Context) (*kmsg.JoinGroupResponse, error) {
	metadata := kmsg.NewConsumerMemberMetadata()
	metadata.Version = 1
	metadata.Topics = slices.Sorted(slices.Values(g.cfg.Topics))
	metadata.UserData = g.cfg.UserData()
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = g.cfg.Protocol, metadata.AppendTo(nil)
	for {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.InstanceID = g.cfg.Group, g.instance()
		req.SessionTimeoutMillis = int32(g.cfg.SessionTimeout.Milliseconds())
		req.RebalanceTimeoutMillis = int32(g.cfg.RebalanceTimeout.Milliseconds())
		req.ProtocolType = "consumer"
		req.Protocols = append(req.Protocols, protocol)
		g.mu.Lock()
		req.MemberID = g.member
		g.mu.Unlock()
		resp, err := req.RequestWith(ctx, g.client.kgo)
		if err != nil {
			return nil, fmt.Errorf("join: %w", g.client.closedOr(err))
		}
		err = codeError(resp.ErrorCode)
		if errors.Is(err, kerr.MemberIDRequired) {
			g.mu.Lock()
			g.member = resp.MemberID
			g.mu.Unlock()
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
		return resp, nil
	}
}

// sync hands out (on the leader) and fetches the assignment.
func (g *Group) sync(ctx context.Context, join *kmsg.JoinGroupResponse) ([]byte, error) {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.InstanceID = g.cfg.Group, g.instance()
	req.Generation, req.MemberID = join.Generation, join.MemberID
	req.ProtocolType, req.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr(g.cfg.Protocol)
	if join.LeaderID == join.MemberID && !join.SkipAssignment {
		assignments, err := g.lead(ctx, join.Members)
		if err != nil {
			return nil, err
		}
		req.GroupAssignment = assignments
	}
	resp, err := req.RequestWith(ctx, g.client.kgo)
	if err != nil {
		return nil, fmt.Errorf("sync: %w", g.client.closedOr(err))
	}
	if err := codeError(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	assignment := kmsg.NewConsumerMemberAssignment()
	if len(resp.MemberAssignment) > 0 {
		if err := assignment.ReadFrom(resp.MemberAssignment); err != nil {
			return nil, fmt.Errorf("sync: assignment: %w", err)
		}
	}
	return assignment.UserData, nil
}

// lead makes the assignment of a generation.
func (g *Group) lead(ctx context.Context, joined []kmsg.JoinGroupResponseMember) ([]kmsg.SyncGroupRequestGroupAssignment, error) {
	members := make([]Member, 0, len(joined))
	for i := range joined {
		m := Member{ID: joined[i].MemberID}
		if joined[i].InstanceID != nil {
			m.InstanceID = *joined[i].InstanceID
		}
		metadata := kmsg.NewConsumerMemberMetadata()
		if err := metadata.ReadFrom(joined[i].ProtocolMetadata); err != nil {
			return nil, fmt.Errorf("metadata of member %q: %w", m.ID, err)
		}
		m.Topics, m.UserData = metadata.Topics, metadata.UserData
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	assignments, err := g.cfg.Assign(ctx, members)
	if err != nil {
		return nil, fmt.Errorf("assign: %w", err)
	}
	out := make([]kmsg.SyncGroupRequestGroupAssignment, 0, len(assignments))
	for _, a := range assignments {
		ka := kmsg.NewConsumerMemberAssignment()
		ka.Version, ka.UserData = 1, a.UserData
		for topic, partitions := range a.Partitions {
			t := kmsg.NewConsumerMemberAssignmentTopic()
			t.Topic, t.Partitions = topic, slices.Sorted(slices.Values(partitions))
			ka.Topics = append(ka.Topics, t)
		}
		slices.SortFunc(ka.Topics, func(a, b kmsg.ConsumerMemberAssignmentTopic) int { return strings.Compare(a.Topic, b.Topic) })
		sa := kmsg.NewSyncGroupRequestGroupAssignment()
		sa.MemberID, sa.MemberAssignment = a.Member, ka.AppendTo(nil)
		out = append(out, sa)
	}
	return out, nil
}

// heartbeat keeps the membership until the generation ends; it returns why.
func (g *Group) heartbeat(ctx context.Context) error {
	ticker := time.NewTicker(min(g.cfg.SessionTimeout/3, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.InstanceID = g.cfg.Group, g.instance()
		g.mu.Lock()
		req.MemberID, req.Generation = g.member, g.generation
		g.mu.Unlock()
		resp, err := req.RequestWith(ctx, g.client.kgo)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			g.client.log.Debug().Err(err).Str("group", g.cfg.Group).Msg("group: heartbeat failed; trying again")
			continue
		}
		err = codeError(resp.ErrorCode)
		switch {
		case err == nil:
		case errors.Is(err, kerr.RebalanceInProgress):
			return errRejoin
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.FencedInstanceID):
			return err
		default:
			g.client.log.Debug().Err(err).Str("group", g.cfg.Group).Msg("group: heartbeat refused; trying again")
		}
	}
}

// Leave tells the group that this member goes, so that it need not wait for the
// session timeout. A static member stays, to come back.
func (g *Group) Leave(ctx context.Context) error {
	g.mu.Lock()
	id := g.member
	g.member, g.stable = "", false
	g.ended = ErrClosed
	g.changed.Broadcast()
	g.mu.Unlock()
	if id == "" || g.cfg.InstanceID != "" {
		return nil
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = g.cfg.Group, id
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = id
	req.Members = append(req.Members, m)
	resp, err := req.RequestWith(ctx, g.client.kgo)
	if err != nil {
		return fmt.Errorf("client: leave group %q: %w", g.cfg.Group, g.client.closedOr(err))
	}
	if err := codeError(resp.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		return fmt.Errorf("client: leave group %q: %w", g.cfg.Group, err)
	}
	return nil
}
