package streamtest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/leatlog/leat/topology/plan"
)

// cluster is topics in memory.
type cluster struct{ topics map[string][][]plan.Record }

func newCluster() *cluster { return &cluster{topics: make(map[string][][]plan.Record)} }

func (c *cluster) create(topic string, partitions int32) {
	c.topics[topic] = make([][]plan.Record, partitions)
}

// partition returns the records of a partition; offsets are indexes.
func (c *cluster) partition(topic string, partition int32) []plan.Record {
	return c.topics[topic][partition]
}

// append adds a record, which the cluster keeps.
func (c *cluster) append(topic string, partition int32, r plan.Record) {
	p := &c.topics[topic][partition]
	r.Offset = int64(len(*p))
	*p = append(*p, r)
}

func key(topic string, partition int32) string { return fmt.Sprintf("%s-%d", topic, partition) }

// pending holds what a task has written since its last commit.
type pending struct {
	cluster *cluster
	records []pendingRecord
}

type pendingRecord struct {
	topic     string
	partition int32
	record    plan.Record
}

// write puts everything into the topics.
func (p *pending) write() {
	for _, r := range p.records {
		p.cluster.append(r.topic, r.partition, r.record)
	}
	p.records = nil
}

// output implements task.Output.
type output struct {
	pending *pending
	topic   string
}

// Partitions implements task.Output.
func (o output) Partitions() int32 { return int32(len(o.pending.cluster.topics[o.topic])) }

// Append implements task.Output.
func (o output) Append(partition int32, timestamp int64, k, value []byte, headers []plan.Header) error {
	o.pending.records = append(o.pending.records, pendingRecord{o.topic, partition, plan.Record{
		Timestamp: timestamp, Key: bytes.Clone(k), Value: bytes.Clone(value), Headers: cloneHeaders(headers),
	}})
	return nil
}

func cloneHeaders(headers []plan.Header) []plan.Header {
	out := slices.Clone(headers)
	for i := range out {
		out[i].Value = bytes.Clone(out[i].Value)
	}
	return out
}

// changelogWriter implements task.Changelog.
type changelogWriter struct {
	output
	partition int32
}

// Append implements task.Changelog.
func (w changelogWriter) Append(timestamp int64, k, value []byte) error {
	return w.output.Append(w.partition, timestamp, k, value, nil)
}

// NextOffset implements task.Changelog.
func (w changelogWriter) NextOffset() int64 {
	return int64(len(w.pending.cluster.partition(w.topic, w.partition)))
}
