package handler

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// InitProducerId (key 22), versions 0 to 5, for idempotent producers (KIP-98,
// KIP-360), to whom each call gives a new producer id with epoch 0, and for
// transactional ones, whose id's coordinator answers.
func initProducerID(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.InitProducerIDRequest)
	response := body.ResponseKind().(*kmsg.InitProducerIDResponse)
	answer := func(id int64, epoch int16, err *kerr.Error) {
		response.ErrorCode, response.ProducerID, response.ProducerEpoch = errorCode(err), id, epoch
		respond(wire.Response{Body: response})
	}
	switch {
	case body.TransactionalID != nil && *body.TransactionalID == "":
		answer(-1, -1, kerr.InvalidRequest)
	case body.Version >= 3 && (body.ProducerID < 0) != (body.ProducerEpoch < 0):
		answer(-1, -1, kerr.InvalidRequest)
	case body.TransactionalID != nil:
		h.Transactions.InitProducerID(body, bodyOf[*kmsg.InitProducerIDResponse](respond))
	default:
		h.ProducerIDs.Next(h.Controller, func(id int64, err *kerr.Error) {
			if err != nil {
				answer(-1, -1, err)
				return
			}
			answer(id, 0, nil)
		})
	}
}

// maxProducerIDWaiters bounds the requests that wait for one block of ids.
const maxProducerIDWaiters = 10_000

// ProducerIDs hands out producer ids from blocks that the controller gives to
// this broker. Blocks that a restart leaves unused are not used again. The zero value is
// ready. Safe for concurrent use.
type ProducerIDs struct {
	mu      sync.Mutex
	first   int64 // of what is left of the block
	left    int32
	waiting []func(int64, *kerr.Error)
	asked   bool
}

// Next calls done with an id that nobody else gets.
func (p *ProducerIDs) Next(c Controller, done func(int64, *kerr.Error)) {
	p.mu.Lock()
	if p.left > 0 {
		id := p.take()
		p.mu.Unlock()
		done(id, nil)
		return
	}
	if len(p.waiting) >= maxProducerIDWaiters {
		p.mu.Unlock()
		done(-1, kerr.CoordinatorLoadInProgress) // retriable
		return
	}
	p.waiting = append(p.waiting, done)
	ask := !p.asked
	p.asked = true
	p.mu.Unlock()
	if ask {
		p.ask(c)
	}
}

func (p *ProducerIDs) take() int64 {
	id := p.first
	p.first++
	p.left--
	return id
}

// ask gets a block and serves who waits, and goes on while somebody does.
func (p *ProducerIDs) ask(c Controller) {
	c.AllocateProducerIDs(func(first int64, count int32, err *kerr.Error) {
		if err == nil && count <= 0 {
			err = kerr.CoordinatorLoadInProgress
		}
		p.mu.Lock()
		served := p.waiting
		ids := make([]int64, 0, len(served))
		if err == nil {
			p.first, p.left = first, count
			served = served[:min(len(served), int(count))]
			for range served {
				ids = append(ids, p.take())
			}
		} else {
			// The controller is not there: clients try again (as in Kafka, which answers so
			// when it cannot get a block).
			err = kerr.CoordinatorLoadInProgress
		}
		p.waiting = slices.Clone(p.waiting[len(served):])
		p.asked = len(p.waiting) > 0
		again := p.asked
		p.mu.Unlock()
		for i, done := range served {
			if err != nil {
				done(-1, err)
			} else {
				done(ids[i], nil)
			}
		}
		if again {
			p.ask(c)
		}
	})
}
