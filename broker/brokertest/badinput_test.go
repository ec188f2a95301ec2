package brokertest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/record"
)

// maxGrowth is how much memory bad input may take.
const maxGrowth = 64 << 20

// badInput is a broker that gets bad input, and a bystander who uses it meanwhile.
type badInput struct {
	t         *testing.T
	b         *brokertest.Broker
	bystander *kgo.Client
	records   int
	apis      []kmsg.ApiVersionsResponseApiKey
	parent    []string // what lies beside the data directory
	dir       string
	address   string // that gets it: of the node which leads the bystander's topic
	log       *errorLog
	heap      uint64

	stop, stopped chan struct{}
	mu            sync.Mutex
	peak          uint64
}

func newBadInput(t *testing.T) *badInput {
	dir := filepath.Join(t.TempDir(), "data")
	log := &errorLog{}
	b := brokertest.Start(t, brokertest.Dir(dir), brokertest.Set("auto.create.topics.enable", "false"), brokertest.Configure(func(c *broker.Config) {
		logger := zerolog.New(log)
		c.Environment.Logger = &logger
	}))
	createTopic(t, b, "bystander", 1, nil)
	i := &badInput{t: t, b: b, dir: dir, log: log, stop: make(chan struct{}), stopped: make(chan struct{})}
	i.bystander = newClient(t, b, kgo.ConsumeTopics("bystander"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DefaultProduceTopic("bystander"), kgo.ProducerLinger(0))
	i.address = leaderAddress(t, i.bystander, "bystander")
	i.apis = i.versions()
	i.parent = names(t, filepath.Dir(dir))
	i.check()
	usual := debug.SetGCPercent(20) // so that little garbage counts, however busy the machine is
	t.Cleanup(func() { debug.SetGCPercent(usual) })
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	i.heap = heapBytes()
	go i.watch()
	t.Cleanup(func() {
		close(i.stop)
		<-i.stopped
	})
	return i
}

// errorLog keeps what the broker logs as warnings and errors: a client's mistake is
// none of them.
type errorLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *errorLog) Write(p []byte) (int, error) { return len(p), nil }

// WriteLevel implements zerolog.LevelWriter.
func (l *errorLog) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if level >= zerolog.WarnLevel {
		l.mu.Lock()
		l.lines = append(l.lines, string(p))
		l.mu.Unlock()
	}
	return len(p), nil
}

func (l *errorLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

// watch notes the most memory that is in use or not yet collected.
func (i *badInput) watch() {
	defer close(i.stopped)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-i.stop:
			return
		case <-tick.C:
		}
		i.mu.Lock()
		i.peak = max(i.peak, heapBytes())
		i.mu.Unlock()
	}
}

func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// check has the bystander write and read on connections that were there before,
// and looks at the memory and at the directory.
func (i *badInput) check() {
	i.t.Helper()
	ctx := testContext(i.t)
	text := fmt.Appendf(nil, "bystander %d", i.records)
	if err := i.bystander.ProduceSync(ctx, &kgo.Record{Value: text}).FirstErr(); err != nil {
		i.t.Fatalf("the bystander cannot produce: %v", err)
	}
	for found := false; !found; {
		fetches := i.bystander.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			i.t.Fatalf("the bystander cannot fetch: %v", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if want := fmt.Sprintf("bystander %d", i.records); string(r.Value) != want {
				i.t.Fatalf("the bystander read %q, want %q", r.Value, want)
			}
			i.records++
			found = true
		})
	}
	if got := names(i.t, filepath.Dir(i.dir)); !slices.Equal(got, i.parent) {
		i.t.Fatalf("beside the data directory are %q, before %q", got, i.parent)
	}
	i.log.mu.Lock()
	defer i.log.mu.Unlock()
	if len(i.log.lines) > 0 {
		i.t.Fatalf("the broker complains: %q", i.log.lines)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.peak > i.heap && i.peak-i.heap > maxGrowth {
		i.t.Fatalf("the heap grew by %d MiB", (i.peak-i.heap)>>20)
	}
}

// wireConn is a raw connection.
type wireConn struct {
	net.Conn
	t *testing.T
}

func (i *badInput) dial() *wireConn {
	i.t.Helper()
	c, err := i.b.Dial(context.Background(), "tcp", i.address)
	if err != nil {
		i.t.Fatal(err)
	}
	return &wireConn{c, i.t}
}

// receive reads an answer and returns it without size and correlation id.
func (c *wireConn) receive(wait time.Duration) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head)-4)
	_, err := io.ReadFull(c, body)
	return body, err
}

// request sends a request and decodes the answer.
func (c *wireConn) request(r kmsg.Request, version int16) (kmsg.Response, error) {
	r.SetVersion(version)
	if _, err := c.Write(encode(r)); err != nil {
		return nil, err
	}
	body, err := c.receive(testTimeout)
	if err != nil {
		return nil, err
	}
	response := r.ResponseKind()
	if r.IsFlexible() && r.Key() != 18 {
		body = body[1:]
	}
	return response, response.ReadFrom(body)
}

// encode returns the whole frame of a request.
func encode(r kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("bad")).AppendRequest(nil, r, 1)
}

func (i *badInput) versions() []kmsg.ApiVersionsResponseApiKey {
	i.t.Helper()
	c := i.dial()
	defer c.Close()
	response, err := c.request(kmsg.NewPtrApiVersionsRequest(), 0)
	if err != nil {
		i.t.Fatal(err)
	}
	return response.(*kmsg.ApiVersionsResponse).ApiKeys
}

// send sends bytes on a connection of their own and waits until the broker answers
// or closes, unless it may park the request.
func (i *badInput) send(frame []byte, mayPark bool) {
	i.t.Helper()
	c := i.dial()
	defer c.Close()
	_, _ = c.Write(frame) // fails when the broker has closed already
	wait := testTimeout
	if mayPark {
		wait = 2 * time.Millisecond
	}
	if _, err := c.receive(wait); errors.Is(err, os.ErrDeadlineExceeded) && !mayPark {
		i.t.Fatalf("neither an answer nor the end to %d bytes %.60x", len(frame), frame)
	}
}

// parks says that requests of the API, or mutants of them, may have to wait.
func parks(key int16) bool { return key == 0 || key == 1 || key == 11 || key == 14 }

// resize sets the size field to the length that a frame has.
func resize(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// everyVersion calls f with a request of random content for each API and version
// that the broker tells of. Names of topics are such that nothing is created.
func (i *badInput) everyVersion(f func(r *rand.Rand, frame []byte, mayPark bool)) {
	for _, api := range i.apis {
		for version := api.MinVersion; version <= api.MaxVersion; version++ {
			r := rand.New(rand.NewPCG(uint64(api.ApiKey), uint64(version)))
			request := kmsg.RequestForKey(api.ApiKey)
			randomize(r, reflect.ValueOf(request).Elem())
			request.SetVersion(version)
			f(r, encode(request), parks(api.ApiKey))
		}
	}
}

// randomize fills v: texts with control characters and dots, numbers at the
// borders.
func randomize(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			randomize(r, v.Elem())
		}
	case reflect.Struct:
		for n := range v.NumField() {
			if f := v.Field(n); f.CanSet() && v.Type().Field(n).Name != "Version" {
				randomize(r, f)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(2), 2))
		for n := range v.Len() {
			randomize(r, v.Index(n))
		}
	case reflect.Array:
		for n := range v.Len() {
			randomize(r, v.Index(n))
		}
	case reflect.String:
		v.SetString(badNames[r.IntN(len(badNames))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Float64:
		v.SetFloat([]float64{0, -1, math.NaN(), math.Inf(1)}[r.IntN(4)])
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() & (1<<v.Type().Bits() - 1))
	default:
		v.SetInt([]int64{0, 1, -1, -2, -3, 7, math.MaxInt64, math.MinInt64, math.MaxInt32}[r.IntN(9)]) // truncated
	}
}

// badNames are no topic names.
var badNames = []string{"", ".", "..", "../../etc", "/tmp/x", "a/b", "nul\x00", "esc\x1b[2J", "line\nbreak", "\xff\xfe", "ö", strings.Repeat("x", 300)}

func TestBadInput(t *testing.T) {
	i := newBadInput(t)
	for _, class := range []struct {
		name string
		send func(*badInput)
	}{
		{"sizes", sendSizes},
		{"other protocols", sendOtherProtocols},
		{"random frames", sendRandomFrames},
		{"truncated frames", sendTruncated},
		{"changed bytes", sendChanged},
		{"length bombs", sendLengthBombs},
		{"long varints and repeated tags", sendVarintsAndTags},
		{"unknown keys and versions", sendUnknown},
		{"extreme values", sendExtremes},
		{"claims", sendClaims},
		{"bombs of elements", sendElements},
		{"names", sendNames},
		{"numbers of fetch", sendFetchNumbers},
		{"batch lies", sendBatchLies},
		{"decompression bombs", sendDecompressionBombs},
		{"groups", sendGroupGarbage},
		{"abandoned requests", sendAbandoned},
	} {
		t.Run(class.name, func(t *testing.T) {
			i.t = t
			class.send(i)
			i.check()
		})
	}
	i.t = t
	i.b.Restart() // what is on disk can be read
	if nodes() > 1 {
		i.log.forget() // nodes that end at once complain of one another
	}
	i.check()
	t.Logf("the heap grew by at most %d KiB", (max(i.peak, i.heap)-i.heap)>>10)
}

func sendSizes(i *badInput) {
	for _, size := range []uint32{0, 1, 7, 0xffffffff, 0x80000000, 0x7fffffff, 100<<20 + 1} {
		frame := binary.BigEndian.AppendUint32(nil, size)
		i.send(append(frame, 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0), false)
	}
}

func sendOtherProtocols(i *badInput) {
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: broker:9092\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls", "SSH-2.0-OpenSSH_9.6\r\n", "*1\r\n$4\r\nPING\r\n"} {
		i.send([]byte(text), false)
	}
}

func sendRandomFrames(i *badInput) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		frame := make([]byte, 12+r.IntN(200))
		for n := range frame {
			frame[n] = byte(r.Uint32())
		}
		api := i.apis[r.IntN(len(i.apis))]
		binary.BigEndian.PutUint16(frame[4:], uint16(api.ApiKey))
		binary.BigEndian.PutUint16(frame[6:], uint16(api.MinVersion+int16(r.IntN(int(api.MaxVersion-api.MinVersion)+1))))
		i.send(resize(frame), parks(api.ApiKey))
	}
}

func sendTruncated(i *badInput) {
	i.everyVersion(func(r *rand.Rand, frame []byte, mayPark bool) {
		for range 3 { // a whole frame that ends within its fields
			i.send(resize(slices.Clone(frame[:12+r.IntN(len(frame)-11)])), mayPark)
		}
		c := i.dial() // a frame that does not come
		_, _ = c.Write(frame[:r.IntN(len(frame))])
		c.Close()
	})
}

func sendChanged(i *badInput) {
	i.everyVersion(func(r *rand.Rand, frame []byte, mayPark bool) {
		for range 4 {
			changed := slices.Clone(frame)
			for range 1 + r.IntN(3) {
				changed[8+r.IntN(len(frame)-8)] ^= byte(1 << r.IntN(8))
			}
			i.send(changed, mayPark)
		}
	})
}

func sendLengthBombs(i *badInput) {
	bombs := [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0x00, 0xff, 0xff, 0xff}, {0x80, 0, 0, 0}, {0x7f, 0xff}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0x80, 0x80, 0x40}}
	zeros := make([]byte, 64<<10)
	i.everyVersion(func(r *rand.Rand, frame []byte, mayPark bool) {
		for n := range 6 {
			bomb, at := bombs[n], 12+r.IntN(len(frame)-12)
			rest := frame[min(len(frame), at+len(bomb)):]
			if n%2 == 0 {
				rest = zeros
			}
			i.send(resize(slices.Concat(frame[:at], bomb, rest)), mayPark)
		}
	})
}

func sendVarintsAndTags(i *badInput) {
	null := []byte{0xff, 0xff}
	for _, header := range [][]byte{
		{0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0xff}, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
		{2, 7, 0, 7, 0}, {2, 7, 0, 6, 0}, {1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}, {127, 0, 0},
	} {
		for _, api := range i.apis {
			request := kmsg.RequestForKey(api.ApiKey)
			request.SetVersion(api.MaxVersion)
			if !request.IsFlexible() {
				continue
			}
			frame := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(api.ApiKey))
			frame = binary.BigEndian.AppendUint16(frame, uint16(api.MaxVersion))
			frame = append(frame, 0, 0, 0, 1)
			frame = append(append(frame, null...), header...)
			i.send(resize(append(frame, make([]byte, 40)...)), parks(api.ApiKey))
		}
	}
}

func sendUnknown(i *badInput) {
	known := map[int16]kmsg.ApiVersionsResponseApiKey{}
	for _, api := range i.apis {
		known[api.ApiKey] = api
	}
	header := func(key, version int16) []byte {
		frame := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(key))
		frame = binary.BigEndian.AppendUint16(frame, uint16(version))
		return resize(append(frame, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0))
	}
	for key := int16(-1); key < 110; key++ {
		if api, ok := known[key]; ok {
			for _, version := range []int16{-1, api.MinVersion - 1, api.MaxVersion + 1, math.MaxInt16} {
				i.send(header(key, version), false)
			}
			continue
		}
		i.send(header(key, 0), false)
	}
	i.send(header(0, 2), false) // told to clients, but not served
}

func sendExtremes(i *badInput) {
	for range 3 {
		i.everyVersion(func(_ *rand.Rand, frame []byte, mayPark bool) { i.send(frame, mayPark) })
	}
}

// sendClaims opens connections that say they will send much and do not.
func sendClaims(i *badInput) {
	for range 100 {
		c := i.dial()
		defer c.Close()
		frame := binary.BigEndian.AppendUint32(nil, 99<<20)
		_, _ = c.Write(append(frame, 0, 0, 0, 9, 0, 0, 0, 1))
	}
	i.check()
}

// sendElements sends frames of 1 MiB with the most elements that they may have.
func sendElements(i *badInput) {
	many := make([]byte, 1<<20) // empty names and arrays, tags that are none
	for _, api := range i.apis {
		request := kmsg.RequestForKey(api.ApiKey)
		request.SetVersion(api.MaxVersion)
		frame := encode(request)
		for _, at := range []int{16, 17, 18, 19, 23} {
			for _, count := range []int{len(many) / 2, 60_000} {
				if at >= len(frame) {
					continue
				}
				compact, plain := binary.AppendUvarint(nil, uint64(count)), binary.BigEndian.AppendUint32(nil, uint32(count))
				i.send(resize(slices.Concat(frame[:at], compact, many)), parks(api.ApiKey))
				i.send(resize(slices.Concat(frame[:at], plain, many)), parks(api.ApiKey))
			}
		}
	}
}

func sendNames(i *badInput) {
	c := i.dial()
	defer c.Close()
	for _, name := range badNames {
		create := kmsg.NewPtrCreateTopicsRequest()
		create.TimeoutMillis = 1000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
		create.Topics = append(create.Topics, topic)
		response, err := c.request(create, 7)
		if err != nil || response.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 17 {
			i.t.Fatalf("create topic %q: %v %+v", name, err, response)
		}
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorKeys = []string{name}
		if _, err := c.request(find, 4); err != nil {
			i.t.Fatalf("find the coordinator of group %q: %v", name, err)
		}
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group, commit.MemberID = name, name
		commitTopic := kmsg.NewOffsetCommitRequestTopic()
		commitTopic.Topic = name
		commitTopic.Partitions = append(commitTopic.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		commit.Topics = append(commit.Topics, commitTopic)
		if _, err := c.request(commit, 8); err != nil {
			i.t.Fatalf("commit an offset of group %q: %v", name, err)
		}
		metadata := kmsg.NewPtrMetadataRequest()
		metadata.AllowAutoTopicCreation = true
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = &name
		metadata.Topics = append(metadata.Topics, asked)
		if _, err := c.request(metadata, 12); err != nil {
			i.t.Fatalf("metadata of %q: %v", name, err)
		}
		formatter := kmsg.NewRequestFormatter(kmsg.FormatterClientID(name)) // as a client id
		i.send(formatter.AppendRequest(nil, kmsg.NewPtrApiVersionsRequest(), 1), false)
	}
}

func sendFetchNumbers(i *badInput) {
	for _, n := range []int32{-1, 0, 1, math.MaxInt32, math.MinInt32} {
		for _, offset := range []int64{-1, 0, 1, math.MaxInt64, math.MinInt64} {
			c := i.dial()
			fetch := kmsg.NewPtrFetchRequest()
			fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes, fetch.SessionEpoch = 0, n, n, -1
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic = "bystander"
			for _, number := range []int32{0, n} {
				p := kmsg.NewFetchRequestTopicPartition()
				p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch, p.LastFetchedEpoch = number, offset, n, -1, -1
				topic.Partitions = append(topic.Partitions, p)
			}
			fetch.Topics = append(fetch.Topics, topic)
			if _, err := c.request(fetch, 12); err != nil {
				i.t.Fatalf("fetch with %d at %d: %v", n, offset, err)
			}
			list := kmsg.NewPtrListOffsetsRequest()
			listed := kmsg.NewListOffsetsRequestTopic()
			listed.Topic = "bystander"
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Timestamp, p.CurrentLeaderEpoch = offset, n
			listed.Partitions = append(listed.Partitions, p)
			list.Topics = append(list.Topics, listed)
			if _, err := c.request(list, 7); err != nil {
				i.t.Fatalf("list offsets at %d: %v", offset, err)
			}
			c.Close()
		}
	}
}

// lie is a record batch that must be refused.
type lie struct {
	name  string
	batch []byte
	code  int16 // of the answer
	kafka int16 // of Kafka 4.1's answer, 0 when it is the same
}

// Kafka's error codes of batches, and two answers that only it gives.
const (
	corrupt      int16 = 2
	invalid      int16 = 87
	noCodec      int16 = 76
	accepts      int16 = -100
	noAnswer     int16 = -101
	unknownError int16 = -1
)

// lies are made of a good batch of three records.
func lies() []lie {
	builder := record.NewBuilder(record.CodecNone)
	for n := range 3 {
		builder.Append(1_700_000_000_000, nil, value(n), nil)
	}
	good := builder.Build(nil)
	change := func(sum bool, at int, to ...byte) []byte {
		b := slices.Clone(good)
		copy(b[at:], to)
		if sum {
			record.Batch(b).SetCRC()
		}
		return b
	}
	longer := append(slices.Clone(good), 1, 2, 3)
	return []lie{
		{"wrong CRC", change(false, 17, 1, 2, 3, 4), corrupt, 0},
		{"changed record", change(false, len(good)-1, 0xee), corrupt, 0},
		{"magic 0", change(false, 16, 0), invalid, 0},
		{"magic 1", change(false, 16, 1), invalid, 0},
		{"magic 3", change(false, 16, 3), invalid, corrupt},
		{"base offset 5", change(false, 0, 0, 0, 0, 0, 0, 0, 0, 5), invalid, 0},
		{"length too large", change(false, 8, 0, 1, 0, 0), invalid, 0},
		{"length too small", change(false, 8, 0, 0, 0, 9), corrupt, 0},
		{"negative length", change(false, 8, 0xff, 0xff, 0xff, 0xff), corrupt, 0},
		{"shorter than a header", good[:40], invalid, 0},
		{"cut off", good[:len(good)-2], invalid, 0},
		{"more behind", longer, invalid, accepts},
		{"two batches", append(slices.Clone(good), good...), invalid, 0},
		{"count of 2", change(true, 57, 0, 0, 0, 2), invalid, 0},
		{"count of 0", change(true, 57, 0, 0, 0, 0), invalid, 0},
		{"negative count", change(true, 57, 0xff, 0xff, 0xff, 0xff), corrupt, invalid},
		{"huge count", change(true, 57, 0x7f, 0xff, 0xff, 0xff), corrupt, invalid},
		{"last offset delta of 9", change(true, 23, 0, 0, 0, 9), invalid, 0},
		{"negative last offset delta", change(true, 23, 0xff, 0xff, 0xff, 0xff), corrupt, invalid},
		{"control batch", change(true, 21, 0, 0x20), invalid, 0},
		{"unknown codec", change(true, 21, 0, 7), noCodec, unknownError},
		{"sequence without an epoch", change(true, 43, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0xff, 0xff, 0xff, 0xff), invalid, 0},
		{"nothing", nil, invalid, noAnswer},
	}
}

func sendBatchLies(i *badInput) {
	before := endOffset(i.t, i.b, "bystander", 0)
	c := i.dial()
	defer c.Close()
	for _, l := range lies() {
		for _, version := range []int16{3, 9, 12} {
			response, err := c.request(produceOf("bystander", l.batch), version)
			if err != nil {
				i.t.Fatalf("%s: %v", l.name, err)
			}
			p := response.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			if p.ErrorCode == 0 || p.BaseOffset != -1 {
				i.t.Errorf("%s: error %d, offset %d", l.name, p.ErrorCode, p.BaseOffset)
			}
			if p.ErrorCode != l.code {
				i.t.Errorf("%s: error %d, want %d", l.name, p.ErrorCode, l.code)
			}
		}
	}
	if after := endOffset(i.t, i.b, "bystander", 0); after != before {
		i.t.Errorf("the log grew from %d to %d", before, after)
	}
}

func produceOf(topic string, batch []byte) kmsg.Request {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = 1, 1000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	return r
}

func sendGroupGarbage(i *badInput) {
	garbage := bytes.Repeat([]byte{0xff}, 100<<10)
	for n := range 20 {
		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = "garbage", "consumer", 1000, 100
		protocol := kmsg.NewJoinGroupRequestProtocol()
		protocol.Name, protocol.Metadata = "range", garbage[:n*5000]
		join.Protocols = append(join.Protocols, protocol)
		c := i.dial()
		response, err := c.request(join, 3)
		if err != nil {
			i.t.Fatalf("join with %d bytes: %v", n*5000, err)
		}
		joined := response.(*kmsg.JoinGroupResponse)
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.MemberID, sync.Generation = "garbage", joined.MemberID, joined.Generation
		assignment := kmsg.NewSyncGroupRequestGroupAssignment()
		assignment.MemberID, assignment.MemberAssignment = joined.MemberID, garbage
		sync.GroupAssignment = append(sync.GroupAssignment, assignment)
		if _, err := c.request(sync, 3); err != nil {
			i.t.Fatal(err)
		}
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = "garbage", joined.MemberID
		if _, err := c.request(leave, 2); err != nil {
			i.t.Fatal(err)
		}
		c.Close()
	}
	if _, err := kadm.NewClient(i.bystander).DescribeGroups(testContext(i.t), "garbage"); err != nil {
		i.t.Fatal(err)
	}
}

// sendAbandoned pipelines requests that wait, and goes away.
func sendAbandoned(i *badInput) {
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes, fetch.SessionEpoch = 60_000, 1<<20, 1<<20, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "bystander"
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch, p.LastFetchedEpoch = int64(i.records), 1<<20, -1, -1
	topic.Partitions = append(topic.Partitions, p)
	fetch.Topics = append(fetch.Topics, topic)
	fetch.SetVersion(12)
	frame := encode(fetch)
	before := runtime.NumGoroutine()
	for range 50 {
		c := i.dial()
		for range 60 {
			_, _ = c.Write(frame)
		}
		c.Close()
	}
	eventually(i.t, "the goroutines of abandoned connections end", func() bool { return runtime.NumGoroutine() <= before+10 })
}

// TestLiesAsKafka has an Apache Kafka at LEAT_TEST_ORACLE=HOST:PORT refuse the
// lies, with the topic as-kafka-lies.
func TestLiesAsKafka(t *testing.T) {
	address := os.Getenv("LEAT_TEST_ORACLE")
	if address == "" {
		t.Skip("LEAT_TEST_ORACLE is not set")
	}
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(testContext(t), 1, -1, nil, "as-kafka-lies"); err != nil {
		t.Log(err)
	}
	for _, l := range lies() {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c := &wireConn{conn, t}
		want, got := l.code, noAnswer
		if l.kafka != 0 {
			want = l.kafka
		}
		if response, err := c.request(produceOf("as-kafka-lies", l.batch), 9); err == nil {
			if got = response.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; got == 0 {
				got = accepts
			}
		}
		if got != want {
			t.Errorf("%s: Kafka answers %d, the test says %d", l.name, got, want)
		}
		c.Close()
	}
}
