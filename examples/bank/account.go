package main

import "github.com/leatlog/leat/topology"

// Command is what somebody wants done with an account.
type Command struct {
	// Kind is deposit, withdraw, send or receive.
	Kind   string `json:"kind"`
	Amount int64  `json:"amount"` // cents
	// Other is the other account of a send or receive.
	Other string `json:"other,omitempty"`
}

// Event is what happened to an account.
type Event struct {
	// Kind is deposited, withdrawn, sent or received.
	Kind   string `json:"kind"`
	Amount int64  `json:"amount"` // cents
	Other  string `json:"other,omitempty"`
}

// Account is what its events made of an account.
type Account struct {
	Balance int64 `json:"balance"` // cents
}

// accounts decides about commands: no account goes below zero.
var accounts = topology.Decider[Account, Command, Event]{
	Decide: func(a Account, c Command) ([]Event, error) {
		if c.Amount <= 0 {
			return nil, topology.Reject("the amount is %d: it must be positive", c.Amount)
		}
		done := map[string]string{"deposit": "deposited", "withdraw": "withdrawn", "send": "sent", "receive": "received"}[c.Kind]
		switch {
		case done == "":
			return nil, topology.Reject("there is no %q", c.Kind)
		case done == "sent" && c.Other == "":
			return nil, topology.Reject("the money has nowhere to go")
		case (done == "withdrawn" || done == "sent") && c.Amount > a.Balance:
			return nil, topology.Reject("the balance is %s", money(a.Balance))
		}
		return []Event{{Kind: done, Amount: c.Amount, Other: c.Other}}, nil
	},
	Evolve: func(a Account, e Event) Account {
		switch e.Kind {
		case "deposited", "received":
			a.Balance += e.Amount
		case "withdrawn", "sent":
			a.Balance -= e.Amount
		}
		return a
	},
}
