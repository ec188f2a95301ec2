package main

import (
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// Order is what a customer wants.
type Order struct {
	Customer string `json:"customer"`
	Product  string `json:"product"`
	Quantity int64  `json:"quantity"`
}

// Customer is who orders.
type Customer struct {
	Name string `json:"name"`
	City string `json:"city"`
}

// Product is what can be ordered.
type Product struct {
	Name  string `json:"name"`
	Price int64  `json:"price"` // cents
}

// Shipment is an order with who gets it, as it was known when the order came.
type Shipment struct {
	Order Order  `json:"order"`
	Name  string `json:"name"`
	City  string `json:"city"` // empty for a customer who is not known
}

// Priced is an order with what it costs now.
type Priced struct {
	Order   Order  `json:"order"`
	Product string `json:"product"`
	Total   int64  `json:"total"` // cents
}

// The topics: orders by id, customers and products by theirs, shipments by customer.
var (
	ordersTopic    = topology.NewTopic("orders", serde.String, serde.JSON[Order]())
	customersTopic = topology.NewTopic("orders-customers", serde.String, serde.JSON[Customer]())
	productsTopic  = topology.NewTopic("orders-products", serde.String, serde.JSON[Product]())
	shipmentsTopic = topology.NewTopic("orders-shipments", serde.String, serde.JSON[Shipment]())
	pricedTopic    = topology.NewTopic("orders-priced", serde.String, serde.JSON[Priced]())
)

// ordersTopology declares the joins:
//
//	orders ─┬─ by customer ── left join customers ──> orders-shipments
//	        └─ table ── join products, by the product ──> orders-priced
//
// The first is of a stream with a table: each order finds the customer as it is then. The
// second is of two tables by a foreign key: an order's price follows its product's.
func ordersTopology() *topology.Topology {
	t := topology.New()
	orders := topology.From(t, ordersTopic)
	customers := topology.ToTable("customers", topology.From(t, customersTopic))
	products := topology.ToTable("products", topology.From(t, productsTopic))

	byCustomer := topology.SelectKey(orders, func(o Order) string { return o.Customer }, topology.Named("customer")).
		WithKeySerde(serde.String).Repartition("by-customer")
	shipments := topology.LeftJoinTable(byCustomer, customers, func(o Order, c Customer, _ bool) Shipment {
		return Shipment{Order: o, Name: c.Name, City: c.City}
	}, topology.Named("ship"))
	topology.To(shipments, shipmentsTopic, topology.Named("shipments"))

	priced := topology.JoinForeign("priced", topology.ToTable("placed", orders), products,
		func(_ string, o Order) string { return o.Product },
		func(o Order, p Product) Priced { return Priced{Order: o, Product: p.Name, Total: o.Quantity * p.Price} })
	topology.To(priced.Stream(), pricedTopic, topology.Named("totals"))
	return t
}
