package nexmark

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// The numbers of the specification.
const (
	personsOf50  = 1
	auctionsOf50 = 3
	eventsOf50   = 50 // the other 46 are bids

	firstPerson   = 1000
	firstAuction  = 1000
	firstCategory = 10
	categories    = 5

	activePeople    = 1000 // who bid and sell
	openAuctions    = 100  // that are bid for
	leadOfPersons   = 10   // ids beyond the last person, who is still to come
	leadOfAuctions  = 10
	hotEvery        = 100 // every hundredth auction, bidder and seller is a hot one
	hotAuctionRatio = 2   // all but one in 2 bids are for the hot auction
	hotBidderRatio  = 4
	hotSellerRatio  = 4
	hotChannelRatio = 2
	channels        = 10_000

	personBytes  = 200 // sizes of events, on average
	auctionBytes = 500
	bidBytes     = 100
)

// Event is one of the three.
type Event struct {
	Person  *Person
	Auction *Auction
	Bid     *Bid
}

// Time is the event's, in ms since the epoch.
func (e Event) Time() int64 {
	switch {
	case e.Person != nil:
		return e.Person.Time
	case e.Auction != nil:
		return e.Auction.Time
	}
	return e.Bid.Time
}

// Generator makes the events: of each 50 the first is a person, the next three are
// auctions, and the others bids, 10,000 a second. The same seed gives the same events.
type Generator struct {
	random *rand.Rand
	base   int64 // time of the first event
	n      int64 // events so far
}

// NewGenerator begins at a time in ms since the epoch.
func NewGenerator(seed uint64, begin int64) *Generator {
	return &Generator{random: rand.New(rand.NewPCG(seed, 50)), base: begin}
}

// Next makes the next event.
func (g *Generator) Next() Event {
	at, place := g.timeOf(g.n), g.n%eventsOf50
	defer func() { g.n++ }()
	switch {
	case place < personsOf50:
		return Event{Person: g.person(at)}
	case place < personsOf50+auctionsOf50:
		return Event{Auction: g.auction(at)}
	}
	return Event{Bid: g.bid(at)}
}

// timeOf is the time of the nth event: 100 us after the one before.
func (g *Generator) timeOf(n int64) int64 { return g.base + n/10 }

// lastPerson and lastAuction count from 0.
func (g *Generator) lastPerson() int64 { return g.n / eventsOf50 }

func (g *Generator) lastAuction() int64 {
	return g.n/eventsOf50*auctionsOf50 + min(g.n%eventsOf50-personsOf50, auctionsOf50-1)
}

// nextPerson is one of the people who are active, or about to come.
func (g *Generator) nextPerson() int64 {
	people := g.lastPerson() + 1
	active := min(people, activePeople)
	return people - active + g.random.Int64N(active+leadOfPersons)
}

// nextAuction is one of the auctions that are open, or about to be.
func (g *Generator) nextAuction() int64 {
	last := max(g.lastAuction(), 0)
	first := max(last-openAuctions, 0)
	return first + g.random.Int64N(last-first+1+leadOfAuctions)
}

func (g *Generator) person(at int64) *Person {
	p := &Person{ID: firstPerson + g.lastPerson(), Time: at}
	first, last := g.one(firstNames), g.one(lastNames)
	p.Name = first + " " + last
	p.Email = fmt.Sprintf("%s@%s.com", g.text(7), g.text(5))
	p.CreditCard = fmt.Sprintf("%04d %04d %04d %04d", g.random.IntN(10000), g.random.IntN(10000), g.random.IntN(10000), g.random.IntN(10000))
	p.City, p.State = g.one(cities), g.one(states)
	p.Extra = g.extra(personBytes, 16+len(p.Name)+len(p.Email)+len(p.CreditCard)+len(p.City)+len(p.State))
	return p
}

func (g *Generator) auction(at int64) *Auction {
	a := &Auction{ID: firstAuction + g.lastAuction(), Time: at, Seller: g.nextPerson()}
	if g.random.IntN(hotSellerRatio) > 0 {
		a.Seller = g.lastPerson() / hotEvery * hotEvery
	}
	a.Seller += firstPerson
	a.Category = firstCategory + g.random.Int64N(categories)
	a.InitialBid = g.price()
	a.Reserve = a.InitialBid + g.price()
	// It ends, on average, when as many auctions have begun after it as are open at a time.
	horizon := g.timeOf(g.n+openAuctions*eventsOf50/auctionsOf50) - at
	a.Expires = at + 1 + g.random.Int64N(max(2*horizon, 1))
	a.Item, a.Description = g.text(20), g.text(100)
	a.Extra = g.extra(auctionBytes, 56+len(a.Item)+len(a.Description))
	return a
}

func (g *Generator) bid(at int64) *Bid {
	b := &Bid{Auction: g.nextAuction(), Bidder: g.nextPerson(), Price: g.price(), Time: at}
	if g.random.IntN(hotAuctionRatio) > 0 {
		b.Auction = max(g.lastAuction(), 0) / hotEvery * hotEvery
	}
	if g.random.IntN(hotBidderRatio) > 0 {
		b.Bidder = g.lastPerson()/hotEvery*hotEvery + 1
	}
	b.Auction, b.Bidder = b.Auction+firstAuction, b.Bidder+firstPerson
	if g.random.IntN(hotChannelRatio) > 0 {
		b.Channel = g.one(hotChannels)
		b.URL = "https://www.nexmark.com/" + strings.ToLower(b.Channel) + "/item.htm?query=1"
	} else {
		n := g.random.IntN(channels)
		b.Channel = fmt.Sprintf("channel-%d", n)
		b.URL = fmt.Sprintf("https://www.nexmark.com/item.htm?query=1&channel_id=%d", n)
	}
	b.Extra = g.extra(bidBytes, 32+len(b.Channel)+len(b.URL))
	return b
}

// price is between 1.00 and 1,000,000.00, in cents, with the logarithm equally spread.
func (g *Generator) price() int64 { return int64(math.Round(math.Pow(10, g.random.Float64()*6) * 100)) }

func (g *Generator) one(of []string) string { return of[g.random.IntN(len(of))] }

// text is of 3 to most letters.
func (g *Generator) text(most int) string { return g.letters(3 + g.random.IntN(most-2)) }

func (g *Generator) letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(g.random.IntN(26))
	}
	return string(b)
}

// extra fills an event up to about a size.
func (g *Generator) extra(size, has int) string {
	if has >= size {
		return ""
	}
	spread := max((size-has)/5, 1)
	return g.letters(size - has - spread + g.random.IntN(2*spread))
}

var (
	firstNames  = []string{"Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"}
	lastNames   = []string{"Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"}
	cities      = []string{"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"}
	states      = []string{"AZ", "CA", "ID", "OR", "WA", "WY"}
	hotChannels = []string{"Google", "Facebook", "Baidu", "Apple"}
)
