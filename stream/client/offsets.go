package client

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Times that ListOffsets understands besides milliseconds since the epoch.
const (
	// LatestOffset asks for the offset of the next record.
	LatestOffset int64 = -1
	// EarliestOffset asks for the oldest record's.
	EarliestOffset int64 = -2
)

// ListOffsets returns, for each partition, the offset of the first record whose
// timestamp is at least at (ms), or LatestOffset or EarliestOffset; -1 when
// there is no such record. committed asks for the last stable offset as the
// latest.
func (c *Client) ListOffsets(ctx context.Context, partitions []Partition, at int64, committed bool) (map[Partition]int64, error) {
	offsets := make(map[Partition]int64, len(partitions))
	todo := partitions
	for try := 1; len(todo) > 0; try++ {
		failed, err := c.listOffsetsOnce(ctx, todo, at, committed, offsets)
		if err != nil {
			return nil, err
		}
		todo = failed
		if len(todo) > 0 && !c.sleep(ctx, backoff(try)) {
			return nil, fmt.Errorf("client: list offsets of %s: %w", todo[0], ctx.Err())
		}
	}
	return offsets, nil
}

// listOffsetsOnce fills offsets and returns the partitions to ask for again.
func (c *Client) listOffsetsOnce(ctx context.Context, partitions []Partition, at int64, committed bool, offsets map[Partition]int64) ([]Partition, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	if committed {
		req.IsolationLevel = 1
	}
	index := make(map[string]int)
	for _, p := range partitions {
		i, ok := index[p.Topic]
		if !ok {
			i = len(req.Topics)
			index[p.Topic] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = p.Topic
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p.Partition, at
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, c.kgo)
	if err != nil {
		return nil, fmt.Errorf("client: list offsets of %s: %w", partitions[0], known(c.closedOr(err)))
	}
	var again []Partition
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			rp := &resp.Topics[i].Partitions[j]
			p := Partition{resp.Topics[i].Topic, rp.Partition}
			switch err := codeError(rp.ErrorCode); {
			case err == nil:
				offsets[p] = rp.Offset
			case staleMetadata(rp.ErrorCode):
				if topics, metaErr := c.Topics(ctx, p.Topic); metaErr == nil && topics[p.Topic] == nil {
					return nil, fmt.Errorf("client: list offsets of %s: %w", p, ErrUnknownTopic)
				}
				again = append(again, p)
			default:
				return nil, fmt.Errorf("client: list offsets of %s: %w", p, err)
			}
		}
	}
	return again, nil
}

// ListOffset is ListOffsets of one partition.
func (c *Client) ListOffset(ctx context.Context, p Partition, at int64) (int64, error) {
	offsets, err := c.ListOffsets(ctx, []Partition{p}, at, false)
	if err != nil {
		return 0, err
	}
	return offsets[p], nil
}
