package streamtest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// Input writes a topic that the topology reads.
type Input[K, V any] struct {
	driver *Driver
	topic  topology.Topic[K, V]
	turn   int32
}

// NewInput returns the input of a topic.
func NewInput[K, V any](d *Driver, topic topology.Topic[K, V]) *Input[K, V] {
	d.t.Helper()
	d.check(topic.Name)
	return &Input[K, V]{driver: d, topic: topic}
}

func (d *Driver) check(topic string) {
	d.t.Helper()
	if _, ok := d.log.topics[topic]; !ok {
		d.t.Fatalf("streamtest: the topology neither reads nor writes topic %q", topic)
	}
}

// Send writes a record with a timestamp, on the partition of its key, and runs
// it. A nil key or value is null.
func (in *Input[K, V]) Send(key K, value V, at time.Time, headers ...topology.Header) {
	in.driver.t.Helper()
	in.driver.must(in.TrySend(key, value, at, headers...))
}

// TrySend is Send that returns the topology's error. After an error the topology
// has stopped; Crash starts it again from its last commit.
func (in *Input[K, V]) TrySend(key K, value V, at time.Time, headers ...topology.Header) error {
	in.driver.t.Helper()
	k, err := encode(in.topic.Key, key)
	if err != nil {
		in.driver.t.Fatalf("streamtest: topic %q: key %v: %v", in.topic.Name, key, err)
	}
	v, err := encode(in.topic.Value, value)
	if err != nil {
		in.driver.t.Fatalf("streamtest: topic %q: value %v: %v", in.topic.Name, value, err)
	}
	return in.send(plan.Record{Timestamp: at.UnixMilli(), Key: k, Value: v, Headers: headers})
}

// SendNull writes a record with a null value: a tombstone.
func (in *Input[K, V]) SendNull(key K, at time.Time) {
	in.driver.t.Helper()
	k, err := encode(in.topic.Key, key)
	if err != nil {
		in.driver.t.Fatalf("streamtest: topic %q: key %v: %v", in.topic.Name, key, err)
	}
	in.driver.must(in.send(plan.Record{Timestamp: at.UnixMilli(), Key: k}))
}

// SendRaw writes a record as bytes, such as one that no serde would write.
func (in *Input[K, V]) SendRaw(key, value []byte, at time.Time) error {
	in.driver.t.Helper()
	return in.send(plan.Record{Timestamp: at.UnixMilli(), Key: key, Value: value})
}

func (in *Input[K, V]) send(r plan.Record) error {
	d := in.driver
	n := int32(len(d.log.topics[in.topic.Name]))
	partition := in.turn % n
	if r.Key != nil {
		partition = client.PartitionOf(r.Key, n)
	} else {
		in.turn++
	}
	d.log.append(in.topic.Name, partition, r)
	return d.settle(false)
}

// Record is what Output reads.
type Record[K, V any] struct {
	Key   K
	Value V
	// NullKey and Null say that the record has no key, or no value.
	NullKey, Null bool
	Time          time.Time
	Partition     int32
	Offset        int64
	Headers       []topology.Header
}

// String tells key, value and time.
func (r Record[K, V]) String() string {
	k, v := fmt.Sprint(r.Key), fmt.Sprint(r.Value)
	if r.NullKey {
		k = "null"
	}
	if r.Null {
		v = "null"
	}
	return fmt.Sprintf("%s: %s @ %s", k, v, r.Time.Format(time.RFC3339Nano))
}

// Output reads a topic that the topology writes.
type Output[K, V any] struct {
	driver *Driver
	topic  topology.Topic[K, V]
	next   []int
}

// NewOutput returns the output of a topic; it begins with the oldest record.
func NewOutput[K, V any](d *Driver, topic topology.Topic[K, V]) *Output[K, V] {
	d.t.Helper()
	d.check(topic.Name)
	return &Output[K, V]{driver: d, topic: topic, next: make([]int, len(d.log.topics[topic.Name]))}
}

// Read returns what has been written since the last Read, partition by partition.
func (out *Output[K, V]) Read() []Record[K, V] {
	d := out.driver
	d.t.Helper()
	var list []Record[K, V]
	for p := range out.next {
		records := d.log.partition(out.topic.Name, int32(p))
		for ; out.next[p] < len(records); out.next[p]++ {
			list = append(list, out.decode(int32(p), &records[out.next[p]]))
		}
	}
	return list
}

// ReadStrings is Read with each record's String.
func (out *Output[K, V]) ReadStrings() []string {
	out.driver.t.Helper()
	var list []string
	for _, r := range out.Read() {
		list = append(list, r.String())
	}
	return list
}

func (out *Output[K, V]) decode(partition int32, raw *plan.Record) Record[K, V] {
	d := out.driver
	d.t.Helper()
	r := Record[K, V]{
		NullKey: raw.Key == nil, Null: raw.Value == nil, Time: time.UnixMilli(raw.Timestamp).UTC(),
		Partition: partition, Offset: raw.Offset, Headers: raw.Headers,
	}
	var err error
	if !r.NullKey {
		if r.Key, err = out.topic.Key.Decode(raw.Key); err != nil {
			d.t.Fatalf("streamtest: key of %s-%d@%d: %v", out.topic.Name, partition, raw.Offset, err)
		}
	}
	if !r.Null {
		if r.Value, err = out.topic.Value.Decode(raw.Value); err != nil {
			d.t.Fatalf("streamtest: value of %s-%d@%d: %v", out.topic.Name, partition, raw.Offset, err)
		}
	}
	return r
}

// encode writes v; nil of a type that has it is null.
func encode[T any](s topology.Serde[T], v T) ([]byte, error) {
	switch r := reflect.ValueOf(&v).Elem(); r.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		if r.IsNil() {
			return nil, nil
		}
	}
	return s.Append([]byte{}, v)
}
