package main

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

const (
	keptSessions = 30 // closed ones that the board keeps
	keptMinutes  = 15
	// history is how far back the board looks when it starts.
	history = time.Hour
)

// board is what is to be seen, on the page and in the terminal. Safe for concurrent use.
type board struct {
	mu      sync.Mutex
	now     func() time.Time
	address string
	open    map[string]Session // by visitor
	closed  []Session          // the last one first
	minutes []Top              // the last one first
	acked   int64
	problem string
	changed map[chan struct{}]bool
}

func newBoard(address string, now func() time.Time) *board {
	return &board{address: address, now: now, open: map[string]Session{}, changed: map[chan struct{}]bool{}}
}

// view is what the page and the terminal show.
type view struct {
	Address string    `json:"address"`
	Now     time.Time `json:"now"`
	// Gap is after how many milliseconds of nothing a session is over.
	Gap     int64     `json:"gap"`
	Open    []visitor `json:"open"`
	Closed  []visitor `json:"closed"`
	Minutes []Top     `json:"minutes"`
	// Acknowledged is what visitors did, as far as the cluster has it, since the start.
	Acknowledged int64  `json:"acknowledged"`
	Problem      string `json:"problem,omitempty"`
}

// visitor is a session under a name that people can tell from others.
type visitor struct {
	Session
	Name string `json:"name"`
}

// nameOf gives a visitor a name. Others may have the same.
func nameOf(id string) string {
	colours := []string{"amber", "blue", "coral", "dusty", "early", "frosty", "green", "hazel", "ivory", "jade", "late", "mossy", "plum", "quiet", "rosy", "silver"}
	birds := []string{"dipper", "heron", "wagtail", "swift", "kingfisher", "wren", "rook", "teal", "owl", "martin", "crane", "finch", "lark", "robin", "siskin", "grebe"}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // it cannot fail
	n := h.Sum32()
	return colours[n%16] + " " + birds[n/16%16]
}

// view returns what there is to see.
func (b *board) view() view {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := view{Address: b.address, Now: b.now(), Gap: gap.Milliseconds(), Open: []visitor{}, Closed: []visitor{}, Acknowledged: b.acked, Problem: b.problem}
	for _, s := range b.open {
		v.Open = append(v.Open, visitor{Session: s, Name: nameOf(s.Visitor)})
	}
	slices.SortFunc(v.Open, func(x, y visitor) int {
		return cmp.Or(y.Start.Compare(x.Start), cmp.Compare(x.Visitor, y.Visitor))
	})
	for _, s := range b.closed {
		v.Closed = append(v.Closed, visitor{Session: s, Name: nameOf(s.Visitor)})
	}
	v.Minutes = append([]Top{}, b.minutes...)
	return v
}

// acknowledged notes what became of an attempt to write n activities.
func (b *board) acknowledged(n int, err error) {
	b.change(func() {
		if err != nil {
			b.problem = err.Error()
			return
		}
		b.acked, b.problem = b.acked+int64(n), ""
	})
}

// session takes a session. One that comes again, as after a restart, replaces the one before.
func (b *board) session(s Session) {
	b.change(func() {
		old, isOpen := b.open[s.Visitor]
		if !s.Closed {
			over := slices.ContainsFunc(b.closed, func(c Session) bool { return c.Visitor == s.Visitor && !c.End.Before(s.End) })
			if !over && (!isOpen || !s.End.Before(old.End)) {
				b.open[s.Visitor] = s
			}
			return
		}
		if isOpen && !old.End.After(s.End) {
			delete(b.open, s.Visitor)
		}
		b.closed = slices.DeleteFunc(b.closed, func(c Session) bool { return c.Visitor == s.Visitor && c.Start.Equal(s.Start) })
		b.closed = append(b.closed, s)
		slices.SortFunc(b.closed, func(x, y Session) int { return cmp.Or(y.End.Compare(x.End), cmp.Compare(x.Visitor, y.Visitor)) })
		b.closed = b.closed[:min(len(b.closed), keptSessions)]
	})
}

// top takes the pages of a minute.
func (b *board) top(t Top) {
	b.change(func() {
		b.minutes = slices.DeleteFunc(b.minutes, func(old Top) bool { return old.Minute.Equal(t.Minute) })
		b.minutes = append(b.minutes, t)
		slices.SortFunc(b.minutes, func(x, y Top) int { return y.Minute.Compare(x.Minute) })
		b.minutes = b.minutes[:min(len(b.minutes), keptMinutes)]
	})
}

// change changes the board and wakes those who listen.
func (b *board) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	for c := range b.changed {
		select {
		case c <- struct{}{}:
		default: // it is awake
		}
	}
}

// listen returns a channel that tells of changes, and a function that ends that.
func (b *board) listen() (changes <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed[c] = true
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.changed, c)
	}
}

// follow shows the results on the board until ctx ends: those of the last hour and all
// that come.
func (b *board) follow(ctx context.Context, c *client.Client, log zerolog.Logger) error {
	since := b.now().Add(-history)
	from := map[string]time.Time{sessionsTopic.Name: since, openTopic.Name: since, topTopic.Name: since}
	return local.Follow(ctx, c, local.Following{From: from, Partitions: partitions, ReadCommitted: true}, func(p client.Partition, r *plan.Record) error {
		if err := b.take(p.Topic, r.Value); err != nil {
			log.Warn().Err(err).Stringer("partition", p).Int64("offset", r.Offset).Msg("this record is no result")
		}
		return nil
	})
}

// take takes a record of a result topic.
func (b *board) take(topic string, value []byte) error {
	if topic == topTopic.Name {
		var t Top
		if err := json.Unmarshal(value, &t); err != nil {
			return err
		}
		b.top(t)
		return nil
	}
	var s Session
	if err := json.Unmarshal(value, &s); err != nil {
		return err
	}
	b.session(s)
	return nil
}
