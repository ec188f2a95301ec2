package main

import (
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// The topics, keyed by account.
var (
	commandsTopic   = topology.NewTopic("bank-commands", serde.String, serde.JSON[Command]())
	eventsTopic     = topology.NewTopic("bank-events", serde.String, serde.JSON[Event]())
	rejectionsTopic = topology.NewTopic("bank-rejections", serde.String, serde.JSON[topology.Rejection[Command]]())
	balancesTopic   = topology.NewTopic("bank-balances", serde.String, serde.JSON[Account]())
)

// deadLetters has the commands that could not be read.
const deadLetters = "bank-dead-letters"

// bankTopology declares the bank:
//
//	bank-commands ── decide ─┬─> bank-events ── (sent) ── receive, by the other account ──> bank-commands
//	                         ├─> bank-rejections
//	                         └─> bank-balances
//
// A transfer is two decisions, one in each account, that a command connects: money that
// has left one account arrives at the other, once, whatever dies in between.
func bankTopology() *topology.Topology {
	t := topology.New()
	commands := topology.From(t, commandsTopic, topology.Named("commands"), topology.OnError(topology.DeadLetter(deadLetters)))
	d := topology.Decide("accounts", commands, serde.JSON[Account](), accounts)
	topology.To(d.Events, eventsTopic, topology.Named("events"))
	topology.To(d.Rejections, rejectionsTopic, topology.Named("rejections"))
	balances := topology.MapTable(d.State, func(_ string, s topology.Versioned[Account]) Account { return s.State })
	topology.To(balances.Stream(), balancesTopic, topology.Named("balances"))

	sent := d.Events.Filter(func(e Event) bool { return e.Kind == "sent" }, topology.Named("sent"))
	received := topology.Map(sent, func(from string, e Event) (string, Command) {
		return e.Other, Command{Kind: "receive", Amount: e.Amount, Other: from}
	}, topology.Named("receive"))
	topology.To(received, commandsTopic, topology.Named("received"))
	return t
}
