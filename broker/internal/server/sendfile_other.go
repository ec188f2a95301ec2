//go:build !linux

package server

import "github.com/leatlog/leat/broker/internal/wire"

// sendFile reports that there is no sendfile with an explicit offset here.
func (o *output) sendFile(*wire.Chunk) (bool, error) { return false, nil }
