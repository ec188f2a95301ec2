package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// Checkpoint files are Kafka's: lines of text, first a version, then the number
// of entries, then one entry a line.
//
//	0
//	2
//	<entry>
//	<entry>

var errCheckpoint = errors.New("storage: checkpoint file is malformed")

const (
	checkpointVersion   = 0
	checkpointLimit     = 64 << 20
	epochCheckpointName = "leader-epoch-checkpoint"
	recoveryPointName   = "recovery-point-offset-checkpoint"
	logStartName        = "log-start-offset-checkpoint"
	// Up to where the log is compacted. Kafka has one such file for all logs of a directory.
	cleanerCheckpointName = "cleaner-offset-checkpoint"
	partitionMetadata     = "partition.metadata"
	metadataFileVersion   = 0
	maxPartitionMetadata  = 4096
)

func appendCheckpointHeader(dst []byte, entries int) []byte {
	dst = strconv.AppendInt(dst, checkpointVersion, 10)
	dst = append(dst, '\n')
	dst = strconv.AppendInt(dst, int64(entries), 10)
	return append(dst, '\n')
}

// parseCheckpoint calls entry with the fields of each line. It fails when the
// number of lines differs from the one in the header.
func parseCheckpoint(data []byte, entry func(fields [][]byte) error) error {
	next := func() ([]byte, bool) {
		line, rest, found := bytes.Cut(data, []byte{'\n'})
		data = rest
		return line, found
	}
	version, ok := next()
	if !ok || string(version) != strconv.Itoa(checkpointVersion) {
		return fmt.Errorf("%w: version %.20q, want %d", errCheckpoint, version, checkpointVersion)
	}
	count, ok := next()
	entries, err := strconv.Atoi(string(count))
	if !ok || err != nil || entries < 0 {
		return fmt.Errorf("%w: %.20q entries", errCheckpoint, count)
	}
	for i := range entries {
		line, ok := next()
		if !ok {
			return fmt.Errorf("%w: %d entries, %d announced", errCheckpoint, i, entries)
		}
		if err := entry(bytes.Fields(line)); err != nil {
			return err
		}
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: bytes after %d entries", errCheckpoint, entries)
	}
	return nil
}

func parseField(fields [][]byte, i int) (int64, error) {
	v, err := strconv.ParseInt(string(fields[i]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q is not a number", errCheckpoint, fields[i])
	}
	return v, nil
}

// encodeOffset is the content of a checkpoint of one partition's offset.
func encodeOffset(topic string, partition int32, offset int64) []byte {
	return fmt.Appendf(appendCheckpointHeader(nil, 1), "%s %d %d\n", topic, partition, offset)
}

// decodeOffset reads what encodeOffset wrote. The file lies in its partition's
// directory, so that the name in it is not needed.
func decodeOffset(data []byte) (int64, error) {
	offset, found := int64(0), false
	err := parseCheckpoint(data, func(fields [][]byte) error {
		if len(fields) != 3 || found {
			return fmt.Errorf("%w: one topic, partition and offset expected", errCheckpoint)
		}
		var err error
		offset, err = parseField(fields, 2)
		found = true
		return err
	})
	if err == nil && (!found || offset < 0) {
		err = fmt.Errorf("%w: no offset", errCheckpoint)
	}
	return offset, err
}

// readOffset returns the offset in a checkpoint file of the log; false when there is none,
// or what there is is none. A disk that fails to read is an error: it may hold another one.
func (l *Log) readOffset(name string) (int64, bool, error) {
	data, err := readFile(l.env.FS, l.path(name), checkpointLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, false, nil
	case err != nil && !errors.Is(err, errFileTooLarge):
		return 0, false, err
	}
	offset := int64(0)
	if err == nil {
		offset, err = decodeOffset(data)
	}
	if err != nil {
		l.logger().Warn().Err(err).Str("file", name).Msg("an offset checkpoint is damaged; it is ignored and will be written anew")
		return 0, false, nil
	}
	return offset, true, nil
}

// writeOffset writes a checkpoint file of the log, durably or not.
func (l *Log) writeOffset(name string, offset int64, durably bool) error {
	data := encodeOffset(l.topic, l.partition, offset)
	if durably {
		return writeFileDurably(l.env.FS, l.path(name), data)
	}
	return writeFile(l.env.FS, l.path(name), data, false)
}
