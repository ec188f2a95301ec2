package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/stream/client"
)

// publisher writes activity to its topic, and says of each when the cluster has it.
type publisher struct {
	client *client.Client
	// now stamps the records.
	now func() time.Time
	// tick is the time between two ticks.
	tick    time.Duration
	waiting chan published
}

// published is an activity on its way; done gets what became of it.
type published struct {
	visitor  string
	activity Activity
	done     chan error
}

const (
	// flushActivity is how much is written and acknowledged together, at most.
	flushActivity = 500
	// publishTimeout bounds one attempt.
	publishTimeout = 10 * time.Second
)

var errStopping = errors.New("the program ends")

func newPublisher(c *client.Client, now func() time.Time, tick time.Duration) *publisher {
	return &publisher{client: c, now: now, tick: tick, waiting: make(chan published, flushActivity)}
}

// publish returns when the cluster has acknowledged the activity. Safe for concurrent use.
func (p *publisher) publish(ctx context.Context, visitor string, a Activity) error {
	one := published{visitor: visitor, activity: a, done: make(chan error, 1)}
	select {
	case p.waiting <- one:
	case <-ctx.Done():
		return errStopping
	}
	select {
	case err := <-one.done:
		return err
	case <-ctx.Done():
		return errStopping
	}
}

// run writes what is published, and ticks, until ctx ends.
func (p *publisher) run(ctx context.Context, log func(error)) {
	ticker := time.NewTicker(p.tick)
	defer ticker.Stop()
	var producer *client.Producer
	defer func() {
		if producer != nil {
			producer.Close()
		}
	}()
	for {
		var batch []published
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case one := <-p.waiting:
			batch = append(batch, one)
		more:
			for len(batch) < flushActivity {
				select {
				case one := <-p.waiting:
					batch = append(batch, one)
				default:
					break more
				}
			}
		}
		var err error
		if producer, err = p.write(ctx, producer, batch); err != nil {
			log(err)
		}
		for _, one := range batch {
			one.done <- err
		}
	}
}

// write writes a batch, or a tick when there is none, with a new producer if need be. It
// returns the producer to go on with, nil when it has failed.
func (p *publisher) write(ctx context.Context, producer *client.Producer, batch []published) (*client.Producer, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if producer == nil {
		var err error
		if producer, err = p.client.NewProducer(ctx, client.ProducerConfig{}); err != nil {
			return nil, err
		}
	}
	err := p.append(ctx, producer, batch)
	if err == nil {
		err = producer.Flush(ctx)
	}
	if err != nil {
		producer.Close()
		return nil, fmt.Errorf("write to %s: %w", activityTopic.Name, err)
	}
	return producer, nil
}

func (p *publisher) append(ctx context.Context, producer *client.Producer, batch []published) error {
	topic, err := producer.Topic(ctx, activityTopic.Name)
	if err != nil {
		return err
	}
	now := p.now().UTC().Truncate(time.Millisecond)
	if len(batch) == 0 {
		value, err := json.Marshal(Activity{Kind: kindTick, Time: now})
		if err != nil {
			return err
		}
		for partition := range topic.Partitions() {
			if err := topic.Append(partition, now.UnixMilli(), []byte{}, value, nil); err != nil {
				return err
			}
		}
	}
	for _, one := range batch {
		one.activity.Time = now
		value, err := json.Marshal(one.activity)
		if err != nil {
			return err
		}
		if err := topic.AppendByKey(now.UnixMilli(), []byte(one.visitor), value, nil); err != nil {
			return err
		}
	}
	return nil
}
