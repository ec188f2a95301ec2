package client

import (
	"context"
	"fmt"
	"time"

	"github.com/leatlog/leat/topology/plan"
)

// ReadToEnd gives each the records of a partition from offset from on, in order, up to the
// end that the partition has when it is called, and returns that end. Offsets that the
// partition does not have any more are left out. Records of transactions, open and aborted
// ones too, are given like others. A record is valid during the call only; an error of each
// ends the reading.
func (c *Client) ReadToEnd(ctx context.Context, p Partition, from int64, each func(*plan.Record) error) (end int64, err error) {
	start, err := c.ListOffset(ctx, p, EarliestOffset)
	if err != nil {
		return 0, err
	}
	if end, err = c.ListOffset(ctx, p, LatestOffset); err != nil {
		return 0, err
	}
	next := max(from, start)
	if next >= end {
		return end, nil
	}
	// One answer has it all, as a rule: the next request, which waits for more, is short.
	f := c.NewFetcher(FetcherConfig{MaxWait: 10 * time.Millisecond})
	defer f.Close()
	inbox := NewInbox()
	f.Add(p, next, ResetEarliest, inbox)
	var records Records
	for next < end {
		select {
		case <-inbox.Ready():
		case <-ctx.Done():
			return 0, fmt.Errorf("client: read partition %s up to offset %d: %w", p, end, ctx.Err())
		}
		for _, fetched := range inbox.Take(nil) {
			if fetched.Err != nil {
				return 0, fetched.Err
			}
			for !fetched.Done() {
				records.Reset()
				if err := fetched.Decode(&records, 1); err != nil {
					return 0, err
				}
				for i := range records.Records {
					if r := &records.Records[i]; r.Offset < end {
						if err := each(r); err != nil {
							return 0, err
						}
					}
				}
			}
			next = max(next, fetched.End())
			fetched.Release()
		}
	}
	return end, nil
}
