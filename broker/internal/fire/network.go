package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// network is a bridge to which every node, and the clients together, are connected from
// a network namespace of their own. What one must not send to another is cut at the
// sender: the other's address is given a hardware address that nobody has, so packets
// vanish without a word. It needs root and Linux.
type network struct {
	name    string   // of the bridge, and what the namespaces' names begin with
	subnet  string   // the first three numbers of all addresses
	members []string // namespaces
	cables  []string // their ends at the bridge
	cuts    [][2]int // from, to
}

// networks counts those made: what is left of the last one may take a while to go.
var networks int

// clients is the number of the clients' namespace; the nodes' are 1 and up.
const clients = 100

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// newNetwork makes the bridge and a namespace for each node.
func newNetwork(nodes int) (*network, error) {
	networks++
	n := &network{name: fmt.Sprintf("f%dr%d", os.Getpid(), networks), subnet: fmt.Sprintf("10.%d.%d", 64+os.Getpid()/256%64, os.Getpid()%256)}
	if err := n.build(nodes); err != nil {
		n.remove()
		return nil, err
	}
	return n, nil
}

func (n *network) build(nodes int) error {
	steps := [][]string{
		{"link", "add", n.name, "type", "bridge"},
		{"addr", "add", n.subnet + ".254/24", "dev", n.name},
		{"link", "set", n.name, "up"},
	}
	members := []int{clients}
	for i := range nodes {
		members = append(members, i+1)
	}
	for _, m := range members {
		space, cable := n.namespace(m), fmt.Sprintf("%sv%d", n.name, m)
		n.cables = append(n.cables, cable)
		n.members = append(n.members, space)
		steps = append(steps, []string{"netns", "add", space},
			[]string{"link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space},
			[]string{"link", "set", cable, "master", n.name, "up"},
			[]string{"-n", space, "addr", "add", n.address(m) + "/24", "dev", "eth0"},
			[]string{"-n", space, "link", "set", "lo", "up"},
			[]string{"-n", space, "link", "set", "eth0", "up"})
	}
	for _, step := range steps {
		if err := ip(step...); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) namespace(member int) string { return fmt.Sprintf("%s-%d", n.name, member) }

func (n *network) address(member int) string { return fmt.Sprintf("%s.%d", n.subnet, member) }

// cut has packets of one member to another vanish.
func (n *network) cut(from, to int) error {
	n.cuts = append(n.cuts, [2]int{from, to})
	return ip("-n", n.namespace(from), "neigh", "replace", n.address(to), "lladdr", "02:00:00:00:de:ad", "dev", "eth0", "nud", "permanent")
}

// heal ends all cuts.
func (n *network) heal() error {
	for _, c := range n.cuts {
		if err := ip("-n", n.namespace(c[0]), "neigh", "del", n.address(c[1]), "dev", "eth0"); err != nil {
			return err
		}
	}
	n.cuts = nil
	return nil
}

// remove takes away everything that newNetwork made.
func (n *network) remove() {
	for _, cable := range n.cables {
		_ = ip("link", "del", cable) // its other end goes with it
	}
	for _, space := range n.members {
		_ = ip("netns", "del", space)
	}
	_ = ip("link", "del", n.name)
}

// command returns a command that runs in a member's namespace.
func (n *network) command(member int, name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.namespace(member), name}, args...)...)
}
