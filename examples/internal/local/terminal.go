package local

import (
	"os"
)

// CanDraw is true for terminals that know escape sequences.
func CanDraw(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb"
}
