package nexmark

import (
	"fmt"
	"slices"
)

// batch computes what a query finds over all events at once, as lines: for queries whose
// results come once, one for each; for tables the last value of each key.
var batch = map[string]func(events []Event) []string{
	"q0": func(e []Event) []string { return eachBid(e, func(b Bid) string { return fmt.Sprint(b.Auction, b) }) },
	"q1": func(e []Event) []string {
		return eachBid(e, func(b Bid) string { b.Price = b.Price * 908 / 1000; return fmt.Sprint(b.Auction, b) })
	},
	"q2":  batchQ2,
	"q3":  batchQ3,
	"q4":  batchQ4,
	"q5":  batchQ5,
	"q7":  batchQ7,
	"q8":  batchQ8,
	"q11": batchQ11,
	"q13": func(e []Event) []string {
		return eachBid(e, func(b Bid) string {
			return fmt.Sprint(b.Auction%10000, SideBid{b.Auction, b.Bidder, b.Price, b.Time, fmt.Sprint("side ", b.Auction%10000)})
		})
	},
	"q17": batchQ17,
	"q20": batchQ20,
}

// eachBid makes a line of each bid; empty ones are left out.
func eachBid(events []Event, line func(Bid) string) []string {
	var lines []string
	for _, e := range events {
		if e.Bid == nil {
			continue
		}
		if l := line(*e.Bid); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

func auctionsOf(events []Event) map[int64]Auction {
	auctions := map[int64]Auction{}
	for _, e := range events {
		if e.Auction != nil {
			auctions[e.Auction.ID] = *e.Auction
		}
	}
	return auctions
}

func personsOf(events []Event) map[int64]Person {
	persons := map[int64]Person{}
	for _, e := range events {
		if e.Person != nil {
			persons[e.Person.ID] = *e.Person
		}
	}
	return persons
}

func batchQ2(events []Event) []string {
	return eachBid(events, func(b Bid) string {
		if b.Auction%123 != 0 {
			return ""
		}
		return fmt.Sprint(b.Auction, b.Price)
	})
}

func batchQ3(events []Event) (lines []string) {
	persons := personsOf(events)
	for id, a := range auctionsOf(events) {
		p, found := persons[a.Seller]
		if found && a.Category == 10 && slices.Contains([]string{"OR", "ID", "CA"}, p.State) {
			lines = append(lines, fmt.Sprint(id, Sale{id, p.Name, p.City, p.State}))
		}
	}
	return lines
}

func batchQ4(events []Event) (lines []string) {
	auctions, winning := auctionsOf(events), map[int64]int64{}
	eachBid(events, func(b Bid) string {
		if a, found := auctions[b.Auction]; found && b.Time >= a.Time && b.Time <= a.Expires {
			winning[b.Auction] = max(winning[b.Auction], b.Price)
		}
		return ""
	})
	averages := map[int64]Average{}
	for id, price := range winning {
		a := averages[auctions[id].Category]
		averages[auctions[id].Category] = Average{a.Sum + price, a.Count + 1}
	}
	for category, a := range averages {
		lines = append(lines, fmt.Sprint(category, a))
	}
	return lines
}

// tooLate says that a window begins so late that the end of the input does not close it in
// both steps.
func tooLate(start int64) bool { return start > begin+afterAll-10_000 }

func batchQ5(events []Event) (lines []string) {
	windows := map[int64]map[int64]int64{}
	eachBid(events, func(b Bid) string {
		for start := b.Time - b.Time%2000; start > b.Time-10_000; start -= 2000 {
			if windows[start] == nil {
				windows[start] = map[int64]int64{}
			}
			windows[start][b.Auction]++
		}
		return ""
	})
	for start, counts := range windows {
		if tooLate(start) {
			continue
		}
		var h Hottest
		for _, n := range counts {
			h.Bids = max(h.Bids, n)
		}
		for auction, n := range counts {
			if n == h.Bids {
				h.Auctions = append(h.Auctions, auction)
			}
		}
		slices.Sort(h.Auctions)
		lines = append(lines, fmt.Sprint(start, h))
	}
	return lines
}

func batchQ7(events []Event) (lines []string) {
	best := map[int64]int64{}
	eachBid(events, func(b Bid) string {
		best[b.Time/10_000] = max(best[b.Time/10_000], b.Price)
		return ""
	})
	highest := map[int64][]Price{}
	eachBid(events, func(b Bid) string {
		if b.Price == best[b.Time/10_000] {
			highest[b.Time/10_000] = append(highest[b.Time/10_000], Price{b.Price, b.Auction, b.Bidder, b.Time})
		}
		return ""
	})
	for window, bids := range highest {
		if !tooLate(window * 10_000) {
			slices.SortFunc(bids, Price.compare)
			lines = append(lines, fmt.Sprint(window*10_000, Highest{bids}))
		}
	}
	return lines
}

func batchQ8(events []Event) (lines []string) {
	type sale struct{ seller, window int64 }
	sales := map[sale]int64{}
	for _, a := range auctionsOf(events) {
		sales[sale{a.Seller, a.Time / 10_000}]++
	}
	for id, p := range personsOf(events) {
		auctions := sales[sale{id, p.Time / 10_000}]
		if start := p.Time / 10_000 * 10_000; auctions > 0 && start < begin+2*afterAll {
			lines = append(lines, fmt.Sprint(id, "@", start, Seller{1, auctions, p.Name}))
		}
	}
	return lines
}

func batchQ11(events []Event) (lines []string) {
	times := map[int64][]int64{}
	eachBid(events, func(b Bid) string { times[b.Bidder] = append(times[b.Bidder], b.Time); return "" })
	for bidder, all := range times {
		slices.Sort(all)
		for from := 0; from < len(all); {
			to := from
			for to+1 < len(all) && all[to+1]-all[to] <= 10_000 {
				to++
			}
			if all[to] < begin+2*afterAll { // the last one does not end
				lines = append(lines, fmt.Sprint(bidder, "@", all[from], "-", all[to], ": ", to-from+1))
			}
			from = to + 1
		}
	}
	return lines
}

func batchQ17(events []Event) (lines []string) {
	type group struct{ auction, day int64 }
	prices := map[group][]int64{}
	eachBid(events, func(b Bid) string {
		g := group{b.Auction, b.Time / 86_400_000 * 86_400_000}
		prices[g] = append(prices[g], b.Price)
		return ""
	})
	for g, all := range prices {
		s := Statistics{Bids: int64(len(all)), Min: slices.Min(all), Max: slices.Max(all)}
		for _, price := range all {
			s.Sum += price
			switch {
			case price < 10_000:
				s.Low++
			case price < 1_000_000:
				s.Middle++
			default:
				s.High++
			}
		}
		lines = append(lines, fmt.Sprint(g.auction, "@", g.day, s))
	}
	return lines
}

func batchQ20(events []Event) []string {
	auctions := auctionsOf(events)
	return eachBid(events, func(b Bid) string {
		a, found := auctions[b.Auction]
		if !found || a.Category != 10 {
			return ""
		}
		return fmt.Sprint(b.Auction, AuctionBid{b.Auction, b.Bidder, b.Price, b.Time, a.Seller, a.Item, b.Channel, b.URL})
	})
}
