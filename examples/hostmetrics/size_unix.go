//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminalRows returns the height of a terminal in lines.
func terminalRows(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 {
		return 50
	}
	return int(size.Row)
}
