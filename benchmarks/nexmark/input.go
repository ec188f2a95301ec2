package nexmark

import (
	"fmt"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// Input is a stream of events as records, in order of time.
type Input struct {
	// Events are what was encoded.
	Events []Event
	runs   []topicRun
	side   []plan.Record
}

// topicRun are records of one topic that follow each other.
type topicRun struct {
	topic   string
	records []plan.Record
}

// begin is the time of the first event: a whole day, which windows begin with.
const begin = 1_700_006_400_000

// afterAll is how much later than the others the last events are, twice: a day, so that
// all windows close and, in queries of two steps, those of the second step do as well.
const afterAll = 86_400_000

// NewInput makes n events, and six more that are a day and two days later.
func NewInput(seed uint64, n int) (*Input, error) {
	var events []Event
	g := NewGenerator(seed, begin)
	for range n {
		events = append(events, g.Next())
	}
	for i := range int64(2) {
		at, id := begin+(i+1)*afterAll, int64(1)<<40+i
		events = append(events, Event{Person: &Person{ID: id, Time: at}}, Event{Auction: &Auction{ID: id, Seller: id, Time: at, Expires: at}},
			Event{Bid: &Bid{Auction: id, Bidder: id, Price: 1, Time: at}})
	}
	return encodeInput(events)
}

func encodeInput(events []Event) (*Input, error) {
	in := &Input{Events: events}
	for _, e := range events {
		topic, r, err := e.record()
		if err != nil {
			return nil, err
		}
		if last := len(in.runs) - 1; last < 0 || in.runs[last].topic != topic {
			in.runs = append(in.runs, topicRun{topic: topic})
		}
		run := &in.runs[len(in.runs)-1]
		run.records = append(run.records, r)
	}
	for key := range int64(sideRows) {
		r, err := record(Side, key, sideValue(key), begin)
		if err != nil {
			return nil, err
		}
		in.side = append(in.side, r)
	}
	return in, nil
}

func sideValue(key int64) string { return fmt.Sprint("side ", key) }

func (e Event) record() (topic string, r plan.Record, err error) {
	switch {
	case e.Person != nil:
		r, err = record(Persons, e.Person.ID, *e.Person, e.Person.Time)
		return Persons.Name, r, err
	case e.Auction != nil:
		r, err = record(Auctions, e.Auction.ID, *e.Auction, e.Auction.Time)
		return Auctions.Name, r, err
	}
	r, err = record(Bids, e.Bid.Auction, *e.Bid, e.Bid.Time)
	return Bids.Name, r, err
}

func record[K, V any](topic topology.Topic[K, V], key K, value V, at int64) (r plan.Record, err error) {
	r.Timestamp = at
	if r.Key, err = topic.Key.Append(nil, key); err == nil {
		r.Value, err = topic.Value.Append(nil, value)
	}
	return r, err
}

const (
	// turnRecords is after how many records repartition topics are read, as after a fetch.
	turnRecords = 1000
	// CommitRecords is how many are between two commits: 100 ms at a million a second.
	CommitRecords = 100_000
)

// Play runs the whole input through a topology, with a commit every so many records, and
// returns how many records it has read.
func (in *Input) Play(r *Run, commitEvery int) (read int64, err error) {
	if r.Reads(Side.Name) {
		if err := r.Feed(Side.Name, in.side); err != nil {
			return 0, err
		}
	}
	sinceTurn, sinceCommit := 0, 0
	for _, run := range in.runs {
		if !r.Reads(run.topic) {
			continue
		}
		if err := r.Feed(run.topic, run.records); err != nil {
			return read, err
		}
		n := len(run.records)
		read, sinceTurn, sinceCommit = read+int64(n), sinceTurn+n, sinceCommit+n
		if sinceTurn >= turnRecords {
			sinceTurn = 0
			if err := r.Turn(); err != nil {
				return read, err
			}
		}
		if sinceCommit >= commitEvery {
			sinceCommit = 0
			if err := r.Commit(); err != nil {
				return read, err
			}
		}
	}
	return read, r.Commit()
}
