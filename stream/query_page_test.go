package stream

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/memstore"
	"github.com/leatlog/leat/stream/client"
)

// stored is a row of a window or session store.
type stored struct {
	start, end int64
	key        string
}

func (s stored) raw(kind state.Kind) []byte {
	switch kind {
	case state.Window:
		return state.WindowKey(nil, s.start, []byte(s.key))
	case state.Session:
		return state.SessionKey(nil, s.start, s.end, []byte(s.key))
	case state.Versioned:
		return state.VersionKey(nil, []byte(s.key), s.start)
	}
	return []byte(s.key)
}

// Pages of any size, in either order, are what is left when all rows are looked at one by
// one.
func TestPagesAgainstAllRows(t *testing.T) {
	backend := memstore.New()
	opened := 0
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]state.Kind{state.KeyValue, state.Window, state.Session, state.Versioned}).Draw(t, "kind")
		spec := map[state.Kind]state.Spec{
			state.KeyValue:  {Name: "s"},
			state.Window:    {Name: "s", Kind: kind, WindowSize: time.Second, Retention: time.Hour},
			state.Session:   {Name: "s", Kind: kind, Retention: time.Hour},
			state.Versioned: {Name: "s", Kind: kind, Retention: time.Hour},
		}[kind]
		opened++
		engine, err := backend.Open(context.Background(), fmt.Sprintf("0_%d", opened), spec)
		if err != nil {
			t.Fatal(err)
		}
		keys := rapid.SampledFrom([]string{"", "a", "ab", "b", "c", "\xff"})
		var batch state.Batch
		var rows [][]byte
		spread := rapid.Int64Range(1, 4).Draw(t, "times")
		// Many rows of other keys in a window make a fetch of one key look for the next.
		crowd := rapid.SampledFrom([]int{0, 200}).Draw(t, "crowd")
		for i := range crowd {
			rows = append(rows, stored{1, 1, fmt.Sprintf("a%03d", i)}.raw(kind))
		}
		for range rapid.IntRange(0, 60).Draw(t, "rows") {
			s := stored{start: rapid.Int64Range(0, spread).Draw(t, "start"), key: keys.Draw(t, "key")}
			s.end = s.start + rapid.Int64Range(0, 2).Draw(t, "length")
			rows = append(rows, s.raw(kind))
		}
		for _, key := range rows {
			batch.Put(key, key)
		}
		if err := engine.Apply(&batch); err != nil {
			t.Fatal(err)
		}
		req := pageRequest{LatestStart: rapid.Int64Range(0, spread+2).Draw(t, "latest start"), Reverse: rapid.Bool().Draw(t, "reverse"), Limit: rapid.IntRange(1, 5).Draw(t, "limit")}
		if kind != state.KeyValue && kind != state.Versioned && rapid.Bool().Draw(t, "one key") {
			req.OneKey, req.Key = true, []byte(keys.Draw(t, "of key"))
		}
		if rapid.Bool().Draw(t, "bounded") {
			req.From, req.To = stored{start: 1, end: 1}.raw(kind), stored{start: spread, end: spread, key: "b"}.raw(kind)
		}
		var want []string
		slices.SortFunc(rows, bytes.Compare)
		for _, key := range slices.CompactFunc(rows, bytes.Equal) {
			if req.wants(kind, key) && (req.From == nil || bytes.Compare(key, req.From) >= 0) && (req.To == nil || bytes.Compare(key, req.To) < 0) {
				want = append(want, string(key))
			}
		}
		if req.Reverse {
			slices.Reverse(want)
		}
		var got []string
		for more := true; more; {
			p, err := readPage(engine, kind, req)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Rows) > req.Limit {
				t.Fatalf("%d rows in a page of %d", len(p.Rows), req.Limit)
			}
			for _, r := range p.Rows {
				if !bytes.Equal(r.Key, r.Value) {
					t.Fatalf("the row of %q has %q", r.Key, r.Value)
				}
				got = append(got, string(r.Key))
			}
			if more = p.More; req.Reverse {
				req.To = p.Next
			} else {
				req.From = p.Next
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	})
}

func TestFreshnessFollowsWhatIsCommitted(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	p := client.Partition{Topic: "in"}
	var end int64
	var seen time.Time
	f := &freshness{
		seen:    func(client.Partition) (int64, time.Time, bool) { return end, seen, !seen.IsZero() },
		sources: []freshSource{{partition: p, committed: 5}},
	}
	commit := func(offset int64) {
		f.commit(map[client.Partition]client.Offset{p: {Offset: offset}})
	}
	expect := func(want time.Time) {
		t.Helper()
		if got := f.asOf(); !got.Equal(want) {
			t.Fatalf("as of %v, want %v", got, want)
		}
	}
	expect(time.Time{}) // nothing was fetched yet
	end, seen = 5, at(1)
	expect(at(1))
	seen = at(2) // nothing new
	expect(at(2))
	end, seen = 8, at(3)
	expect(at(2))
	end, seen = 20, at(4) // more comes while the first is processed
	commit(7)
	expect(at(2))
	commit(9)
	expect(at(3)) // though 20 is not reached
	end, seen = 30, at(5)
	commit(25)
	expect(at(4))
	commit(30)
	expect(at(5))
}
