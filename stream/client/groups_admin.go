package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// DeleteGroups deletes groups and their offsets; the error joins those of every
// group that was not deleted. A group with members gives ErrGroupNotEmpty.
func (c *Client) DeleteGroups(ctx context.Context, groups ...string) error {
	responses, err := c.adm.DeleteGroups(ctx, groups...)
	if err != nil && len(responses) == 0 {
		return fmt.Errorf("client: delete groups: %w", c.closedOr(err))
	}
	var failed []error
	for _, r := range responses.Sorted() {
		if r.Err != nil {
			failed = append(failed, fmt.Errorf("client: delete group %q: %w", r.Group, known(r.Err)))
		}
	}
	return errors.Join(failed...)
}

// CommitOffsets commits offsets for a group from outside, making the group when
// there is none. The group must be without members: ErrGroupNotEmpty otherwise.
func (c *Client) CommitOffsets(ctx context.Context, group string, offsets map[Partition]Offset) error {
	if len(offsets) == 0 {
		return nil
	}
	commit := make(kadm.Offsets)
	for p, o := range offsets {
		commit.Add(kadm.Offset{Topic: p.Topic, Partition: p.Partition, At: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata})
	}
	responses, err := c.adm.CommitOffsets(ctx, group, commit)
	if err != nil {
		return fmt.Errorf("client: commit offsets of group %q: %w", group, known(c.closedOr(err)))
	}
	if err := responses.Error(); errors.Is(err, kerr.UnknownMemberID) {
		return fmt.Errorf("client: commit offsets of group %q: %w: %w", group, ErrGroupNotEmpty, err)
	} else if err != nil {
		return fmt.Errorf("client: commit offsets of group %q: %w", group, known(err))
	}
	return nil
}
