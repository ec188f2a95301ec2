// Package nexmark has the Nexmark benchmark: the events of an auction site, queries over
// them in the DSL, and a way to run them in memory.
//
// Events and queries follow the Nexmark of Apache Beam and Flink, which made a suite of
// the paper "NEXMark - A Benchmark for Queries over Data Streams" (Tucker, Tufte,
// Papadimos, Maier). There are three topics, of persons, auctions and bids, in order of
// time; bids are keyed by their auction.
package nexmark

import (
	"encoding/binary"
	"fmt"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// Person is somebody who sells and bids.
type Person struct {
	ID                                   int64
	Name, Email, CreditCard, City, State string
	Time                                 int64 // ms since the epoch
	Extra                                string
}

// Auction is an item that somebody sells.
type Auction struct {
	ID                int64
	Item, Description string
	InitialBid        int64
	Reserve           int64
	Time, Expires     int64 // ms since the epoch
	Seller, Category  int64
	Extra             string
}

// Bid is an offer for an auction.
type Bid struct {
	Auction, Bidder, Price int64
	Channel, URL           string
	Time                   int64 // ms since the epoch
	Extra                  string
}

// The topics.
var (
	Persons  = topology.NewTopic("nexmark-persons", serde.Int64, personSerde)
	Auctions = topology.NewTopic("nexmark-auctions", serde.Int64, auctionSerde)
	Bids     = topology.NewTopic("nexmark-bids", serde.Int64, bidSerde)
)

// binarySerde writes a struct as its fields, one after the other: integers as varints,
// strings as their length and bytes.
type binarySerde[T any] struct {
	name   string
	append func(dst []byte, v *T) []byte
	decode func(r *reader, v *T)
}

// Append implements serde.Serde.
func (s binarySerde[T]) Append(dst []byte, v T) ([]byte, error) { return s.append(dst, &v), nil }

// Decode implements serde.Serde. The strings of a value share one allocation.
func (s binarySerde[T]) Decode(src []byte) (v T, err error) {
	r := reader{rest: src}
	s.decode(&r, &v)
	if r.failed || len(r.rest) > 0 {
		return v, fmt.Errorf("%w: %s of %d bytes", serde.ErrFormat, s.name, len(src))
	}
	return v, nil
}

// Name implements serde.Serde.
func (s binarySerde[T]) Name() string { return "nexmark." + s.name }

// reader takes fields off bytes. After a failure it returns zero values.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) integer() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// bytes returns a string's bytes, which are the source's.
func (r *reader) bytes() []byte {
	size := r.integer()
	if size < 0 || size > int64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:size]
	r.rest = r.rest[size:]
	return b
}

// text returns strings that lie in a row.
func (r *reader) text(fields ...*string) {
	all := r.rest
	var spans [8][2]int
	for i := range fields {
		b := r.bytes()
		end := len(all) - len(r.rest)
		spans[i] = [2]int{end - len(b), end}
	}
	if r.failed {
		return
	}
	text := string(all[:len(all)-len(r.rest)])
	for i, f := range fields {
		*f = text[spans[i][0]:spans[i][1]]
	}
}

func appendText(dst []byte, fields ...string) []byte {
	for _, f := range fields {
		dst = append(binary.AppendVarint(dst, int64(len(f))), f...)
	}
	return dst
}

func appendIntegers(dst []byte, fields ...int64) []byte {
	for _, f := range fields {
		dst = binary.AppendVarint(dst, f)
	}
	return dst
}

func (r *reader) integers(fields ...*int64) {
	for _, f := range fields {
		*f = r.integer()
	}
}

var personSerde = binarySerde[Person]{"Person", func(dst []byte, p *Person) []byte {
	return appendText(appendIntegers(dst, p.ID, p.Time), p.Name, p.Email, p.CreditCard, p.City, p.State, p.Extra)
}, func(r *reader, p *Person) {
	r.integers(&p.ID, &p.Time)
	r.text(&p.Name, &p.Email, &p.CreditCard, &p.City, &p.State, &p.Extra)
}}

var auctionSerde = binarySerde[Auction]{"Auction", func(dst []byte, a *Auction) []byte {
	dst = appendIntegers(dst, a.ID, a.InitialBid, a.Reserve, a.Time, a.Expires, a.Seller, a.Category)
	return appendText(dst, a.Item, a.Description, a.Extra)
}, func(r *reader, a *Auction) {
	r.integers(&a.ID, &a.InitialBid, &a.Reserve, &a.Time, &a.Expires, &a.Seller, &a.Category)
	r.text(&a.Item, &a.Description, &a.Extra)
}}

var bidSerde = binarySerde[Bid]{"Bid", func(dst []byte, b *Bid) []byte {
	return appendText(appendIntegers(dst, b.Auction, b.Bidder, b.Price, b.Time), b.Channel, b.URL, b.Extra)
}, func(r *reader, b *Bid) {
	r.integers(&b.Auction, &b.Bidder, &b.Price, &b.Time)
	r.text(&b.Channel, &b.URL, &b.Extra)
}}
