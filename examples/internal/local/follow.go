package local

import (
	"context"
	"fmt"
	"time"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// Following says which topics an example shows.
type Following struct {
	// From are the topics, each with the time of the first record to show; zero: from its
	// beginning.
	From          map[string]time.Time
	Partitions    int32 // of each of them
	ReadCommitted bool  // leave out what transactions have not committed
}

// Follow calls take with each record of some topics, as they come, until ctx ends or take
// fails. The record is take's during the call.
func Follow(ctx context.Context, c *client.Client, what Following, take func(client.Partition, *plan.Record) error) error {
	fetcher := c.NewFetcher(client.FetcherConfig{ReadCommitted: what.ReadCommitted})
	defer fetcher.Close()
	inbox := client.NewInbox()
	for topic, since := range what.From {
		for partition := range what.Partitions {
			p := client.Partition{Topic: topic, Partition: partition}
			offset, err := offsetSince(ctx, c, p, since)
			if err != nil {
				return fmt.Errorf("follow %s: %w", p, err)
			}
			fetcher.Add(p, offset, client.ResetEarliest, inbox)
		}
	}
	var fetched []*client.Fetched
	var records client.Records
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-inbox.Ready():
		}
		fetched = inbox.Take(fetched[:0])
		for _, f := range fetched {
			if err := takeAll(f, &records, take); err != nil {
				return fmt.Errorf("follow %s: %w", f.Partition, err)
			}
			f.Release()
		}
	}
}

// offsetSince returns the offset of the first record that is not older; of the next one
// that comes when all are.
func offsetSince(ctx context.Context, c *client.Client, p client.Partition, since time.Time) (int64, error) {
	if since.IsZero() {
		return 0, nil // ResetEarliest finds the beginning
	}
	offset, err := c.ListOffset(ctx, p, since.UnixMilli())
	if err == nil && offset < 0 { // there is nothing as young as that
		return c.ListOffset(ctx, p, client.LatestOffset)
	}
	return offset, err
}

func takeAll(f *client.Fetched, records *client.Records, take func(client.Partition, *plan.Record) error) error {
	const chunk = 500
	if f.Err != nil {
		return f.Err
	}
	for !f.Done() {
		records.Reset()
		if err := f.Decode(records, chunk); err != nil {
			return err
		}
		for i := range records.Records {
			if err := take(f.Partition, &records.Records[i]); err != nil {
				return fmt.Errorf("record %d: %w", records.Records[i].Offset, err)
			}
		}
	}
	return nil
}
