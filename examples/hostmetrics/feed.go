package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

const (
	// partitions of the example's topics: two tasks share the work.
	partitions = 2
	// history is how far back the page shows closed windows when it starts.
	history = time.Hour
	// keepSamples bounds the samples that wait while the cluster does not answer.
	keepSamples = 20_000
	// flushSamples are written and acknowledged together. They fit in one batch of
	// a partition, which is why their offsets follow each other.
	flushSamples = 500
)

// createTopics makes the example's topics unless they are there.
func createTopics(ctx context.Context, c *client.Client) error {
	for _, topic := range []struct {
		name      string
		retention time.Duration
	}{{samplesTopic.Name, 24 * time.Hour}, {rollupsTopic.Name, 7 * 24 * time.Hour}, {liveTopic.Name, time.Hour}} {
		err := c.CreateTopics(ctx, client.NewTopic{
			Name: topic.name, Partitions: partitions, Replication: -1,
			Config: map[string]string{"retention.ms": strconv.FormatInt(topic.retention.Milliseconds(), 10)},
		})
		if err != nil && !errors.Is(err, client.ErrTopicExists) {
			return fmt.Errorf("create topic %q: %w", topic.name, err)
		}
	}
	return nil
}

// publisher writes samples to host-metrics.
type publisher struct {
	client  *client.Client
	log     zerolog.Logger
	board   *board
	waiting []Sample // not acknowledged yet
	// acknowledged is told of every sample after its acknowledgement.
	acknowledged *acknowledgedFile
}

// run publishes what read returns, every interval until ctx ends. The last
// samples are acknowledged when it returns, unless the cluster does not answer.
func (p *publisher) run(ctx context.Context, interval time.Duration, read func(context.Context, time.Time) ([]Sample, error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var producer *client.Producer
	defer func() {
		if producer != nil {
			producer.Close()
		}
	}()
	var unreadable string
	for {
		samples, err := read(ctx, time.Now())
		if err != nil && err.Error() != unreadable && ctx.Err() == nil {
			unreadable = err.Error()
			p.log.Warn().Err(err).Msg("some metrics cannot be read on this machine; the others go on")
		}
		p.waiting = append(p.waiting, samples...)
		if lost := len(p.waiting) - keepSamples; lost > 0 {
			p.log.Error().Int("samples", lost).Msg("the cluster has not answered for too long: the oldest samples are given up")
			p.waiting = p.waiting[lost:]
		}
		producer, err = p.publish(producer)
		p.board.published(err)
		if err != nil {
			p.log.Warn().Err(err).Int("waiting", len(p.waiting)).Msg("publishing failed; trying again with the next samples")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// publishTimeout bounds one attempt, and so how long the end of the program
// waits.
const publishTimeout = 10 * time.Second

// publish writes what waits, with a new producer when there is none. It returns
// the producer to go on with, nil when it has failed.
func (p *publisher) publish(producer *client.Producer) (*client.Producer, error) {
	if len(p.waiting) == 0 {
		return producer, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
	defer cancel()
	if producer == nil {
		var err error
		if producer, err = p.client.NewProducer(ctx, client.ProducerConfig{Codec: client.LZ4}); err != nil {
			return nil, err
		}
	}
	for len(p.waiting) > 0 {
		samples := p.waiting[:min(flushSamples, len(p.waiting))]
		list, err := write(ctx, producer, samples)
		if err != nil {
			producer.Close()
			return nil, err
		}
		p.board.sampled(len(samples))
		p.waiting = p.waiting[len(samples):]
		if err := p.acknowledged.write(list); err != nil {
			return producer, fmt.Errorf("write what is acknowledged: %w", err)
		}
	}
	return producer, nil
}

// write returns when the samples are acknowledged, and where they are.
func write(ctx context.Context, producer *client.Producer, samples []Sample) ([]acknowledgement, error) {
	topic, err := producer.Topic(ctx, samplesTopic.Name)
	if err != nil {
		return nil, err
	}
	list := make([]acknowledgement, 0, len(samples))
	counts := make([]int64, topic.Partitions())
	for _, s := range samples {
		value, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("sample of %q: %w", s.Metric, err)
		}
		partition := client.PartitionOf([]byte(s.Metric), topic.Partitions())
		if err := topic.Append(partition, s.Time.UnixMilli(), []byte(s.Metric), value, nil); err != nil {
			return nil, err
		}
		list = append(list, acknowledgement{Partition: partition, Offset: counts[partition], Key: s.Metric, Value: value})
		counts[partition]++
	}
	if err := producer.Flush(ctx); err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Offset += topic.NextOffset(list[i].Partition) - counts[list[i].Partition]
	}
	return list, nil
}

// follow shows the rollups on the board until ctx ends: the closed windows of the
// last hour and all that come, and open windows as they change.
func follow(ctx context.Context, c *client.Client, b *board, log zerolog.Logger) error {
	from := map[string]time.Time{rollupsTopic.Name: time.Now().Add(-history), liveTopic.Name: time.Now().Add(-10 * time.Second)}
	return local.Follow(ctx, c, local.Following{From: from, Partitions: partitions}, func(p client.Partition, r *plan.Record) error {
		var rollup Rollup
		if err := json.Unmarshal(r.Value, &rollup); err != nil {
			log.Warn().Err(err).Stringer("partition", p).Int64("offset", r.Offset).Msg("this record is no rollup")
			return nil
		}
		b.show(rollup)
		return nil
	})
}
