package replica

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// GiveUp has a leader that cannot append any more, since its log is damaged or its disk
// is full, propose in-sync replicas without itself: one of them leads then. While there
// is no other that could, it stays the leader in name. With a full disk it stays as well
// while the others are fewer than min.insync.replicas: its log is whole, one of them may
// turn out to have lost its own, and producers that wait for all would gain nothing.
func (p *Partition) GiveUp(fx *Effects) {
	if p.leader != p.self || p.role != Leader && p.fault != kerr.KafkaStorageError ||
		len(p.replicas) < 2 || p.proposal != nil || p.hold {
		return
	}
	var isr []Member
	for _, id := range p.isr {
		if id != p.self {
			isr = append(isr, Member{ID: id, BrokerEpoch: -1})
		}
	}
	if p.role == Leader && len(isr) < min(p.minISR, len(p.replicas)) {
		return
	}
	p.proposal = &Proposal{ISR: isr, LeaderEpoch: p.leaderEpoch, PartitionEpoch: p.partitionEpoch, brokers: p.brokers}
	fx.Proposal = p.proposal
}

// stepAside takes over metadata while the replica is offline because of its log: if it
// is to lead, it gives that up.
func (p *Partition) stepAside(meta *metadata.Partition, fx *Effects) {
	if meta.PartitionEpoch > p.partitionEpoch || meta.LeaderEpoch != p.leaderEpoch {
		p.proposal, p.hold = nil, false
	}
	p.leader, p.leaderEpoch, p.partitionEpoch = meta.Leader, meta.LeaderEpoch, meta.PartitionEpoch
	p.replicas = append(p.replicas[:0], meta.Replicas...)
	p.isr = append(p.isr[:0], meta.ISR...)
	if slices.Contains(p.replicas, p.self) {
		p.GiveUp(fx)
	}
}
