package plan_test

import (
	"fmt"

	"github.com/leatlog/leat/topology/plan"
)

// The names of the internal topics follow from the names in the topology.
func Example() {
	fmt.Println(plan.RepartitionTopic("shop", "by-customer"))
	fmt.Println(plan.ChangelogTopic("shop", "totals"))
	fmt.Println(plan.TaskID{SubTopology: 1, Partition: 3})
	// Output:
	// shop-by-customer-repartition
	// shop-totals-changelog
	// 1_3
}
