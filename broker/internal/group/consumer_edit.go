package group

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// Topics is the newest metadata that this node has. It does not change.
type Topics interface {
	// Version grows with every change of the metadata.
	Version() int64
	// Topic returns a topic's id and number of partitions.
	Topic(name string) (id metadata.UUID, partitions int32, ok bool)
	// Name returns the name of a topic.
	Name(id metadata.UUID) (string, bool)
	// Names returns the names of all topics, sorted.
	Names() []string
}

// edit is what an event makes of a consumer group: the records, and the group as it
// will be when they are replayed.
type edit struct {
	s       *Shard
	group   *group
	now     time.Time
	topics  Topics
	records []coordinator.Record

	epoch, assignmentEpoch int32
	hash                   int64
	members                map[string]*consumerMember
	targets                map[string]assignment
	regexes                map[string]resolvedRegex
	owners                 map[partitionID]string // of the group as it was
	owned                  bool                   // members is a copy
}

// edit begins an edit of a group, which may not be a consumer group yet.
func (s *Shard) edit(g *group, now time.Time) *edit {
	e := &edit{s: s, group: g, now: now, topics: s.cfg.Topics()}
	c := g.consumer
	if c == nil {
		c = newConsumerGroup()
	}
	e.epoch, e.assignmentEpoch, e.hash = c.epoch, c.assignmentEpoch, c.metadataHash
	e.members, e.targets, e.regexes, e.owners = c.members, c.targets, c.regexes, c.owners
	return e
}

// own makes the maps the edit's.
func (e *edit) own() {
	if !e.owned {
		e.members, e.targets, e.regexes = maps.Clone(e.members), maps.Clone(e.targets), maps.Clone(e.regexes)
		e.owned = true
	}
}

func (e *edit) add(r ...coordinator.Record) { e.records = append(e.records, r...) }

// setMetadata makes the member what it is to be, whose epochs and assignment are not
// changed; it returns whether it subscribes to other topics.
func (e *edit) setMetadata(m *consumerMember) (resubscribed bool) {
	old := e.members[m.id]
	if old != nil && old.sameMetadata(m) {
		return false
	}
	e.own()
	e.members[m.id] = m
	e.add(memberRecord(e.group.id, m))
	if old == nil {
		return true
	}
	return e.dropRegex(old.regex) || old.regex != m.regex || !slices.Equal(old.topics, m.topics)
}

// setAssignment makes the member stand where it does.
func (e *edit) setAssignment(m *consumerMember) {
	e.own()
	e.members[m.id] = m
	e.add(assignmentRecord(e.group.id, m))
}

// remove removes a member.
func (e *edit) remove(id string) {
	e.own()
	old := e.members[id]
	delete(e.members, id)
	delete(e.targets, id)
	e.add(leaveRecords(e.group.id, id)...)
	e.dropRegex(old.regex)
}

// replace has a static member's place taken by another member id.
func (e *edit) replace(old, m *consumerMember) {
	e.own()
	e.add(leaveRecords(e.group.id, old.id)...)
	target, ok := e.targets[old.id]
	delete(e.members, old.id)
	delete(e.targets, old.id)
	e.members[m.id] = m
	e.add(memberRecord(e.group.id, m))
	if ok {
		e.targets[m.id] = target
		e.add(targetOfRecord(e.group.id, m.id, target))
	}
	e.add(assignmentRecord(e.group.id, m))
}

// dropRegex forgets a regular expression that no member has any more.
func (e *edit) dropRegex(regex string) (dropped bool) {
	if _, ok := e.regexes[regex]; !ok || regex == "" {
		return false
	}
	for _, m := range e.members {
		if m.regex == regex {
			return false
		}
	}
	delete(e.regexes, regex)
	e.add(tombstone(regexKind, e.group.id, regex))
	return true
}

// refresh looks at the metadata if there is newer one, or a reason to; the group's
// epoch grows with bump and when the topics it reads have changed.
func (e *edit) refresh(bump bool) {
	version := e.topics.Version()
	if c := e.group.consumer; !bump && c != nil && c.checked == version {
		return
	}
	e.resolve(version)
	hash := e.hashTopics()
	if bump || hash != e.hash {
		e.epoch++
		e.hash = hash
		e.add(epochRecord(e.group.id, e.epoch, hash))
	}
	if c := e.group.consumer; c != nil {
		c.checked = version
	}
}

// resolve finds the topics of the regular expressions that were not looked at with
// this version of the metadata. A topic must match as a whole.
func (e *edit) resolve(version int64) {
	wanted := map[string]bool{}
	for _, m := range e.members {
		if m.regex != "" && (e.regexes[m.regex].timestamp == 0 || e.regexes[m.regex].version != version) {
			wanted[m.regex] = true
		}
	}
	for _, regex := range sortedKeys(wanted) {
		compiled, err := compileRegex(regex)
		if err != nil {
			continue // one that an earlier version or Kafka took
		}
		found := resolvedRegex{topics: []string{}, version: version, timestamp: e.now.UnixMilli()}
		for _, name := range e.topics.Names() {
			if compiled.MatchString(name) {
				found.topics = append(found.topics, name)
			}
		}
		old, known := e.regexes[regex]
		e.own()
		e.regexes[regex] = found
		if !known || !slices.Equal(old.topics, found.topics) {
			e.add(regexRecord(e.group.id, regex, found))
		}
	}
}

// compileRegex compiles a regular expression so that it has to match the whole text.
func compileRegex(regex string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(regex); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + regex + `)\z`)
}

// topicsOf returns the existing topics that a member reads, sorted.
func (e *edit) topicsOf(m *consumerMember) []string {
	names := slices.Concat(m.topics, e.regexes[m.regex].topics)
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool { _, _, ok := e.topics.Topic(name); return !ok })
}

// hashTopics hashes what matters to the assignment of the topics that the group reads.
func (e *edit) hashTopics() int64 {
	names := map[string]bool{}
	for _, m := range e.members {
		for _, t := range e.topicsOf(m) {
			names[t] = true
		}
	}
	if len(names) == 0 {
		return 0
	}
	h := fnv.New64a()
	for _, name := range sortedKeys(names) {
		id, partitions, _ := e.topics.Topic(name)
		_, _ = h.Write(id[:])
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(partitions)))
	}
	return int64(h.Sum64())
}

// assign makes a new target assignment if the group is newer than the last.
func (e *edit) assign() {
	if e.epoch <= e.assignmentEpoch {
		return
	}
	e.own()
	places := map[string]int{}
	var topics []assignedTopic
	members := make([]assignee, 0, len(e.members))
	for _, id := range sortedKeys(e.members) {
		m := e.members[id]
		a := assignee{id: id, instanceID: m.instanceID, previous: e.targets[id]}
		for _, name := range e.topicsOf(m) {
			place, ok := places[name]
			if !ok {
				topic, partitions, _ := e.topics.Topic(name)
				place = len(topics)
				places[name] = place
				topics = append(topics, assignedTopic{topic, partitions})
			}
			a.topics = append(a.topics, place)
		}
		slices.Sort(a.topics)
		members = append(members, a)
	}
	for i, target := range assign(e.assignor(), members, topics) {
		id := members[i].id
		if old, ok := e.targets[id]; !ok || !old.equal(target) {
			e.targets[id] = target
			e.add(targetOfRecord(e.group.id, id, target))
		}
	}
	e.assignmentEpoch = e.epoch
	e.add(targetRecord(e.group.id, e.epoch))
}

// assignor returns the assignor to use.
func (e *edit) assignor() string {
	if name := assignorOf(e.members); name != "" && slices.Contains(e.s.cfg.ConsumerAssignors, name) {
		return name
	}
	return e.s.cfg.ConsumerAssignors[0]
}

// reconcile takes a member a step towards its target assignment.
func (e *edit) reconcile(m *consumerMember, owned *assignment) *consumerMember {
	next := reconcile(m, e.assignmentEpoch, e.targets[m.id], func(p partitionID) bool {
		_, ok := e.owners[p]
		return ok
	}, owned)
	if !next.sameAssignment(m) {
		e.setAssignment(next)
	}
	return next
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
