package sim

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/leatlog/leat/broker/internal/vfs"
)

var errSick = errors.New("sim: the disk fails")

// What a sick disk fails to do.
var sicknesses = []struct {
	name  string
	kinds []vfs.Kind
}{
	{"sync", []vfs.Kind{vfs.KindSync, vfs.KindSyncDir, vfs.KindSyncAll}},
	{"write", []vfs.Kind{vfs.KindWrite, vfs.KindPreallocate, vfs.KindTruncate, vfs.KindCreate, vfs.KindRename, vfs.KindRemove}},
	{"read", []vfs.Kind{vfs.KindRead, vfs.KindOpen}},
}

// sicken has the disk of a node's partitions fail to sync, to write or to read, always or
// now and then, until an operator, who hears of it, starts the node again on a sound one,
// with or without what was only in its cache. The quorum's disk is another one: a node that
// cannot keep metadata ends, which is a kill. A replica whose disk failed counts as lost
// until it has been copied again, so that a cluster with such disks cannot promise progress
// with another node away, nor survive a second one before that.
func (c *Cluster) sicken(n *node) {
	if n.process == nil || n.sick {
		return
	}
	sickness := sicknesses[c.s.random.IntN(len(sicknesses))]
	c.say("FAULT the disk of node %d fails to %s", n.id, sickness.name)
	c.stats.FailedDisks++
	n.sick, n.fails, n.failsOften = true, sickness.kinds, 1+c.s.random.IntN(4)
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
	if !n.sick || !slices.Contains(n.fails, o.Kind) || strings.Contains(o.Path, "quorum") || n.c.s.random.IntN(n.failsOften) > 0 {
		return nil
	}
	n.c.stats.FailedOperations++
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
