package topology

import (
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/plan"
)

// Aggregates in stores, in either kind, are
//
//	| timestamp (8) | aggregate (n) |
//
// with the timestamp of the result, big-endian, in ms since the Unix epoch, and
// the aggregate as its serde writes it. Keys are the key's bytes, behind the
// window's start in window stores (state.WindowKey). The rows of versioned stores are others,
// see versions.go.

const timestampSize = 8

// entry is a cached aggregate.
type entry[K, A any] struct {
	// raw is the key's bytes.
	raw       string
	key       K
	value     A
	timestamp int64
	// size is the last known size of the encoded value.
	size int
	// present: there is an aggregate. stored: the store has a row for the key, or what reads
	// a versioned one was told of a value.
	// dirty: it differs from the store and is in the list of dirty entries.
	// used: it was used since the cache last looked for what to forget.
	present, stored, dirty, used bool
	// home is the page it is in.
	home *page[K, A]
}

// page is the cached part of the keys of a store, or of one window of it.
type page[K, A any] struct {
	// start is the window's, 0 in key-value stores.
	start int64
	// entries and list hold the same; the list has the order of arrival, so that
	// nothing depends on the map's.
	entries map[string]*entry[K, A]
	list    []*entry[K, A]
	// complete says that a key that is not here is not in the store either.
	complete bool
	// closed says that the window is closed: its entries are not to be written.
	closed bool
}

func newPage[K, A any](start int64, complete bool) *page[K, A] {
	return &page[K, A]{start: start, complete: complete, entries: map[string]*entry[K, A]{}}
}

// cache is a typed write-back cache over a store. A key's aggregate is encoded
// and written at most once per flush, and decoded when it enters the cache.
type cache[K, A any] struct {
	store state.Store
	value Serde[A]
	null  nulls[A]
	// dirty entries, in the order in which they became so.
	dirty []*entry[K, A]
	// bytes are what the entries weigh, limit is the share of the budget.
	bytes, limit int
	overhead     int
	// storeKey appends the store's key for an entry of a page to dst.
	storeKey func(dst []byte, start int64, raw string) []byte
	// load, if set, finds what the store has for an entry, of a store that has not one row
	// for each. Then whoever changes an entry writes its rows, and write only tells whether
	// there is anything to emit.
	load     func(*entry[K, A]) error
	keyBuf   []byte
	valueBuf []byte
	// name is the store's, counted what the metrics tell.
	name    string
	counted figures
}

func newCache[K, A any](ctx plan.Context, name string, stores int, value Serde[A], storeKey func([]byte, int64, string) []byte) cache[K, A] {
	return cache[K, A]{
		store: ctx.Store(name), name: name, value: value, null: nullCheck[A](), storeKey: storeKey,
		limit:    ctx.CacheBytes() / stores,
		overhead: int(reflect.TypeFor[entry[K, A]]().Size()) + 64, // and its part of the map and the list
	}
}

// find returns the entry of a key, from the cache or the store, or a new one.
func (c *cache[K, A]) find(p *page[K, A], raw []byte, key K) (*entry[K, A], error) {
	if e := p.entries[string(raw)]; e != nil {
		e.used = true
		c.counted.hits++
		return e, nil
	}
	e := &entry[K, A]{raw: string(raw), key: key, timestamp: -1, used: true, home: p}
	if p.complete {
		c.counted.hits++
	} else if err := c.read(p, e); err != nil {
		return nil, err
	}
	p.entries[e.raw] = e
	p.list = append(p.list, e)
	c.bytes += c.weight(e)
	return e, nil
}

// read fills a new entry with what the store has.
func (c *cache[K, A]) read(p *page[K, A], e *entry[K, A]) error {
	c.counted.misses++
	if c.load != nil {
		return c.load(e)
	}
	c.keyBuf = c.storeKey(c.keyBuf[:0], p.start, e.raw)
	stored, found, err := c.store.Get(c.valueBuf[:0], c.keyBuf)
	if err != nil || !found {
		return err
	}
	c.valueBuf = stored[:0]
	return c.decode(stored, e)
}

func (c *cache[K, A]) weight(e *entry[K, A]) int { return c.overhead + len(e.raw) + e.size }

// decode reads a stored aggregate into an entry.
func (c *cache[K, A]) decode(stored []byte, e *entry[K, A]) error {
	if len(stored) < timestampSize {
		return errTooShort
	}
	value, err := c.value.Decode(stored[timestampSize:])
	if err != nil {
		return fmt.Errorf("stored aggregate: %w", err)
	}
	e.timestamp = int64(binary.BigEndian.Uint64(stored))
	e.value, e.size, e.present, e.stored = value, len(stored), true, true
	return nil
}

// set changes an entry. Its time is the latest of its inputs.
func (c *cache[K, A]) set(e *entry[K, A], value A, timestamp int64) {
	e.value, e.present = value, !c.null.isNull(value)
	e.timestamp = max(e.timestamp, timestamp)
	if !e.dirty {
		e.dirty = true
		c.dirty = append(c.dirty, e)
	}
}

// remove makes an entry's key one that has no value.
func (c *cache[K, A]) remove(e *entry[K, A], timestamp int64) {
	var none A
	c.set(e, none, timestamp)
	e.present = false
}

// write writes a dirty entry to the store and tells whether there was anything to
// write: a key that came and went between two flushes leaves no trace.
func (c *cache[K, A]) write(e *entry[K, A]) (written bool, err error) {
	e.dirty = false
	if !e.present && !e.stored {
		return false, nil
	}
	if c.load != nil {
		e.stored = e.present
		return true, nil
	}
	c.counted.writes++
	c.keyBuf = c.storeKey(c.keyBuf[:0], e.home.start, e.raw)
	if !e.present {
		e.stored = false
		return true, c.store.Delete(c.keyBuf, e.timestamp)
	}
	c.valueBuf = binary.BigEndian.AppendUint64(c.valueBuf[:0], uint64(e.timestamp))
	if c.valueBuf, err = c.value.Append(c.valueBuf, e.value); err != nil {
		return false, fmt.Errorf("aggregate: %w", err)
	}
	c.bytes += len(c.valueBuf) - e.size
	e.size, e.stored = len(c.valueBuf), true
	return true, c.store.Put(c.keyBuf, c.valueBuf, e.timestamp)
}

// full tells whether the cache outgrew its share.
func (c *cache[K, A]) full() bool { return c.bytes > c.limit }

// forget drops clean entries of a page until the cache weighs at most target:
// those not used since the last time first come, first go; used ones get off
// with a warning.
func (c *cache[K, A]) forget(p *page[K, A], target int) {
	kept := p.list[:0]
	for _, e := range p.list {
		if c.bytes <= target || e.dirty || e.used {
			e.used = e.used && c.bytes <= target
			kept = append(kept, e)
			continue
		}
		delete(p.entries, e.raw)
		c.bytes -= c.weight(e)
		p.complete = false
	}
	clear(p.list[len(kept):])
	p.list = kept
}

// drop forgets a whole page.
func (c *cache[K, A]) drop(p *page[K, A]) {
	for _, e := range p.list {
		c.bytes -= c.weight(e)
	}
	p.entries, p.list = nil, nil
}
