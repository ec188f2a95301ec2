package main

import (
	"errors"
	"strings"
	"syscall"
)

// isAddressInUse is true when another program listens on the address.
func isAddressInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "Only one usage of each socket address") // Windows
}
