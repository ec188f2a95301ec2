package handler

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Fetch (key 1), versions 4 to 18: sessions (KIP-227), epochs (KIP-320, KIP-595),
// topic ids (KIP-516), the leader in the answer (KIP-951), consumers at followers
// (KIP-392). Followers of a partition are served in fetch_replica.go.
//
// Partitions are read in the order of the request or of their turn in the session,
// each up to its own limit and what is left of the request's. The first that has
// something gives at least one batch, whatever its size. When less than min.bytes
// is there, the fetch waits: it is registered with each of its partitions, which
// tell it how much became readable, and with the deadlines; whichever comes first
// has a worker read everything anew and answer. Records go from the log's file to
// the socket without passing through a buffer of ours, or through one pooled
// buffer when they are few.

// maxFetchBytes is the default of fetch.max.bytes, which bounds a response.
const maxFetchBytes = 55 << 20

// fetchOp is one Fetch request under way.
type fetchOp struct {
	h        *Handler
	request  *wire.Request
	respond  wire.Responder
	body     *kmsg.FetchRequest
	session  fetchContext
	items    []fetchItem
	pooled   *[]fetchItem // where items came from
	maxBytes int32
	near     []int32 // brokers in the client's rack, when it is to read from them
}

// itemsPool holds slices of items that are not in use.
var itemsPool = sync.Pool{New: func() any { return new([]fetchItem) }}

func fetch(h *Handler, ctx context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.FetchRequest)
	if body.ReplicaState.ID >= 0 && h.InterNode != "" && request.Conn.Listener == h.InterNode {
		h.followers.fetch(ctx, request, respond, body)
		return
	}
	limit := h.Config.FetchMaxBytes
	if limit == 0 {
		limit = maxFetchBytes
	}
	op := &fetchOp{h: h, request: request, respond: respond, body: body, maxBytes: min(max(body.MaxBytes, 0), limit)}
	now := h.Now()
	op.pooled = itemsPool.Get().(*[]fetchItem)
	op.session, op.items = h.sessions.open(body, now, (*op.pooled)[:0])
	if op.session.err != nil {
		op.answer()
		return
	}
	if body.ReplicaID != -1 || body.Version >= 15 && body.ReplicaState.ID != -1 {
		op.refuseReplica()
		return
	}
	op.near = h.near(body)
	bytes, ready := op.read()
	if ready || bytes >= op.minBytes() || body.MaxWaitMillis <= 0 || len(op.items) == 0 {
		op.answer()
		return
	}
	op.wait(ctx, op.minBytes()-bytes, now.Add(time.Duration(body.MaxWaitMillis)*time.Millisecond))
}

// near returns the brokers in the rack of a consumer that is not in this broker's, when
// consumers are sent to replicas in their racks (KIP-392).
func (h *Handler) near(body *kmsg.FetchRequest) (ids []int32) {
	if !h.Config.RackAware || body.Rack == "" {
		return nil
	}
	image := h.Image()
	for _, b := range image.Brokers() {
		switch {
		case b.Rack != body.Rack:
		case b.ID == h.NodeID:
			return nil
		case image.Active(b.ID):
			ids = append(ids, b.ID)
		}
	}
	return ids
}

func (op *fetchOp) minBytes() int64 { return int64(min(op.body.MinBytes, op.maxBytes)) }

// refuseReplica answers a client that says it is a broker.
func (op *fetchOp) refuseReplica() {
	for i := range op.items {
		op.items[i].result = ReadResult{Err: kerr.ClusterAuthorizationFailed, DivergingEpoch: -1}
	}
	op.answer()
}

// read reads all partitions. ready says that the answer must not wait.
func (op *fetchOp) read() (bytes int64, ready bool) {
	image := op.h.Image()
	left, atLeastOne := op.maxBytes, true
	for i := range op.items {
		item := &op.items[i]
		item.read(op, image, left, atLeastOne)
		if size := int64(item.result.Slice.Size); size > 0 {
			bytes += size
			left = int32(max(int64(left)-size, 0))
			atLeastOne = false
		}
		if item.result.Err != nil || item.result.DivergingEpoch >= 0 || item.result.Preferred != 0 {
			ready = true
		}
	}
	return bytes, ready
}

// read finds the item's partition and reads it.
func (item *fetchItem) read(op *fetchOp, image *metadata.Image, left int32, atLeastOne bool) {
	item.result, item.records = ReadResult{DivergingEpoch: -1}, nil
	id, _, err := resolveTopic(image, op.body.Version >= 13, item.name, item.id)
	item.committed = op.body.IsolationLevel == 1
	if err == nil {
		item.partition, err = op.h.Partitions.Partition(id, item.fetchKey.partition)
	}
	if err != nil {
		item.result.Err = err
		return
	}
	item.result = item.partition.Read(ReadRequest{
		Offset: item.offset, MaxBytes: min(item.maxBytes, left), AtLeastOne: atLeastOne,
		CurrentLeaderEpoch: item.currentLeaderEpoch, LastFetchedEpoch: item.lastFetchedEpoch,
		Committed: item.committed, Nearby: op.body.Version >= 11, Near: op.near,
	})
	if movedLeader(item.result.Err) {
		item.leaderID, item.result.LeaderEpoch = leaderOf(image, id, item.fetchKey.partition)
	}
}

// fetchWait is a fetch that waits. It is told by its partitions, by the deadline
// or by the end of its connection, and finishes at the first that suffices.
type fetchWait struct {
	op      *fetchOp
	missing atomic.Int64 // bytes until min.bytes is there
	done    atomic.Bool

	mu     sync.Mutex // held while it registers
	tokens []uint64   // by item
	cancel func()
	detach func() bool
}

func (op *fetchOp) wait(ctx context.Context, missing int64, deadline time.Time) {
	releaseItems(op.items) // it will be read again
	w := &fetchWait{op: op, tokens: make([]uint64, len(op.items))}
	w.missing.Store(missing)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = op.h.Partitions.Schedule(deadline, w.wake)
	w.detach = context.AfterFunc(ctx, w.wake)
	for i := range op.items {
		item := &op.items[i]
		w.tokens[i] = item.partition.Wait(w, item.result.Position, item.result.LeaderEpoch)
		if w.done.Load() {
			return
		}
	}
}

// Readable implements Waiter.
func (w *fetchWait) Readable(bytes int64) {
	if w.missing.Add(-bytes) <= 0 {
		w.wake()
	}
}

// Interrupted implements Waiter.
func (w *fetchWait) Interrupted() { w.wake() }

func (w *fetchWait) wake() {
	if w.done.CompareAndSwap(false, true) {
		w.op.h.workers.submit(w.op.respond, w.finish)
	}
}

func (w *fetchWait) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel()
	w.detach()
	for i, token := range w.tokens {
		w.op.items[i].partition.Unwait(token)
	}
	w.op.read()
	w.op.answer()
}
