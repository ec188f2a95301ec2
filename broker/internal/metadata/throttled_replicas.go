package metadata

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Replication throttles (KIP-73): the rates are settings of brokers, what they hold for
// settings of topics.
const (
	LeaderThrottle           = "leader.replication.throttled.rate"
	FollowerThrottle         = "follower.replication.throttled.rate"
	LeaderThrottledReplicas  = "leader.replication.throttled.replicas"
	FollowerThrottleReplicas = "follower.replication.throttled.replicas"
)

// ThrottledReplicas are the replicas of a topic whose replication is throttled: all with
// "*", else "partition:broker" each. Nil is none.
type ThrottledReplicas []string

// Has tells whether a replica is among them.
func (t ThrottledReplicas) Has(partition, broker int32) bool {
	return len(t) > 0 && (t[0] == "*" || slices.Contains(t, fmt.Sprintf("%d:%d", partition, broker)))
}

// checkThrottled says what is wrong with a list of throttled replicas, "" when nothing is.
func checkThrottled(items []string) string {
	for _, item := range items {
		partition, broker, pair := strings.Cut(item, ":")
		_, errP := strconv.ParseUint(partition, 10, 31)
		_, errB := strconv.ParseUint(broker, 10, 31)
		if item == "*" && len(items) == 1 || pair && errP == nil && errB == nil {
			continue
		}
		return "must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
	}
	return ""
}

// ThrottleRate returns the bytes a second that a broker's replication is throttled to by
// LeaderThrottle or FollowerThrottle; 0 when there is no limit.
func (i *Image) ThrottleRate(name string, broker int32) int64 {
	text, ok := i.brokerConfigs[broker][name]
	if !ok {
		text = i.brokerConfigs[-1][name]
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n == maxRate {
		return 0
	}
	return n
}

// maxRate is Kafka's default: no limit.
const maxRate = 1<<63 - 1
