package replica

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Cluster is what a Manager needs of the other nodes. Safe for concurrent use.
type Cluster interface {
	// BrokerEpoch returns the epoch of this broker's registration, -1 without one.
	BrokerEpoch() int64
	// Request asks a broker, on a connection of its own for each lane, and waits for
	// the answer. Requests on a lane are executed in the order of their calls.
	Request(ctx context.Context, node int32, lane string, request kmsg.Request) (kmsg.Response, error)
	// AlterPartition asks the active controller.
	AlterPartition(ctx context.Context, request *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error)
}
