package brokertest_test

import (
	"runtime"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/record"
)

// sendDecompressionBombs sends batches that are small and grow a thousandfold, from
// several clients at the same time, to a topic for which the broker opens them.
func sendDecompressionBombs(i *badInput) {
	snappy := "snappy"
	createTopic(i.t, i.b, "bombs", 1, map[string]*string{"compression.type": &snappy})
	bombs := makeBombs()
	i.restHeap()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			c := i.dial()
			defer c.Close()
			for _, bomb := range bombs {
				response, err := c.request(produceOf("bombs", bomb), 9)
				if err != nil {
					i.t.Error(err)
					return
				}
				if code := response.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != kerr.MessageTooLarge.Code {
					i.t.Errorf("a batch of %d bytes that grows to %d: %v", len(bomb), bombBytes, kerr.ErrorForCode(code))
				}
			}
		})
	}
	clients.Wait()
	if end := endOffset(i.t, i.b, "bombs", 0); end != 0 {
		i.t.Errorf("%d records were written", end)
	}
}

const bombBytes = 80 << 20

func makeBombs() (bombs [][]byte) {
	for _, codec := range []record.Codec{record.CodecGzip, record.CodecLZ4, record.CodecZstd} {
		b := record.NewBuilder(codec)
		b.Append(1, nil, make([]byte, bombBytes), nil)
		bombs = append(bombs, b.Build(nil))
	}
	return bombs
}

// restHeap has the memory that is in use now count for nothing: it is the test's.
func (i *badInput) restHeap() {
	i.mu.Lock()
	defer i.mu.Unlock()
	runtime.GC()
	runtime.GC() // pools let go at the second one
	i.heap, i.peak = max(i.heap, heapBytes()), 0
}
