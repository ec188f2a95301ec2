package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s-%d", p.topic, p.partition) }

// entry is a record that was read when all faults had ended.
type entry struct {
	offset int64
	value  string
}

// contents is what was read of partitions, by ascending offsets.
type contents map[place][]entry

func (c contents) at(p place, offset int64) (string, bool) {
	list := c[p]
	i, ok := slices.BinarySearchFunc(list, offset, func(e entry, o int64) int { return int(e.offset - o) })
	if !ok {
		return "", false
	}
	return list[i].value, true
}

// sorted returns the partitions in order, so that the same history gives the same report.
func (c contents) sorted() []place {
	return slices.SortedFunc(maps.Keys(c), func(a, b place) int { return strings.Compare(a.String(), b.String()) })
}

// violations are what a checker found, the first few of them with their words.
type violations struct {
	list []string
	more int
}

const mostViolations = 20

func (v *violations) add(format string, args ...any) {
	if len(v.list) == mostViolations {
		v.more++
		return
	}
	v.list = append(v.list, fmt.Sprintf(format, args...))
}

func (v *violations) count() int { return len(v.list) + v.more }

// err returns the first violation, nil without one.
func (v *violations) err() error {
	if v.count() == 0 {
		return nil
	}
	return errors.New(v.list[0])
}

// checkAcknowledged finds acknowledged records that are not where the producer was told,
// and records at offsets that two were acknowledged at.
func checkAcknowledged(v *violations, ops []operation, log contents) {
	type spot struct {
		place
		offset int64
	}
	told := map[spot]string{}
	for _, op := range ops {
		if op.Kind != produced || op.Outcome != succeeded {
			continue
		}
		at := spot{place{op.Topic, op.Partition}, op.Offset}
		if before, twice := told[at]; twice {
			v.add("%s at offset %d: both %q and %q were acknowledged there", at.place, op.Offset, before, op.Value)
		}
		told[at] = op.Value
		switch got, ok := log.at(at.place, op.Offset); {
		case !ok:
			v.add("%s: acknowledged record %q is lost from offset %d", at.place, op.Value, op.Offset)
		case got != op.Value:
			v.add("%s: offset %d holds %q, acknowledged was %q", at.place, op.Offset, got, op.Value)
		}
	}
}

// checkWritten finds records that nobody has written.
func checkWritten(v *violations, ops []operation, log contents) {
	written := map[string]bool{}
	for _, op := range ops {
		switch op.Kind {
		case produced:
			written[op.Value] = true
		case transacted:
			for _, value := range op.Values {
				written[value] = true
			}
		}
	}
	for _, p := range log.sorted() {
		for _, e := range log[p] {
			if !written[e.value] {
				v.add("%s: nobody wrote %q at offset %d", p, e.value, e.offset)
			}
		}
	}
}

// number splits a value, which is PRODUCER/NUMBER.
func number(value string) (string, int) {
	producer, n, _ := strings.Cut(value, "/")
	i, err := strconv.Atoi(n)
	if err != nil {
		return value, -1
	}
	return producer, i
}

// checkOrder finds records that are there twice, or not in the order in which their
// producer wrote them to the partition. It holds for idempotent producers.
func checkOrder(v *violations, log contents, topic string) {
	where := map[string]string{}
	for _, p := range log.sorted() {
		if p.topic != topic {
			continue
		}
		last := map[string]int{}
		for _, e := range log[p] {
			at := fmt.Sprintf("%s@%d", p, e.offset)
			if before, twice := where[e.value]; twice {
				v.add("record %q is duplicated: at %s and at %s", e.value, before, at)
				continue
			}
			where[e.value] = at
			producer, n := number(e.value)
			if before, ok := last[producer]; ok && n < before {
				v.add("%s: record %q comes after %s/%d: reordered", at, e.value, producer, before)
			}
			last[producer] = n
		}
	}
}

// checkTransactions finds transactions that are torn, lost or seen though aborted.
func checkTransactions(v *violations, ops []operation, readCommitted contents, topic string) {
	seen := map[string]int{}
	for p, list := range readCommitted {
		if p.topic != topic {
			continue
		}
		for _, e := range list {
			seen[e.value]++
		}
	}
	for _, op := range ops {
		if op.Kind != transacted {
			continue
		}
		there, name := 0, op.Client
		if len(op.Values) > 0 {
			name = op.Values[0]
		}
		for _, value := range op.Values {
			if seen[value] > 1 {
				v.add("transaction %s: record %q is there %d times", name, value, seen[value])
			}
			if seen[value] > 0 {
				there++
			}
		}
		switch {
		case op.Outcome == succeeded && there != len(op.Values):
			v.add("transaction %s was committed: %d of its %d records are there", name, there, len(op.Values))
		case op.Outcome == failed && there != 0:
			v.add("transaction %s was not committed: %d of its %d records are read as committed", name, there, len(op.Values))
		case op.Outcome == unknown && there != 0 && there != len(op.Values):
			v.add("transaction %s is torn: %d of its %d records are there", name, there, len(op.Values))
		}
	}
}

// checkOffsets finds committed offsets of groups that went back, that nobody committed,
// or that are beyond the end. A commit of unknown outcome may take effect at any time after its call.
func checkOffsets(v *violations, ops []operation, ends map[place]int64) {
	type owner struct {
		group string
		place
	}
	commits := map[owner][]operation{}
	for _, op := range ops {
		if op.Kind == committed {
			o := owner{op.Group, place{op.Topic, op.Partition}}
			commits[o] = append(commits[o], op)
		}
	}
	for _, op := range ops {
		if op.Kind != fetched || op.Outcome != succeeded {
			continue
		}
		o := owner{op.Group, place{op.Topic, op.Partition}}
		least, known := int64(-1), op.Offset == -1
		for _, c := range commits[o] {
			if c.Outcome == succeeded && c.Return < op.Call {
				least = max(least, c.Offset)
			}
			if c.Offset == op.Offset && c.Outcome != failed && c.Call < op.Return {
				known = true
			}
		}
		late := slices.ContainsFunc(commits[o], func(c operation) bool {
			return c.Outcome == unknown && c.Offset == op.Offset && c.Call < op.Return
		})
		switch {
		case !known:
			v.add("group %s, %s: offset %d was never committed", o.group, o.place, op.Offset)
		case op.Offset < least && !late:
			v.add("group %s, %s: the offset went back to %d after %d was committed", o.group, o.place, op.Offset, least)
		}
		if end, ok := ends[o.place]; ok && op.Offset > end {
			v.add("group %s, %s: committed offset %d is beyond the end %d", o.group, o.place, op.Offset, end)
		}
	}
}

// checkConsumed finds records that a consumer has read and that are not in the log, or
// another is in their place, and records that the group has passed without reading.
func checkConsumed(v *violations, ops []operation, log contents) {
	type owner struct {
		group string
		place
	}
	read, passed := map[owner]map[int64]bool{}, map[owner]int64{}
	for _, op := range ops {
		o := owner{op.Group, place{op.Topic, op.Partition}}
		switch {
		case op.Kind == consumed && op.Outcome == succeeded:
			if read[o] == nil {
				read[o] = map[int64]bool{}
			}
			read[o][op.Offset] = true
			if got, ok := log.at(o.place, op.Offset); !ok || got != op.Value {
				v.add("%s: a consumer read %q at offset %d, where now is %q (found: %t)", o.place, op.Value, op.Offset, got, ok)
			}
		case op.Kind == committed && op.Outcome == succeeded:
			passed[o] = max(passed[o], op.Offset)
		}
	}
	for o, end := range passed {
		for _, e := range log[o.place] {
			if e.offset < end && !read[o][e.offset] {
				v.add("group %s, %s: offset %d was committed past, and nobody read offset %d", o.group, o.place, end, e.offset)
			}
		}
	}
}

// checkReplicas finds partitions of which replicas are not alike below the high
// watermark: each batch, byte for byte.
func checkReplicas(v *violations, replicas map[string][]batch, highWatermark int64, partition place) {
	var first string
	for _, node := range slices.Sorted(maps.Keys(replicas)) {
		list := replicas[node]
		next := int64(0)
		for _, b := range list {
			if b.base != next {
				v.add("%s on %s: a batch begins at offset %d, expected was %d", partition, node, b.base, next)
			}
			next = b.last + 1
		}
		if next < highWatermark {
			v.add("%s on %s: ends at offset %d, the high watermark is %d", partition, node, next, highWatermark)
		}
		if first == "" {
			first = node
			continue
		}
		for i, b := range list {
			if b.base >= highWatermark {
				break
			}
			if i >= len(replicas[first]) || replicas[first][i] != b {
				v.add("%s: the batch at offset %d differs between %s and %s", partition, b.base, first, node)
				break
			}
		}
	}
}
