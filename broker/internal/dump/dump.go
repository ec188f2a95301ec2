// Package dump decodes the files of a data directory for a person to read, or
// for a program as lines of JSON. It shares no code with the package that writes
// them but the record batch, so that it is a second opinion about their bytes.
//
// By the end of the name a file is
//
//	.log, .checkpoint            record batches
//	.index                       offset index: relative offset int32, position int32
//	.timeindex                   time index: timestamp int64, relative offset int32
//	.txnindex                    aborted transactions, 34 bytes each
//	.snapshot                    the producers' state, 46 bytes each after a header of 10
//
// and otherwise text, which is given as it is. Formats are Apache Kafka's, all
// numbers big-endian. A segment's topic, read from the folder's name, tells how
// its records are decoded: `__consumer_offsets`, `__transaction_state` and
// `__cluster_metadata` hold state records.
package dump

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrDamaged says that a file holds something that does not belong there. What
// could be read was written before.
var ErrDamaged = errors.New("file is damaged")

// Options choose what is written.
type Options struct {
	// JSON writes a JSON object per line.
	JSON bool
	// HeadersOnly leaves the records of batches out and opens none.
	HeadersOnly bool
}

// File decodes the file of that path, size bytes long, and writes what it holds.
// It reads as it goes: memory is bounded by the largest batch.
func File(w io.Writer, path string, file io.ReaderAt, size int64, options Options) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	p := &printer{w: w, json: options.JSON}
	name := filepath.Base(path)
	switch filepath.Ext(name) {
	case ".log", ".checkpoint":
		d := batches{printer: p, reader: file, size: size, headersOnly: options.HeadersOnly, state: stateOf(filepath.Base(filepath.Dir(path)))}
		if filepath.Ext(name) == ".checkpoint" {
			d.state = metadataState
		}
		err = d.run()
	case ".index":
		err = entries(p, file, size, 8, baseOffset(name), offsetEntry)
	case ".timeindex":
		err = entries(p, file, size, 12, baseOffset(name), timeEntry)
	case ".txnindex":
		err = entries(p, file, size, 34, 0, abortedEntry)
	case ".snapshot":
		err = producers(p, file, size)
	default:
		_, err = io.Copy(w, io.NewSectionReader(file, 0, size))
	}
	if err == nil {
		err = p.err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// baseOffset is the number in a segment file's name; 0 without one.
func baseOffset(name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(name, filepath.Ext(name)), 10, 64)
	return n
}
