package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// Kinds of Activity.
const (
	kindView  = "view"  // a page was shown
	kindClick = "click" // something on it was clicked
	kindLeave = "leave" // it was left, or its tab hidden
	// kindTick is nobody's: the time, told to every partition, so that sessions end when
	// nobody does anything.
	kindTick = "tick"
)

// Activity is something that a visitor did, who is the record's key.
type Activity struct {
	Kind string `json:"kind"`
	// Page is the page's path, Target what was clicked.
	Page   string    `json:"page,omitempty"`
	Target string    `json:"target,omitempty"`
	Time   time.Time `json:"time"`
}

// Visit is what a visitor did in a session: the aggregations' state.
type Visit struct {
	Views  int `json:"views"`
	Clicks int `json:"clicks"`
	// Pages are those that were viewed, in order, at most maxPages of them.
	Pages []string `json:"pages"`
}

// Session is a visit and its bounds. A closed one is final.
type Session struct {
	Visit
	Visitor string    `json:"visitor"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end"`
	Closed  bool      `json:"closed"`
}

// PageCount is how often a page was viewed in a minute.
type PageCount struct {
	Page  string `json:"page"`
	Views int64  `json:"views"`
}

// Top are the pages that were viewed in a minute, the most viewed one first.
type Top struct {
	Minute time.Time   `json:"minute"`
	Pages  []PageCount `json:"pages"`
}

// The topics.
var (
	// activityTopic has what visitors do; the key is the visitor, empty for ticks.
	activityTopic = topology.NewTopic("pageviews-activity", serde.String, serde.JSON[Activity]())
	// sessionsTopic has each session once, when it is closed, by visitor.
	sessionsTopic = topology.NewTopic("pageviews-sessions", serde.String, serde.JSON[Session]())
	// openTopic has the sessions that are open, as they change, by visitor.
	openTopic = topology.NewTopic("pageviews-open", serde.String, serde.JSON[Session]())
	// topTopic has the pages of each minute, as they change; the key is the minute.
	topTopic = topology.NewTopic("pageviews-top", serde.String, serde.JSON[Top]())
)

const (
	// gap is how long a visitor does nothing before the session is over.
	gap = 30 * time.Second
	// grace is how much later than others a record may come. One process stamps and
	// writes them in order; several on one cluster may be apart a little.
	grace = 5 * time.Second
	// minuteGrace is that of the counts: views reach them through a repartition topic, into
	// which one partition, with a backlog, may write later than another.
	minuteGrace = time.Hour
	// maxPages bounds what is remembered of a session.
	maxPages = 100
)

// pageviewsTopology declares what becomes of activity:
//
//	pageviews-activity ─┬─ sessions by visitor ─┬─ on close ──> pageviews-sessions
//	                    │                       └─ on update ─> pageviews-open
//	                    └─ views by page ── count per minute ── by minute ── all pages ──> pageviews-top
func pageviewsTopology() *topology.Topology {
	t := topology.New(topology.OnError(topology.Skip()))
	activity := topology.From(t, activityTopic, topology.Named("activity"),
		topology.EventTime(func(a Activity) time.Time { return a.Time }))
	people := activity.Filter(func(a Activity) bool { return a.Kind != kindTick }, topology.Named("people"))

	byVisitor := people.GroupByKey().Window(topology.Session(gap).Grace(grace))
	topology.To(sessions("sessions", byVisitor, true, topology.OnWindowClose()), sessionsTopic, topology.Named("closed"))
	topology.To(sessions("open-sessions", byVisitor, false, topology.OnUpdate(), topology.InMemory()), openTopic, topology.Named("open"))

	views := people.Filter(func(a Activity) bool { return a.Kind == kindView }, topology.Named("views"))
	byPage := topology.GroupBy("by-page", views, serde.String, func(a Activity) string { return a.Page })
	counts := topology.Count("views-per-minute", byPage.Window(topology.Tumbling(time.Minute).Grace(minuteGrace)))
	// The minute's pages come from several partitions: its key brings them together. The
	// latest count of a page is the one that holds, so it does not matter how often it comes.
	byMinute := topology.Map(counts.Stream(), func(k topology.WindowedKey[string], n int64) (string, PageCount) {
		return k.StartTime().Format(time.RFC3339), PageCount{Page: k.Key, Views: n}
	}, topology.Named("minutes")).WithKeySerde(serde.String).WithValueSerde(serde.JSON[PageCount]()).GroupByKey(topology.Named("by-minute"))
	top := topology.Aggregate("top-pages", byMinute.Window(topology.Tumbling(time.Minute).Grace(minuteGrace)), serde.JSON[Top](), Top.with)
	topology.To(topology.Map(top.Stream(), func(k topology.WindowedKey[string], top Top) (string, Top) {
		return k.Key, Top{Minute: k.StartTime(), Pages: top.Pages}
	}, topology.Named("top")), topTopic, topology.Named("top-topic"))
	return t
}

func sessions(name string, windows *topology.WindowedGroup[string, Activity], closed bool, options ...topology.AggregateOption) *topology.Stream[string, Session] {
	visits := topology.Aggregate(name, windows, serde.JSON[Visit](), Visit.add, append(options, topology.Merger(Visit.then))...)
	// A session that became part of another is removed under its old bounds, by a null.
	there := visits.Stream().FilterRecord(func(r *topology.Record[topology.WindowedKey[string], Visit]) (bool, error) { return r.HasValue(), nil },
		topology.Named(name+"-there"))
	return topology.Map(there, func(k topology.WindowedKey[string], v Visit) (string, Session) {
		return k.Key, Session{Visit: v, Visitor: k.Key, Start: k.StartTime(), End: k.EndTime(), Closed: closed}
	}, topology.Named(name+"-result"))
}

// add takes what a visitor did into the visit.
func (v Visit) add(a Activity) Visit {
	switch a.Kind {
	case kindView:
		v.Views++
		if len(v.Pages) < maxPages {
			v.Pages = append(v.Pages, a.Page)
		}
	case kindClick:
		v.Clicks++
	}
	return v
}

// then is the visit that a visit and a later one make together.
func (v Visit) then(later Visit) Visit {
	pages := slices.Concat(v.Pages, later.Pages)
	return Visit{Views: v.Views + later.Views, Clicks: v.Clicks + later.Clicks, Pages: pages[:min(len(pages), maxPages)]}
}

// with is the list with a page's new count.
func (t Top) with(c PageCount) Top {
	if i := slices.IndexFunc(t.Pages, func(old PageCount) bool { return old.Page == c.Page }); i >= 0 {
		t.Pages[i] = c
	} else {
		t.Pages = append(t.Pages, c)
	}
	slices.SortFunc(t.Pages, func(a, b PageCount) int { return cmp.Or(cmp.Compare(b.Views, a.Views), cmp.Compare(a.Page, b.Page)) })
	return t
}
