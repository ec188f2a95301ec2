package nexmark

import (
	"slices"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// Query is one of the benchmark's.
type Query struct {
	Name, Title string
	// Topology makes it. What it finds goes to a topic of the query's name, lower case.
	Topology func() *topology.Topology
}

// Queries are those that there are.
var Queries = []Query{
	{"q0", "bids as they are", q0},
	{"q1", "bids in euro", q1},
	{"q2", "bids for some auctions", q2},
	{"q3", "who sells what in some states", q3},
	{"q4", "average winning bid of each category", q4},
	{"q5", "hottest auctions of 10 s, each 2 s", q5},
	{"q7", "highest bids of each 10 s", q7},
	{"q8", "new people who sell, each 10 s", q8},
	{"q11", "bids of each bidder's session", q11},
	{"q13", "bids joined with a table", q13},
	{"q17", "statistics of each auction and day", q17},
	{"q20", "bids joined with their auctions", q20},
}

func q0() *topology.Topology {
	t := topology.New()
	topology.To(topology.From(t, Bids), topology.NewTopic("q0", serde.Int64, bidSerde))
	return t
}

// inEuro is the price of the bid at the benchmark's rate.
func inEuro(b Bid) Bid {
	b.Price = b.Price * 908 / 1000
	return b
}

func q1() *topology.Topology {
	t := topology.New()
	topology.To(topology.MapValues(topology.From(t, Bids), inEuro), topology.NewTopic("q1", serde.Int64, bidSerde))
	return t
}

func isChosen(b Bid) bool { return b.Auction%123 == 0 }

func q2() *topology.Topology {
	t := topology.New()
	chosen := topology.From(t, Bids).Filter(isChosen)
	topology.To(topology.MapValues(chosen, func(b Bid) int64 { return b.Price }), topology.NewTopic("q2", serde.Int64, serde.Int64))
	return t
}

// Sale is a result of q3.
type Sale struct {
	Auction           int64
	Name, City, State string
}

var saleSerde = binarySerde[Sale]{"Sale", func(dst []byte, s *Sale) []byte {
	return appendText(appendIntegers(dst, s.Auction), s.Name, s.City, s.State)
}, func(r *reader, s *Sale) { r.integers(&s.Auction); r.text(&s.Name, &s.City, &s.State) }}

func isLocal(p Person) bool     { return p.State == "OR" || p.State == "ID" || p.State == "CA" }
func isCategory(a Auction) bool { return a.Category == 10 }

func sale(a Auction, p Person) Sale {
	return Sale{Auction: a.ID, Name: p.Name, City: p.City, State: p.State}
}

func q3() *topology.Topology {
	t := topology.New()
	people := topology.ToTable("q3-people", topology.From(t, Persons).Filter(isLocal))
	auctions := topology.ToTable("q3-auctions", topology.From(t, Auctions).Filter(isCategory))
	sales := topology.JoinForeign("q3-sales", auctions, people, func(_ int64, a Auction) int64 { return a.Seller }, sale)
	topology.To(sales.Stream(), topology.NewTopic("q3", serde.Int64, saleSerde))
	return t
}

// Winner is what q4 knows of an auction. Bids may come before it.
type Winner struct {
	Category, Begin, End, Price int64
	Known                       bool
	Early                       []Bid // without texts
}

var winnerSerde = binarySerde[Winner]{"Winner", func(dst []byte, w *Winner) []byte {
	known := int64(0)
	if w.Known {
		known = 1
	}
	dst = appendIntegers(dst, w.Category, w.Begin, w.End, w.Price, known, int64(len(w.Early)))
	for _, b := range w.Early {
		dst = appendIntegers(dst, b.Time, b.Price)
	}
	return dst
}, func(r *reader, w *Winner) {
	var known, early int64
	r.integers(&w.Category, &w.Begin, &w.End, &w.Price, &known, &early)
	w.Known = known == 1
	for range min(max(early, 0), int64(len(r.rest))) {
		var b Bid
		r.integers(&b.Time, &b.Price)
		w.Early = append(w.Early, b)
	}
}}

func (w Winner) begins(a Auction) Winner {
	early := w.Early
	w = Winner{Category: a.Category, Begin: a.Time, End: a.Expires, Known: true}
	for _, b := range early {
		w = w.bid(b)
	}
	return w
}

func (w Winner) bid(b Bid) Winner {
	switch {
	case !w.Known:
		w.Early = append(w.Early, Bid{Time: b.Time, Price: b.Price})
	case b.Time >= w.Begin && b.Time <= w.End:
		w.Price = max(w.Price, b.Price)
	}
	return w
}

// Average is a sum and how many it is of.
type Average struct{ Sum, Count int64 }

var averageSerde = binarySerde[Average]{"Average", func(dst []byte, a *Average) []byte { return appendIntegers(dst, a.Sum, a.Count) },
	func(r *reader, a *Average) { r.integers(&a.Sum, &a.Count) }}

func q4() *topology.Topology {
	t := topology.New()
	winners := topology.AggregateCogroup("q4-winners", topology.Cogroup(
		topology.Into(topology.From(t, Auctions).GroupByKey(), Winner.begins),
		topology.Into(topology.From(t, Bids).GroupByKey(), Winner.bid)), winnerSerde)
	won := winners.Filter(func(_ int64, w Winner) bool { return w.Known && w.Price > 0 })
	categories := topology.GroupTable("q4-categories", won, serde.Int64, serde.Int64, func(_ int64, w Winner) (int64, int64) { return w.Category, w.Price })
	averages := topology.AggregateTable("q4-averages", categories, averageSerde,
		func(a Average, price int64) Average { return Average{a.Sum + price, a.Count + 1} },
		func(a Average, price int64) Average { return Average{a.Sum - price, a.Count - 1} })
	topology.To(averages.Stream(), topology.NewTopic("q4", serde.Int64, averageSerde))
	return t
}

func q13() *topology.Topology {
	t := topology.New()
	side := topology.ToTable("q13-side", topology.From(t, Side))
	bids := topology.SelectKey(topology.From(t, Bids), sideKey).WithKeySerde(serde.Int64).Repartition("q13-bids")
	topology.To(topology.JoinTable(bids, side, withSide), topology.NewTopic("q13", serde.Int64, sideBidSerde))
	return t
}

// Side is the table that q13 joins with, sideRows of them.
var Side = topology.NewTopic("nexmark-side", serde.Int64, serde.String)

const sideRows = 10_000

func sideKey(b Bid) int64 { return b.Auction % sideRows }

// SideBid is a result of q13.
type SideBid struct {
	Auction, Bidder, Price, Time int64
	Value                        string
}

var sideBidSerde = binarySerde[SideBid]{"SideBid", func(dst []byte, b *SideBid) []byte {
	return appendText(appendIntegers(dst, b.Auction, b.Bidder, b.Price, b.Time), b.Value)
}, func(r *reader, b *SideBid) { r.integers(&b.Auction, &b.Bidder, &b.Price, &b.Time); r.text(&b.Value) }}

func withSide(b Bid, value string) SideBid {
	return SideBid{b.Auction, b.Bidder, b.Price, b.Time, value}
}

// Statistics is a result of q17.
type Statistics struct{ Bids, Low, Middle, High, Min, Max, Sum int64 }

var statisticsSerde = binarySerde[Statistics]{"Statistics", func(dst []byte, s *Statistics) []byte {
	return appendIntegers(dst, s.Bids, s.Low, s.Middle, s.High, s.Min, s.Max, s.Sum)
}, func(r *reader, s *Statistics) {
	r.integers(&s.Bids, &s.Low, &s.Middle, &s.High, &s.Min, &s.Max, &s.Sum)
}}

func (s Statistics) bid(b Bid) Statistics {
	if s.Bids == 0 {
		s.Min = b.Price
	}
	switch {
	case b.Price < 10_000:
		s.Low++
	case b.Price < 1_000_000:
		s.Middle++
	default:
		s.High++
	}
	s.Bids, s.Sum, s.Min, s.Max = s.Bids+1, s.Sum+b.Price, min(s.Min, b.Price), max(s.Max, b.Price)
	return s
}

const day = 24 * time.Hour

func q17() *topology.Topology {
	t := topology.New()
	days := topology.From(t, Bids).GroupByKey().Window(topology.Tumbling(day))
	topology.To(topology.Aggregate("q17-statistics", days, statisticsSerde, Statistics.bid).Stream(),
		topology.NewTopic("q17", serde.Windowed(serde.Int64, day), statisticsSerde))
	return t
}

// AuctionBid is a result of q20.
type AuctionBid struct {
	Auction, Bidder, Price, Time, Seller int64
	Item, Channel, URL                   string
}

var auctionBidSerde = binarySerde[AuctionBid]{"AuctionBid", func(dst []byte, b *AuctionBid) []byte {
	return appendText(appendIntegers(dst, b.Auction, b.Bidder, b.Price, b.Time, b.Seller), b.Item, b.Channel, b.URL)
}, func(r *reader, b *AuctionBid) {
	r.integers(&b.Auction, &b.Bidder, &b.Price, &b.Time, &b.Seller)
	r.text(&b.Item, &b.Channel, &b.URL)
}}

func withAuction(b Bid, a Auction) AuctionBid {
	return AuctionBid{b.Auction, b.Bidder, b.Price, b.Time, a.Seller, a.Item, b.Channel, b.URL}
}

// joinTime is how far apart a bid and its auction are at most: the benchmark's join has no
// bound, its bids come within seconds.
const joinTime = time.Minute

func q20() *topology.Topology {
	t := topology.New()
	auctions := topology.From(t, Auctions).Filter(isCategory)
	topology.To(topology.JoinStreams("q20-bids", topology.From(t, Bids), auctions, topology.Within(joinTime), withAuction),
		topology.NewTopic("q20", serde.Int64, auctionBidSerde))
	return t
}

// insertBid puts a bid into a list that is ordered, so that equal contents are equal lists.
func insertBid(list []Price, b Price) []Price {
	at, _ := slices.BinarySearchFunc(list, b, Price.compare)
	return slices.Insert(list, at, b)
}
