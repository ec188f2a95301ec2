package task

import (
	"github.com/leatlog/leat/state/changelog"
	"github.com/leatlog/leat/topology/plan"
)

// FromStandby is why a restore of a store that was followed begins where it does.
const FromStandby changelog.Reason = "from its warm copy"

// A store that is followed, of a standby, is restored without an end:
//
//	OpenStore
//	Follow    as records come
//	Keep      now and then
//	Promote   when the task comes to run here: the rest is a restore like any other
//	Close     otherwise

// Follow applies changelog records, however far the changelog has grown. next is the
// offset after them.
func (s *LoggedStore) Follow(records []plan.Record, next int64, epoch int32) error {
	s.restorer.Extend(next)
	return s.Restore(records, next, epoch)
}

// Keep makes what was followed readable and durable, unless it is.
func (s *LoggedStore) Keep() error {
	if s.kept == s.restorer.Next() {
		return nil
	}
	if err := s.restorer.Finish(); err != nil {
		return err
	}
	s.kept = s.restorer.Next()
	return nil
}

// Promote ends the following: what is left to restore is what bounds, the ends of the
// changelog at this moment, have more. False when that cannot be told from what was
// followed: then the store is to be closed and opened anew.
func (s *LoggedStore) Promote(bounds changelog.Bounds) bool {
	if next := s.restorer.Next(); next < bounds.Start || next > bounds.End {
		return false
	}
	s.restorer.Extend(bounds.End)
	s.followed = true
	return true
}
