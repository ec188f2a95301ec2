package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func id(n int) UUID {
	var u UUID
	binary.BigEndian.PutUint64(u[8:], uint64(n)+1)
	u[0] = byte(n * 37)
	return u
}

func text(s string) *string { return &s }

// sample holds one change of every type, in an order that applies.
func sample() []Change {
	return []Change{
		&ClusterChange{ID: id(1000).String()},
		&ControllerChange{ID: 1, Epoch: 3},
		&BrokerChange{ID: 2, Incarnation: id(2), Epoch: 0, Listeners: []Listener{{"PLAINTEXT", "127.0.0.1", 9092}}, Roles: []string{"broker"}, Fenced: true},
		&BrokerChange{ID: 1, Incarnation: id(1), Epoch: 1, Rack: "a", Listeners: []Listener{{"PLAINTEXT", "127.0.0.1", 9093}}, Fenced: true},
		&BrokerFenceChange{ID: 1, Epoch: 1},
		&BrokerRemovedChange{ID: 2},
		&TopicChange{Name: "orders", ID: id(7)},
		&PartitionChange{Topic: id(7), Partition: 0, Replicas: []int32{1}, ISR: []int32{1}, Leader: 1},
		&PartitionChange{Topic: id(7), Partition: 1, Replicas: []int32{1, 2}, ISR: []int32{1}, ELR: []int32{2}, LastKnownELR: []int32{2}, Leader: -1},
		&TopicChange{Name: "gone", ID: id(8)},
		&TopicRemovedChange{ID: id(8)},
		&ConfigChange{Resource: TopicResource, Name: "orders", Key: "retention.ms", Value: text("1")},
		&ConfigChange{Resource: TopicResource, Name: "orders", Key: "cleanup.policy", Value: text("compact")},
		&ConfigChange{Resource: TopicResource, Name: "orders", Key: "retention.ms"},
		&ConfigChange{Resource: BrokerResource, Name: "", Key: "log.retention.ms", Value: text("5")},
		&ConfigChange{Resource: BrokerResource, Name: "1", Key: "log.retention.ms", Value: text("6")},
		&ProducerIDsChange{Broker: 1, BrokerEpoch: 1, Next: 1000},
		&FeatureChange{Name: "metadata.version", Level: 1},
	}
}

func TestEncodeDecode(t *testing.T) {
	want := sample()
	got, err := Decode(Encode(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("Decode(Encode(changes)) = %v, %v; want the same changes", got, err)
	}
	if got := string(Encode([]Change{&TopicRemovedChange{ID: UUID{}}})); got != `{"v":1,"changes":[{"type":"topic-removed","id":"AAAAAAAAAAAAAAAAAAAAAA"}]}` {
		t.Errorf("the documented form is %s", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, test := range []struct {
		value string
		want  error
	}{
		{`{"v":2,"changes":[]}`, ErrVersion},
		{`{"v":0,"changes":[]}`, ErrMalformed},
		{`{"changes":[]}`, ErrMalformed},
		{``, ErrMalformed},
		{`{"v":1,"changes":[{"type":"teleport"}]}`, ErrVersion},
		{`{"v":1,"changes":[{"type":"topic-removed","id":"AAAAAAAAAAAAAAAAAAAAAA","colour":"red"}]}`, ErrVersion},
		{`{"v":1,"changes":[{"type":"topic-removed","id":"short"}]}`, ErrMalformed},
		{`{"v":1,"changes":[7]}`, ErrMalformed},
	} {
		if _, err := Decode([]byte(test.value)); !errors.Is(err, test.want) {
			t.Errorf("Decode(%s) = %v; want %v", test.value, err, test.want)
		}
	}
}

func TestApply(t *testing.T) {
	image, delta, err := Empty().Apply(5, 2, sample())
	if err != nil {
		t.Fatal(err)
	}
	if image.Offset() != 5 || image.Epoch() != 2 || image.ClusterID() != id(1000).String() || image.NextProducerID() != 1000 {
		t.Errorf("image is at %d/%d with cluster %s, next producer id %d", image.Offset(), image.Epoch(), image.ClusterID(), image.NextProducerID())
	}
	orders, ok := image.Topic("orders")
	if !ok || len(orders.Partitions) != 2 || !reflect.DeepEqual(orders.Config, map[string]string{"cleanup.policy": "compact"}) {
		t.Fatalf("topic orders = %+v, %v", orders, ok)
	}
	if byID, _ := image.TopicByID(id(7)); byID != orders {
		t.Errorf("TopicByID gives %+v", byID)
	}
	if b := image.Brokers(); len(b) != 1 || b[0].ID != 1 || b[0].Fenced || !image.Alive(1) || image.Alive(2) {
		t.Errorf("brokers = %+v", b)
	}
	if image.TopicCount() != 1 || image.PartitionCount() != 2 || image.NextBrokerEpoch() != 2 {
		t.Errorf("%d topics, %d partitions, next broker epoch %d", image.TopicCount(), image.PartitionCount(), image.NextBrokerEpoch())
	}
	if len(delta.TopicsCreated) != 1 || len(delta.TopicsRemoved) != 0 || len(delta.PartitionsChanged) != 2 || len(delta.TopicConfigs) != 0 ||
		!slices.Equal(delta.BrokersChanged, []int32{1, 2}) || !slices.Equal(delta.BrokerConfigsChanged, []int32{-1, 1}) {
		t.Errorf("delta = %+v", delta)
	}

	// A change of one partition leaves the earlier image as it was.
	next, delta, err := image.Apply(6, 2, []Change{
		&PartitionChange{Topic: id(7), Partition: 1, Replicas: []int32{1, 2}, ISR: []int32{1}, Leader: 1, LeaderEpoch: 1, PartitionEpoch: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if orders.Partitions[1].Leader != -1 {
		t.Error("the earlier image changed")
	}
	if len(delta.PartitionsChanged) != 1 || delta.PartitionsChanged[0].Old.Leader != -1 || delta.PartitionsChanged[0].New.Leader != 1 || len(delta.TopicsCreated) != 0 {
		t.Errorf("delta = %+v", delta)
	}
	if !reflect.DeepEqual(Diff(image, next), delta) {
		t.Errorf("Diff = %+v, Apply's delta = %+v", Diff(image, next), delta)
	}
}

func TestApplyRefuses(t *testing.T) {
	image, _, err := Empty().Apply(5, 2, sample())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Change{
		&ClusterChange{ID: "another"},
		&BrokerFenceChange{ID: 1, Epoch: 0},
		&BrokerRemovedChange{ID: 9},
		&TopicChange{Name: "orders", ID: id(99)},
		&TopicChange{Name: "../etc", ID: id(99)},
		&TopicChange{Name: "other", ID: id(7)},
		&TopicChange{Name: "other"},
		&TopicRemovedChange{ID: id(99)},
		&PartitionChange{Topic: id(99), Replicas: []int32{1}},
		&PartitionChange{Topic: id(7), Partition: 1 << 30, Replicas: []int32{1}},
		&PartitionChange{Topic: id(7), Partition: -1, Replicas: []int32{1}},
		&PartitionChange{Topic: id(7), Partition: 2},
		&PartitionChange{Topic: id(7), Partition: 0, Replicas: []int32{1}, LeaderEpoch: -1},
		&ConfigChange{Resource: TopicResource, Name: "gone", Key: "retention.ms"},
		&ConfigChange{Resource: BrokerResource, Name: "x", Key: "retention.ms"},
		&ProducerIDsChange{Next: 1},
	} {
		if _, _, err := image.Apply(6, 2, []Change{c}); !errors.Is(err, ErrInconsistent) {
			t.Errorf("Apply(%s %+v) = %v; want ErrInconsistent", c.kind(), c, err)
		}
	}
	if _, _, err := image.Apply(4, 2, nil); !errors.Is(err, ErrInconsistent) {
		t.Errorf("Apply at an earlier offset = %v", err)
	}
}

func TestSnapshot(t *testing.T) {
	image, _, err := Empty().Apply(5, 2, sample())
	if err != nil {
		t.Fatal(err)
	}
	snapshot := image.Encode()
	restored, err := DecodeImage(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(restored.Encode(), snapshot) {
		t.Errorf("the restored image encodes to\n%s\nwant\n%s", restored.Encode(), snapshot)
	}
	if d := Diff(image, restored); !reflect.DeepEqual(d, &Delta{Offset: 5}) {
		t.Errorf("the restored image differs: %+v", d)
	}
	if restored.NextBrokerEpoch() != image.NextBrokerEpoch() {
		t.Error("the broker epoch counter is lost")
	}
	empty, err := DecodeImage(Empty().Encode())
	if err != nil || empty.Offset() != -1 {
		t.Errorf("the empty image restores to offset %d, %v", empty.Offset(), err)
	}
}

// TestImagesAgree applies random changes one by one, and compares with a plain
// model, with the image restored from a snapshot, and with Diff.
func TestImagesAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		image, model := Empty(), map[string]UUID{}
		epochs := map[UUID]int32{}
		for step := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			name := fmt.Sprintf("t%d", rapid.IntRange(0, 5).Draw(rt, "topic"))
			topic, exists := model[name]
			var changes []Change
			switch {
			case !exists:
				topic = id(step)
				model[name] = topic
				changes = append(changes, &TopicChange{Name: name, ID: topic},
					&PartitionChange{Topic: topic, Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})
			case rapid.Bool().Draw(rt, "remove"):
				delete(model, name)
				changes = append(changes, &TopicRemovedChange{ID: topic})
			default:
				epochs[topic]++
				changes = append(changes,
					&PartitionChange{Topic: topic, Replicas: []int32{1}, Leader: 1, PartitionEpoch: epochs[topic]},
					&ConfigChange{Resource: TopicResource, Name: name, Key: "segment.ms", Value: text(fmt.Sprint(step))})
			}
			next, delta, err := image.Apply(int64(step), 0, changes)
			if err != nil {
				rt.Fatal(err)
			}
			if d := Diff(image, next); !reflect.DeepEqual(d, delta) {
				rt.Fatalf("step %d: Diff %+v, delta %+v", step, d, delta)
			}
			image = next
		}
		if image.TopicCount() != len(model) || len(image.Topics()) != len(model) {
			rt.Fatalf("%d topics, want %d", image.TopicCount(), len(model))
		}
		for name, topic := range model {
			if got, ok := image.Topic(name); !ok || got.ID != topic || got.Partitions[0].PartitionEpoch != epochs[topic] {
				rt.Fatalf("topic %s = %+v", name, got)
			}
		}
		restored, err := DecodeImage(image.Encode())
		if err != nil || !reflect.DeepEqual(Diff(image, restored), &Delta{Offset: image.Offset()}) {
			rt.Fatalf("restored image differs: %v, %+v", err, Diff(image, restored))
		}
	})
}

func TestUUID(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("a", 23), strings.Repeat("=", 22), strings.Repeat("+", 22)} {
		if u, err := ParseUUID(s); err == nil {
			t.Errorf("ParseUUID(%q) = %v", s, u)
		}
	}
	// The first sixteen bytes would give a leading dash.
	random := append(bytes.Repeat([]byte{0xfb}, 16), bytes.Repeat([]byte{1}, 16)...)
	u, err := NewUUID(bytes.NewReader(random))
	if err != nil || u.String() != "AQEBAQEBQQGBAQEBAQEBAQ" {
		t.Errorf("NewUUID = %v, %v", u, err)
	}
	if back, err := ParseUUID(u.String()); err != nil || back != u {
		t.Errorf("ParseUUID(%s) = %v, %v", u, back, err)
	}
	if _, err := NewUUID(bytes.NewReader(nil)); err == nil {
		t.Error("NewUUID without randomness gives no error")
	}
}

func TestTopicName(t *testing.T) {
	for name, want := range map[string]bool{
		"": false, ".": false, "..": false, "a": true, "A.b_c-9": true, "...": true, "a/b": false, "a b": false, "ä": false,
		strings.Repeat("x", 249): true, strings.Repeat("x", 250): false, "a\x00": false,
	} {
		if err := ValidateTopicName(name); (err == nil) != want {
			t.Errorf("ValidateTopicName(%.20q) = %v", name, err)
		}
	}
	image, _, err := Empty().Apply(0, 0, []Change{&TopicChange{Name: "a.b_c", ID: id(1)}, &TopicChange{Name: "plain", ID: id(2)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a_b.c": "a.b_c", "a.b_c": "", "a-b-c": "", "plain": "", "a_b": ""} {
		if got, _ := image.Collision(name); got != want {
			t.Errorf("Collision(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(sample()))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		changes, err := Decode(value)
		if err != nil {
			return
		}
		// A list may be absent or empty: the same to Apply, and the same once encoded.
		encoded := Encode(changes)
		again, err := Decode(encoded)
		if err != nil || !bytes.Equal(Encode(again), encoded) {
			t.Fatalf("%s, %v does not come back as %s", Encode(again), err, encoded)
		}
		_, _, _ = Empty().Apply(0, 0, changes)
	})
}

func FuzzDecodeImage(f *testing.F) {
	image, _, err := Empty().Apply(5, 2, sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image.Encode())
	f.Fuzz(func(t *testing.T, snapshot []byte) {
		image, err := DecodeImage(snapshot)
		if err != nil {
			return
		}
		if _, err := DecodeImage(image.Encode()); err != nil {
			t.Fatalf("an image that decoded does not decode again: %v", err)
		}
	})
}

func BenchmarkApplyPartitionAmongThousands(b *testing.B) {
	var changes []Change
	for n := range 10_000 {
		changes = append(changes, &TopicChange{Name: fmt.Sprintf("topic-%d", n), ID: id(n)},
			&PartitionChange{Topic: id(n), Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})
	}
	image, _, err := Empty().Apply(0, 0, changes)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		image, _, err = image.Apply(int64(n), 0, []Change{&PartitionChange{Topic: id(77), Replicas: []int32{1}, PartitionEpoch: int32(n)}})
		if err != nil {
			b.Fatal(err)
		}
	}
}
