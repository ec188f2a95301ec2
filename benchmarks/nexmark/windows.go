package nexmark

import (
	"cmp"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// byWindow hands the results of windows on to a second step, which takes those of all keys
// together: keyed by the window's start, and with that as their time, so that a window of
// the second step has those of one of the first.
func byWindow[K, V any](name string, results *topology.Stream[topology.WindowedKey[K], V], value topology.Serde[V]) *topology.Grouped[int64, V] {
	out := topology.NewOutput(name+"-windows", serde.Int64, value)
	p := topology.Process(results, topology.Processor[topology.WindowedKey[K], V]{
		Process: func(c *topology.ProcessorContext, r *topology.Record[topology.WindowedKey[K], V]) error {
			return out.ForwardRecord(c, &topology.Record[int64, V]{Key: r.Key.Start, Value: r.Value, Timestamp: r.Key.Start})
		},
		Outputs: []topology.ProcessorOutput{out},
	}, topology.Named(name+"-by-window"))
	return out.Of(p).GroupByKey(topology.Named(name + "-window"))
}

// secondGrace is how far apart the tasks of the first step may be.
const secondGrace = 10 * time.Second

// Hottest are the auctions with the most bids, a result of q5 by the window's start.
type Hottest struct {
	Auctions []int64
	Bids     int64
}

var hottestSerde = binarySerde[Hottest]{"Hottest", func(dst []byte, h *Hottest) []byte {
	return appendIntegers(appendIntegers(dst, h.Bids, int64(len(h.Auctions))), h.Auctions...)
}, func(r *reader, h *Hottest) {
	var n int64
	r.integers(&h.Bids, &n)
	for range min(max(n, 0), int64(len(r.rest))) {
		h.Auctions = append(h.Auctions, r.integer())
	}
}}

// auctionCount is how many bids an auction had in a window.
type auctionCount struct{ auction, bids int64 }

var auctionCountSerde = binarySerde[auctionCount]{"auctionCount", func(dst []byte, c *auctionCount) []byte {
	return appendIntegers(dst, c.auction, c.bids)
}, func(r *reader, c *auctionCount) { r.integers(&c.auction, &c.bids) }}

func (h Hottest) with(c auctionCount) Hottest {
	if c.bids > h.Bids {
		h = Hottest{Bids: c.bids}
	}
	if c.bids == h.Bids {
		h.Auctions = append(h.Auctions, c.auction)
	}
	return h
}

const (
	hotWindow, hotAdvance = 10 * time.Second, 2 * time.Second
	tumble                = 10 * time.Second
)

func q5() *topology.Topology {
	t := topology.New()
	counts := topology.Count("q5-counts", topology.From(t, Bids).GroupByKey().Window(topology.Hopping(hotWindow, hotAdvance)), topology.OnWindowClose())
	named := topology.MapRecord(counts.Stream(), func(r *topology.Record[topology.WindowedKey[int64], int64]) (topology.WindowedKey[int64], auctionCount, error) {
		return r.Key, auctionCount{r.Key.Key, r.Value}, nil
	}, topology.Named("q5-named"))
	hottest := topology.Aggregate("q5-hottest", byWindow("q5", named, auctionCountSerde).Window(topology.Tumbling(hotAdvance).Grace(secondGrace)),
		hottestSerde, Hottest.with, topology.OnWindowClose())
	topology.To(hottest.Stream(), topology.NewTopic("q5", serde.Windowed(serde.Int64, hotAdvance), hottestSerde))
	return t
}

// Price is a bid as q7 compares it.
type Price struct{ Price, Auction, Bidder, Time int64 }

func (p Price) compare(o Price) int {
	return cmp.Or(cmp.Compare(p.Auction, o.Auction), cmp.Compare(p.Bidder, o.Bidder), cmp.Compare(p.Time, o.Time))
}

// Highest are the bids with the highest price.
type Highest struct{ Bids []Price }

var highestSerde = binarySerde[Highest]{"Highest", func(dst []byte, h *Highest) []byte {
	for _, b := range h.Bids {
		dst = appendIntegers(dst, b.Price, b.Auction, b.Bidder, b.Time)
	}
	return dst
}, func(r *reader, h *Highest) {
	for len(r.rest) > 0 {
		var b Price
		r.integers(&b.Price, &b.Auction, &b.Bidder, &b.Time)
		h.Bids = append(h.Bids, b)
	}
}}

func (h Highest) bid(b Bid) Highest { return h.with(Price{b.Price, b.Auction, b.Bidder, b.Time}) }

func (h Highest) with(b Price) Highest {
	switch {
	case len(h.Bids) == 0 || b.Price > h.Bids[0].Price:
		h.Bids = append(h.Bids[:0], b)
	case b.Price == h.Bids[0].Price:
		h.Bids = insertBid(h.Bids, b)
	}
	return h
}

func (h Highest) all(o Highest) Highest {
	for _, b := range o.Bids {
		h = h.with(b)
	}
	return h
}

func q7() *topology.Topology {
	t := topology.New()
	// The highest of each auction first: they are in many tasks.
	windows := topology.From(t, Bids).GroupByKey().Window(topology.Tumbling(tumble))
	each := topology.Aggregate("q7-each", windows, highestSerde, Highest.bid, topology.OnWindowClose())
	highest := topology.Aggregate("q7-highest", byWindow("q7", each.Stream(), highestSerde).Window(topology.Tumbling(tumble).Grace(secondGrace)),
		highestSerde, Highest.all, topology.OnWindowClose())
	topology.To(highest.Stream(), topology.NewTopic("q7", serde.Windowed(serde.Int64, tumble), highestSerde))
	return t
}

// Seller is somebody who came and what they sell, in a window.
type Seller struct {
	Came, Auctions int64
	Name           string
}

var sellerSerde = binarySerde[Seller]{"Seller", func(dst []byte, s *Seller) []byte {
	return appendText(appendIntegers(dst, s.Came, s.Auctions), s.Name)
}, func(r *reader, s *Seller) { r.integers(&s.Came, &s.Auctions); r.text(&s.Name) }}

func (s Seller) comes(p Person) Seller {
	s.Came, s.Name = s.Came+1, p.Name
	return s
}

func (s Seller) sells(Auction) Seller {
	s.Auctions++
	return s
}

func q8() *topology.Topology {
	t := topology.New()
	bySeller := topology.GroupBy("q8-by-seller", topology.From(t, Auctions), serde.Int64, func(a Auction) int64 { return a.Seller })
	both := topology.Cogroup(topology.Into(topology.From(t, Persons).GroupByKey(), Seller.comes), topology.Into(bySeller, Seller.sells))
	sellers := topology.AggregateCogroup("q8-sellers", both.Window(topology.Tumbling(tumble).Grace(secondGrace)), sellerSerde, topology.OnWindowClose())
	found := sellers.Stream().Filter(func(s Seller) bool { return s.Came > 0 && s.Auctions > 0 })
	topology.To(found, topology.NewTopic("q8", serde.Windowed(serde.Int64, tumble), sellerSerde))
	return t
}

func q11() *topology.Topology {
	t := topology.New()
	byBidder := topology.GroupBy("q11-by-bidder", topology.From(t, Bids), serde.Int64, func(b Bid) int64 { return b.Bidder })
	sessions := topology.Count("q11-sessions", byBidder.Window(topology.Session(tumble)), topology.OnWindowClose())
	topology.To(sessions.Stream(), topology.NewTopic("q11", serde.Session(serde.Int64), serde.Int64))
	return t
}
