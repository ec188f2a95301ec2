package nexmark

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// lines are how results are told.
var lines = map[string]func(r *plan.Record) (key, line string, err error){
	"q0": plainLine(serde.Int64, bidSerde), "q1": plainLine(serde.Int64, bidSerde), "q2": plainLine(serde.Int64, serde.Int64),
	"q3": plainLine(serde.Int64, saleSerde), "q4": plainLine(serde.Int64, averageSerde),
	"q5": line(serde.Windowed(serde.Int64, hotAdvance), hottestSerde, func(k serde.WindowedKey[int64], h Hottest) string {
		slices.Sort(h.Auctions)
		return fmt.Sprint(k.Key, h)
	}),
	"q7": line(serde.Windowed(serde.Int64, tumble), highestSerde, func(k serde.WindowedKey[int64], h Highest) string { return fmt.Sprint(k.Key, h) }),
	"q8": line(serde.Windowed(serde.Int64, tumble), sellerSerde, func(k serde.WindowedKey[int64], s Seller) string { return fmt.Sprint(k.Key, "@", k.Start, s) }),
	"q11": line(serde.Session(serde.Int64), serde.Int64, func(k serde.WindowedKey[int64], n int64) string {
		return fmt.Sprint(k.Key, "@", k.Start, "-", k.End, ": ", n)
	}),
	"q13": plainLine(serde.Int64, sideBidSerde),
	"q17": line(serde.Windowed(serde.Int64, day), statisticsSerde, func(k serde.WindowedKey[int64], s Statistics) string { return fmt.Sprint(k.Key, "@", k.Start, s) }),
	"q20": plainLine(serde.Int64, auctionBidSerde),
}

func line[K, V any](key topology.Serde[K], value topology.Serde[V], show func(K, V) string) func(r *plan.Record) (string, string, error) {
	return func(r *plan.Record) (string, string, error) {
		k, err := key.Decode(r.Key)
		if err != nil {
			return "", "", err
		}
		v, err := value.Decode(r.Value)
		return string(r.Key), show(k, v), err
	}
}

func plainLine[K, V any](key topology.Serde[K], value topology.Serde[V]) func(r *plan.Record) (string, string, error) {
	return line(key, value, func(k K, v V) string { return fmt.Sprint(k, v) })
}

// tables are the queries whose results are updated: the last one counts.
var tables = []string{"q3", "q4", "q17"}

// Each query finds what a computation over all events at once finds, whatever the size of
// the cache and the distance of commits.
func TestQueriesAgainstBatch(t *testing.T) {
	events := 12_000
	in, err := NewInput(1, events)
	if err != nil {
		t.Fatal(err)
	}
	// Sessions that end, and several windows of each kind, need more time than that:
	// other events, slower.
	slow, err := NewInput(2, events/3)
	if err != nil {
		t.Fatal(err)
	}
	if slow, err = slow.slower(100); err != nil {
		t.Fatal(err)
	}
	for _, q := range Queries {
		for name, input := range map[string]*Input{"fast": in, "slow": slow} {
			want := batch[q.Name](input.Events)
			slices.Sort(want)
			for _, c := range []struct{ cache, commit int }{{64 << 20, CommitRecords}, {256 << 10, 777}} {
				t.Run(fmt.Sprintf("%s/%s/cache=%d", q.Name, name, c.cache), func(t *testing.T) {
					got := results(t, q, input, c.cache, c.commit)
					if !slices.Equal(got, want) {
						t.Errorf("%d results, want %d: %s", len(got), len(want), difference(got, want))
					}
					if len(want) == 0 {
						t.Error("there is nothing to find")
					}
				})
			}
		}
	}
}

// slower is the input with events further apart.
func (in *Input) slower(times int64) (*Input, error) {
	stretch := func(at int64) int64 {
		if at >= begin+afterAll {
			return at
		}
		return begin + (at-begin)*times
	}
	var events []Event
	for _, e := range in.Events {
		switch {
		case e.Person != nil:
			e.Person.Time = stretch(e.Person.Time)
		case e.Auction != nil:
			e.Auction.Time, e.Auction.Expires = stretch(e.Auction.Time), stretch(e.Auction.Expires)
		default:
			e.Bid.Time = stretch(e.Bid.Time)
		}
		events = append(events, e)
	}
	return encodeInput(events)
}

func results(t *testing.T, q Query, in *Input, cache, commit int) []string {
	t.Helper()
	isTable := slices.Contains(tables, q.Name)
	last := map[string]string{}
	var all []string
	r, err := NewRun(q.Topology(), cache, func(topic string, r *plan.Record) {
		key, line, err := lines[q.Name](r)
		if err != nil || topic != q.Name {
			t.Fatalf("%s: %v", topic, err)
		}
		if last[key] = line; !isTable {
			all = append(all, line)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Play(r, commit); err != nil {
		t.Fatal(err)
	}
	if r.Dropped > 0 {
		t.Errorf("%d records were dropped", r.Dropped)
	}
	if isTable {
		for _, line := range last {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return all
}

// difference tells a few lines that only one of the two has.
func difference(got, want []string) string {
	only := func(a, b []string) []string {
		has := map[string]int{}
		for _, l := range b {
			has[l]++
		}
		var lines []string
		for _, l := range a {
			if has[l]--; has[l] < 0 && len(lines) < 5 {
				lines = append(lines, l)
			}
		}
		return lines
	}
	return "\n\tgot only " + strings.Join(only(got, want), "\n\t         ") + "\n\tmissing  " + strings.Join(only(want, got), "\n\t         ")
}

// The events have the proportions, sizes and hot keys of the specification, and references
// to what there is or is about to be.
func TestGenerator(t *testing.T) {
	const n = 20_000
	in, err := NewInput(7, n)
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewInput(7, n)
	if err != nil {
		t.Fatal(err)
	}
	var persons, auctions, bids, hotAuctions, hotBidders, hotSellers int64
	size := map[string]float64{}
	before := int64(0)
	for i, e := range in.Events[:n] {
		if e.Time() < before || e.Time() != begin+int64(i)/10 {
			t.Fatalf("event %d is at %d, behind %d", i, e.Time(), before)
		}
		before = e.Time()
		topic, r, err := e.record()
		if err != nil {
			t.Fatal(err)
		}
		if _, other, err := again.Events[i].record(); err != nil || string(other.Value) != string(r.Value) {
			t.Fatalf("event %d differs with the same seed, %v", i, err)
		}
		size[topic] += float64(len(r.Value))
		switch {
		case e.Person != nil:
			if e.Person.ID != firstPerson+persons {
				t.Fatalf("person %d has id %d", persons, e.Person.ID)
			}
			persons++
		case e.Auction != nil:
			a := e.Auction
			if a.ID != firstAuction+auctions || a.Seller < firstPerson || a.Seller >= firstPerson+persons+leadOfPersons ||
				a.Category < firstCategory || a.Category >= firstCategory+categories || a.Expires <= a.Time {
				t.Fatalf("auction %d of %d people: %+v", auctions, persons, a)
			}
			if (a.Seller-firstPerson)%hotEvery == 0 {
				hotSellers++
			}
			auctions++
		default:
			b := e.Bid
			if b.Auction < firstAuction || b.Auction >= firstAuction+auctions+leadOfAuctions || b.Bidder < firstPerson ||
				b.Bidder >= firstPerson+persons+leadOfPersons || b.Price < 100 || b.Price > 100_000_000 {
				t.Fatalf("bid of %d auctions, %d people: %+v", auctions, persons, b)
			}
			if (b.Auction-firstAuction)%hotEvery == 0 {
				hotAuctions++
			}
			if (b.Bidder-firstPerson)%hotEvery == 1 {
				hotBidders++
			}
			bids++
		}
	}
	if persons != n/50 || auctions != n/50*3 || bids != n/50*46 {
		t.Errorf("%d persons, %d auctions, %d bids", persons, auctions, bids)
	}
	for what, c := range map[string][2]float64{
		"hot auctions": {float64(hotAuctions) / float64(bids), 0.505}, "hot bidders": {float64(hotBidders) / float64(bids), 0.7525},
		"hot sellers":    {float64(hotSellers) / float64(auctions), 0.7525},
		"bytes a person": {size[Persons.Name] / float64(persons) / personBytes, 1}, "bytes an auction": {size[Auctions.Name] / float64(auctions) / auctionBytes, 1},
	} {
		if math.Abs(c[0]-c[1]) > 0.1 {
			t.Errorf("%s: %.3f, want about %.3f", what, c[0], c[1])
		}
	}
}
