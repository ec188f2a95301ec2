package sim

import (
	"fmt"
	"testing"

	"github.com/leatlog/leat/broker/internal/record"
)

// TestCheckerNoticesEveryChange commits a history of a hundred batches and shows it again
// with each of them changed in turn.
func TestCheckerNoticesEveryChange(t *testing.T) {
	if missed := missedChanges(); missed > 0 {
		t.Errorf("%d of 100 changes of what was committed passed the checker", missed)
	}
}

func missedChanges() (missed int) {
	for changed := range 100 {
		c := &Cluster{}
		c.s = newScheduler(1, c.fail)
		c.checks = newChecks(c)
		tp := topicPartition{"t", 0}
		for n := range 100 {
			c.checks.committedBatch(1, tp, historyBatch(n, "as it was"))
		}
		for n := range 100 {
			value := "as it was"
			if n == changed {
				value = "otherwise"
			}
			c.checks.committedBatch(2, tp, historyBatch(n, value))
		}
		if len(c.errs) == 0 {
			missed++
		}
	}
	return missed
}

func historyBatch(offset int, value string) record.Batch {
	b := record.NewBuilder(record.CodecNone)
	b.SetProducer(7, 0, int32(offset))
	b.Append(1, nil, []byte(fmt.Sprintf("7:%d:%s", offset, value)), nil)
	batch := record.Batch(b.Build(nil))
	batch.SetBaseOffset(int64(offset))
	return batch
}

// TestCheckerNoticesLostRecords acknowledges records of which a replica has others, or none.
func TestCheckerNoticesLostRecords(t *testing.T) {
	for name, show := range map[string]func(c *Cluster, tp topicPartition){
		"other bytes where something was acknowledged": func(c *Cluster, tp topicPartition) {
			c.checks.acknowledged(tp, 0, []string{"7:0:acknowledged"})
			c.checks.committedBatch(1, tp, historyBatch(0, "other"))
		},
		"acknowledged twice at one offset": func(c *Cluster, tp topicPartition) {
			c.checks.acknowledged(tp, 0, []string{"7:0:a"})
			c.checks.acknowledged(tp, 0, []string{"8:0:b"})
		},
		"a record twice": func(c *Cluster, tp topicPartition) {
			again := historyBatch(0, "a")
			c.checks.committedBatch(1, tp, historyBatch(0, "a"))
			again.SetBaseOffset(1)
			c.checks.committedBatch(1, tp, again)
			c.checks.sequences(tp)
		},
		"a record missing": func(c *Cluster, tp topicPartition) {
			next := historyBatch(2, "c")
			c.checks.committedBatch(1, tp, historyBatch(0, "a"))
			next.SetBaseOffset(1)
			c.checks.committedBatch(1, tp, next)
			c.checks.sequences(tp)
		},
		"something where nothing was committed": func(c *Cluster, tp topicPartition) {
			c.checks.committedBatch(1, tp, historyBatch(5, "a"))
			c.checks.committedBatch(2, tp, historyBatch(3, "b"))
		},
		"two leaders of an epoch": func(c *Cluster, tp topicPartition) {
			c.checks.leads(1, leadership{tp, 4})
			c.checks.leads(2, leadership{tp, 4})
		},
		"two controllers of an epoch": func(c *Cluster, _ topicPartition) {
			c.checks.controller(1, 4)
			c.checks.controller(2, 4)
		},
		"other metadata": func(c *Cluster, _ topicPartition) {
			c.checks.entry(1, 9, 2, 0xaa)
			c.checks.entry(2, 9, 2, 0xbb)
		},
		"a producer id given twice": func(c *Cluster, _ topicPartition) {
			c.checks.producerID(3, 1000)
			c.checks.producerID(3, 1001)
		},
	} {
		c := &Cluster{}
		c.s = newScheduler(1, c.fail)
		c.checks = newChecks(c)
		show(c, topicPartition{"t", 0})
		if len(c.errs) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}
