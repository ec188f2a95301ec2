package replica

import "github.com/twmb/franz-go/pkg/kerr"

// verdict is what a client is told that its sequence number or offset does not fit, err. A
// leader that was replaced and has not heard of it holds less than its successor: a client
// that was there before would take its own records for lost, and an idempotent producer or
// a consumer that resets its offset acts on that for good. So a broker that does not know
// whether it still leads has the client ask who does, as often as it takes.
func (r *Replica) verdict(err *kerr.Error) *kerr.Error {
	if err != kerr.OutOfOrderSequenceNumber && err != kerr.OffsetOutOfRange || r.manager.cfg.Current == nil {
		return err
	}
	r.mu.Lock()
	doubtful := r.core.role == Leader && len(r.core.replicas) > 1
	r.mu.Unlock()
	if doubtful && !r.manager.cfg.Current() {
		return kerr.NotLeaderForPartition
	}
	return err
}
