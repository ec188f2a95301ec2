package replica

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// alterTimeout bounds one AlterPartition request.
	alterTimeout = 10 * time.Second
	// alterPause is the time between two tries.
	alterPause = 50 * time.Millisecond
)

// alterer brings the proposals of all partitions to the controller, those that
// come while a request is under way together in the next one. Its goroutine runs
// while there are some.
type alterer struct {
	manager *Manager
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu      sync.Mutex
	queue   map[*Replica]*Proposal
	running bool
	closed  bool
}

func newAlterer(m *Manager) *alterer {
	a := &alterer{manager: m, queue: map[*Replica]*Proposal{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// bring queues a proposal. A later one of the same replica replaces an earlier.
func (a *alterer) bring(r *Replica, p *Proposal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.manager.cfg.Cluster == nil {
		return
	}
	a.queue[r] = p
	if !a.running {
		a.running = true
		a.done.Add(1)
		a.manager.cfg.Go(func() {
			defer a.done.Done()
			a.run()
		})
	}
}

func (a *alterer) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.done.Wait()
}

func (a *alterer) run() {
	for {
		a.mu.Lock()
		batch := a.queue
		if len(batch) == 0 || a.closed {
			a.running = false
			a.mu.Unlock()
			return
		}
		a.queue = map[*Replica]*Proposal{}
		a.mu.Unlock()
		if again := a.try(batch); len(again) > 0 {
			a.manager.clock.Sleep(a.ctx, alterPause)
			a.mu.Lock()
			for r, p := range again {
				if a.queue[r] == nil {
					a.queue[r] = p
				}
			}
			a.mu.Unlock()
		}
	}
}

// try asks once and returns what is to be brought again.
func (a *alterer) try(batch map[*Replica]*Proposal) map[*Replica]*Proposal {
	ctx, cancel := context.WithTimeout(a.ctx, alterTimeout)
	defer cancel()
	request := a.request(batch)
	response, err := a.manager.cfg.Cluster.AlterPartition(ctx, request)
	if err == nil {
		err = kerr.ErrorForCode(response.ErrorCode)
	}
	answers := map[key]Alteration{}
	if err != nil {
		a.manager.logger.Debug().Err(err).Int("partitions", len(batch)).Msg("the controller did not take changes of in-sync replicas; trying again")
	} else {
		for i := range response.Topics {
			t := &response.Topics[i]
			for j := range t.Partitions {
				p := &t.Partitions[j]
				e, _ := kerr.ErrorForCode(p.ErrorCode).(*kerr.Error)
				answers[key{t.TopidID, p.Partition}] = Alteration{Err: e, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: p.ISR}
			}
		}
	}
	again := map[*Replica]*Proposal{}
	for _, r := range inOrder(batch) {
		proposal := batch[r]
		answer, ok := answers[key{r.topic, r.partition}]
		if !ok {
			answer.Err = kerr.RequestTimedOut
		}
		if r.altered(proposal, answer) {
			again[r] = proposal
		}
	}
	return again
}

func (a *alterer) request(batch map[*Replica]*Proposal) *kmsg.AlterPartitionRequest {
	request := kmsg.NewPtrAlterPartitionRequest()
	request.SetVersion(request.MaxVersion())
	request.BrokerID, request.BrokerEpoch = a.manager.cfg.NodeID, a.manager.cfg.Cluster.BrokerEpoch()
	topics := map[[16]byte]int{}
	for _, r := range inOrder(batch) {
		proposal := batch[r]
		n, ok := topics[r.topic]
		if !ok {
			n = len(request.Topics)
			topics[r.topic] = n
			t := kmsg.NewAlterPartitionRequestTopic()
			t.Topic, t.TopicID = r.name, r.topic
			request.Topics = append(request.Topics, t)
		}
		p := kmsg.NewAlterPartitionRequestTopicPartition()
		p.Partition, p.LeaderEpoch, p.PartitionEpoch = r.partition, proposal.LeaderEpoch, proposal.PartitionEpoch
		for _, member := range proposal.ISR {
			m := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
			m.BrokerID, m.BrokerEpoch = member.ID, member.BrokerEpoch
			if m.BrokerID == request.BrokerID {
				m.BrokerEpoch = request.BrokerEpoch
			}
			p.NewEpochISR = append(p.NewEpochISR, m)
		}
		request.Topics[n].Partitions = append(request.Topics[n].Partitions, p)
	}
	return request
}

// inOrder returns the replicas by topic and partition.
func inOrder(batch map[*Replica]*Proposal) []*Replica {
	return slices.SortedFunc(maps.Keys(batch), func(a, b *Replica) int {
		return cmp.Or(bytes.Compare(a.topic[:], b.topic[:]), cmp.Compare(a.partition, b.partition))
	})
}

// altered takes the controller's answer and says what became of the ISR.
func (r *Replica) altered(proposal *Proposal, answer Alteration) (again bool) {
	now := r.manager.clock.Now()
	r.step(func(p *Partition, fx *Effects) { again = p.Altered(proposal, answer, now, fx) })
	event := r.manager.logger.Debug()
	if answer.Err == nil {
		event = r.manager.logger.Info()
		event.Ints32("isr", answer.ISR)
	}
	event.Str("topic", r.name).Int32("partition", r.partition).AnErr("answer", asError(answer.Err)).Msg("a change of the in-sync replicas was answered")
	return again
}

func asError(err *kerr.Error) error {
	if err == nil {
		return nil
	}
	return err
}
