// Package badgerstore keeps stores in Badger, and does not trust it alone.
//
// # One database for each task's store
//
// Every store of every task has a Badger database of its own, not a key range
// in one database of the process. Measured with version 4.9.6 on two cores:
//
//	open, empty directory             6 ms alone, 20 ms in a row of 32
//	idle: resident, goroutines, files 0.2 MiB, 12, 6
//	with 5,000 keys of 112 bytes      2.8 MiB (memtable 1 MiB), 3.5 MiB (4 MiB)
//	write 1.9-2.7 us a key, get 1.5-4 us, open an iterator 1.3-9 us, sync 1-3 ms
//
// so that a hundred stores are affordable, and for that price
//
//   - damage costs one store, not all of the process;
//   - a task that moves away is removed by removing a directory, where DropPrefix
//     takes a second for 100,000 keys and blocks every writer;
//   - a restore can use Badger's stream writer, which starts by dropping the whole
//     database, and which takes about a fifth of the time of its write batches;
//   - a checkpoint of one store does not wait for the writes of another.
//
// What it costs is one sync for each store and checkpoint: tasks spread their
// checkpoints over time. Blocks are not compressed and not cached: the page
// cache holds them, and a get from a mapped block is faster than one through
// Badger's cache. The memory that is left are the memtables; Config.MemoryBytes
// bounds them for all stores of the process together.
//
// # Checkpoints
//
//	<dir>/LOCK                      held while the backend is open
//	<dir>/<task>/<store>/checkpoint see checkpoint.go
//	<dir>/<task>/<store>/badger/    the database
//	<dir>/<task>/<store>/restore/   sorted runs of a restore that is under way
//
// Badger 4.9 opens without an error what is not whole: a table whose checksum is
// wrong is left out, a MANIFEST that is gone or cut takes its tables with it, a
// write-ahead log ends at its first bad byte, and a block that cannot be read
// looks like a key that does not exist. So a checkpoint lists every file with its
// length and CRC-32C, and is written after everything it lists is synced.
// Opening compares, before Badger sees the directory:
//
//   - MANIFEST and the write-ahead and value logs only grow: what the checkpoint
//     knows must be a prefix of what is there;
//   - tables never change: those that the MANIFEST still names must be equal, and
//     newer ones, which the checkpoint does not know, must pass Badger's own
//     checksums;
//   - after opening, Badger must have loaded every table that the MANIFEST names,
//     and must still hold the number of this checkpoint, which Checkpoint writes
//     into the database just before it syncs: that shows that no log or table
//     between then and now is missing.
//
// Any difference means that the directory is removed, the engine opens empty,
// Position is false, and the reason is logged. Values carry a checksum, so that
// a bit that flips while the store is open is found when the value is read; the
// checkpoint is then removed and the next open starts over.
//
// Writes since the checkpoint that survive a crash do no harm: they were
// committed to the changelog before Apply, and replaying them gives the same.
//
// # Full disks
//
// Badger writes through mapped files, and a write to a mapped page that has no
// place on the disk kills the process. Before each write the free space is
// compared with Config.ReserveBytes, which is more than the memtables,
// logs and compactions of the process can need before the next look.
package badgerstore
