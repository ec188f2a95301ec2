package handler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/storage"
)

var sessionTime = time.Unix(1_700_000_000, 0)

// asked builds a Fetch of partitions of topic "t", as "partition@offset".
func asked(id, epoch int32, partitions ...string) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.SessionID, r.SessionEpoch = 12, id, epoch
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "t"
	for _, s := range partitions {
		p := kmsg.NewFetchRequestTopicPartition()
		if _, err := fmt.Sscanf(s, "%d@%d", &p.Partition, &p.FetchOffset); err != nil {
			panic(err)
		}
		topic.Partitions = append(topic.Partitions, p)
	}
	if len(partitions) > 0 {
		r.Topics = append(r.Topics, topic)
	}
	return r
}

// found sets what was read of each item: high watermark 10, and data where told.
func found(items []fetchItem, withData ...int32) {
	for i := range items {
		items[i].result = ReadResult{HighWatermark: 10, DivergingEpoch: -1}
		for _, p := range withData {
			if items[i].fetchKey.partition == p {
				items[i].result.Slice = storage.Slice{Size: 100}
			}
		}
	}
}

func shown(items []fetchItem) string {
	var list []string
	for _, i := range items {
		list = append(list, fmt.Sprintf("%d@%d", i.fetchKey.partition, i.offset))
	}
	return strings.Join(list, " ")
}

func (s *fetchSessions) mustOpen(t *testing.T, r *kmsg.FetchRequest, want string) (fetchContext, []fetchItem) {
	t.Helper()
	c, items := s.open(r, sessionTime, nil)
	if c.err != nil || shown(items) != want {
		t.Fatalf("open: %v, %q, want %q", c.err, shown(items), want)
	}
	return c, items
}

func TestFetchSessionLifecycle(t *testing.T) {
	s := newFetchSessions(10, 100)
	c, items := s.mustOpen(t, asked(0, 0, "0@5", "1@6", "2@7"), "0@5 1@6 2@7")
	found(items)
	if kept := s.close(&c, items, false, sessionTime); len(kept) != 3 || c.sessionID <= 0 {
		t.Fatalf("full fetch: %d items, session %d", len(kept), c.sessionID)
	}
	id := c.sessionID

	// Nothing new: nothing is answered.
	c, items = s.mustOpen(t, asked(id, 1), "0@5 1@6 2@7")
	found(items)
	if kept := s.close(&c, items, false, sessionTime); len(kept) != 0 || c.sessionID != id {
		t.Fatalf("no news: %q, session %d", shown(kept), c.sessionID)
	}

	// Data in 0: answered, and 0 goes to the end of the turn. An offset changes,
	// a partition is added, one is forgotten.
	c, items = s.mustOpen(t, asked(id, 2), "0@5 1@6 2@7")
	found(items, 0)
	if kept := s.close(&c, items, false, sessionTime); shown(kept) != "0@5" {
		t.Fatalf("data: %q", shown(kept))
	}
	r := asked(id, 3, "0@8", "3@0")
	r.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: "t", Partitions: []int32{1, 9}}}
	c, items = s.mustOpen(t, r, "2@7 0@8 3@0")
	found(items)
	if kept := s.close(&c, items, false, sessionTime); shown(kept) != "3@0" {
		t.Fatalf("the new partition is news: %q", shown(kept))
	}

	// An error is answered, and so is the first good answer after it.
	c, items = s.mustOpen(t, asked(id, 4), "2@7 0@8 3@0")
	found(items)
	items[0].result.Err = kerr.OffsetOutOfRange
	if kept := s.close(&c, items, false, sessionTime); shown(kept) != "2@7" {
		t.Fatalf("error: %q", shown(kept))
	}
	c, items = s.mustOpen(t, asked(id, 5), "2@7 0@8 3@0")
	found(items)
	if kept := s.close(&c, items, false, sessionTime); shown(kept) != "2@7" {
		t.Fatalf("after the error: %q", shown(kept))
	}

	// Forgetting all ends the session.
	r = asked(id, 6)
	r.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: "t", Partitions: []int32{0, 2, 3}}}
	c, _ = s.mustOpen(t, r, "")
	if c.sessionID != 0 || len(s.sessions) != 0 || s.partitions != 0 {
		t.Fatalf("empty session: id %d, %d sessions, %d partitions", c.sessionID, len(s.sessions), s.partitions)
	}
}

func TestFetchSessionErrors(t *testing.T) {
	s := newFetchSessions(10, 5)
	open := func(r *kmsg.FetchRequest) *kerr.Error { c, _ := s.open(r, sessionTime, nil); return c.err }
	make := func(partitions ...string) int32 {
		c, items := s.open(asked(0, 0, partitions...), sessionTime, nil)
		found(items)
		s.close(&c, items, false, sessionTime)
		return c.sessionID
	}
	if err := open(asked(77, 1)); err != kerr.FetchSessionIDNotFound {
		t.Errorf("unknown session: %v", err)
	}
	id := make("0@0", "1@0")
	if err := open(asked(id, 2)); err != kerr.InvalidFetchSessionEpoch {
		t.Errorf("wrong epoch: %v", err)
	}
	byID := asked(id, 1)
	byID.Version = 13
	if err := open(byID); err != kerr.FetchSessionTopicIDError {
		t.Errorf("ids in a session of names: %v", err)
	}
	// Two fetches at once: the first cannot be answered any more.
	first, items := s.mustOpen(t, asked(id, 1), "0@0 1@0")
	s.mustOpen(t, asked(id, 2), "0@0 1@0")
	found(items)
	if s.close(&first, items, false, sessionTime); first.err != kerr.InvalidFetchSessionEpoch {
		t.Errorf("overtaken fetch: %v", first.err)
	}
	// The partitions of all sessions are bounded.
	if other := make("0@0", "1@0", "2@0", "3@0"); other != 0 {
		t.Errorf("session %d over the limit of partitions", other)
	}
	if err := open(asked(id, 3, "5@0", "6@0", "7@0", "8@0")); err != kerr.FetchSessionIDNotFound || s.partitions != 0 {
		t.Errorf("growth over the limit: %v, %d partitions booked", err, s.partitions)
	}
	// A full fetch closes the session it names.
	id = make("0@0")
	s.mustOpen(t, asked(id, finalEpoch, "0@0"), "0@0")
	if err := open(asked(id, 1)); err != kerr.FetchSessionIDNotFound {
		t.Errorf("closed session: %v", err)
	}
}

func TestFetchSessionEviction(t *testing.T) {
	s := newFetchSessions(2, 100)
	at := func(now time.Time, partitions ...string) int32 {
		c, items := s.open(asked(0, 0, partitions...), now, nil)
		found(items)
		s.close(&c, items, false, now)
		return c.sessionID
	}
	a, b := at(sessionTime, "0@0"), at(sessionTime, "0@0", "1@0")
	if c := at(sessionTime.Add(time.Minute), "0@0", "1@0", "2@0"); c != 0 {
		t.Error("replaced a young session")
	}
	// Both are old and in use: the smaller gives way to a larger one.
	later := sessionTime.Add(3 * time.Minute)
	s.sessions[a].lastUsed, s.sessions[b].lastUsed = later, later
	if c := at(later, "0@0"); c != 0 {
		t.Error("replaced a session of the same size")
	}
	c := at(later, "0@0", "1@0", "2@0")
	if c == 0 || s.sessions[a] != nil || s.sessions[b] == nil {
		t.Error("the smaller old session should have gone")
	}
	// Idle ones go first, whatever their size.
	if d := at(later.Add(3*time.Minute), "0@0"); d == 0 || len(s.sessions) != 2 || s.partitions == 0 {
		t.Error("an idle session should have gone")
	}
}

func TestFetchSessionIDsDifferAfterRestart(t *testing.T) {
	one, two := newFetchSessions(10, 100), newFetchSessions(10, 100)
	if a, b := one.newID(sessionTime), two.newID(sessionTime.Add(time.Second)); a == b || a <= 0 || b <= 0 {
		t.Errorf("ids %d and %d", a, b)
	}
}
