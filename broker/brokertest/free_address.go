package brokertest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Ports that systems do not give to outgoing connections by themselves: those begin at
// 32768 with Linux, and at 49152 elsewhere.
const firstFreePort, lastFreePort = 12_000, 32_000

// handedOut are the ports that FreeAddress has returned in this process.
var handedOut = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreeAddress returns a HOST:PORT on the loopback interface at which nobody listens, over
// TCP or UDP, for something that is started there, stopped, and started there again. A
// port that the system chose could go to an outgoing connection in between.
func FreeAddress(t testing.TB) string {
	t.Helper()
	handedOut.Lock()
	defer handedOut.Unlock()
	for range 1000 {
		port := firstFreePort + rand.IntN(lastFreePort-firstFreePort)
		address := fmt.Sprint("127.0.0.1:", port)
		if handedOut.ports[port] || !isFree(address) {
			continue
		}
		handedOut.ports[port] = true
		return address
	}
	t.Fatalf("brokertest: no port from %d to %d is free", firstFreePort, lastFreePort)
	return ""
}

func isFree(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	p.Close()
	return true
}
