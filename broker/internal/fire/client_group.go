package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consume is a member of the group: it reads, commits what it read, and now and then
// leaves and comes back.
func (w *worker) consume(name string, random *rand.Rand) {
	for w.running.Err() == nil {
		stay, cancel := context.WithTimeout(w.running, time.Duration(3000+random.IntN(10000))*time.Millisecond)
		w.membership(stay, name)
		cancel()
	}
}

// membership ends early when a partition cannot be read on. It never resets an offset: a
// node that does not know yet that another one leads may say that an offset is beyond
// the end, and a client that believes it would read all again.
func (w *worker) membership(stay context.Context, name string) {
	client := w.connect(kgo.ConsumerGroup(groupName), kgo.ConsumeTopics(plainTopic, idempotentTopic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond), kgo.FetchMaxWait(200*time.Millisecond))
	defer client.CloseAllowingRebalance()
	for stay.Err() == nil {
		fetches := client.PollRecords(stay, 500)
		ends := map[string]map[int32]kgo.EpochOffset{}
		now := time.Now().UnixNano()
		fetches.EachRecord(func(r *kgo.Record) {
			w.record(operation{Client: name, Kind: consumed, Group: groupName, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
				Value: string(r.Value), Outcome: succeeded, Call: now, Return: now})
			if ends[r.Topic] == nil {
				ends[r.Topic] = map[int32]kgo.EpochOffset{}
			}
			ends[r.Topic][r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
		})
		if len(ends) > 0 {
			w.commit(client, name, ends)
		}
		client.AllowRebalance()
		for _, failed := range fetches.Errors() {
			if stay.Err() == nil {
				now := time.Now().UnixNano()
				w.record(operation{Client: name, Kind: consumed, Group: groupName, Topic: failed.Topic, Partition: failed.Partition, Offset: -1,
					Outcome: unknown, Error: failure(failed.Err), Call: now, Return: now})
				w.pause(100 * time.Millisecond)
				return
			}
		}
	}
}

// commit commits offsets and records what became of each.
func (w *worker) commit(client *kgo.Client, name string, ends map[string]map[int32]kgo.EpochOffset) {
	ctx, cancel := context.WithTimeout(w.patient, 4*time.Second)
	defer cancel()
	call, answers := time.Now().UnixNano(), map[string]map[int32]int16{}
	var refused error
	client.CommitOffsetsSync(ctx, ends, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		if refused = err; err != nil {
			return
		}
		for _, t := range response.Topics {
			answers[t.Topic] = map[int32]int16{}
			for _, p := range t.Partitions {
				answers[t.Topic][p.Partition] = p.ErrorCode
			}
		}
	})
	for _, topic := range sortedKeys(ends) {
		for _, partition := range sortedKeys(ends[topic]) {
			op := operation{Client: name, Kind: committed, Group: groupName, Topic: topic, Partition: partition, Offset: ends[topic][partition].Offset,
				Outcome: unknown, Call: call, Return: time.Now().UnixNano()}
			switch code, ok := answers[topic][partition]; {
			case refused != nil:
				op.Error = failure(refused)
			case ok && code == 0:
				op.Outcome = succeeded
			case ok:
				op.Error = kerr.ErrorForCode(code).Error()
			}
			w.record(op)
		}
	}
}

// watchOffsets asks again and again what the group has committed.
func (w *worker) watchOffsets(name string, _ *rand.Rand) {
	client := w.connect()
	defer client.Close()
	admin := kadm.NewClient(client)
	for w.running.Err() == nil {
		w.fetchOffsets(admin, name)
		w.pause(100 * time.Millisecond)
	}
	w.fetchOffsets(admin, name)
}

func (w *worker) fetchOffsets(admin *kadm.Client, name string) {
	ctx, cancel := context.WithTimeout(w.patient, 5*time.Second)
	defer cancel()
	call := time.Now().UnixNano()
	answers, err := admin.FetchOffsetsForTopics(ctx, groupName, plainTopic, idempotentTopic)
	if err != nil {
		w.record(operation{Client: name, Kind: fetched, Group: groupName, Outcome: unknown, Error: failure(err), Call: call, Return: time.Now().UnixNano()})
		return
	}
	for _, a := range answers.Sorted() {
		op := operation{Client: name, Kind: fetched, Group: groupName, Topic: a.Topic, Partition: a.Partition, Offset: a.At, Outcome: succeeded, Call: call, Return: time.Now().UnixNano()}
		if a.Err != nil {
			op.Outcome, op.Error = unknown, failure(a.Err)
		}
		w.record(op)
	}
}
