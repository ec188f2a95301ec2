//go:build unix

package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// Rows returns the height of a terminal in lines.
func Rows(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 {
		return 50
	}
	return int(size.Row)
}
