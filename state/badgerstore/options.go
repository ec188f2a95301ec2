package badgerstore

import (
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/rs/zerolog"
)

// Memtables are powers of two between these sizes.
const (
	smallestMemtable = 1 << 20
	largestMemtable  = 8 << 20
)

// memoryOf is the most that a store with this memtable uses: one memtable is
// written, one waits and one is flushed, each in an arena that is 30 % larger
// so that the batch in hand fits in.
func memoryOf(memtable int64) int64 { return 3 * (memtable + memtable*3/10) }

// databaseOptions are Badger's options for a database among many: one memtable
// in the queue, no cache, no compression, the fewest compactors.
func databaseOptions(dir string, memtable int64, log zerolog.Logger) badger.Options {
	o := badger.DefaultOptions(dir)
	o.Logger = badgerLogger{log}
	o.MetricsEnabled = false
	o.DetectConflicts = false
	o.MemTableSize = memtable
	o.NumMemtables = 1
	o.NumGoroutines = 1
	o.NumCompactors = 2
	o.Compression = options.None
	o.BlockCacheSize = 0
	o.IndexCacheSize = 0
	// A batch may fill 15 % of a memtable. Values that would be more than a third of
	// a batch go to the value log.
	o.ValueThreshold = memtable / 20
	o.ValueLogFileSize = 16 << 20
	o.VerifyValueChecksum = true
	return o
}

// badgerLogger passes Badger's messages on. What it calls info is of no use to
// those who run an app.
type badgerLogger struct{ log zerolog.Logger }

func (l badgerLogger) Errorf(format string, arguments ...any) {
	l.log.Error().Str("from", "badger").Msgf(format, arguments...)
}

func (l badgerLogger) Warningf(format string, arguments ...any) {
	l.log.Warn().Str("from", "badger").Msgf(format, arguments...)
}

func (l badgerLogger) Infof(format string, arguments ...any) {
	l.log.Debug().Str("from", "badger").Msgf(format, arguments...)
}

func (l badgerLogger) Debugf(format string, arguments ...any) {
	l.log.Trace().Str("from", "badger").Msgf(format, arguments...)
}
