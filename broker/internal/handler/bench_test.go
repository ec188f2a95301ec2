package handler

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
	"github.com/leatlog/leat/broker/internal/wire"
)

// benchmarkBatch is a batch of records of 100 bytes.
func benchmarkBatch(records int) []byte {
	b := record.NewBuilder(record.CodecNone)
	for range records {
		b.Append(-1, nil, bytes.Repeat([]byte("x"), 90), nil)
	}
	return b.Build(nil)
}

// rooted is the real file system, with relative names in a directory of the benchmark.
func rooted(b *testing.B) vfs.FS {
	b.Chdir(b.TempDir())
	return vfs.OS{}
}

// BenchmarkProduce is the broker's side of a Produce request of one batch, from
// the decoded request to the answer, on a real disk. acks=-1 waits for an fsync of
// its own, as nothing else is committed with it.
func BenchmarkProduce(b *testing.B) {
	for _, acks := range []int16{1, -1} {
		for _, records := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("acks=%d/records=%d", acks, records), func(b *testing.B) {
				broker := startBroker(b, rooted(b), nil)
				defer broker.stop()
				broker.create("orders", 1)
				batch := benchmarkBatch(records)
				request := &wire.Request{Header: wire.Header{Version: 13}, Body: produceRequest("orders", acks, 0, batch), Conn: broker.conn}
				request.Body.SetVersion(13)
				answered := make(chan int16, 1)
				respond := func(r wire.Response) {
					answered <- r.Body.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
				}
				b.SetBytes(int64(len(batch)))
				b.ReportAllocs()
				for b.Loop() {
					record.Batch(batch).SetBaseOffset(0)
					broker.handler.Handle(broker.ctx, request, respond)
					if code := <-answered; code != 0 {
						b.Fatal(code)
					}
				}
				b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkFetch is the broker's side of a Fetch request of one partition that
// finds what it asks for.
func BenchmarkFetch(b *testing.B) {
	for _, size := range []int32{10 << 10, 50 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			broker := startBroker(b, rooted(b), nil)
			defer broker.stop()
			broker.create("orders", 1)
			for range 200 {
				if p := broker.produce("orders", 1, 0, benchmarkBatch(100)); p.ErrorCode != 0 {
					b.Fatal(p.ErrorCode)
				}
			}
			if p := broker.produce("orders", -1, 0, benchmarkBatch(1)); p.ErrorCode != 0 {
				b.Fatal(p.ErrorCode)
			}
			body := fetchRequest(wanted{"orders", 0, 0})
			body.MaxBytes, body.Topics[0].Partitions[0].PartitionMaxBytes = size, size
			body.SetVersion(16)
			request := &wire.Request{Header: wire.Header{Key: 1, Version: 16}, Body: body, Conn: broker.conn}
			total := 0
			respond := func(r wire.Response) {
				total = 0
				for i := range r.Chunks {
					total += r.Chunks[i].Len()
				}
				r.Release()
			}
			b.ReportAllocs()
			for b.Loop() {
				broker.handler.Handle(broker.ctx, request, respond)
			}
			b.SetBytes(int64(total))
		})
	}
}

// BenchmarkLongPoll is one poll that waits and is woken.
func BenchmarkLongPoll(b *testing.B) {
	broker := startBroker(b, vfs.NewMem(), nil)
	defer broker.stop()
	broker.create("orders", 1)
	batch := benchmarkBatch(1)
	body := fetchRequest(wanted{"orders", 0, 0})
	body.MaxWaitMillis = 60_000
	body.SetVersion(16)
	request := &wire.Request{Header: wire.Header{Key: 1, Version: 16}, Body: body, Conn: broker.conn}
	answered := make(chan struct{}, 1)
	b.ReportAllocs()
	offset := int64(0)
	for b.Loop() {
		body.Topics[0].Partitions[0].FetchOffset = offset
		broker.handler.Handle(broker.ctx, request, func(r wire.Response) { r.Release(); answered <- struct{}{} })
		broker.produce("orders", 1, 0, batch)
		record.Batch(batch).SetBaseOffset(0)
		<-answered
		offset++
	}
}

// TestProduceAndFetchAllocateNothingPerRecord holds the hot paths to the same
// number of allocations whatever the number of records.
func TestProduceAndFetchAllocateNothingPerRecord(t *testing.T) {
	b := startBroker(t, vfs.NewMem(), nil)
	defer b.stop()
	b.create("orders", 1)
	allocations := func(records int) (produce, fetch float64) {
		batch := benchmarkBatch(records)
		request := &wire.Request{Header: wire.Header{Version: 13}, Body: produceRequest("orders", -1, 0, batch), Conn: b.conn}
		request.Body.SetVersion(13)
		answered := make(chan *kmsg.ProduceResponse, 1)
		respond := func(r wire.Response) { answered <- r.Body.(*kmsg.ProduceResponse) }
		offset := int64(0)
		produce = testing.AllocsPerRun(50, func() {
			record.Batch(batch).SetBaseOffset(0)
			b.handler.Handle(b.ctx, request, respond)
			p := &(<-answered).Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				t.Fatal(p.ErrorCode)
			}
			offset = p.BaseOffset
		})
		body := fetchRequest(wanted{"orders", 0, offset})
		body.SetVersion(16)
		read := &wire.Request{Header: wire.Header{Key: 1, Version: 16}, Body: body, Conn: b.conn}
		fetch = testing.AllocsPerRun(50, func() {
			b.handler.Handle(b.ctx, read, func(r wire.Response) { r.Release() })
		})
		return produce, fetch
	}
	produceOne, fetchOne := allocations(1)
	produceMany, fetchMany := allocations(500)
	t.Logf("produce %.0f and %.0f, fetch %.0f and %.0f allocations for 1 and 500 records", produceOne, produceMany, fetchOne, fetchMany)
	if produceMany > produceOne+5 || fetchMany > fetchOne+5 {
		t.Errorf("allocations grow with the records")
	}
}
