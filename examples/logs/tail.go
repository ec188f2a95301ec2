package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
)

// maxLine bounds a line; what is longer is cut there and the rest left out.
const maxLine = 64 << 10

// Line is a line of a file and where the next one begins.
type Line struct {
	Source string
	Text   string
	Next   int64
}

// tail follows one file as it grows. A file that is replaced or cut, as log rotation
// does, is read from its beginning.
type tail struct {
	path   string
	file   *os.File
	reader *bufio.Reader
	offset int64 // of the next line
}

// startAtLast makes the first look begin with the last lines of what is there, at most
// size bytes of them.
func (t *tail) startAtLast(size int64) {
	info, err := os.Stat(t.path)
	if err != nil || info.Size() <= size {
		return
	}
	f, err := os.Open(t.path)
	if err != nil {
		return
	}
	defer f.Close()
	at := info.Size() - size
	if _, part, err := readLine(bufio.NewReader(io.NewSectionReader(f, at, size))); err == nil {
		t.offset = at + part // the first whole line
	}
}

// read returns lines that have been completed since, at most limit bytes of them. It
// returns no error while the file does not exist: it may come.
func (t *tail) read(limit int) ([]Line, error) {
	if err := t.open(); err != nil || t.file == nil {
		return nil, err
	}
	var lines []Line
	for taken := 0; taken < limit; {
		text, size, err := readLine(t.reader)
		if errors.Is(err, io.EOF) {
			// What is there of a line stays for the next look, when it may be whole.
			return lines, t.rewind()
		}
		if err != nil {
			return lines, err
		}
		t.offset += size
		taken += int(size)
		if len(text) > 0 {
			lines = append(lines, Line{Source: t.path, Text: string(text), Next: t.offset})
		}
	}
	return lines, nil
}

// open makes sure that the file of that name is the one being read.
func (t *tail) open() error {
	now, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // what was renamed is read to its end when its successor comes
	}
	if err != nil {
		return err
	}
	if t.file != nil {
		open, err := t.file.Stat()
		if err != nil {
			return err
		}
		if os.SameFile(open, now) {
			if now.Size() < t.offset {
				t.offset = 0
				return t.rewind()
			}
			return nil
		}
		if open.Size() > t.offset {
			return nil // first the rest of the old one
		}
		t.close()
		t.offset = 0
	}
	if t.file, err = os.Open(t.path); err != nil {
		return err
	}
	if now.Size() < t.offset { // it was cut while nobody looked
		t.offset = 0
	}
	t.reader = bufio.NewReaderSize(t.file, 32<<10)
	return t.rewind()
}

// rewind goes to where the next line begins.
func (t *tail) rewind() error {
	if _, err := t.file.Seek(t.offset, io.SeekStart); err != nil {
		return err
	}
	t.reader.Reset(t.file)
	return nil
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close() // it was only read
		t.file = nil
	}
}

// readLine returns a line without its end, and its size with it.
func readLine(r *bufio.Reader) (text []byte, size int64, err error) {
	for {
		part, err := r.ReadSlice('\n')
		size += int64(len(part))
		text = append(text, part[:min(len(part), max(0, maxLine-len(text)))]...)
		switch {
		case err == nil:
			return bytes.TrimRight(text, "\r\n"), size, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, 0, err
		}
	}
}
