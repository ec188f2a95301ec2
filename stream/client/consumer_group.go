package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// describeConsumerGroup is DescribeGroup for a group of the consumer protocol of KIP-848,
// in which the cluster assigns the partitions. Protocol is the assignor.
func (c *Client) describeConsumerGroup(ctx context.Context, group string) (*GroupDescription, error) {
	described, err := c.adm.DescribeConsumerGroups(ctx, group)
	g, ok := described[group]
	if err == nil && ok {
		err = g.Err
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound), errors.Is(err, kerr.UnsupportedVersion), err == nil && !ok:
		return nil, fmt.Errorf("client: describe group %q: %w", group, ErrUnknownGroup)
	case err != nil:
		return nil, fmt.Errorf("client: describe group %q: %w", group, c.closedOr(known(err)))
	}
	d := &GroupDescription{Group: group, State: g.State, ProtocolType: "consumer", Protocol: g.AssignorName, Coordinator: g.Coordinator.NodeID}
	for i := range g.Members {
		m := &g.Members[i]
		member := GroupMember{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost}
		if m.InstanceID != nil {
			member.InstanceID = *m.InstanceID
		}
		for topic, partitions := range m.Assignment {
			for p := range partitions {
				member.Partitions = append(member.Partitions, Partition{topic, p})
			}
		}
		slices.SortFunc(member.Partitions, comparePartitions)
		d.Members = append(d.Members, member)
	}
	return d, nil
}
