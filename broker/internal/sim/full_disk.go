package sim

import (
	"errors"
	"math"
	"time"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// fill takes the room on the disk of a node's partitions, to the last byte or but for a
// little, until somebody makes room again. The process may end and start meanwhile.
func (c *Cluster) fill(n *node) {
	if n.full {
		return
	}
	n.full = true
	left := c.s.random.Int64N(8 << 10)
	if c.s.random.IntN(2) == 0 {
		left = 0
	}
	c.say("FAULT the disk of node %d has room for %d bytes", n.id, left)
	c.stats.FullDisks++
	n.quota.Set(left)
	c.outside.after(c.s.between(100*time.Millisecond, 8*time.Second), n.empty)
}

// empty makes room on a node's disk.
func (n *node) empty() {
	n.full = false
	n.quota.Set(math.MaxInt64)
}

// room is asked before everything that a process does to its disk.
func (n *node) room(o vfs.Operation) error {
	if !n.full || o.Kind == vfs.KindMkdir && o.Path == "data" { // which is there
		return nil
	}
	err := n.quota.Before(o)
	if errors.Is(err, vfs.ErrNoSpace) {
		n.c.stats.RefusedWrites++
	}
	return err
}
