package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/stream/client"
)

const (
	// partitions of the example's topics.
	partitions = 2
	// lookEvery is the time between two looks at the files, findEvery between two
	// looks for new ones.
	lookEvery = 250 * time.Millisecond
	findEvery = 5 * time.Second
	// readBytes is how much of a file is published at a time.
	readBytes = 256 << 10
	// lastBytes is how much of a file that is new to the example is read.
	lastBytes = 64 << 10
)

// createTopics makes the example's topics unless they are there.
func createTopics(ctx context.Context, c *client.Client) error {
	for _, topic := range []string{linesTopic.Name, entriesTopic.Name, countsTopic.Name, deadLetters} {
		err := c.CreateTopics(ctx, client.NewTopic{
			Name: topic, Partitions: partitions, Replication: -1,
			Config: map[string]string{"retention.ms": strconv.FormatInt((7 * 24 * time.Hour).Milliseconds(), 10)},
		})
		if err != nil && !errors.Is(err, client.ErrTopicExists) {
			return fmt.Errorf("create topic %q: %w", topic, err)
		}
	}
	return nil
}

// shipper publishes the lines of files as they grow.
type shipper struct {
	client    *client.Client
	log       zerolog.Logger
	patterns  []string
	fromStart bool
	positions *positions

	tails    map[string]*tail
	problems map[string]string // by file, as last told
	producer *client.Producer
}

// run ships until ctx ends.
func (s *shipper) run(ctx context.Context) error {
	s.tails, s.problems = make(map[string]*tail), make(map[string]string)
	defer func() {
		for _, t := range s.tails {
			t.close()
		}
		if s.producer != nil {
			s.producer.Close()
		}
	}()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var found time.Time
	for {
		if time.Since(found) >= findEvery {
			if err := s.find(); err != nil {
				return err
			}
			found = time.Now()
		}
		for _, t := range s.tails {
			if err := s.ship(ctx, t); err != nil && ctx.Err() == nil {
				s.tell(t.path, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// find looks for files that match the patterns.
func (s *shipper) find() error {
	for _, pattern := range s.patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
		for _, path := range paths {
			if path, err = filepath.Abs(path); err != nil {
				return err
			}
			if s.tails[path] != nil {
				continue
			}
			t := &tail{path: path}
			if next, ok := s.positions.next[path]; ok {
				t.offset = next
			} else if !s.fromStart {
				t.startAtLast(lastBytes)
			}
			s.tails[path] = t
		}
	}
	return nil
}

// ship publishes what a file has to give, and then remembers how far it was read.
func (s *shipper) ship(ctx context.Context, t *tail) error {
	for ctx.Err() == nil {
		lines, err := t.read(readBytes)
		if err != nil || len(lines) == 0 {
			return err
		}
		if err := s.publish(ctx, lines); err != nil {
			// The lines come again, with a new producer.
			if s.producer != nil {
				s.producer.Close()
				s.producer = nil
			}
			t.close()
			t.offset = s.positions.next[t.path]
			return fmt.Errorf("publish: %w", err)
		}
		s.positions.next[t.path] = t.offset
		if err := s.positions.save(); err != nil {
			return fmt.Errorf("save the positions: %w", err)
		}
		s.problems[t.path] = ""
	}
	return nil
}

// publish returns when the lines are acknowledged.
func (s *shipper) publish(ctx context.Context, lines []Line) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if s.producer == nil {
		var err error
		if s.producer, err = s.client.NewProducer(ctx, client.ProducerConfig{Codec: client.Zstd}); err != nil {
			return err
		}
	}
	topic, err := s.producer.Topic(ctx, linesTopic.Name)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	for _, l := range lines {
		key := []byte(l.Source)
		if err := topic.Append(client.PartitionOf(key, topic.Partitions()), now, key, []byte(l.Text), nil); err != nil {
			return err
		}
	}
	return s.producer.Flush(ctx)
}

// tell logs a file's problem once, until it changes.
func (s *shipper) tell(path string, err error) {
	if s.problems[path] != err.Error() {
		s.problems[path] = err.Error()
		s.log.Warn().Err(err).Str("file", path).Msg("this file is not read for now; it is tried again")
	}
}
