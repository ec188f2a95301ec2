package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
)

// embedded is a broker in this process and one connection to it that never
// leaves the process: what is measured is the broker, not a client library.
type embedded struct {
	broker *broker.Broker
	conn   net.Conn
	next   int32
	frame  []byte
	topic  [16]byte
}

const (
	produceVersion = 9
	fetchVersion   = 12
	benchTopic     = "benchmark"
)

func startEmbedded(ctx context.Context, dir string) (*embedded, error) {
	listener := broker.NewMemoryListener("benchmark:9092")
	cfg := broker.DefaultConfig()
	cfg.DataDir, cfg.Listener, cfg.Advertise = dir, listener, "benchmark:9092"
	b, err := broker.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	conn, err := listener.Dial(ctx, "tcp", "benchmark:9092")
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	e := &embedded{broker: b, conn: conn}
	if err := e.createTopic(1); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *embedded) close() error { return errors.Join(e.conn.Close(), e.broker.Close()) }

// request writes a request; its response must be read before the next but one.
func (e *embedded) request(r kmsg.Request) error {
	e.next++
	e.frame = kmsg.NewRequestFormatter(kmsg.FormatterClientID("benchmark")).AppendRequest(e.frame[:0], r, e.next)
	_, err := e.conn.Write(e.frame)
	return err
}

// response reads one response into the reused frame and returns its body.
func (e *embedded) response(flexible bool) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(e.conn, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	if cap(e.frame) < n {
		e.frame = make([]byte, n)
	}
	frame := e.frame[:n]
	if _, err := io.ReadFull(e.conn, frame); err != nil {
		return nil, err
	}
	if flexible {
		return frame[5:], nil
	}
	return frame[4:], nil
}

func (e *embedded) createTopic(partitions int32) error {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version = 7
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = benchTopic, partitions, 1
	r.Topics, r.TimeoutMillis = append(r.Topics, topic), 10_000
	if err := e.request(r); err != nil {
		return err
	}
	body, err := e.response(true)
	if err != nil {
		return err
	}
	answer := r.ResponseKind().(*kmsg.CreateTopicsResponse)
	if err := answer.ReadFrom(body); err != nil {
		return err
	}
	e.topic = answer.Topics[0].TopicID
	return kerr.ErrorForCode(answer.Topics[0].ErrorCode)
}

// produceRequest is a request with one batch, to be sent again and again.
func produceRequest(batch []byte, acks int16) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks, r.TimeoutMillis = produceVersion, acks, 10_000
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = batch
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = benchTopic, append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	return r
}

// produce sends a batch and waits for its acknowledgement.
func (e *embedded) produce(r *kmsg.ProduceRequest) error {
	if err := e.request(r); err != nil {
		return err
	}
	body, err := e.response(true)
	if err != nil {
		return err
	}
	answer := r.ResponseKind().(*kmsg.ProduceResponse)
	if err := answer.ReadFrom(body); err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
}

// fetch reads partition 0 from an offset on and returns the bytes of the batches.
func (e *embedded) fetch(offset int64, maxBytes int32) ([]byte, error) {
	return e.fetchFrom(0, offset, maxBytes)
}

func (e *embedded) fetchFrom(number int32, offset int64, maxBytes int32) ([]byte, error) {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.SessionEpoch = fetchVersion, 500, 1, maxBytes, -1
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes, partition.CurrentLeaderEpoch = number, offset, maxBytes, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.Partitions = benchTopic, append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	if err := e.request(r); err != nil {
		return nil, err
	}
	body, err := e.response(true)
	if err != nil {
		return nil, err
	}
	answer := r.ResponseKind().(*kmsg.FetchResponse)
	if err := answer.ReadFrom(body); err != nil {
		return nil, err
	}
	p := &answer.Topics[0].Partitions[0]
	return p.RecordBatches, kerr.ErrorForCode(p.ErrorCode)
}

// batch builds an uncompressed record batch of count records.
func batch(count, valueBytes int) []byte {
	value := make([]byte, valueBytes)
	for i := range value {
		value[i] = byte('a' + i%26)
	}
	now := time.Now().UnixMilli()
	var records []byte
	for i := range count {
		r := kmsg.Record{OffsetDelta: int32(i), Key: fmt.Appendf(nil, "key-%04d", i), Value: value}
		body := r.AppendTo(nil) // with a length of 0, one byte, in front
		records = binary.AppendVarint(records, int64(len(body)-1))
		records = append(records, body[1:]...)
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(count - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(count), Records: records,
		Length: int32(49 + len(records)),
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
