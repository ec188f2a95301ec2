package badgerstore

import (
	"path/filepath"

	"github.com/leatlog/leat/state"
)

// Held returns the position of the checkpoint that a task's store has on disk, without
// opening the store: false when there is none that can be read. Opening the store may
// still find that its files are not what the checkpoint says.
func (b *Backend) Held(task, store string) (state.Position, bool) {
	c, err := readCheckpoint(filepath.Join(b.config.Dir, task, store))
	if err != nil {
		return state.Position{}, false
	}
	return c.position, true
}
