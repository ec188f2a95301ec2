package dump

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/record"
)

func run(t *testing.T, path string, b []byte, options Options) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := File(&out, path, bytes.NewReader(b), int64(len(b)), options)
	return out.String(), err
}

// segment builds batches one after the other.
func segment(batches ...[]byte) []byte {
	var b []byte
	next := int64(0)
	for _, one := range batches {
		batch := record.Batch(one)
		batch.SetBaseOffset(next)
		next = batch.NextOffset()
		b = append(b, one...)
	}
	return b
}

func batch(codec record.Codec, pairs ...[]byte) []byte {
	b := record.NewBuilder(codec)
	for i := 0; i < len(pairs); i += 2 {
		b.Append(1_700_000_000_000, pairs[i], pairs[i+1], nil)
	}
	return b.Build(nil)
}

func TestSegment(t *testing.T) {
	long := bytes.Repeat([]byte("abc"), 1000)
	marker := record.NewBuilder(record.CodecNone)
	marker.SetControl()
	marker.Append(1, []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 7}, nil)
	headers := record.NewBuilder(record.CodecNone)
	headers.SetProducer(4, 1, 9)
	headers.Append(2, []byte("k"), nil, []record.Header{{Key: "trace", Value: []byte{0xff}}})
	b := segment(batch(record.CodecNone, []byte("alice"), []byte("hello"), nil, []byte{}), batch(record.CodecZstd, long, long), marker.Build(nil), headers.Build(nil))
	used := len(b)
	b = append(b, make([]byte, 1000)...)
	copy(b[len(b)-markSize:], "LEATMARK")
	binary.BigEndian.PutUint64(b[len(b)-markSize+16:], uint64(used))
	binary.BigEndian.PutUint64(b[len(b)-markSize+24:], 5)

	out, err := run(t, "/data/orders-0/00000000000000000000.log", b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`batch  offset 0  last offset 1  count 2  position 0  size`, `record  offset 0  timestamp 2023-11-14T22:13:20.000Z  key "alice"  value "hello"`,
		`key null  value ""`, `codec zstd`, `key "` + string(long) + `"`, `kind commit  coordinator epoch 7`,
		`producer id 4  producer epoch 1  sequence 9`, `headers "trace"=0xff`, "preallocated", "offset 5\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%.2000s", want, out)
		}
	}
	out, err = run(t, "/data/orders-0/00000000000000000000.log", b, Options{JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var line map[string]any
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%.2000s", err, out)
		}
		kinds[line["type"].(string)]++
	}
	if kinds["batch"] != 4 || kinds["record"] != 4 || kinds["control"] != 1 || kinds["synced"] != 1 {
		t.Errorf("kinds %v", kinds)
	}
	if out, err = run(t, "x.log", b, Options{HeadersOnly: true}); err != nil || strings.Contains(out, "alice") || strings.Count(out, "batch ") != 4 {
		t.Errorf("headers only: %v\n%s", err, out)
	}
}

func TestDamage(t *testing.T) {
	whole := segment(batch(record.CodecNone, nil, []byte("one")), batch(record.CodecNone, nil, []byte("two")))
	first := len(whole) / 2
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"flipped bit": {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "position 71"},
		"cut":         {func(b []byte) []byte { return b[:len(b)-1] }, "70 are left"},
		"cut header":  {func(b []byte) []byte { return b[:first+12] }, "12 bytes are left"},
		"length":      {func(b []byte) []byte { b[8] = 0x7f; return b }, "position 0"},
		"order":       {func(b []byte) []byte { record.Batch(b[first:]).SetBaseOffset(0); return b }, "offset 0 comes after 0"},
	} {
		out, err := run(t, "a-0/0.log", c.change(bytes.Clone(whole)), Options{})
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
		if name != "length" && !strings.Contains(out, `"one"`) {
			t.Errorf("%s: what comes before is not shown:\n%s", name, out)
		}
	}
}

func TestState(t *testing.T) {
	offsetKey := kmsg.OffsetCommitKey{Version: 1, Group: "billing", Topic: "orders", Partition: 3}
	offset := kmsg.NewOffsetCommitValue()
	offset.Version, offset.Offset, offset.CommitTimestamp = 3, 42, 1000
	groupKey := kmsg.GroupMetadataKey{Version: 2, Group: "billing"}
	group := kmsg.NewGroupMetadataValue()
	group.Version, group.Generation, group.ProtocolType = 3, 8, "consumer"
	group.Members = append(group.Members, kmsg.GroupMetadataValueMember{MemberID: "m-1"})
	offsets := segment(batch(record.CodecNone, offsetKey.AppendTo(nil), offset.AppendTo(nil), groupKey.AppendTo(nil), group.AppendTo(nil),
		offsetKey.AppendTo(nil), nil, groupKey.AppendTo(nil), nil, []byte("strange"), []byte("x")))

	txnKey := kmsg.TxnMetadataKey{TransactionalID: "app-1"}
	txn := kmsg.TxnMetadataValue{ProducerID: 5, ProducerEpoch: 2, State: 1, TimeoutMillis: 60000}
	txn.Topics = append(txn.Topics, kmsg.TxnMetadataValueTopic{Topic: "orders", Partitions: []int32{0, 2}})

	for folder, c := range map[string]struct {
		bytes []byte
		want  []string
	}{
		"__consumer_offsets-7": {offsets, []string{
			`group "billing"  topic "orders"  partition 3  committed 42`, `group "billing"  generation 8  protocol type "consumer"`, "members [m-1]",
			"partition 3  removed true", `group "billing"  removed true`, `undecoded "key version 29556 is not known"`,
		}},
		"__transaction_state-1": {segment(batch(record.CodecNone, txnKey.AppendTo(nil), txn.AppendTo(nil), txnKey.AppendTo(nil), nil)), []string{
			`transactional id "app-1"  state Ongoing  producer id 5  producer epoch 2  timeout ms 60000  partitions [orders-0 orders-2]`, "removed true",
		}},
		"__cluster_metadata-0": {segment(batch(record.CodecNone, nil, []byte(`{"v":1}`), nil, []byte("{"))), []string{`metadata {"v":1}`, "is no JSON"}},
		"orders-0":             {offsets, []string{`record  offset 4`}},
	} {
		out, err := run(t, "/data/"+folder+"/00000000000000000000.log", c.bytes, Options{})
		if err != nil {
			t.Errorf("%s: %v", folder, err)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in\n%s", folder, want, out)
			}
		}
	}
}

// TestConsumerGroupState dumps records of a group of the consumer protocol, their bytes
// being as Apache Kafka's own dump tool reads them.
func TestConsumerGroupState(t *testing.T) {
	bytes := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	id := strings.Repeat("01", 16)
	records := segment(batch(record.CodecNone,
		bytes("0003 00026a67"), bytes("0000 00000003 01 00 08 0000000000000007"),
		bytes("0005 00026a67 000161"), bytes("0000 00 00 0263 022f 02 036b6b 01 00007530 00 00"),
		bytes("0006 00026a67"), bytes("0000 00000003 00"),
		bytes("0007 00026a67 000161"), bytes("0000 02 "+id+" 03 00000000 00000001 00 00"),
		bytes("0008 00026a67 000161"), bytes("0000 00000002 00000001 01 02 "+id+" 02 00000000 00 02 "+id+" 02 00000001 00 00"),
		bytes("0010 00026a67 00026b2e"), bytes("0000 02 036b6b 0000000000000005 00000000000003e8 00"),
		bytes("0005 00026a67 000161"), nil,
		bytes("0003 00026a67"), bytes("0000 0000"),
		bytes("0003 0002"), nil))
	out, err := run(t, "/data/__consumer_offsets-0/00000000000000000000.log", records, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`consumer group "jg"  epoch 3`, `member "a"  instance null  rack null  client "c"  host "/"`, `rebalance timeout ms 30000`,
		`target assignment of epoch 3`, `target "AQEBAQEBAQEBAQEBAQEBAQ[0 1]"`, `member epoch 2  previous epoch 1  state "to give partitions back"`,
		`to be given back "AQEBAQEBAQEBAQEBAQEBAQ[1]"`, `regular expression "k."`, `metadata offset 5`, `member "a"  removed true`,
		`undecoded "value of kind 3 is cut off"`, `undecoded "key of kind 3`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestIndexes(t *testing.T) {
	index := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 5), 4096)
	times := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, 1_700_000_000_000), 5)
	var aborted []byte
	aborted = append(aborted, 0, 0)
	for i := range 4 {
		aborted = binary.BigEndian.AppendUint64(aborted, uint64(10+i))
	}
	snapshot := append([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 46)...)
	binary.BigEndian.PutUint64(snapshot[10:], 77)
	binary.BigEndian.PutUint32(snapshot[2:], crc32.Checksum(snapshot[6:], crc32.MakeTable(crc32.Castagnoli)))
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"00000000000000000100.index":     {index, "entry  offset 105  position 4096\n"},
		"00000000000000000100.timeindex": {times, "entry  timestamp 2023-11-14T22:13:20.000Z  offset 105\n"},
		"00000000000000000100.txnindex":  {aborted, "entry  producer id 10  first offset 11  last offset 12  last stable offset 13\n"},
		"00000000000000000100.snapshot":  {snapshot, "producer  producer id 77  producer epoch 0  last sequence 0"},
		"leader-epoch-checkpoint":        {[]byte("0\n1\n0 0\n"), "0\n1\n0 0\n"},
	} {
		out, err := run(t, name, c.bytes, Options{})
		if err != nil || !strings.HasPrefix(out, c.want) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if strings.HasSuffix(name, "checkpoint") {
			continue
		}
		if _, err := run(t, name, c.bytes[:len(c.bytes)-1], Options{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s cut: %v", name, err)
		}
	}
}

// TestIndexRoom checks that the room an index in use has left is no entry.
func TestIndexRoom(t *testing.T) {
	index := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 5), 4096)
	if out, err := run(t, "0.index", append(index, make([]byte, 100)...), Options{}); err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("%q, %v", out, err)
	}
}

// FuzzFile looks for input that no file can hold and the command should survive.
func FuzzFile(f *testing.F) {
	names := []string{"a-0/0.log", "__consumer_offsets-0/0.log", "__transaction_state-0/0.log", "__cluster_metadata-0/0.log", "0.index", "0.timeindex", "0.txnindex", "0.snapshot"}
	f.Add(uint8(1), segment(batch(record.CodecGzip, []byte{0, 1, 0, 1, 'g'}, []byte{0, 3})))
	value := kmsg.NewTxnMetadataValue()
	value.Version, value.Topics = 1, []kmsg.TxnMetadataValueTopic{{Topic: "t", Partitions: []int32{1}}}
	f.Add(uint8(2), segment(batch(record.CodecNone, (&kmsg.TxnMetadataKey{TransactionalID: "x"}).AppendTo(nil), value.AppendTo(nil))))
	f.Add(uint8(7), []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		for off, rest := 0, b; ; {
			one, next, err := record.Parse(rest)
			if err != nil {
				break
			}
			one.SetCRC() // so that records are reached
			off += len(one)
			rest = next
		}
		_ = File(io.Discard, names[int(which)%len(names)], bytes.NewReader(b), int64(len(b)), Options{JSON: which&1 == 0})
	})
}
