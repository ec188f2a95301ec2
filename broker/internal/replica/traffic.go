package replica

import (
	"sync/atomic"

	"github.com/leatlog/leat/broker/internal/record"
)

// Traffic is what has moved through a replica since the node started.
type Traffic struct {
	// Batches and Records were appended by clients, Received bytes of them. A batch
	// that is a retry of one that is there already does not count.
	Batches, Records, Received int64
	// Sent are bytes that consumers were given.
	Sent int64
}

// Add adds what another replica has moved.
func (t *Traffic) Add(other Traffic) {
	t.Batches += other.Batches
	t.Records += other.Records
	t.Received += other.Received
	t.Sent += other.Sent
}

// traffic counts a replica's Traffic.
type traffic struct {
	batches, records, received, sentBytes atomic.Int64
}

// appended counts a batch; only its header is looked at.
func (t *traffic) appended(batch []byte) {
	t.batches.Add(1)
	t.records.Add(int64(record.Batch(batch).Count()))
	t.received.Add(int64(len(batch)))
}

func (t *traffic) sent(size int) { t.sentBytes.Add(int64(size)) }

// Traffic returns what has moved through the replica. Safe for concurrent use.
func (r *Replica) Traffic() Traffic {
	return Traffic{Batches: r.traffic.batches.Load(), Records: r.traffic.records.Load(),
		Received: r.traffic.received.Load(), Sent: r.traffic.sentBytes.Load()}
}
