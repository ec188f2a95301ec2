package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearizationTime bounds the search of porcupine; one that takes longer is reported
// as undecided.
const linearizationTime = 30 * time.Second

// checkAppends finds acknowledged appends to a partition whose offsets contradict the
// order in which they were made: the partition as a register of its last offset, which every
// append takes and raises. Appends of unknown outcome are left out: they only leave gaps.
func checkAppends(v *violations, ops []operation, topic string) {
	model := porcupine.Model{
		Init:  func() any { return int64(-1) },
		Step:  func(state, _, output any) (bool, any) { return output.(int64) > state.(int64), output },
		Equal: func(a, b any) bool { return a == b },
	}
	var history []porcupine.Operation
	for _, op := range ops {
		if op.Kind == produced && op.Topic == topic && op.Outcome == succeeded {
			history = append(history, porcupine.Operation{Call: op.Call, Output: op.Offset, Return: op.Return})
		}
	}
	decide(v, model, history, "appends to "+topic)
}

// answer is what a client was told of a topic.
type answer int

const (
	done answer = iota
	existed
	missing
	unsure
)

type topicRequest struct {
	kind  kind
	topic string
}

// A broker that forwards a request sends it again when the controller has moved or was not
// heard, as Apache Kafka's do, after forwardPause at least and for forwardTime at most. What
// the first attempt has done may have been undone by then: then the request takes effect
// twice.
const (
	forwardPause = 20 * time.Millisecond
	forwardTime  = 30 * time.Second
)

// checkTopics finds creations and deletions of topics that no order explains, in which a
// request that may have been sent again may have taken effect once more.
func checkTopics(v *violations, ops []operation) {
	possible := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{false} },
		Step:  stepTopic,
		Equal: func(a, b any) bool { return a == b },
	}
	model := possible.ToModel()
	histories := map[string][]porcupine.Operation{}
	last := int64(0)
	for _, op := range ops {
		last = max(last, op.Return)
	}
	for _, op := range ops {
		if op.Kind != created && op.Kind != deleted || op.Outcome == failed {
			continue
		}
		told, end := done, op.Return
		switch {
		case op.Outcome == unknown:
			told, end = unsure, last+1
		case op.Existed:
			told = existed
		case op.Missing:
			told = missing
		}
		request := porcupine.Operation{Input: topicRequest{op.Kind, op.Topic}, Call: op.Call, Output: told, Return: end}
		histories[op.Topic] = append(histories[op.Topic], request)
		if told == unsure || end-op.Call >= int64(forwardPause) {
			request.Output, request.Return = unsure, min(end, op.Call+int64(forwardTime))
			histories[op.Topic] = append(histories[op.Topic], request)
		}
	}
	for _, name := range sortedKeys(histories) {
		decide(v, model, histories[name], "requests for topic "+name)
	}
}

// stepTopic says what may be after a request: whether the topic is there.
func stepTopic(state, input, output any) []any {
	there, told := state.(bool), output.(answer)
	effect := input.(topicRequest).kind == created
	switch told {
	case existed:
		if effect && there {
			return []any{there}
		}
	case missing:
		if !effect && !there {
			return []any{there}
		}
	case done:
		if there != effect {
			return []any{effect}
		}
	case unsure:
		if there != effect {
			return []any{there, effect}
		}
		return []any{there}
	}
	return nil
}

func decide(v *violations, model porcupine.Model, history []porcupine.Operation, what string) {
	switch porcupine.CheckOperationsTimeout(model, history, linearizationTime) {
	case porcupine.Illegal:
		v.add("%s (%d) are not linearizable", what, len(history))
	case porcupine.Unknown:
		v.add("%s (%d): not decided in %v", what, len(history), linearizationTime)
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
