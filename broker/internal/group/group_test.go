package group

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// TestPartitionFor compares with what Java's String.hashCode gives.
func TestPartitionFor(t *testing.T) {
	for _, c := range []struct {
		group string
		want  int32 // of 50 partitions
	}{
		{"", 0},
		{"hello", 99162322 % 50},
		{"polygenelubricants", 0}, // the hash is the smallest int32
		{"console-consumer-1", 35782224 % 50},
		{"grüße", 98768023 % 50},
		{"𝄞", 1772394 % 50}, // two UTF-16 units
	} {
		if got := PartitionFor(c.group, 50); got != c.want {
			t.Errorf("%q is in partition %d, want %d", c.group, got, c.want)
		}
	}
}

// TestRandomRequests sends requests of a few clients, sensible and not, in any
// order, with the log failing, holding back and loaded again. Each is answered
// once, generations only grow, the clock never hangs, and the log always gives
// the state (script.checkReplay).
func TestRandomRequests(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newScript(rt)
		s.cfg.InitialRebalanceDelay = rapid.SampledFrom([]time.Duration{0, 3 * time.Second}).Draw(rt, "initial delay")
		s.cfg.MaxSize = rapid.SampledFrom([]int{2, 100}).Draw(rt, "max size")
		s.cfg.OffsetsRetention, s.cfg.OffsetsRetentionCheck = 2*time.Minute, 30*time.Second
		s.topics.set("t", 3)
		s.topics.set("u", 2)
		s.cfg.MigrationPolicy = rapid.SampledFrom(MigrationPolicies()).Draw(rt, "policy")
		highest := map[string]int32{}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			d := randomCommand(rt, s)
			s.run(d)
			for id, g := range s.shard.groups {
				if s.led && s.log.failing == nil && len(s.log.held) == 0 && g.consumer == nil && g.generation < highest[id] {
					rt.Fatalf("%v: generation %d of %s after %d", d, g.generation, id, highest[id])
				}
			}
			clear(highest)
			for _, b := range durableGenerations(s) {
				highest[b.id] = b.generation
			}
		}
		s.log.failing = nil
		s.run(command("commit-log"))
		s.advance(30 * time.Minute)
		s.runtime.Close()
		s.drain()
		for call := 1; call <= s.calls; call++ {
			if s.answered[call] != 1 {
				rt.Fatalf("request %d was answered %d times", call, s.answered[call])
			}
		}
		if len(s.timers) != 0 {
			rt.Fatalf("%d timers left", len(s.timers))
		}
	})
}

// durableGenerations are the groups as the log has them now.
func durableGenerations(s *script) []*group {
	replayed := NewShard(s.cfg)
	buffer, _ := s.log.Read(nil, 0, 0)
	replayBatches(s.t, replayed, buffer)
	var list []*group
	for _, id := range replayed.sortedIDs() {
		list = append(list, replayed.groups[id])
	}
	return list
}

func command(verb string, args ...string) *datadriven.TestData {
	d := &datadriven.TestData{Cmd: verb}
	for i := 0; i < len(args); i += 2 {
		arg := datadriven.CmdArg{Key: args[i]}
		if args[i+1] != "" {
			arg.Vals = []string{args[i+1]}
		}
		d.CmdArgs = append(d.CmdArgs, arg)
	}
	return d
}

// randomCommand draws a request, most often of a member that exists, with the
// generation that is the right one.
func randomCommand(rt *rapid.T, s *script) *datadriven.TestData {
	id, generation := "", int32(0)
	if s.shard != nil && s.shard.groups["g"] != nil {
		g := s.shard.groups["g"]
		generation = g.generation
		ids := []string{"", "nobody-1"}
		for _, m := range g.sorted() {
			ids = append(ids, m.id, m.id)
		}
		for pending := range g.pending {
			ids = append(ids, pending)
		}
		slices.Sort(ids)
		id = rapid.SampledFrom(ids).Draw(rt, "member")
		if rapid.IntRange(0, 9).Draw(rt, "stale") == 0 {
			generation--
		}
	}
	args := []string{"", "", "id", id, "generation", fmt.Sprint(generation)}
	instance := rapid.SampledFrom([]string{"", "", "i1", "i2"}).Draw(rt, "instance")
	if s.shard != nil && s.shard.groups["g"] != nil {
		if m := s.shard.groups["g"].members[id]; m != nil && m.instanceID != nil {
			instance = *m.instanceID
		}
	}
	if instance != "" {
		args = append(args, "instance", instance)
	}
	switch verb := rapid.SampledFrom([]string{"join", "join", "join", "sync", "sync", "heartbeat", "leave", "commit", "fetch", "delete",
		"advance", "advance", "restart", "hold", "commit-log", "fail", "recover", "resign", "describe", "delete-offsets",
		"begin", "txn-commit", "txn-commit", "end", "end",
		"beat", "beat", "beat", "beat-leave"}).Draw(rt, "verb"); verb {
	case "join":
		args[0] = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "client")
		return command(verb, append(args,
			"version", rapid.SampledFrom([]string{"3", "9"}).Draw(rt, "version"),
			"rebalance", rapid.SampledFrom([]string{"60s", "5s", "0s", "-1s"}).Draw(rt, "rebalance timeout"),
			"protocols", rapid.SampledFrom([]string{"range:t", "range:u", "sticky:t"}).Draw(rt, "protocols"))...)
	case "sync":
		args[0] = "s"
		return command(verb, append(args, "assign", id+":x")...)
	case "advance":
		return command(verb, rapid.SampledFrom([]string{"1s", "4s", "10s", "60s", "200s"}).Draw(rt, "by"), "")
	case "commit":
		args[0] = "o"
		return command(verb, append(args, "offsets", rapid.SampledFrom([]string{"t-0:1", "t-1:2", "u-0:3"}).Draw(rt, "offset"))...)
	case "beat", "beat-leave":
		return randomBeat(rt, s, verb == "beat-leave")
	case "begin":
		return command(verb, rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "producer"), "")
	case "txn-commit":
		args[0] = rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "producer")
		return command(verb, append(args, "offsets", rapid.SampledFrom([]string{"t-0:4", "t-1:5"}).Draw(rt, "offset"),
			"late", rapid.SampledFrom([]string{"0", "0", "0", "1"}).Draw(rt, "late"),
			"enlist", rapid.SampledFrom([]string{"now", "later", "refused", "overtaken"}).Draw(rt, "enlist"))...)
	case "end":
		return command(verb, rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "producer"), "",
			"result", rapid.SampledFrom([]string{"commit", "abort"}).Draw(rt, "result"), "bump", rapid.SampledFrom([]string{"0", "1"}).Draw(rt, "bump"))
	case "leave":
		return command(verb, "l", "", "members", id+":")
	case "delete":
		return command(verb, "d", "", "groups", "g")
	case "delete-offsets":
		return command(verb, "d", "", "partitions", "t-0")
	case "fetch":
		return command(verb, "f", "", "groups", "g")
	case "restart":
		s.log.failing = nil
		return command(verb)
	default:
		args[0] = "x"
		return command(verb, args...)
	}
}

// randomBeat draws the heartbeat of a member of the consumer protocol, most often one
// in its epoch.
func randomBeat(rt *rapid.T, s *script, leaving bool) *datadriven.TestData {
	id := rapid.SampledFrom([]string{"a-1", "n1", "n2", "n3"}).Draw(rt, "member of the consumer protocol")
	epoch, instance := int32(0), ""
	if s.shard != nil && s.shard.groups["g"] != nil && s.shard.groups["g"].consumer != nil {
		if m := s.shard.groups["g"].consumer.members[id]; m != nil {
			if epoch = m.epoch; m.instanceID != nil {
				instance = *m.instanceID
			}
		}
	}
	if leaving {
		epoch = rapid.SampledFrom([]int32{leaveEpoch, leaveStaticEpoch}).Draw(rt, "epoch")
	}
	args := []string{id, "", "epoch", fmt.Sprint(epoch), "topics", rapid.SampledFrom([]string{"t", "u"}).Draw(rt, "topics")}
	if instance = rapid.SampledFrom([]string{instance, instance, "", "i1"}).Draw(rt, "instance"); instance != "" {
		args = append(args, "instance", instance)
	}
	if rapid.Bool().Draw(rt, "tells what it owns") {
		args = append(args, "owned", rapid.SampledFrom([]string{"none", "t-0"}).Draw(rt, "owned"))
	}
	return command("beat", args...)
}

// taggedValue is a group of a later version that claims 4 billion tagged fields: the decoder
// took minutes to look for them.
var taggedValue = append([]byte{0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 0xff, 0xff, 0xff, 0xff, 0x0f)

func TestTagBombsAreRefused(t *testing.T) {
	s := NewShard(DefaultConfig())
	for _, r := range []coordinator.Record{
		{Key: groupKey("g"), Value: taggedValue},
		{Key: offsetRecord("g", TopicPartition{"t", 1}, Offset{}).Key, Value: taggedValue},
		{Key: groupKey("g"), Value: []byte{0}},
		{Key: groupKey("g"), Value: []byte{0, 5}},
	} {
		if err := s.Replay(r, 0); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%x: %v, want %v", r.Value, err, ErrBadRecord)
		}
	}
}

// FuzzReplay replays any record: no panic, an error that says so, and a shard
// that can be used afterwards.
func FuzzReplay(f *testing.F) {
	g := newGroup("g")
	g.generation, g.protocolType, g.protocol = 1, "consumer", "range"
	g.add(&member{id: "m", protocols: []Protocol{{"range", subscription("t")}}})
	now := time.Unix(1_700_000_000, 0)
	instance := "i"
	consumer := &consumerMember{id: "m", instanceID: &instance, topics: []string{"t"}, regex: "t.*", rebalanceTimeout: time.Second, assignor: &instance,
		epoch: 3, previousEpoch: 2, state: memberUnrevoked, assigned: assignment{{1}: {0, 1}}, revoking: assignment{{1}: {2}}}
	for _, r := range []coordinator.Record{
		groupRecord(g, now), offsetRecord("g", TopicPartition{"t", 1}, Offset{Offset: 3, ExpireTimestamp: -1}),
		memberRecord("g", consumer), memberRecord("g", &consumerMember{id: "n", topics: []string{"t"}, classic: &classicMember{time.Second, g.members["m"].protocols}}),
		assignmentRecord("g", consumer), targetOfRecord("g", "m", consumer.assigned), targetRecord("g", 3), epochRecord("g", 3, 5), epochRecord("g", 3, 0),
		regexRecord("g", "t.*", resolvedRegex{topics: []string{"t"}, version: 1, timestamp: 2}), tombstone(memberKind, "g", "m"), tombstone(epochKind, "g"),
		offsetRecord("g", TopicPartition{"t", 1}, Offset{Offset: 3, ExpireTimestamp: 9}), {Key: groupKey("g")}, {Key: []byte{0, 9, 1}},
	} {
		f.Add(r.Key, r.Value)
	}
	for _, key := range [][]byte{groupKey("g"), offsetRecord("g", TopicPartition{"t", 1}, Offset{}).Key} {
		f.Add(key, taggedValue)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		cfg := DefaultConfig()
		cfg.Topics = func() Topics { return newScriptTopics() }
		s := NewShard(cfg)
		if err := s.Replay(coordinator.Record{Key: key, Value: value}, 0); err != nil && !errors.Is(err, ErrBadRecord) {
			t.Fatalf("error %v", err)
		}
		s.Loaded(now)
		for range 100 {
			at, ok := s.NextDeadline()
			if !ok {
				break
			}
			s.Expire(at)
		}
		s.Unload()
	})
}

// FuzzSubscribedTopics compares with kmsg's decoder where that succeeds.
func FuzzSubscribedTopics(f *testing.F) {
	f.Add(subscription("t", "uu", ""))
	f.Add([]byte{0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 1, 'x'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		topics := slices.Collect(subscribedTopics(b))
		want := kmsg.NewConsumerMemberMetadata()
		if len(b) < 1000 && want.ReadFrom(b) == nil && want.Version >= 0 && !slices.Equal(topics, want.Topics) {
			t.Fatalf("%q, want %q", topics, want.Topics)
		}
	})
}

func TestErrorsOfAppends(t *testing.T) {
	for err, want := range map[error]*kerr.Error{
		kerr.NotEnoughReplicas:     kerr.CoordinatorNotAvailable,
		kerr.NotLeaderForPartition: kerr.NotCoordinator,
		kerr.KafkaStorageError:     kerr.NotCoordinator,
		coordinator.ErrTooLarge:    kerr.UnknownServerError,
		kerr.InvalidRecord:         kerr.InvalidRecord,
		errors.New("anything"):     kerr.NotCoordinator,
	} {
		if got := errorOf(fmt.Errorf("append: %w", err)); got != want {
			t.Errorf("%v is answered with %v, want %v", err, got, want)
		}
	}
}
