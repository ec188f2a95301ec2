//go:build !unix

package badgerstore

import (
	"math"
	"os"
)

// freeSpace does not know: the guard against full disks is off here.
func freeSpace(string) (int64, error) { return math.MaxInt64, nil }

// lockFile leaves it to Badger, which locks each database.
func lockFile(*os.File) error { return nil }

func isResourceError(error) bool { return false }
