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
	commit := &CommitRequest{GroupID: r.Group, MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation, RetentionMillis: -1, Old: r.Version < 9}
	if r.Version <= 4 {
		commit.RetentionMillis = r.RetentionTimeMillis
	}
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
		if r.Version < 9 && (err == kerr.GroupIDNotFound || err == kerr.StaleMemberEpoch) {
			err = kerr.IllegalGeneration
		}
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
		out.Groups = make([]kmsg.OffsetFetchResponseGroup, len(r.Groups))
		each := gather(len(r.Groups), func() { respond(out) })
		for i := range r.Groups {
			s.fetchGroup(&r.Groups[i], r.RequireStable, func(g kmsg.OffsetFetchResponseGroup) { each(func() { out.Groups[i] = g }) })
		}
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
	s.fetchGroup(&one, r.RequireStable, func(group kmsg.OffsetFetchResponseGroup) {
		fillFetched(out, r, &group)
		respond(out)
	})
}

// gather calls last when the function it returns was called n times, each with a
// part of an answer to fill in; at once when n is 0.
func gather(n int, last func()) func(fill func()) {
	if n == 0 {
		last()
	}
	var mu sync.Mutex
	return func(fill func()) {
		mu.Lock()
		fill()
		n--
		done := n == 0
		mu.Unlock()
		if done {
			last()
		}
	}
}

// fillFetched puts the offsets of one group into a response below version 8.
func fillFetched(out *kmsg.OffsetFetchResponse, r *kmsg.OffsetFetchRequest, group *kmsg.OffsetFetchResponseGroup) {
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
}

// fetchGroup answers with the offsets of one group; nil topics ask for all.
func (s *Service) fetchGroup(r *kmsg.OffsetFetchRequestGroup, requireStable bool, respond func(kmsg.OffsetFetchResponseGroup)) {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = r.Group
	var asked []TopicPartition
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			asked = append(asked, TopicPartition{t.Topic, p})
		}
	}
	answer := func(err *kerr.Error, offsets []FetchedOffset) {
		out.ErrorCode = code(err)
		appendFetched(&out, offsets)
		respond(out)
	}
	if err := s.do(r.Group, func(shard *Shard, _ time.Time) coordinator.Result {
		return shard.Fetch(&FetchRequest{GroupID: r.Group, Partitions: asked, All: r.Topics == nil, RequireStable: requireStable, MemberID: r.MemberID, MemberEpoch: r.MemberEpoch}, answer)
	}); err != nil {
		answer(err, nil)
	}
}

func appendFetched(out *kmsg.OffsetFetchResponseGroup, offsets []FetchedOffset) {
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
		p.ErrorCode = code(o.Err)
		out.Topics[last].Partitions = append(out.Topics[last].Partitions, p)
	}
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

// DeleteTopics forgets what the groups of this node committed for topics that were
// deleted. Config.TopicExists must deny them already: shards that are being loaded
// ask it when they are.
func (s *Service) DeleteTopics(topics []string) {
	for _, p := range s.runtime.Partitions() {
		// An error says that the shard is being loaded, or that another node has it.
		_ = s.on(p, func(shard *Shard, _ time.Time) coordinator.Result {
			return shard.DeleteTopics(func(topic string) bool { return slices.Contains(topics, topic) })
		})
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
		if !matches(r.StatesFilter, g.State) || !matches(r.TypesFilter, g.Type) {
			continue
		}
		one := kmsg.NewListGroupsResponseGroup()
		one.Group, one.ProtocolType, one.GroupState, one.GroupType = g.GroupID, g.ProtocolType, g.State, g.Type
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
	each := gather(len(r.Groups), func() { respond(out) })
	for i, id := range r.Groups {
		answer := func(err *kerr.Error) {
			each(func() {
				out.Groups[i] = kmsg.NewDeleteGroupsResponseGroup()
				out.Groups[i].Group, out.Groups[i].ErrorCode = id, code(err)
			})
		}
		if err := s.do(id, func(shard *Shard, _ time.Time) coordinator.Result { return shard.Delete(id, answer) }); err != nil {
			answer(err)
		}
	}
}
