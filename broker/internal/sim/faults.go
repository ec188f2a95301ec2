package sim

import (
	"time"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// disturb does something bad, and comes back.
func (c *Cluster) disturb() {
	if c.healed {
		return
	}
	s := c.s
	id := 1 + s.random.Int32N(nodeCount)
	n := c.nodes[id]
	switch s.random.IntN(22) {
	case 0, 1:
		c.stop(n, true)
	case 2:
		c.stop(n, false)
	case 3:
		if s.random.IntN(4) == 0 {
			c.say("FAULT all nodes lose their power")
			c.stats.PowerLostByAll++
			for id := int32(1); id <= nodeCount; id++ {
				c.stop(c.nodes[id], true)
			}
		}
	case 4:
		c.freeze(n)
	case 5:
		c.say("FAULT node %d is cut off", id)
		c.stats.Isolations++
		for other := int32(1); other <= nodeCount; other++ {
			c.cut(id, other)
			c.cut(other, id)
		}
		if s.random.IntN(2) == 0 {
			for _, x := range c.clients {
				c.cut(id, x.place)
				c.cut(x.place, id)
			}
		}
	case 6:
		c.say("FAULT node %d is cut off in one direction", id)
		c.stats.OneWayCuts++
		inward := s.random.IntN(2) == 0
		for other := int32(1); other <= nodeCount; other++ {
			if inward {
				c.cut(other, id)
			} else {
				c.cut(id, other)
			}
		}
	case 7:
		other := 1 + id%nodeCount
		c.say("FAULT nodes %d and %d do not hear each other", id, other)
		c.stats.BridgedCuts++
		c.cut(id, other)
		c.cut(other, id)
	case 8:
		x := c.clients[s.random.IntN(len(c.clients))]
		c.stats.ClientCuts++
		c.cut(x.place, id)
		if s.random.IntN(2) == 0 {
			c.cut(id, x.place)
		}
	case 9:
		c.stats.LossyTimes++
		c.net.loss = s.random.IntN(60)
	case 10:
		c.stats.SlowTimes++
		c.net.slow, c.net.late = s.random.IntN(200), s.between(10*time.Millisecond, 2*time.Second)
	case 11:
		c.stats.SlowDisks++
		c.diskSlow = s.between(time.Millisecond, 200*time.Millisecond)
	case 16, 17:
		if c.losesDisks && c.allInSync() {
			c.loseDisk(n)
		}
	case 18, 19:
		c.strike = 1 + s.random.IntN(2)
	case 20:
		if c.minISR == 1 || c.losesDisks && c.allInSync() {
			c.sicken(n)
		}
	case 21:
		c.fill(n)
	case 12:
		c.net.repeat = s.random.IntN(100)
	default:
		c.say("the network is whole again")
		clear(c.net.cut)
		c.net.loss, c.net.slow, c.diskSlow = 0, 0, 2*time.Millisecond
	}
	c.outside.after(s.between(50*time.Millisecond, 1500*time.Millisecond), c.disturb)
}

func (c *Cluster) cut(from, to place) {
	if from != to {
		c.net.cut[[2]place{from, to}] = true
	}
}

// stop ends a node's process, and starts it again some time later.
func (c *Cluster) stop(n *node, power bool) {
	if n.process == nil {
		return
	}
	if power {
		c.stats.PowerLosses++
	} else {
		c.stats.Kills++
	}
	c.say("FAULT node %d stops, power lost: %v", n.id, power)
	c.s.note("stop", int64(n.id))
	n.kill(power)
	back := c.s.between(20*time.Millisecond, time.Second)
	if c.s.random.IntN(3) == 0 {
		back = c.s.between(time.Second, 8*time.Second)
	}
	c.outside.after(back, func() {
		if n.process == nil && !c.healed {
			c.say("node %d starts", n.id)
			c.boot(n.id)
		}
	})
}

// struck has a node, or all, lose power when they have just acknowledged something: that is
// when what was promised too early is lost.
func (c *Cluster) struck(n *node) {
	strike := c.strike
	if c.strike = 0; strike == 0 || c.healed {
		return
	}
	c.stats.Strikes++
	c.outside.after(c.s.between(0, 200*time.Microsecond), func() {
		for id := int32(1); id <= nodeCount; id++ {
			if strike == 2 || id == n.id {
				c.stop(c.nodes[id], true)
			}
		}
	})
}

// loseDisk gives a node an empty disk for its partitions. The quorum's is another one: a
// voter that forgets its vote has to be replaced, not started.
func (c *Cluster) loseDisk(n *node) {
	c.say("FAULT node %d loses its logs", n.id)
	c.stats.LostDisks++
	c.stop(n, true)
	names, err := n.disk.List("data")
	if err != nil {
		c.fail("I11: %v", err)
	}
	for _, name := range names {
		if name == "quorum" {
			continue
		}
		if err := n.disk.RemoveAll("data/" + name); err != nil {
			c.fail("I11: %v", err)
		}
	}
	n.directory, _ = metadata.NewUUID(reader{c.s})
	n.previous = -1
	if c.s.random.IntN(2) == 0 { // what the others have synced they keep
		for other := int32(1); other <= nodeCount; other++ {
			c.stop(c.nodes[other], true)
		}
	}
}

// allInSync says that all nodes are up and know that all replicas are in sync, so that one
// disk may be lost: what was acknowledged with min.insync.replicas=2 is on another one.
func (c *Cluster) allInSync() bool {
	offset := int64(-1)
	for id := int32(1); id <= nodeCount; id++ {
		n := c.nodes[id]
		if n.process == nil || n.epoch < 0 || offset >= 0 && n.log.published.Offset() != offset {
			return false
		}
		image := n.log.published
		offset = image.Offset()
		for other := int32(1); other <= nodeCount; other++ {
			if b, ok := image.Broker(other); !ok || b.Directory != c.nodes[other].directory || !image.Active(other) {
				return false
			}
		}
		for _, t := range image.Topics() {
			for i := range t.Partitions {
				if m := &t.Partitions[i]; len(m.Replicas) < 2 || len(m.ISR) != len(m.Replicas) || len(m.Adding)+len(m.Removing) > 0 {
					return false
				}
			}
		}
	}
	return true
}

// freeze stops a process as SIGSTOP does, and lets it go on later.
func (c *Cluster) freeze(n *node) {
	if n.process == nil || n.life.paused {
		return
	}
	c.say("FAULT node %d is paused", n.id)
	c.stats.Pauses++
	l := n.life
	l.pause()
	c.outside.after(c.s.between(20*time.Millisecond, 5*time.Second), func() {
		if l.paused && !l.dead {
			c.say("node %d goes on", n.id)
			l.resume()
		}
	})
}

// heal ends all faults.
func (c *Cluster) heal() {
	c.say("healing")
	c.healed = true
	c.calmDown()
	for id := int32(1); id <= nodeCount; id++ {
		c.revive(id)
	}
}

func (c *Cluster) calmDown() {
	clear(c.net.cut)
	c.net.loss, c.net.slow, c.net.repeat, c.diskSlow = 0, 0, 0, 2*time.Millisecond
}

func (c *Cluster) revive(id int32) {
	n := c.nodes[id]
	n.empty()
	n.cure()
	if n.process == nil {
		c.boot(id)
	} else if n.life.paused {
		n.life.resume()
	}
}

// minority makes the faults of one node last and ends those of the others: then all
// producers must get on.
func (c *Cluster) minority(wrong func() bool) {
	c.stats.MinorityPhases++
	id := 1 + c.s.random.Int32N(nodeCount)
	c.say("only node %d stays away", id)
	c.healed = true // nothing else happens
	c.calmDown()
	for other := int32(1); other <= nodeCount; other++ {
		if other != id {
			c.revive(other)
		}
	}
	if c.s.random.IntN(2) == 0 {
		c.nodes[id].kill(true)
	} else {
		for other := int32(1); other <= nodeCount; other++ {
			c.cut(id, other)
			c.cut(other, id)
		}
		for _, x := range c.clients {
			c.cut(id, x.place)
			c.cut(x.place, id)
		}
	}
	before := map[*producer]int{}
	for _, p := range c.producers {
		before[p] = p.acked
		p.goOn = !p.moved
	}
	if !c.s.run(c.s.now+healTime, func() bool {
		for _, p := range c.producers {
			if !p.moved && p.acked < before[p]+3 {
				return wrong()
			}
		}
		return true
	}) {
		c.fail("I9: with node %d away some producers made no progress for %v%s", id, healTime, c.describe())
	}
	for _, p := range c.producers {
		p.goOn = false
	}
}

// whole says that all is as it should be after healing.
func (c *Cluster) whole() bool {
	for _, p := range c.producers {
		if p.busy {
			return false
		}
	}
	first := c.nodes[1].process
	if first == nil {
		return false
	}
	image := first.log.published
	for id := int32(1); id <= nodeCount; id++ {
		p := c.nodes[id].process
		if p == nil || p.log.published.Offset() != image.Offset() || p.epoch < 0 || !image.Active(id) {
			return false
		}
	}
	for _, t := range image.Topics() {
		for i := range t.Partitions {
			m := &t.Partitions[i]
			if m.Leader < 0 || len(m.ISR) != len(m.Replicas) || len(m.Adding)+len(m.Removing) > 0 || !c.settled(t, m) {
				return false
			}
		}
	}
	return true
}
