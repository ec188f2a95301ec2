package group

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// OffsetCommit handles an OffsetCommit request whose topics exist.
func (s *Service) OffsetCommit(r *kmsg.OffsetCommitRequest, respond func(*kmsg.OffsetCommitResponse)) {
	commit := &CommitRequest{GroupID: r.Group, MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			o := PartitionOffset{TopicPartition{t.Topic, p.Partition}, Offset{Offset: p.Offset, LeaderEpoch: -1}}
			if r.Version >= 6 {
				o.LeaderEpoch = p.LeaderEpoch
			}
			if p.Metadata != nil {
				o.Metadata = *p.Metadata
			}
			commit.Offsets = append(commit.Offsets, o)
		}
	}
	answer := func(err *kerr.Error, errs []*kerr.Error) {
		out := r.ResponseKind().(*kmsg.OffsetCommitResponse)
		i := 0
		for _, t := range r.Topics {
			topic := kmsg.NewOffsetCommitResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				one := kmsg.NewOffsetCommitResponseTopicPartition()
				one.Partition, one.ErrorCode = p.Partition, code(err)
				if err == nil {
					one.ErrorCode = code(errs[i])
				}
				i++
				topic.Partitions = append(topic.Partitions, one)
			}
			out.Topics = append(out.Topics, topic)
		}
		respond(out)
	}
	if err := s.do(r.Group, func(shard *Shard, now time.Time) coordinator.Result { return shard.Commit(commit, now, answer) }); err != nil {
		answer(err, nil)
	}
}

// OffsetFetch handles an OffsetFetch request.
func (s *Service) OffsetFetch(r *kmsg.OffsetFetchRequest, respond func(*kmsg.OffsetFetchResponse)) {
	out := r.ResponseKind().(*kmsg.OffsetFetchResponse)
	if r.Version >= 8 {
		for i := range r.Groups {
			out.Groups = append(out.Groups, s.fetchGroup(&r.Groups[i]))
		}
		respond(out)
		return
	}
	// One group, in the fields of the request itself.
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = r.Group
	if r.Topics != nil {
		one.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range r.Topics {
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.Partitions = t.Topic, t.Partitions
		one.Topics = append(one.Topics, topic)
	}
	group := s.fetchGroup(&one)
	out.ErrorCode = group.ErrorCode
	for _, t := range group.Topics {
		topic := kmsg.NewOffsetFetchResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			partition := kmsg.NewOffsetFetchResponseTopicPartition()
			partition.Partition, partition.Offset, partition.LeaderEpoch, partition.Metadata = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata
			partition.ErrorCode = p.ErrorCode
			topic.Partitions = append(topic.Partitions, partition)
		}
		out.Topics = append(out.Topics, topic)
	}
	if group.ErrorCode != 0 && r.Version < 2 {
		// There is no error for the whole request: it goes to every partition.
		for _, t := range r.Topics {
			topic := kmsg.NewOffsetFetchResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				partition := kmsg.NewOffsetFetchResponseTopicPartition()
				partition.Partition, partition.Offset, partition.ErrorCode = p, -1, group.ErrorCode
				topic.Partitions = append(topic.Partitions, partition)
			}
			out.Topics = append(out.Topics, topic)
		}
	}
	respond(out)
}

// fetchGroup returns the offsets of one group; nil topics ask for all.
func (s *Service) fetchGroup(r *kmsg.OffsetFetchRequestGroup) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = r.Group
	var asked []TopicPartition
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			asked = append(asked, TopicPartition{t.Topic, p})
		}
	}
	var offsets []PartitionOffset
	err := s.do(r.Group, func(shard *Shard, _ time.Time) coordinator.Result {
		offsets = shard.Fetch(r.Group, asked, r.Topics == nil)
		return coordinator.Result{}
	})
	if err != nil {
		out.ErrorCode = err.Code
		return out
	}
	for _, o := range offsets {
		last := len(out.Topics) - 1
		if last < 0 || out.Topics[last].Topic != o.Topic {
			topic := kmsg.NewOffsetFetchResponseGroupTopic()
			topic.Topic = o.Topic
			out.Topics = append(out.Topics, topic)
			last++
		}
		p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		metadata := o.Metadata
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = o.Partition, o.Offset.Offset, o.LeaderEpoch, &metadata
		out.Topics[last].Partitions = append(out.Topics[last].Partitions, p)
	}
	return out
}

// OffsetDelete handles an OffsetDelete request.
func (s *Service) OffsetDelete(r *kmsg.OffsetDeleteRequest, respond func(*kmsg.OffsetDeleteResponse)) {
	var partitions []TopicPartition
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			partitions = append(partitions, TopicPartition{t.Topic, p.Partition})
		}
	}
	answer := func(err *kerr.Error, errs []*kerr.Error) {
		out := r.ResponseKind().(*kmsg.OffsetDeleteResponse)
		out.ErrorCode = code(err)
		i := 0
		for _, t := range r.Topics {
			if err != nil {
				break
			}
			topic := kmsg.NewOffsetDeleteResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				one := kmsg.NewOffsetDeleteResponseTopicPartition()
				one.Partition, one.ErrorCode = p.Partition, code(errs[i])
				i++
				topic.Partitions = append(topic.Partitions, one)
			}
			out.Topics = append(out.Topics, topic)
		}
		respond(out)
	}
	if err := s.do(r.Group, func(shard *Shard, _ time.Time) coordinator.Result {
		return shard.DeleteOffsets(r.Group, partitions, answer)
	}); err != nil {
		answer(err, nil)
	}
}

// ListGroups handles a ListGroups request: the groups of all shards of this node.
func (s *Service) ListGroups(r *kmsg.ListGroupsRequest, respond func(*kmsg.ListGroupsResponse)) {
	out := r.ResponseKind().(*kmsg.ListGroupsResponse)
	partitions := s.runtime.Partitions()
	slices.Sort(partitions)
	var list []Listing
	for _, p := range partitions {
		err := s.on(p, func(shard *Shard, _ time.Time) coordinator.Result {
			list = append(list, shard.List()...)
			return coordinator.Result{}
		})
		if err == kerr.CoordinatorLoadInProgress {
			out.ErrorCode = err.Code
			respond(out)
			return
		}
	}
	slices.SortFunc(list, func(a, b Listing) int { return strings.Compare(a.GroupID, b.GroupID) })
	for _, g := range list {
		if !matches(r.StatesFilter, g.State) || !matches(r.TypesFilter, "classic") {
			continue
		}
		one := kmsg.NewListGroupsResponseGroup()
		one.Group, one.ProtocolType, one.GroupState, one.GroupType = g.GroupID, g.ProtocolType, g.State, "classic"
		out.Groups = append(out.Groups, one)
	}
	respond(out)
}

// matches says that the filter is empty or has the value, whatever its case.
func matches(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, value) })
}

// DeleteGroups handles a DeleteGroups request.
func (s *Service) DeleteGroups(r *kmsg.DeleteGroupsRequest, respond func(*kmsg.DeleteGroupsResponse)) {
	out := r.ResponseKind().(*kmsg.DeleteGroupsResponse)
	out.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(r.Groups))
	if len(r.Groups) == 0 {
		respond(out)
		return
	}
	var mu sync.Mutex
	left := len(r.Groups)
	for i, id := range r.Groups {
		answer := func(err *kerr.Error) {
			mu.Lock()
			out.Groups[i] = kmsg.NewDeleteGroupsResponseGroup()
			out.Groups[i].Group, out.Groups[i].ErrorCode = id, code(err)
			left--
			last := left == 0
			mu.Unlock()
			if last {
				respond(out)
			}
		}
		if err := s.do(id, func(shard *Shard, _ time.Time) coordinator.Result { return shard.Delete(id, answer) }); err != nil {
			answer(err)
		}
	}
}
