package group

import (
	"slices"
	"time"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Committed is an offset that a group has committed.
type Committed struct {
	GroupID string
	TopicPartition
	Offset int64
}

// EachCommitted calls visit with the committed offsets of all groups that this node
// coordinates, in no order and with a shard locked: visit must be quick and must not
// call the service. Shards that are being loaded are left out.
func (s *Service) EachCommitted(visit func(Committed)) {
	partitions := s.runtime.Partitions()
	slices.Sort(partitions)
	for _, p := range partitions {
		_ = s.on(p, func(shard *Shard, _ time.Time) coordinator.Result {
			for id, g := range shard.groups {
				for partition, o := range g.offsets {
					visit(Committed{id, partition, o.Offset})
				}
			}
			return coordinator.Result{}
		})
	}
}
