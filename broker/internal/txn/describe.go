package txn

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Description is what is known of a transactional id.
type Description struct {
	Err             *kerr.Error // TRANSACTIONAL_ID_NOT_FOUND
	TransactionalID string
	State           State
	ProducerID      int64
	Epoch           int16
	Timeout         time.Duration
	Started         int64            // ms, -1 without a transaction
	Partitions      []TopicPartition // in order
}

// Describe describes a transactional id.
func (s *Shard) Describe(id string) Description {
	t := s.ids[id]
	if t == nil {
		return Description{Err: kerr.TransactionalIDNotFound, TransactionalID: id, ProducerID: -1, Epoch: -1, Started: -1}
	}
	return t.describe()
}

func (t *transaction) describe() Description {
	return Description{TransactionalID: t.id, State: t.state, ProducerID: t.producerID, Epoch: t.epoch, Timeout: t.timeout,
		Started: t.started, Partitions: t.sorted()}
}

// List describes all transactional ids, in order.
func (s *Shard) List() []Description {
	list := make([]Description, 0, len(s.ids))
	for _, id := range slices.Sorted(maps.Keys(s.ids)) {
		list = append(list, s.ids[id].describe())
	}
	return list
}
