package server

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/leatlog/leat/broker/internal/wire"
)

// maxSendfile is the most that one call sends, so that a slow client is noticed.
const maxSendfile = 4 << 20

// sendFile sends a range of a file from the page cache to the socket; false when
// the file or the socket cannot, and nothing was sent.
func (o *output) sendFile(chunk *wire.Chunk) (bool, error) {
	in, ok := chunk.File.Fd()
	socket, isSocket := o.conn.socket.(syscall.Conn)
	if !ok || !isSocket {
		return false, nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	offset, left := chunk.Position, chunk.Size
	for left > 0 {
		if err := o.extendDeadline(); err != nil {
			return false, err
		}
		var n int
		var failed error
		err := raw.Write(func(out uintptr) bool {
			for {
				n, failed = unix.Sendfile(int(out), int(in), &offset, min(left, maxSendfile))
				if failed != unix.EINTR {
					break
				}
			}
			return failed != unix.EAGAIN
		})
		switch {
		case err != nil:
			return false, err
		case left == chunk.Size && (errors.Is(failed, unix.EINVAL) || errors.Is(failed, unix.ENOSYS)):
			return false, nil // a file system without sendfile
		case errors.Is(failed, unix.EIO):
			return false, fmt.Errorf("%w: sendfile at %d: %w", errUnreadable, offset, failed)
		case failed != nil:
			return false, fmt.Errorf("sendfile at %d of a log: %w", offset, failed)
		case n == 0:
			return false, fmt.Errorf("%w: sendfile at %d: %w", errUnreadable, offset, io.ErrUnexpectedEOF)
		}
		left -= n
	}
	return true, nil
}
