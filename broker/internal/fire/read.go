package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// stableEnds waits until no transaction is open, and returns the ends of all partitions.
func (c *cluster) stableEnds() (map[place]int64, error) {
	ends := map[place]int64{}
	_, err := await(time.Minute, func(ctx context.Context) error {
		last, err := c.admin.ListEndOffsets(ctx, sortedKeys(partitions)...)
		if err != nil {
			return err
		}
		stable, err := c.admin.ListCommittedOffsets(ctx, sortedKeys(partitions)...)
		if err != nil {
			return err
		}
		for topic, count := range partitions {
			for p := range count {
				end, ok := last.Lookup(topic, p)
				committed, also := stable.Lookup(topic, p)
				if !ok || !also || end.Err != nil || committed.Err != nil || end.Offset != committed.Offset {
					return fmt.Errorf("%s-%d: the last stable offset is %v, the end %v", topic, p, committed, end)
				}
				ends[place{topic, p}] = end.Offset
			}
		}
		return nil
	})
	return ends, err
}

// read reads all partitions up to their ends.
func (c *cluster) read(ends map[place]int64, isolation kgo.IsolationLevel) (contents, error) {
	from, missing := map[string]map[int32]kgo.Offset{}, map[place]bool{}
	for p, end := range ends {
		if from[p.topic] == nil {
			from[p.topic] = map[int32]kgo.Offset{}
		}
		from[p.topic][p.partition] = kgo.NewOffset().At(0)
		missing[p] = end > 0
	}
	client, err := kgo.NewClient(append(clientOptions(c.addresses()), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), healing)
	defer cancel()
	log := contents{}
	for slices.Contains(slices.Collect(maps.Values(missing)), true) {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read everything: not within %v; missing are the ends of %v", healing, missing)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := place{r.Topic, r.Partition}
			if r.Offset+1 >= ends[p] {
				missing[p] = false
			}
			if !r.Attrs.IsControl() && r.Offset < ends[p] {
				log[p] = append(log[p], entry{r.Offset, string(r.Value)})
			}
		})
	}
	return log, nil
}

// withoutProbes leaves out what the harness has written.
func withoutProbes(log contents) contents {
	rest := contents{}
	for p, list := range log {
		rest[p] = slices.DeleteFunc(slices.Clone(list), func(e entry) bool { return e.value == probeValue })
	}
	return rest
}
