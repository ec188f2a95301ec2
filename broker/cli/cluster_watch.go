package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
)

// watchCommand returns `leat cluster watch`: the cluster's metadata as it changes.
func watchCommand(f *clusterFlags) *cobra.Command {
	from, limit := "end", 0
	c := &cobra.Command{
		Use:   "watch",
		Short: "Print each change of topics, partitions, brokers and settings",
		Long: `Print each change of the cluster's metadata as it is committed: topics, partitions
with their leaders and in-sync replicas, brokers, settings. They are the records of the
topic __cluster_metadata, a line for each change, with --json as objects whose schema is
in docs/metadata.md. When the broker dies, it goes on with another one of --bootstrap.

The log begins with the last checkpoint: what was decided before it is not shown.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 0 {
				return fmt.Errorf("count=%d: must be 1 or more, or 0 for no end", limit)
			}
			at, err := watchStart(from)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			w := &watcher{clusterFlags: f, next: at, left: limit, endless: limit == 0, out: c.OutOrStdout()}
			return w.run(ctx)
		},
	}
	c.Flags().StringVar(&from, "from", from, "where to begin: start, end, or an `OFFSET`")
	c.Flags().IntVar(&limit, "count", 0, "end after so many changes; 0 goes on")
	return c
}

// Offsets that stand for the ends of a log, as ListOffsets has them.
const (
	watchFromEnd   = -1
	watchFromStart = -2
)

func watchStart(text string) (int64, error) {
	switch text {
	case "end":
		return watchFromEnd, nil
	case "start":
		return watchFromStart, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("from=%.40q: must be start, end or an offset", text)
	}
	return n, nil
}

// watcher reads the metadata log.
type watcher struct {
	*clusterFlags
	next    int64 // the offset of the next entry, or one that stands for an end
	left    int
	endless bool
	out     io.Writer
}

// watchedChange is what a change is printed as with --json.
type watchedChange struct {
	Offset int64           `json:"offset"`
	Epoch  int32           `json:"epoch"`
	Time   time.Time       `json:"time"`
	Change json.RawMessage `json:"change"`
}

// errWatched ends a watch that has seen enough.
var errWatched = errors.New("all changes asked for were seen")

const (
	watchPause = 200 * time.Millisecond
	// watchWait is how long a broker waits for a change.
	watchWait = 2 * time.Second
)

// run watches until ctx ends or enough was seen, with another broker when one fails.
func (w *watcher) run(ctx context.Context) error {
	failures := 0
	for {
		before := w.next
		err := w.watch(ctx)
		if w.next != before {
			failures = 0
		}
		var refused *kerr.Error
		switch {
		case errors.Is(err, errWatched), ctx.Err() != nil:
			return nil
		case errors.As(err, &refused) && !refused.Retriable, failures > int(w.timeout/watchPause):
			return err
		}
		failures++
		timer := time.NewTimer(watchPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// watch reads from the first broker that answers until it fails.
func (w *watcher) watch(ctx context.Context) error {
	a, err := dialAny(ctx, w.bootstrap, w.timeout)
	if err != nil {
		return err
	}
	defer a.close()
	stop := context.AfterFunc(ctx, a.close)
	defer stop()
	if w.next < 0 {
		if err := w.begin(a); err != nil {
			return err
		}
	}
	for {
		if err := w.fetch(a); err != nil {
			return err
		}
	}
}

// begin finds the offset to begin at.
func (w *watcher) begin(a *asker) error {
	request := kmsg.NewPtrListOffsetsRequest()
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = w.next
	request.ReplicaID = -1
	request.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: metadata.ClusterTopic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	answer, err := a.ask(request, 4, w.timeout)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.ListOffsetsResponse)
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return fmt.Errorf("the broker answers ListOffsets with %d topics", len(response.Topics))
	}
	found := response.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
		return fmt.Errorf("where %s begins and ends: %w", metadata.ClusterTopic, err)
	}
	w.next = found.Offset
	return nil
}

// fetch reads what there is from the next offset on, and waits when there is nothing.
func (w *watcher) fetch(a *asker) error {
	request := kmsg.NewPtrFetchRequest()
	request.ReplicaID, request.MaxWaitMillis, request.MinBytes, request.MaxBytes, request.SessionEpoch = -1, int32(watchWait.Milliseconds()), 1, 8<<20, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = w.next, 8<<20, -1
	request.Topics = []kmsg.FetchRequestTopic{{Topic: metadata.ClusterTopic, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	answer, err := a.ask(request, 11, watchWait+w.timeout)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("read %s: %w", metadata.ClusterTopic, err)
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return fmt.Errorf("the broker answers Fetch with %d topics", len(response.Topics))
	}
	fetched := response.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
		return fmt.Errorf("read %s from offset %d: %w", metadata.ClusterTopic, w.next, err)
	}
	for rest := fetched.RecordBatches; len(rest) >= record.HeaderSize; {
		size := int(record.SizeOf(rest))
		if size < record.HeaderSize || size > len(rest) {
			return nil // the rest is cut: it comes whole next time
		}
		batch := record.Batch(rest[:size])
		rest = rest[size:]
		if err := batch.Validate(); err != nil {
			return fmt.Errorf("read %s at offset %d: %w", metadata.ClusterTopic, w.next, err)
		}
		if err := w.show(batch); err != nil {
			return err
		}
		w.next = batch.NextOffset()
	}
	return nil
}

// show prints the changes of an entry.
func (w *watcher) show(batch record.Batch) error {
	if batch.IsControl() || batch.LastOffset() < w.next {
		return nil
	}
	return batch.Iterate(func(r *record.Record) error {
		var entry struct {
			Changes []json.RawMessage `json:"changes"`
		}
		if err := json.Unmarshal(r.Value, &entry); err != nil {
			return fmt.Errorf("entry at offset %d of %s: %w", r.Offset, metadata.ClusterTopic, err)
		}
		for _, change := range entry.Changes {
			at := time.UnixMilli(r.Timestamp).UTC()
			var err error
			if w.json {
				err = json.NewEncoder(w.out).Encode(watchedChange{r.Offset, batch.LeaderEpoch(), at, change})
			} else {
				_, err = fmt.Fprintf(w.out, "%d  %s  %s\n", r.Offset, at.Format(time.RFC3339Nano), sentence(change))
			}
			if err != nil {
				return err
			}
			if w.left--; w.left == 0 && !w.endless {
				return errWatched
			}
		}
		return nil
	})
}

// sentence shows a change for people: its type, and its members as they come.
func sentence(change json.RawMessage) string {
	d := json.NewDecoder(strings.NewReader(string(change)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return string(change)
	}
	var words []string
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return string(change)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return string(change)
		}
		if name == "type" {
			words = append([]string{strings.Trim(string(value), `"`)}, words...)
			continue
		}
		words = append(words, fmt.Sprintf("%s=%s", name, strings.Trim(string(value), `"`)))
	}
	return strings.Join(words, " ")
}
