package storage

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// Env is what the logs of a directory share. FS and Now are required.
type Env struct {
	FS     vfs.FS
	Now    func() time.Time
	Logger zerolog.Logger
	// KeepFree is how many bytes of the disk appends leave to others, such as the metadata
	// log; they are refused with vfs.ErrNoSpace when there are fewer. Default: none.
	KeepFree int64
	// Files bounds the open files. Default: a cache of its own.
	Files *FileCache
	// Synced, when set, is told how long each round of group commit took and how many
	// logs it synced. It is called by one goroutine and must not block.
	Synced func(took time.Duration, logs int)
	// Go runs f on a goroutine of its own, and Sleep returns after d or when stop is
	// closed: what removes the files of deleted logs. Default: the machine's.
	Go    func(f func())
	Sleep func(d time.Duration, stop <-chan struct{})

	directory *Directory // nil for a log that stands alone
}

// Log is one partition on disk. One goroutine at a time appends, any number
// reads; all methods are safe for concurrent use.
//
// Locks, in this order: syncMu, mu, readMu. No lock but syncMu is held during an
// fsync, except when a segment is rolled or the log is truncated.
type Log struct {
	env       *Env // shared by the logs of a directory
	dir       string
	topic     string
	partition int32

	start  atomic.Int64
	end    atomic.Int64
	synced atomic.Int64
	fenced atomic.Pointer[fencedError]
	damage atomic.Pointer[DamageError]
	gaps   atomic.Bool // offsets may be missing, whatever the configuration says

	syncMu sync.Mutex // one sync or truncation at a time

	cfg atomic.Pointer[Config] // not changed once stored

	// Of the directory's committer alone.
	inRound  bool
	roundErr error

	// unstable is false when no transaction can hold the last stable offset back, so
	// that most reads take no lock.
	unstable atomic.Bool

	mu            sync.Mutex // the appender
	producers     producers
	epochs        epochs
	snapshotAt    int64 // offset of the newest snapshot, -1 without one
	recoveryPoint int64 // as in the file: below, data and indexes are durable; -1 without one
	cleanedTo     int64 // as in the file: below, the log is compacted; -1 without one
	closed        bool
	// unnamed says that the names of a new log are not durable yet. Its first sync
	// settles them; until then a crash may take it away, and making one costs no sync.
	unnamed bool
	updates []producer // scratch of an append

	// readMu is held for writing while segments are added, cut or removed.
	readMu   sync.RWMutex
	segments []*segment // by base offset, at least one; the last is active
	hints    hints
}

// Open opens the log in a directory, recovering it if it was not closed cleanly,
// or makes a new one there. The base name of dir is <topic>-<partition>.
//
// A log whose durable data is damaged is opened nevertheless, fenced: Damaged
// tells, what precedes the damage can be read, writes fail with ErrFenced, and
// ResetTo empties it for a new copy.
func Open(env Env, dir string, cfg Config) (*Log, error) {
	if env.Files == nil {
		env.Files = NewFileCache(DefaultOpenFiles)
	}
	return open(&env, dir, cfg)
}

func open(env *Env, dir string, cfg Config) (*Log, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	topic, partition, ok := parseLogDir(path.Base(dir))
	if !ok {
		return nil, fmt.Errorf("storage: open %s: the directory must be named <topic>-<partition>", dir)
	}
	l := &Log{env: env, dir: dir, topic: topic, partition: partition, snapshotAt: -1, recoveryPoint: -1}
	l.cfg.Store(&cfg)
	if err := l.load(); err != nil {
		for _, s := range l.segments {
			s.drop()
		}
		return nil, fmt.Errorf("storage: open %s: %w", dir, err)
	}
	l.unstable.Store(true) // the first read finds out
	return l, nil
}

// parseLogDir splits <topic>-<partition>.
func parseLogDir(name string) (topic string, partition int32, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 {
		return "", 0, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != name[i+1:] {
		return "", 0, false
	}
	return name[:i], int32(n), true
}

func (l *Log) path(name string) string { return path.Join(l.dir, name) }

// logger returns a logger that names the log. It is made when it is needed: kept, it
// would be a third of what an idle log takes.
func (l *Log) logger() *zerolog.Logger {
	logger := l.env.Logger.With().Str("log", path.Base(l.dir)).Logger()
	return &logger
}

// Topic and Partition say whose log it is, Dir where it is.
func (l *Log) Topic() string    { return l.topic }
func (l *Log) Partition() int32 { return l.partition }
func (l *Log) Dir() string      { return l.dir }

// StartOffset returns the first offset that can be read.
func (l *Log) StartOffset() int64 { return l.start.Load() }

// EndOffset returns the offset that the next record gets.
func (l *Log) EndOffset() int64 { return l.end.Load() }

// SyncedOffset returns the exclusive end of what is durable.
func (l *Log) SyncedOffset() int64 { return l.synced.Load() }

// Damaged returns why the log takes no writes, nil when it does: the
// DamageError, or the failure of the disk.
func (l *Log) Damaged() error {
	if d := l.damage.Load(); d != nil {
		return d
	}
	return l.writable()
}

// writable returns what a write answers on a fenced log or directory.
func (l *Log) writable() error {
	if f := l.fenced.Load(); f != nil {
		return f
	}
	if d := l.env.directory; d != nil {
		if err := d.Damaged(); err != nil {
			return err
		}
	}
	return nil
}

// fence ends all writes to the log, for good. When the disk failed, all logs of
// the directory are fenced with it.
func (l *Log) fence(cause error) error {
	f := &fencedError{dir: l.dir, cause: cause}
	if !l.fenced.CompareAndSwap(nil, f) {
		return l.fenced.Load()
	}
	if damage := new(DamageError); errors.As(cause, &damage) {
		l.damage.Store(damage)
		l.logger().Error().Err(cause).Msg("the log is damaged; it takes no more writes. Copy it again from another replica")
		return f
	}
	l.logger().Error().Err(cause).Msg("the disk failed; the log takes no more writes. Check the disk and restart the broker")
	if d := l.env.directory; d != nil {
		d.fence(cause)
	}
	return f
}

// damaged fences the log because of bytes that were durable and are wrong now.
func (l *Log) damaged(s *segment, position, offset int64, err error) error {
	return l.fence(&DamageError{File: s.file.name(), Position: position, Offset: offset, Err: err})
}

// SetConfig replaces the configuration. What it changes holds from the next
// append or retention on.
func (l *Log) SetConfig(cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	l.cfg.Store(&cfg)
	return nil
}

// Config returns the configuration.
func (l *Log) Config() Config { return *l.cfg.Load() }

func (l *Log) config() *Config { return l.cfg.Load() }

// Size returns the bytes of all batches on disk.
func (l *Log) Size() int64 {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	size := int64(0)
	for _, s := range l.segments {
		size += s.size.Load()
	}
	return size
}

// Segments returns the number of segments.
func (l *Log) Segments() int {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	return len(l.segments)
}

// active returns the segment that is appended to. The caller holds mu or readMu.
func (l *Log) active() *segment { return l.segments[len(l.segments)-1] }

// LatestEpoch returns the newest leader epoch, or -1.
func (l *Log) LatestEpoch() int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs.latest()
}

// AssignEpoch notes that this broker leads in epoch from the end of the log on.
// Appending does so too; a new leader tells it at once, so that EndOffsetForEpoch
// knows epochs without records.
func (l *Log) AssignEpoch(epoch int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs.assign(epoch, l.end.Load())
}

// EndOffsetForEpoch returns the largest epoch that is not larger than the asked
// one, and its end: where the next epoch begins, or the end of the log for the
// last (KIP-101, KIP-279). Both are -1 when the epoch is not known.
func (l *Log) EndOffsetForEpoch(epoch int32) (found int32, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs.end(epoch, l.end.Load())
}

// EpochAt returns the leader epoch of an offset, or -1.
func (l *Log) EpochAt(offset int64) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs.at(offset)
}

// Producer is the state of an idempotent producer, as DescribeProducers tells it.
type Producer struct {
	ID               int64
	Epoch            int16
	LastSequence     int32 // -1 unknown
	LastTimestamp    int64 // ms
	CoordinatorEpoch int32 // -1 unknown
	TxnStartOffset   int64 // -1 without an open transaction
}

// Producers returns the producers known, by id.
func (l *Log) Producers() []Producer {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Producer, 0, len(l.producers.byID))
	for _, p := range l.producers.sorted() {
		list = append(list, Producer{ID: p.id, Epoch: p.epoch, LastSequence: p.lastSequence(), LastTimestamp: p.timestamp,
			CoordinatorEpoch: p.coordinatorEpoch, TxnStartOffset: p.txnStart})
	}
	return list
}

// FirstUnstableOffset returns the first offset of the oldest transaction that is
// open or whose end is not below the high watermark; ok is false without one. The
// last stable offset is that, or else the high watermark.
func (l *Log) FirstUnstableOffset(highWatermark int64) (offset int64, ok bool) {
	if !l.unstable.Load() {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if offset, ok = l.producers.firstUnstable(highWatermark); !ok {
		l.unstable.Store(false)
	}
	return offset, ok
}

// TransactionState is what a leader has to know of a producer before it takes a
// transactional batch of it.
type TransactionState struct {
	// Open says that the producer has a transaction open in this partition, in the
	// epoch asked for.
	Open bool
	// Ended counts the transactions that ended here since the log was opened. A batch
	// whose transaction was verified at one count must not be appended at another: the
	// transaction may be over (KIP-890).
	Ended uint32
}

// TransactionState returns the state of a producer's transaction in this partition.
func (l *Log) TransactionState(producerID int64, epoch int16) TransactionState {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.producers.byID[producerID]
	if !ok {
		return TransactionState{}
	}
	return TransactionState{Open: p.txnStart >= 0 && p.epoch == epoch, Ended: p.ended}
}

// CheckProducer says whether a batch, or with a coordinatorEpoch of 0 or more a
// marker, of a producer would be fenced: ErrInvalidProducerEpoch or
// ErrCoordinatorFenced.
func (l *Log) CheckProducer(producerID int64, epoch int16, coordinatorEpoch int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.producers.byID[producerID]
	switch {
	case !ok:
	case epoch < p.epoch:
		return fmt.Errorf("%w: producer %d has epoch %d, newest is %d", ErrInvalidProducerEpoch, producerID, epoch, p.epoch)
	case coordinatorEpoch >= 0 && coordinatorEpoch < p.coordinatorEpoch:
		return fmt.Errorf("%w: coordinator epoch %d, newest is %d", ErrCoordinatorFenced, coordinatorEpoch, p.coordinatorEpoch)
	}
	return nil
}
