package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func view1(page string) Activity { return Activity{Kind: kindView, Page: page} }

// A session is over when the gap and the grace have passed, which a tick tells when nobody
// does anything; a crash in between changes nothing. Leaving counts for its length.
func TestTopology(t *testing.T) {
	d := streamtest.New(t, pageviewsTopology(), streamtest.Partitions(1))
	in := streamtest.NewInput(d, activityTopic)
	closed, open, top := streamtest.NewOutput(d, sessionsTopic), streamtest.NewOutput(d, openTopic), streamtest.NewOutput(d, topTopic)
	send := func(visitor string, second int, a Activity) {
		t.Helper()
		a.Time = noon.Add(time.Duration(second) * time.Second)
		in.Send(visitor, a, a.Time)
	}
	send("ada", 0, view1("/"))
	send("ada", 20, view1("/leat"))
	send("bob", 20, view1("/"))
	d.Crash()
	send("ada", 45, Activity{Kind: kindClick, Page: "/leat", Target: "Clear the leaves"})
	send("ada", 50, Activity{Kind: kindLeave, Page: "/leat"})
	if got := open.Read(); len(got) == 0 || got[len(got)-1].Value.Visitor != "ada" || got[len(got)-1].Value.Closed {
		t.Errorf("open: %v", got)
	}
	send("", 84, Activity{Kind: kindTick})
	got := closed.Read()
	want := Session{Visit: Visit{Views: 1, Pages: []string{"/"}}, Visitor: "bob", Start: noon.Add(20 * time.Second), End: noon.Add(20 * time.Second), Closed: true}
	if len(got) != 1 || !reflect.DeepEqual(got[0].Value, want) {
		t.Errorf("closed %v, want %v", got, want)
	}
	d.Crash()
	send("", 86, Activity{Kind: kindTick})
	got = closed.Read()
	want = Session{Visit: Visit{Views: 2, Clicks: 1, Pages: []string{"/", "/leat"}}, Visitor: "ada", Start: noon, End: noon.Add(50 * time.Second), Closed: true}
	if len(got) != 1 || !reflect.DeepEqual(got[0].Value, want) {
		t.Errorf("closed %v, want %v", got, want)
	}
	send("bob", 90, view1("/leat"))
	tops := map[string]Top{}
	for _, r := range top.Read() {
		tops[r.Key] = r.Value
	}
	if want := map[string]Top{
		"2026-03-01T12:00:00Z": {Minute: noon, Pages: []PageCount{{"/", 2}, {"/leat", 1}}},
		"2026-03-01T12:01:00Z": {Minute: noon.Add(time.Minute), Pages: []PageCount{{"/leat", 1}}},
	}; !reflect.DeepEqual(tops, want) {
		t.Errorf("top %v, want %v", tops, want)
	}
}

// Two sessions that a record makes one have the pages of both, in order.
func TestVisitThen(t *testing.T) {
	early, late := Visit{}.add(view1("/")).add(view1("/leat")), Visit{}.add(view1("/wheel")).add(Activity{Kind: kindClick})
	if got, want := early.then(late), (Visit{Views: 3, Clicks: 1, Pages: []string{"/", "/leat", "/wheel"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	long := Visit{}
	for range maxPages {
		long = long.add(view1("/"))
	}
	if got := long.then(late); len(got.Pages) != maxPages || got.Views != maxPages+1 {
		t.Errorf("%d pages of %d views", len(got.Pages), got.Views)
	}
}
