package brokertest_test

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatlog/leat/broker/brokertest"
)

// A reassignment that cannot end, because the node that is to copy is dead, is cancelled:
// the replicas are what they were, and the next reassignment works.
func TestReassignmentIsCancelled(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3)
	a := admin(t, c.Addrs()...)
	newTopic(t, "orders", 1, 2, nil, c.Addrs()...)
	replicas := func() []int32 { // none while the node asked does not answer
		topics, err := a.ListTopics(clusterContext(t), "orders")
		if err != nil {
			return nil
		}
		return slices.Sorted(slices.Values(topics["orders"].Partitions[0].Replicas))
	}
	before := replicas()
	if len(before) != 2 {
		t.Fatalf("replicas %v, want two", before)
	}
	dead := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return !slices.Contains(before, c.Node(i).Running().NodeID()) })
	id := c.Node(dead).Running().NodeID()
	c.Kill(dead)
	move := func(change func(*kadm.AlterPartitionAssignmentsReq)) {
		t.Helper()
		waitFor(t, "a reassignment that is taken", func() bool {
			var request kadm.AlterPartitionAssignmentsReq
			change(&request)
			answer, err := a.AlterPartitionAssignments(clusterContext(t), request)
			return err == nil && answer.Error() == nil
		})
	}
	underWay := func() int {
		list, err := a.ListPartitionReassignments(clusterContext(t), kadm.TopicsSet{"orders": {0: {}}})
		if err != nil {
			return -1
		}
		return len(list["orders"])
	}
	target := []int32{before[0], id}
	move(func(r *kadm.AlterPartitionAssignmentsReq) { r.Assign("orders", 0, target) })
	waitFor(t, "a reassignment under way", func() bool { return underWay() == 1 && len(replicas()) == 3 })
	move(func(r *kadm.AlterPartitionAssignmentsReq) { r.CancelAssign("orders", 0) })
	waitFor(t, "the replicas as they were", func() bool { return underWay() == 0 && slices.Equal(replicas(), before) })
	c.Restart(dead)
	move(func(r *kadm.AlterPartitionAssignmentsReq) { r.Assign("orders", 0, target) })
	slices.Sort(target)
	waitFor(t, "the replicas as asked", func() bool { return underWay() == 0 && slices.Equal(replicas(), target) })
}
