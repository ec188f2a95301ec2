package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The directory of a deleted log is named <log>.<32 hexadecimal digits>-delete, as
// Kafka's: here 24 digits of the topic id and a number. What is too long for a file
// name is cut from the log's name.
const (
	deletedSuffix   = "-delete"
	deletedDigits   = 8 // of the number
	maxFileName     = 255
	maxDeletedStart = maxFileName - len(".") - 32 - len(deletedSuffix)
)

func deletedName(log string, id [16]byte, n uint32) string {
	return fmt.Sprintf("%s.%x%0*x%s", log[:min(len(log), maxDeletedStart)], id[:12], deletedDigits, n, deletedSuffix)
}

// parseDeleted reports whether a name is one of a deleted log, and its number.
func parseDeleted(name string) (n uint32, ok bool) {
	rest, ok := strings.CutSuffix(name, deletedSuffix)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(rest[max(0, len(rest)-deletedDigits):], 16, 32)
	if err != nil {
		return 0, true // of Kafka, or of somebody else
	}
	return uint32(number), true
}

// Delete removes a log: its directory is renamed at once, and made durable and
// removed in the background. One that is not there is no error. The log's readers
// finish with what they have open.
//
// After a crash the old name may be back, with all files, until something in the
// data directory has been synced: a new log of that name is never acknowledged
// together with the old one, since its first sync makes both names durable. Who
// finds the old one again knows it by its topic id.
func (d *Directory) Delete(topic string, partition int32) error {
	name := logDirName(topic, partition)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("%w: %s", ErrClosed, d.root)
	}
	if l, ok := d.logs[name]; ok {
		l.abandon()
		delete(d.logs, name)
	}
	dir := path.Join(d.root, name)
	id, err := d.readTopicID(name)
	if err != nil {
		id = [16]byte{}
	}
	d.deletes++
	target := path.Join(d.root, deletedName(name, id, d.deletes))
	err = d.env.FS.Rename(dir, target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("storage: delete %s: %w", dir, err)
	}
	d.remover.add(target)
	return nil
}

// removalPause is the time between two removals. The file system frees the blocks with
// its next commit, which every fsync waits for: 5,000 logs at once hold up a start, and
// whoever appends, for seconds.
const removalPause = 5 * time.Millisecond

// fill sets what runs the removal.
func (e *Env) fill() {
	if e.Go == nil {
		e.Go = func(f func()) { go f() }
	}
	if e.Sleep == nil {
		e.Sleep = func(d time.Duration, stop <-chan struct{}) {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-stop:
			}
		}
	}
}

// remover removes the directories of deleted logs in the background, all that have
// come meanwhile after one sync of their names: a sync for each would take 1-2 ms,
// and files must not go while a crash could bring the old name back. It has a
// goroutine only while there is work. Safe for concurrent use.
type remover struct {
	directory *Directory
	stop      chan struct{} // closed by close

	mu      sync.Mutex
	idle    sync.Cond // told when the goroutine ends
	due     []string  // renamed, the new names not durable yet
	working bool
	closed  bool
}

func (r *remover) init(d *Directory) {
	r.directory, r.stop, r.idle.L = d, make(chan struct{}), &r.mu
}

// add has directories removed. Their names end in deletedSuffix.
func (r *remover) add(dirs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(dirs) == 0 {
		return
	}
	r.due = append(r.due, dirs...)
	if !r.working {
		r.working = true
		r.directory.env.Go(r.run)
	}
}

func (r *remover) run() {
	d := r.directory
	for {
		dirs := r.take()
		if dirs == nil {
			return
		}
		if d.Damaged() != nil {
			continue // the next start removes them
		}
		if err := d.env.FS.SyncDir(d.root); err != nil {
			_ = d.fence(fmt.Errorf("storage: sync %s: %w", d.root, err)) // logged there
			continue
		}
		r.remove(dirs)
	}
}

// remove removes directories whose names are durable, until close.
func (r *remover) remove(dirs []string) {
	env := &r.directory.env
	for _, dir := range dirs {
		env.Sleep(removalPause, r.stop)
		select {
		case <-r.stop:
			return
		default:
		}
		if err := env.FS.RemoveAll(dir); err != nil {
			env.Logger.Warn().Err(err).Str("directory", dir).Msg("a deleted log cannot be removed; remove it by hand to free its space")
		}
	}
}

// take returns what is due. When there is nothing the goroutine has to end.
func (r *remover) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	dirs := r.due
	r.due = nil
	if len(dirs) == 0 || r.closed {
		r.working = false
		r.idle.Broadcast()
		return nil
	}
	return dirs
}

// wait waits until nothing is left to remove.
func (r *remover) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.working {
		r.idle.Wait()
	}
}

// close ends the removal after the directory that it is at. It is called once.
func (r *remover) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.stop)
	r.wait()
}
