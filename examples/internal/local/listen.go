package local

import (
	"errors"
	"net"
	"strings"
	"syscall"
)

// Listen listens on address, or on a free port of the same host when the one asked
// for is taken, which moved tells.
func Listen(address string) (l net.Listener, moved bool, err error) {
	l, err = net.Listen("tcp", address)
	if err == nil || !isAddressInUse(err) {
		return l, false, err
	}
	host, _, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, false, err
	}
	l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	return l, true, err
}

// isAddressInUse is true when another program listens on the address.
func isAddressInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "Only one usage of each socket address") // Windows
}
