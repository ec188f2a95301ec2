package replica

// Bell wakes the one goroutine that waits for it.
type Bell interface {
	// Ring ends the wait that is under way, or else the next one. It does not block.
	Ring()
	// Wait returns when it rang since the last Wait returned.
	Wait()
}

// channelBell holds a token when it rang.
type channelBell chan struct{}

func newChannelBell() Bell { return make(channelBell, 1) }

func (b channelBell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

func (b channelBell) Wait() { <-b }
