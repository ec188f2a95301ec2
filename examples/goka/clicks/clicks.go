// Package clicks is a goka program that knows nothing of Leat: it counts the
// clicks of each user. It runs on any Kafka cluster.
package clicks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"github.com/lovoo/goka/storage"
)

// The topics and the group. The group's table is clicks-per-user-table.
const (
	Clicks goka.Stream = "clicks"
	Totals goka.Stream = "click-totals"
	Group  goka.Group  = "clicks-per-user"
)

// Partitions of the topics.
const Partitions = 2

// Users who click.
var Users = []string{"ada", "edsger", "grace", "ken", "leslie"}

// Graph counts the clicks of each user and tells every new total.
func Graph() *goka.GroupGraph {
	return goka.DefineGroup(Group,
		goka.Input(Clicks, new(codec.String), func(ctx goka.Context, _ any) {
			total, _ := ctx.Value().(int64) // nil at a user's first click
			total++
			ctx.SetValue(total)
			ctx.Emit(Totals, ctx.Key(), total)
		}),
		goka.Persist(new(codec.Int64)),
		goka.Output(Totals, new(codec.Int64)),
	)
}

// EnsureTopics makes the topics that goka does not make by itself.
func EnsureTopics(brokers []string) error {
	manager, err := goka.NewTopicManager(brokers, goka.DefaultConfig(), topics())
	if err != nil {
		return err
	}
	return errors.Join(manager.EnsureStreamExists(string(Clicks), Partitions), manager.EnsureStreamExists(string(Totals), Partitions), manager.Close())
}

// topics has one replica of everything: goka asks for two, which needs two
// brokers.
func topics() *goka.TopicManagerConfig {
	c := goka.NewTopicManagerConfig()
	c.Table.Replication, c.Stream.Replication = 1, 1
	return c
}

// Emit has a user click every interval, until ctx ends.
func Emit(ctx context.Context, brokers []string, interval time.Duration, options ...goka.EmitterOption) (err error) {
	emitter, err := goka.NewEmitter(brokers, Clicks, new(codec.String), options...)
	if err != nil {
		return fmt.Errorf("clicks: emitter: %w", err)
	}
	defer func() { err = errors.Join(err, emitter.Finish()) }()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := emitter.EmitSync(Users[rand.IntN(len(Users))], "click"); err != nil {
				return fmt.Errorf("clicks: emit: %w", err)
			}
		}
	}
}

// Processor returns the program: the graph on a processor of its own, with goka's
// defaults and its table in LevelDB below dir.
func Processor(brokers []string, dir string) (*goka.Processor, error) {
	return goka.NewProcessor(brokers, Graph(),
		goka.WithTopicManagerBuilder(goka.TopicManagerBuilderWithTopicManagerConfig(topics())),
		goka.WithStorageBuilder(storage.DefaultBuilder(dir)))
}
