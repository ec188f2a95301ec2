package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Offset is a committed position.
type Offset struct {
	// Offset is the next record to process.
	Offset int64
	// LeaderEpoch is the epoch of the last record processed, -1 when not known.
	LeaderEpoch int32
	// Metadata is a note of the committer's.
	Metadata string
}

// Commit stores offsets in the group as this member. While the members join a
// new generation it goes on in the old one, and waits when the group says so.
// ErrFenced says that the member is no longer one.
func (g *Group) Commit(ctx context.Context, offsets map[Partition]Offset) error {
	if len(offsets) == 0 {
		return nil
	}
	for try := 1; ; try++ {
		member, generation, err := g.current(ctx)
		if err != nil {
			return err
		}
		err = g.commitOnce(ctx, member, generation, offsets)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kerr.RebalanceInProgress):
			g.awaitChange(ctx, generation) // between join and sync: the next generation will take it
		case errors.Is(err, kerr.IllegalGeneration):
			if !g.awaitChange(ctx, generation) && try > 3 {
				return fmt.Errorf("%w: %w", ErrFenced, err)
			}
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID):
			return fmt.Errorf("%w: %w", ErrFenced, err)
		case isTransport(err), kerr.IsRetriable(err):
			g.client.log.Debug().Err(err).Str("group", g.cfg.Group).Msg("group: commit failed; trying again")
		default:
			return fmt.Errorf("client: commit to group %q: %w", g.cfg.Group, err)
		}
		if !g.client.sleep(ctx, backoff(try)) {
			return fmt.Errorf("client: commit to group %q: %w", g.cfg.Group, errors.Join(err, ctx.Err()))
		}
	}
}

// current is the membership that a commit names. Joining a new generation does
// not end the old one: what a member owns stays its own until it gives it up,
// and the group takes commits of the old generation until all have joined.
func (g *Group) current(ctx context.Context) (member string, generation int32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return "", 0, fmt.Errorf("client: commit to group %q: %w", g.cfg.Group, ctx.Err())
	case g.generation < 0 || g.member == "":
		return "", 0, ErrFenced
	}
	return g.member, g.generation, nil
}

// awaitChange waits, after the group has refused a commit of a generation, until
// the member is part of the next. False when there is none to wait for.
func (g *Group) awaitChange(ctx context.Context, generation int32) bool {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changed.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	waited := !g.stable
	for !g.stable && g.ended == nil && g.generation >= 0 && ctx.Err() == nil {
		g.changed.Wait()
	}
	return waited || g.generation != generation
}

func (g *Group) commitOnce(ctx context.Context, member string, generation int32, offsets map[Partition]Offset) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.InstanceID = g.cfg.Group, g.instance()
	req.MemberID, req.Generation = member, generation
	topics := make(map[string]struct{})
	partitions := make([]Partition, 0, len(offsets))
	for p := range offsets {
		partitions = append(partitions, p)
		topics[p.Topic] = struct{}{}
	}
	if err := g.client.ensure(ctx, topics); err != nil { // for the ids
		return err
	}
	slices.SortFunc(partitions, comparePartitions)
	for _, p := range partitions {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != p.Topic {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic, t.TopicID = p.Topic, g.client.metadata.id(p.Topic)
			req.Topics = append(req.Topics, t)
		}
		t := &req.Topics[len(req.Topics)-1]
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		o := offsets[p]
		rp.Partition, rp.Offset, rp.LeaderEpoch = p.Partition, o.Offset, o.LeaderEpoch
		rp.Metadata = kmsg.StringPtr(o.Metadata)
		t.Partitions = append(t.Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, g.client.kgo)
	if err != nil {
		return g.client.closedOr(err)
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if err := codeError(resp.Topics[i].Partitions[j].ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

func comparePartitions(a, b Partition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// CommittedOffsets returns what a group has committed for these partitions, or
// for all when there are none given. A partition without a commit is missing.
func (c *Client) CommittedOffsets(ctx context.Context, group string, partitions []Partition) (map[Partition]Offset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = group
	sorted := slices.SortedFunc(slices.Values(partitions), comparePartitions)
	for _, p := range sorted {
		if n := len(rg.Topics); n == 0 || rg.Topics[n-1].Topic != p.Topic {
			t := kmsg.NewOffsetFetchRequestGroupTopic()
			t.Topic = p.Topic
			rg.Topics = append(rg.Topics, t)
		}
		t := &rg.Topics[len(rg.Topics)-1]
		t.Partitions = append(t.Partitions, p.Partition)
	}
	req.Groups = append(req.Groups, rg)
	for try := 1; ; try++ {
		resp, err := req.RequestWith(ctx, c.kgo)
		if err != nil {
			return nil, fmt.Errorf("client: offsets of group %q: %w", group, c.closedOr(err))
		}
		offsets, err := c.committed(resp)
		if err == nil {
			return offsets, nil
		}
		if !kerr.IsRetriable(err) || !c.sleep(ctx, backoff(try)) {
			return nil, fmt.Errorf("client: offsets of group %q: %w", group, err)
		}
	}
}

func (c *Client) committed(resp *kmsg.OffsetFetchResponse) (map[Partition]Offset, error) {
	offsets := make(map[Partition]Offset)
	for i := range resp.Groups {
		rg := &resp.Groups[i]
		if err := codeError(rg.ErrorCode); err != nil {
			return nil, err
		}
		for j := range rg.Topics {
			rt := &rg.Topics[j]
			for _, rp := range rt.Partitions {
				if err := codeError(rp.ErrorCode); err != nil {
					return nil, err
				}
				if rp.Offset < 0 {
					continue
				}
				o := Offset{Offset: rp.Offset, LeaderEpoch: rp.LeaderEpoch}
				if rp.Metadata != nil {
					o.Metadata = *rp.Metadata
				}
				offsets[Partition{c.metadata.name(rt.Topic, rt.TopicID), rp.Partition}] = o
			}
		}
	}
	return offsets, nil
}
