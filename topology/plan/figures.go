package plan

// CacheFigures tells what the write-back cache of a store has done since its task started.
type CacheFigures struct {
	// Store is the store's name.
	Store string
	// Hits are the looks at a row that were answered from memory, Misses those that had to
	// read the store.
	Hits, Misses uint64
	// Writes are the rows that were written to the store and its changelog.
	Writes uint64
	// Bytes is what is in memory at the moment.
	Bytes int64
}

// Cached is a Processor that has caches.
type Cached interface {
	// Caches tells of every cache. It is called like the Processor's other methods.
	Caches(tell func(CacheFigures))
}
