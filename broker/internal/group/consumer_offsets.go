package group

import "github.com/twmb/franz-go/pkg/kerr"

// validateMember checks that a member is in its current epoch.
func (c *consumerGroup) validateMember(id string, epoch int32) *kerr.Error {
	m := c.members[id]
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case epoch == m.epoch:
		return nil
	case m.classic != nil:
		return kerr.IllegalGeneration
	}
	return kerr.StaleMemberEpoch
}

// validateCommit checks that the request may commit offsets. Without members anyone
// may.
func (c *consumerGroup) validateCommit(r *CommitRequest) *kerr.Error {
	if r.Generation < 0 && len(c.members) == 0 {
		return nil
	}
	if m := c.members[r.MemberID]; m != nil && m.classic == nil && r.Old && r.Transaction == nil {
		return kerr.UnsupportedVersion
	}
	return c.validateMember(r.MemberID, r.Generation)
}

// orEmpty is the text or, without one, nothing.
func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
