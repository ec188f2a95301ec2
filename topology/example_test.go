package topology_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

type HTTPRequest struct {
	Received time.Time
	Route    string
	Bytes    int64
}

func (r HTTPRequest) Time() time.Time   { return r.Received }
func (r HTTPRequest) RouteName() string { return r.Route }

type RouteStats struct{ Requests, Bytes int64 }

// Add is a method expression away from being an aggregator: RouteStats.Add.
func (s RouteStats) Add(r HTTPRequest) RouteStats {
	return RouteStats{s.Requests + 1, s.Bytes + r.Bytes}
}

// Requests per route and minute, each minute reported once, ten seconds after its
// end.
func Example() {
	httpRequests := topology.NewTopic("http-requests", serde.String, serde.JSON[HTTPRequest]())
	rollups := topology.NewTopic("rollups", serde.Windowed(serde.String, time.Minute), serde.JSON[RouteStats]())

	t := topology.New()
	requests := topology.From(t, httpRequests, topology.EventTime(HTTPRequest.Time))
	byRoute := topology.GroupBy("by-route", requests, serde.String, HTTPRequest.RouteName)
	stats := topology.Aggregate("route-stats", byRoute.Window(topology.Tumbling(time.Minute).Grace(10*time.Second)),
		serde.JSON[RouteStats](), RouteStats.Add, topology.OnWindowClose())
	topology.To(stats.Stream(), rollups)

	description, err := t.Describe()
	fmt.Println(description, err)
	// Output:
	// sub-topology 0: reads http-requests; writes by-route (repartition)
	//   from           http-requests         topic http-requests
	//     group-by     by-route              <- http-requests
	//     repartition  by-route.repartition  <- by-route; topic by-route; write
	//
	// sub-topology 1: reads by-route (repartition); writes rollups
	//   repartition  by-route.repartition           topic by-route; read
	//   aggregate    route-stats                    <- by-route.repartition; store route-stats; tumbling 1m0s, grace 10s, emits on close
	//     stream     route-stats.stream             <- route-stats
	//     to         route-stats.stream.to.rollups  <- route-stats.stream; topic rollups
	//  <nil>
}

// Words are counted: each becomes a record of its own, and meets its like through
// a repartition topic.
func ExampleCount() {
	lines := topology.NewTopic("lines", serde.Bytes, serde.String)
	counts := topology.NewTopic("counts", serde.String, serde.Int64)

	t := topology.New()
	words := topology.FlatMapValues(topology.From(t, lines), strings.Fields).WithValueSerde(serde.String)
	byWord := topology.GroupBy("by-word", words, serde.String, strings.ToLower)
	topology.To(topology.Count("word-counts", byWord).Stream(), counts)

	plan, err := t.Build()
	fmt.Println(len(plan.SubTopologies), "sub-topologies,", err)
	// Output: 2 sub-topologies, <nil>
}

// Records that a function cannot handle go to a topic of their own.
func ExampleOnError() {
	readings := topology.NewTopic("readings", serde.String, serde.String)
	seconds := topology.NewTopic("seconds", serde.String, serde.Float64)

	t := topology.New()
	parsed := topology.MapValuesRecord(topology.From(t, readings), func(r *topology.Record[string, string]) (float64, error) {
		d, err := time.ParseDuration(r.Value)
		return d.Seconds(), err
	}, topology.Named("parse"), topology.OnError(topology.DeadLetter("bad-readings")))
	topology.To(parsed, seconds)

	description, _ := t.Describe()
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads readings; writes seconds, bad-readings
	//   from          readings          topic readings
	//     map-values  parse             <- readings; dead letters to bad-readings
	//     to          parse.to.seconds  <- parse; topic seconds
}

// Build reports every mistake at once.
func ExampleTopology_Build() {
	t := topology.New()
	orders := topology.From(t, topology.NewTopic("orders", serde.String, serde.JSON[HTTPRequest]()))
	topology.Count("per user", orders.GroupByKey())
	topology.Count("per-route", topology.SelectKey(orders, HTTPRequest.RouteName).WithKeySerde(serde.String).GroupByKey())

	_, err := t.Build()
	fmt.Println(err)
	// Output:
	// topology: 2 mistakes in the program:
	// 	operator "per user": the name of this count has a ' ': use letters, digits, '.', '_' and '-'
	// 	operator "per-route": it works by key, but "orders.select-key" changed the keys, so a repartition topic is needed, and that needs a name: GroupByKey(topology.Named("..."))
}

// Orders with the names of their customers.
func ExampleJoinTable() {
	orders := topology.NewTopic("orders", serde.String, serde.String)
	customers := topology.NewTopic("customers", serde.String, serde.String)
	named := topology.NewTopic("named-orders", serde.String, serde.String)

	t := topology.New()
	names := topology.ToTable("customer-names", topology.From(t, customers))
	withName := topology.JoinTable(topology.From(t, orders), names, func(order, name string) string { return order + " for " + name })
	topology.To(withName.WithValueSerde(serde.String), named)

	description, err := t.Describe()
	if err != nil {
		panic(err)
	}
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads customers, orders; writes named-orders; co-partitioned customers, orders
	//   from        customers                          topic customers
	//   to-table    customer-names                     <- customers; store customer-names
	//   from        orders                             topic orders
	//   join-table  orders.join-table                  <- orders, customer-names
	//     to        orders.join-table.to.named-orders  <- orders.join-table; topic named-orders
}

// Orders at the price that counted when they were made, however late the price, or the order,
// comes.
func ExampleToVersionedTable() {
	prices := topology.NewTopic("prices", serde.String, serde.Float64)
	orders := topology.NewTopic("orders", serde.String, serde.Float64)
	amounts := topology.NewTopic("amounts", serde.String, serde.Float64)

	t := topology.New()
	table := topology.ToVersionedTable("price-history", topology.From(t, prices), 24*time.Hour)
	priced := topology.JoinTable(topology.From(t, orders), table, func(pieces, price float64) float64 { return pieces * price })
	topology.To(priced.WithValueSerde(serde.Float64), amounts)

	description, err := t.Describe()
	if err != nil {
		panic(err)
	}
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads prices, orders; writes amounts; co-partitioned prices, orders
	//   from                prices                        topic prices
	//   to-versioned-table  price-history                 <- prices; store price-history; history 24h0m0s
	//   from                orders                        topic orders
	//   join-table          orders.join-table             <- orders, price-history
	//     to                orders.join-table.to.amounts  <- orders.join-table; topic amounts
}

// Clicks on what was shown at most a minute before, and what nobody clicked on.
func ExampleLeftJoinStreams() {
	shown := topology.NewTopic("impressions", serde.String, serde.String)
	clicked := topology.NewTopic("clicks", serde.String, serde.Int64)
	outcomes := topology.NewTopic("outcomes", serde.String, serde.String)

	t := topology.New()
	joined := topology.LeftJoinStreams("shown-and-clicked", topology.From(t, shown), topology.From(t, clicked),
		topology.Within(0).After(time.Minute).Grace(10*time.Second),
		func(page string, button int64, found bool) string { return fmt.Sprint(page, button, found) })
	topology.To(joined.WithValueSerde(serde.String), outcomes)

	description, err := t.Describe()
	if err != nil {
		panic(err)
	}
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads impressions, clicks; writes outcomes; co-partitioned impressions, clicks
	//   from               impressions                    topic impressions
	//   from               clicks                         topic clicks
	//   left-join-streams  shown-and-clicked              <- impressions, clicks; store shown-and-clicked; from 0s before to 1m0s after, grace 10s
	//     to               shown-and-clicked.to.outcomes  <- shown-and-clicked; topic outcomes
}

// How many employees each office has, whoever moves.
func ExampleGroupTable() {
	employees := topology.NewTopic("employees", serde.String, serde.String)
	headcounts := topology.NewTopic("headcounts", serde.String, serde.Int64)

	t := topology.New()
	offices := topology.ToTable("office-of", topology.From(t, employees))
	byOffice := topology.GroupTable("by-office", offices, serde.String, serde.String, func(employee, office string) (string, string) { return office, employee })
	topology.To(topology.CountTable("headcount", byOffice).Stream(), headcounts)

	description, err := t.Describe()
	if err != nil {
		panic(err)
	}
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads employees; writes by-office (repartition)
	//   from           employees              topic employees
	//   to-table       office-of              <- employees; store office-of
	//   group-table    by-office.rows         <- office-of; store by-office
	//     group-by     by-office              <- by-office.rows
	//     repartition  by-office.repartition  <- by-office; topic by-office; write
	//
	// sub-topology 1: reads by-office (repartition); writes headcounts
	//   repartition  by-office.repartition           topic by-office; read
	//   count-table  headcount                       <- by-office.repartition; store headcount
	//     stream     headcount.stream                <- headcount
	//     to         headcount.stream.to.headcounts  <- headcount.stream; topic headcounts
}

// Orders with the names of their customers, where both may change.
func ExampleJoinForeign() {
	orders := topology.NewTopic("orders", serde.String, serde.String) // the customer of each
	customers := topology.NewTopic("customers", serde.String, serde.String)
	named := topology.NewTopic("orders-of", serde.String, serde.String)

	t := topology.New()
	byID := topology.ToTable("orders-by-id", topology.From(t, orders))
	names := topology.ToTable("customer-names", topology.From(t, customers))
	withName := topology.JoinForeign("order-names", byID, names, func(order, customer string) string { return customer },
		func(customer, name string) string { return name })
	topology.To(withName.Stream().WithValueSerde(serde.String), named)

	plan, err := t.Build()
	if err != nil {
		panic(err)
	}
	for _, s := range plan.SubTopologies {
		for _, store := range s.Stores {
			fmt.Println(s.ID, store.Name)
		}
	}
	// Output:
	// 0 orders-by-id
	// 0 order-names
	// 1 customer-names
	// 1 order-names-subscriptions
}

// How long visits are, in pages, told once when a visitor has been away for half an hour.
func ExampleSession() {
	pages := topology.NewTopic("pages", serde.String, serde.String) // by visitor
	visits := topology.NewTopic("visits", serde.Session(serde.String), serde.Int64)

	t := topology.New()
	byVisitor := topology.From(t, pages).GroupByKey().Window(topology.Session(30 * time.Minute).Grace(time.Minute))
	topology.To(topology.Count("visit-pages", byVisitor, topology.OnWindowClose()).Stream(), visits)

	description, err := t.Describe()
	if err != nil {
		panic(err)
	}
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads pages; writes visits
	//   from            pages                         topic pages
	//     group-by-key  pages.group-by-key            <- pages
	//   count           visit-pages                   <- pages.group-by-key; store visit-pages; session gap 30m0s, grace 1m0s, emits on close
	//     stream        visit-pages.stream            <- visit-pages
	//     to            visit-pages.stream.to.visits  <- visit-pages.stream; topic visits
}

// The price of each share, at most every ten seconds of event time.
func ExampleTable_Suppress() {
	prices := topology.NewTopic("prices", serde.String, serde.Float64)
	ticker := topology.NewTopic("ticker", serde.String, serde.Float64)

	t := topology.New()
	latest := topology.ToTable("latest", topology.From(t, prices))
	calm := latest.Suppress("calm", topology.UntilTimeLimit(10*time.Second).MaxRecords(10_000).EmitEarly())
	topology.To(calm.Stream(), ticker)

	description, err := t.Describe()
	if err != nil {
		panic(err)
	}
	fmt.Println(description)
	// Output:
	// sub-topology 0: reads prices; writes ticker
	//   from      prices                 topic prices
	//   to-table  latest                 <- prices; store latest
	//   suppress  calm                   <- latest; store calm; until time limit 10s, at most 10000 records, then early
	//     stream  calm.stream            <- calm
	//     to      calm.stream.to.ticker  <- calm.stream; topic ticker
}
