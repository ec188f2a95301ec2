package broker

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"reflect"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/gossip"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// addressBook remembers the addresses of this node and of the others over a restart,
// and the broker's epoch.
// Losing it costs time, and the broker its place among the in-sync replicas. Safe for concurrent use.
type addressBook struct {
	fs     vfs.FS
	dir    string
	logger zerolog.Logger

	mu sync.Mutex
	addressPage
}

// addressPage is what is kept.
type addressPage struct {
	Internal string         `json:"internal,omitempty"` // of this node's inter-node listener
	Gossip   string         `json:"gossip,omitempty"`
	Members  []knownAddress `json:"members,omitempty"` // the other nodes, by name
	// BrokerEpoch is that of the broker's last registration: the logs are those that it
	// had then, or later ones.
	BrokerEpoch *int64 `json:"broker_epoch,omitempty"`
	// Voted is the directory with which this node was a voter of the metadata quorum. A
	// vote that was taken from it is not asked for again.
	Voted quorum.Directory `json:"voted,omitempty"`
}

type knownAddress struct {
	Name     string `json:"name"`
	Node     int32  `json:"node"`
	Gossip   string `json:"gossip"`
	Internal string `json:"internal"`
}

// maxKnown bounds the nodes that are remembered.
const maxKnown = 1000

func openAddressBook(files vfs.FS, dir string, logger zerolog.Logger) (*addressBook, error) {
	b := &addressBook{fs: files, dir: dir, logger: logger}
	content, err := readFile(files, membersPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(content), &b.addressPage); err != nil {
		logger.Warn().Err(err).Msg("the remembered addresses of nodes cannot be read; going on without them")
		b.addressPage = addressPage{}
	}
	return b, nil
}

// page returns what is remembered.
func (b *addressBook) page() addressPage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addressPage
}

// keep changes what is remembered.
func (b *addressBook) keep(change func(*addressPage)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.addressPage
	change(&next)
	if reflect.DeepEqual(next, b.addressPage) {
		return nil
	}
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(b.fs, b.dir, membersFile, append(data, '\n')); err != nil {
		return err
	}
	b.addressPage = next
	return nil
}

// remember keeps the nodes that are there; those that are not stay for a restart of
// the whole cluster, until their name or id is another's.
func (b *addressBook) remember(members []gossip.Member, own string) error {
	return b.keep(func(p *addressPage) {
		known := slices.Clone(p.Members)
		for _, m := range members {
			if m.Address == own {
				continue
			}
			k := knownAddress{m.Name, m.Node, m.Address, m.Internal}
			known = slices.DeleteFunc(known, func(x knownAddress) bool {
				return x.Name == k.Name || x.Gossip == k.Gossip || k.Node >= 0 && x.Node == k.Node
			})
			known = append(known, k)
		}
		slices.SortFunc(known, func(a, b knownAddress) int { return compareNames(a.Name, b.Name) })
		p.Members = known[:min(len(known), maxKnown)]
	})
}

func compareNames(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// address returns where a node's inter-node listener was.
func (b *addressBook) address(node int32) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.Members {
		if k.Node == node && k.Internal != "" {
			return k.Internal, true
		}
	}
	return "", false
}

// joinAddresses returns where to look for the network: where the settings say, and
// where the others were.
func (b *addressBook) joinAddresses(join []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(join)
	for _, k := range b.Members {
		if !slices.Contains(list, k.Gossip) {
			list = append(list, k.Gossip)
		}
	}
	return list
}

// keptAddress returns an address on host with the port of a remembered one, so that
// a node with a free port has the same after a restart, if it is still free.
func (b *addressBook) keptAddress(host, remembered string) string {
	if _, port, err := net.SplitHostPort(remembered); err == nil {
		address := net.JoinHostPort(host, port)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	return net.JoinHostPort(host, "0")
}
