package sim

import (
	"errors"
	"strings"
	"time"

	"github.com/leatlog/leat/broker/internal/vfs"
)

var errSick = errors.New("sim: the disk fails to sync")

// sicken has the disk of a node's partitions fail to sync, until an operator, who hears of
// it, starts the node again on a sound one, with or without what was only in its cache. The
// quorum's disk is another one: a node that cannot keep metadata ends, which is a kill.
// A replica whose disk failed counts as lost until it has been copied again, so that a
// cluster with such disks cannot promise progress with another node away.
func (c *Cluster) sicken(n *node) {
	if n.process == nil || n.sick {
		return
	}
	c.say("FAULT the disk of node %d fails to sync", n.id)
	c.stats.FailedDisks++
	n.sick = true
	c.outside.after(c.s.between(100*time.Millisecond, 8*time.Second), func() {
		if n.sick && !c.healed {
			c.stop(n, c.s.random.IntN(2) == 0)
		}
	})
}

// operate is asked before everything that a process does to its disk.
func (n *node) operate(o vfs.Operation) error {
	if err := n.room(o); err != nil {
		return err
	}
	if !n.sick || o.Kind != vfs.KindSync && o.Kind != vfs.KindSyncDir && o.Kind != vfs.KindSyncAll || strings.Contains(o.Path, "quorum") {
		return nil
	}
	n.c.stats.FailedSyncs++
	n.failed = true
	return errSick
}

// cure makes a node's disk sound; the process has to be started again if it has noticed.
func (n *node) cure() {
	n.sick = false
	if n.process != nil && n.failed {
		n.kill(n.c.s.random.IntN(2) == 0)
	}
}
