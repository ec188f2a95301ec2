package handler

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Produce (key 0), versions 3 to 13; advertised from 0 on, since clients built on
// librdkafka 2.0 silently drop compression otherwise, and 0 to 2 are refused when
// used, as Kafka 4 does (KIP-896). Idempotence is KIP-98 with KIP-360, the leader
// in the answer KIP-951, topic ids KIP-516.
//
// The batch's bytes are those of the request: they are checked, patched in place
// and written, never decoded. Partitions are appended in the order of the request;
// with acks=-1 the request is parked and its connection goes on.

// adminClientID is the client id that Kafka lets write to internal topics.
const adminClientID = "__admin_client"

// produceOp is one Produce request under way.
type produceOp struct {
	h        *Handler
	request  *wire.Request
	respond  wire.Responder
	acks     int16
	response *kmsg.ProduceResponse
	flat     []kmsg.ProduceResponseTopicPartition // of all topics; an append's tag is its place here
	waiting  atomic.Int32                         // appends without an answer, plus one until all are made
}

func produce(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ProduceRequest)
	op := newProduceOp(h, request, body, respond)
	var deadline time.Time
	if body.Acks == -1 {
		deadline = h.Now().Add(time.Duration(max(body.TimeoutMillis, 0)) * time.Millisecond)
	}
	image := h.Image()
	tag := 0
	for i := range body.Topics {
		t := &body.Topics[i]
		id, name, unknown := resolveTopic(image, body.Version >= 13, t.Topic, t.TopicID)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			op.flat[tag].Partition = p.Partition
			if unknown != nil {
				op.refuse(tag, unknown, "")
			} else {
				op.append(body, name, id, p, tag, deadline)
			}
			tag++
		}
	}
	op.done()
}

func newProduceOp(h *Handler, request *wire.Request, body *kmsg.ProduceRequest, respond wire.Responder) *produceOp {
	op := &produceOp{h: h, request: request, respond: respond, acks: body.Acks}
	op.response = body.ResponseKind().(*kmsg.ProduceResponse)
	n := 0
	for i := range body.Topics {
		n += len(body.Topics[i].Partitions)
	}
	op.flat = make([]kmsg.ProduceResponseTopicPartition, n)
	for i := range op.flat {
		op.flat[i].Default()
	}
	op.response.Topics = make([]kmsg.ProduceResponseTopic, len(body.Topics))
	n = 0
	for i := range body.Topics {
		count := len(body.Topics[i].Partitions)
		op.response.Topics[i] = kmsg.ProduceResponseTopic{Topic: body.Topics[i].Topic, TopicID: body.Topics[i].TopicID, Partitions: op.flat[n : n+count : n+count]}
		n += count
	}
	op.waiting.Store(int32(n) + 1)
	return op
}

// append checks one partition's records and hands them over.
func (op *produceOp) append(body *kmsg.ProduceRequest, name string, id metadata.UUID, p *kmsg.ProduceRequestTopicPartition, tag int, deadline time.Time) {
	if body.Acks < -1 || body.Acks > 1 {
		op.refuse(tag, kerr.InvalidRequiredAcks, "")
		return
	}
	if metadata.IsInternal(name) && op.request.ClientID != adminClientID {
		op.refuse(tag, kerr.InvalidTopicException, "internal topics are written by the broker only")
		return
	}
	if err := checkProduced(body.Version, p.Records); err != nil {
		op.refuse(tag, produceError(err), err.Error())
		return
	}
	partition, err := op.h.Partitions.Partition(id, p.Partition)
	if err != nil {
		op.refuse(tag, err, "")
		return
	}
	if record.Batch(p.Records).IsTransactional() {
		op.appendTransactional(body, name, id, partition, p, tag, deadline)
		return
	}
	partition.Append(p.Records, body.Acks, deadline, tag, op)
}

// Errors of checkProduced.
var (
	errNoBatch     = errors.New("a partition's records must be one record batch, none is there")
	errManyBatches = errors.New("a partition's records must be exactly one record batch")
	errBaseOffset  = errors.New("the base offset of a produced batch must be 0")
	errZstd        = errors.New("zstd needs Produce version 7 or newer")
)

// checkProduced checks the header of what a client produced: exactly one batch
// of the current format. The log checks the CRC when it appends.
func checkProduced(version int16, records []byte) error {
	if len(records) == 0 {
		return errNoBatch
	}
	batch, rest, err := record.Parse(records)
	if err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return errManyBatches
	case batch.BaseOffset() != 0:
		return errBaseOffset
	case batch.Codec() == record.CodecZstd && version < 7:
		return errZstd
	}
	if err := batch.ValidateHeader(); err != nil {
		return err
	}
	if err := batch.ValidateProduced(); err != nil {
		return fmt.Errorf("%w: %w", errInvalidRecord, err)
	}
	return nil
}

// errInvalidRecord marks what Kafka answers with INVALID_RECORD rather than
// CORRUPT_MESSAGE.
var errInvalidRecord = errors.New("record batch is not allowed")

// produceError names the failure of checkProduced as Kafka does, for which a
// truncated batch is no batch.
func produceError(err error) *kerr.Error {
	switch {
	case errors.Is(err, errZstd), errors.Is(err, record.ErrCodec):
		return kerr.UnsupportedCompressionType
	case errors.Is(err, errNoBatch), errors.Is(err, errManyBatches), errors.Is(err, errBaseOffset),
		errors.Is(err, record.ErrMagic), errors.Is(err, record.ErrTruncated), errors.Is(err, errInvalidRecord):
		return kerr.InvalidRecord
	}
	return kerr.CorruptMessage
}

// refuse answers one partition without appending.
func (op *produceOp) refuse(tag int, err *kerr.Error, message string) {
	if message != "" {
		op.flat[tag].ErrorMessage = &message
	}
	op.Appended(tag, err, -1, -1, -1)
}

// Appended implements AppendSink.
func (op *produceOp) Appended(tag int, err *kerr.Error, baseOffset, logAppendTime, logStart int64) {
	p := &op.flat[tag]
	p.ErrorCode = errorCode(err)
	p.BaseOffset, p.LogAppendTime, p.LogStartOffset = baseOffset, logAppendTime, logStart
	op.done()
}

// done counts one part of the request as finished; the last one answers.
func (op *produceOp) done() {
	if op.waiting.Add(-1) > 0 {
		return
	}
	if op.acks == 0 {
		// Without an answer, closing the connection is what tells of a failure.
		op.respond(wire.Response{Close: op.failed()})
		return
	}
	op.addLeaders()
	op.respond(wire.Response{Body: op.response})
}

// failed says that a partition was refused, and logs the first one.
func (op *produceOp) failed() bool {
	for i := range op.flat {
		if code := op.flat[i].ErrorCode; code != 0 {
			op.h.Logger.Debug().Err(kerr.ErrorForCode(code)).Int32("partition", op.flat[i].Partition).Str("client", op.request.ClientID).
				Msg("an append that nobody waits for failed: closing the connection")
			return true
		}
	}
	return false
}

// addLeaders tells a client that asked the wrong broker whom to ask.
func (op *produceOp) addLeaders() {
	if op.response.Version < 10 {
		return
	}
	var leaders []int32
	image := op.h.Image()
	for i := range op.response.Topics {
		t := &op.response.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if p.ErrorCode != kerr.NotLeaderForPartition.Code {
				continue
			}
			id, _, unknown := resolveTopic(image, op.response.Version >= 13, t.Topic, t.TopicID)
			if unknown != nil {
				continue
			}
			p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = leaderOf(image, id, p.Partition)
			leaders = append(leaders, p.CurrentLeader.LeaderID)
		}
	}
	for _, b := range leaderEndpoints(image, op.request, leaders) {
		op.response.Brokers = append(op.response.Brokers, kmsg.ProduceResponseBroker{NodeID: b.id, Host: b.host, Port: b.port, Rack: b.rack})
	}
}
