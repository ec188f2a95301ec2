package quorum

import (
	"fmt"
	"math"
	"path"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// readBytes is how much of the log is read at once when it is loaded.
const readBytes = 1 << 20

// disk is everything a member keeps on disk. The entries since the last
// checkpoint are in memory too, in raft's own MemoryStorage, which raft reads.
type disk struct {
	*raft.MemoryStorage
	fs  vfs.FS
	dir string
	log *storage.Log

	term, vote uint64 // as in quorum-state
}

// openDisk opens or bootstraps the directory and returns the checkpoint to start
// from.
func openDisk(cfg *Config) (*disk, *checkpoint, error) {
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, nil, fmt.Errorf("quorum: %w", err)
	}
	if err := cfg.FS.SyncDir(path.Dir(cfg.Dir)); err != nil {
		return nil, nil, fmt.Errorf("quorum: %w", err)
	}
	start, damaged, err := newestCheckpoint(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range damaged {
		cfg.Logger.Warn().Err(err).Msg("a metadata checkpoint is damaged; starting from the one before it. Check this disk")
	}
	switch {
	case start != nil:
	case cfg.Joining:
		start = &checkpoint{voters: &raftpb.ConfState{}}
	default:
		if start, err = bootstrap(cfg); err != nil {
			return nil, nil, err
		}
	}
	d := &disk{MemoryStorage: raft.NewMemoryStorage(), fs: cfg.FS, dir: cfg.Dir}
	if start.index > 0 {
		if err := d.MemoryStorage.ApplySnapshot(start.snapshot()); err != nil {
			return nil, nil, fmt.Errorf("quorum: checkpoint %s: %w", start.name(), err)
		}
	}
	logConfig := storage.DefaultConfig()
	logConfig.MaxBatchBytes = cfg.MaxEntryBytes + record.HeaderSize + 64
	logConfig.SegmentAge = math.MaxInt64 // raft's own entries have no time, which would look like an old segment
	d.log, err = storage.Open(storage.Env{FS: cfg.FS, Now: cfg.Now, Logger: cfg.Logger}, path.Join(cfg.Dir, Topic+"-0"), logConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("quorum: open metadata log: %w", err)
	}
	if err := d.log.Damaged(); err != nil {
		d.log.Close()
		return nil, nil, fmt.Errorf("quorum: the metadata log is damaged; restore %s from a backup or another controller: %w", cfg.Dir, err)
	}
	if err := d.load(start); err != nil {
		d.log.Close()
		return nil, nil, err
	}
	return d, start, nil
}

// bootstrap writes the checkpoint of the empty state, which every first voter
// writes alike. Its index is 1, since raft takes index 0 for "nothing there".
func bootstrap(cfg *Config) (*checkpoint, error) {
	voters := &raftpb.ConfState{}
	for _, r := range cfg.Voters {
		voters.Voters = append(voters.Voters, r.raftID())
	}
	slices.Sort(voters.Voters)
	c := &checkpoint{index: 1, term: 1, voters: voters}
	return c, writeCheckpoint(cfg.FS, cfg.Dir, c)
}

// load reads what follows the checkpoint into memory.
func (d *disk) load(start *checkpoint) error {
	first := int64(start.index) // offset of the entry after the checkpoint
	replaced, err := d.replaced(start)
	if err != nil {
		return err
	}
	if replaced {
		if err := d.log.ResetTo(first); err != nil {
			return fmt.Errorf("quorum: start metadata log at %d: %w", first, err)
		}
	}
	if d.log.StartOffset() > first {
		return fmt.Errorf("quorum: metadata log starts at %d but the checkpoint ends at %d; restore the directory from another controller", d.log.StartOffset(), first)
	}
	entries, err := d.read(first, start.term)
	if err != nil {
		return err
	}
	if err := d.MemoryStorage.Append(entries); err != nil {
		return fmt.Errorf("quorum: load metadata log: %w", err)
	}
	state, found, err := readVotes(d.fs, d.dir)
	if err != nil {
		return err
	}
	term := start.term
	if len(entries) > 0 {
		term = max(term, entries[len(entries)-1].GetTerm())
	}
	if !found {
		zero := uint64(0)
		state = &raftpb.HardState{Term: &term, Vote: &zero}
	} else if state.GetTerm() < term {
		return fmt.Errorf("quorum: %s says term %d but the log has term %d; restore the directory from another controller", stateFile, state.GetTerm(), term)
	}
	d.term, d.vote = state.GetTerm(), state.GetVote()
	// Raft commits again what it can; a checkpoint holds committed entries only.
	state.Commit = &start.index
	return d.SetHardState(state)
}

// replaced says that the log is not what the checkpoint was made of: it is new, or the
// leader sent the checkpoint, and a crash came before the log was reset.
func (d *disk) replaced(start *checkpoint) (bool, error) {
	first := int64(start.index)
	if d.log.EndOffset() < first {
		return true, nil
	}
	if d.log.StartOffset() >= first || start.index < 2 {
		return false, nil
	}
	entries, err := d.log.Read(nil, first-1, first, readBytes, true)
	if err != nil {
		return false, fmt.Errorf("quorum: read metadata log at %d: %w", first-1, err)
	}
	last, _, err := record.Parse(entries)
	if err != nil {
		return false, fmt.Errorf("quorum: metadata log at %d: %w", first-1, err)
	}
	return uint64(last.LeaderEpoch()) != start.term, nil
}

// read returns the entries from offset on; term is that of the entry before.
func (d *disk) read(offset int64, term uint64) ([]*raftpb.Entry, error) {
	var entries []*raftpb.Entry
	var buffer []byte
	for end := d.log.EndOffset(); offset < end; {
		var err error
		buffer, err = d.log.Read(buffer[:0], offset, end, readBytes, true)
		if err != nil {
			return nil, fmt.Errorf("quorum: read metadata log at %d: %w", offset, err)
		}
		for rest := buffer; len(rest) > 0; {
			var batch record.Batch
			if batch, rest, err = record.Parse(rest); err != nil {
				return nil, fmt.Errorf("quorum: metadata log at %d: %w", offset, err)
			}
			if err := batch.Validate(); err != nil {
				return nil, fmt.Errorf("quorum: the metadata log is damaged at %d; restore the directory from a backup or another controller: %w", offset, err)
			}
			if batch.BaseOffset() < offset {
				continue
			}
			if batch.BaseOffset() != offset {
				return nil, fmt.Errorf("%w: offset %d, expected %d", errBadEntry, batch.BaseOffset(), offset)
			}
			entry, err := entryOf(batch)
			if err != nil {
				return nil, err
			}
			// Epochs lie outside a batch's checksum, but they never fall.
			if entry.GetTerm() < term {
				return nil, fmt.Errorf("%w: offset %d has epoch %d after %d: the log is damaged", errBadEntry, offset, entry.GetTerm(), term)
			}
			term = entry.GetTerm()
			entries = append(entries, entry)
			offset++
		}
	}
	return entries, nil
}

// save makes the state and the entries of a Ready durable, in raft's order.
func (d *disk) save(state *raftpb.HardState, entries []*raftpb.Entry) error {
	if state != nil {
		if state.GetTerm() != d.term || state.GetVote() != d.vote {
			if err := writeVotes(d.fs, d.dir, state.GetTerm(), state.GetVote()); err != nil {
				return err
			}
			d.term, d.vote = state.GetTerm(), state.GetVote()
		}
		if err := d.SetHardState(state); err != nil {
			return err
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if first := int64(entries[0].GetIndex()) - 1; first < d.log.EndOffset() {
		if err := d.log.TruncateTo(first); err != nil {
			return fmt.Errorf("quorum: truncate metadata log to %d: %w", first, err)
		}
	}
	var batches []byte
	for _, e := range entries {
		batches = append(batches, batchOf(e)...)
	}
	if err := d.log.AppendFollower(batches); err != nil {
		return fmt.Errorf("quorum: append to metadata log: %w", err)
	}
	if mutant.Is(mutant.MetadataNotSynced) {
		return d.MemoryStorage.Append(entries)
	}
	if err := d.log.Sync(); err != nil {
		return fmt.Errorf("quorum: sync metadata log: %w", err)
	}
	return d.MemoryStorage.Append(entries)
}

// install replaces everything by a checkpoint that the leader sent.
func (d *disk) install(s *raftpb.Snapshot) error {
	c := checkpointOf(s)
	if err := writeCheckpoint(d.fs, d.dir, c); err != nil {
		return err
	}
	if err := d.log.ResetTo(int64(c.index)); err != nil {
		return fmt.Errorf("quorum: reset metadata log to %d: %w", c.index, err)
	}
	return d.MemoryStorage.ApplySnapshot(s)
}

// compact writes a checkpoint at an applied index and forgets what it and the
// one before it make superfluous. Of the entries that it covers the last keep stay in
// memory.
func (d *disk) compact(index uint64, voters *raftpb.ConfState, state []byte, keep int) error {
	snapshot, err := d.CreateSnapshot(index, voters, state)
	if err != nil {
		return fmt.Errorf("quorum: checkpoint at %d: %w", index, err)
	}
	if err := writeCheckpoint(d.fs, d.dir, checkpointOf(snapshot)); err != nil {
		return err
	}
	oldest, err := pruneCheckpoints(d.fs, d.dir)
	if err != nil {
		return err
	}
	if err := d.log.AdvanceStart(int64(oldest)); err != nil {
		return fmt.Errorf("quorum: forget metadata before %d: %w", oldest, err)
	}
	return d.forget(index, keep)
}

// maxKeptBytes bounds the entries that stay in memory after a checkpoint.
const maxKeptBytes = 16 << 20

// forget drops the entries up to index from memory, but for the last keep of them.
func (d *disk) forget(index uint64, keep int) error {
	first, err := d.FirstIndex()
	if err != nil {
		return err
	}
	bytes := 0
	for at := index; at >= first; at-- {
		entries, err := d.Entries(at, at+1, math.MaxUint64)
		if err != nil {
			return fmt.Errorf("quorum: entry %d: %w", at, err)
		}
		bytes += len(entries[0].GetData())
		if index-at >= uint64(keep) || bytes > maxKeptBytes {
			return d.MemoryStorage.Compact(at)
		}
	}
	return nil
}
