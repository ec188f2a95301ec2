package replica

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// named is a sink or waiter that only has a name.
type named string

func (named) Appended(int, *kerr.Error, int64, int64, int64) {}
func (named) Readable(int64)                                 {}
func (named) Interrupted()                                   {}

var scriptStart = time.Unix(1000, 0)

// script drives a Partition; times are milliseconds after scriptStart.
type script struct {
	p        *Partition
	tokens   map[string]uint64
	proposal *Proposal
}

// at is the time argument of a command.
func at(t *testing.T, d *datadriven.TestData) time.Time {
	return scriptStart.Add(time.Duration(number(t, d, "at", 0)) * time.Millisecond)
}

func number(t *testing.T, d *datadriven.TestData, key string, otherwise int64) int64 {
	t.Helper()
	if !d.HasArg(key) {
		return otherwise
	}
	var s string
	d.ScanArgs(t, key, &s)
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		d.Fatalf(t, "%s: %v", key, err)
	}
	return n
}

func ids(t *testing.T, d *datadriven.TestData, key string) []int32 {
	t.Helper()
	var s string
	d.ScanArgs(t, key, &s)
	var list []int32
	for f := range strings.SplitSeq(s, "/") {
		n, err := strconv.ParseInt(f, 10, 32)
		if err != nil {
			d.Fatalf(t, "%s: %v", key, err)
		}
		list = append(list, int32(n))
	}
	return list
}

func (s *script) parked(t *testing.T, d *datadriven.TestData) Parked {
	var parked Parked
	if d.HasArg("sink") {
		var name string
		d.ScanArgs(t, "sink", &name)
		parked.Sink = named(name)
	}
	if ms := number(t, d, "deadline", -1); ms >= 0 {
		parked.Deadline = scriptStart.Add(time.Duration(ms) * time.Millisecond)
	}
	return parked
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var fx Effects
	switch d.Cmd {
	case "new":
		s.p, s.tokens = NewPartition(1, number(t, d, "end", 0)), map[string]uint64{}
		s.p.SetMinISR(int(number(t, d, "min-isr", 1)))
	case "become":
		s.p.Become(&metadata.Partition{
			Leader: int32(number(t, d, "leader", -1)), LeaderEpoch: int32(number(t, d, "epoch", 0)),
			PartitionEpoch: int32(number(t, d, "partition-epoch", int64(s.p.PartitionEpoch())+1)),
			Replicas:       ids(t, d, "replicas"), ISR: ids(t, d, "isr"),
		}, &fx)
	case "append":
		end := number(t, d, "end", 0)
		parked := s.parked(t, d)
		parked.BaseOffset = end - 1
		s.p.Appended(end, number(t, d, "bytes", 100), parked, &fx)
	case "park":
		parked := s.parked(t, d)
		parked.End = number(t, d, "end", 0)
		s.p.Park(parked, &fx)
	case "synced":
		s.p.Synced(number(t, d, "end", 0), &fx)
	case "fetched":
		s.p.FollowerFetched(int32(number(t, d, "id", 0)), number(t, d, "broker-epoch", 7), number(t, d, "end", 0), at(t, d), &fx)
	case "tick":
		s.p.Tick(at(t, d), &fx)
	case "brokers":
		s.p.BrokersJoined(at(t, d), &fx)
	case "altered":
		a := Alteration{LeaderEpoch: int32(number(t, d, "epoch", int64(s.p.LeaderEpoch()))), PartitionEpoch: s.p.PartitionEpoch() + 1}
		if d.HasArg("error") {
			a.Err = kerr.ErrorForCode(int16(number(t, d, "error", 0))).(*kerr.Error)
		} else {
			a.ISR = ids(t, d, "isr")
		}
		if s.p.Altered(s.proposal, a, at(t, d), &fx) {
			return "again\n" + s.describe(&fx)
		}
	case "follower-append":
		s.p.FollowerAppended(number(t, d, "end", 0), number(t, d, "bytes", 100))
	case "leader-high":
		s.p.LeaderHigh(number(t, d, "high", 0), &fx)
	case "truncated":
		s.p.Truncated(number(t, d, "end", 0), &fx)
	case "recovered":
		s.p.Recovered(number(t, d, "end", 0), &fx)
	case "wait-end":
		var name string
		d.ScanArgs(t, "waiter", &name)
		s.tokens[name] = s.p.WaitEnd(named(name), number(t, d, "seen", s.p.end), int32(number(t, d, "epoch", int64(s.p.LeaderEpoch()))), &fx)
	case "wait":
		var name string
		d.ScanArgs(t, "waiter", &name)
		s.tokens[name] = s.p.Wait(named(name), number(t, d, "seen", s.p.Position()), int32(number(t, d, "epoch", int64(s.p.LeaderEpoch()))), &fx)
	case "unwait":
		var name string
		d.ScanArgs(t, "waiter", &name)
		s.p.Unwait(s.tokens[name])
	case "expire":
		s.p.Expire(scriptStart.Add(time.Duration(number(t, d, "at", 0))*time.Millisecond), &fx)
	case "give-up":
		s.p.GiveUp(&fx)
	case "fault":
		s.p.Fault(kerr.KafkaStorageError, &fx)
	case "check":
		return fmt.Sprintf("read: %s\nappend acks=1: %s\nappend acks=all: %s\n",
			code(s.p.CheckLeader(int32(number(t, d, "epoch", -1)))), code(s.p.CheckAppend(1)), code(s.p.CheckAppend(-1)))
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return s.describe(&fx)
}

func code(err *kerr.Error) string {
	if err == nil {
		return "ok"
	}
	return err.Message
}

func (s *script) describe(fx *Effects) string {
	var b strings.Builder
	for _, a := range fx.Answered {
		fmt.Fprintf(&b, "answer %v end=%d: %s\n", a.Sink, a.End, code(a.Err))
	}
	for _, w := range fx.Woken {
		if w.Bytes < 0 {
			fmt.Fprintf(&b, "interrupt %v\n", w.Waiter)
		} else {
			fmt.Fprintf(&b, "wake %v +%d\n", w.Waiter, w.Bytes)
		}
	}
	if fx.Proposal != nil {
		s.proposal = fx.Proposal
		fmt.Fprintf(&b, "propose isr=%v leader-epoch=%d partition-epoch=%d\n", fx.Proposal.ISR, fx.Proposal.LeaderEpoch, fx.Proposal.PartitionEpoch)
	}
	p := s.p
	fmt.Fprintf(&b, "%s epoch=%d end=%d synced=%d high=%d position=%d parked=%d waiting=%d", p.Role(), p.LeaderEpoch(), p.end, p.synced,
		p.HighWatermark(), p.Position(), s.sinks(), p.Waiters())
	if next := p.NextDeadline(); !next.IsZero() {
		fmt.Fprintf(&b, " deadline=%d", next.Sub(scriptStart).Milliseconds())
	}
	return b.String() + "\n"
}

func (s *script) sinks() (n int) {
	for i := s.p.head; i < len(s.p.pending); i++ {
		if s.p.pending[i].Sink != nil {
			n++
		}
	}
	return n
}

func TestPartitionScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/partition", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, s.run)
	})
}

// TestPartitionIsPure holds the core to what the floors say of pure packages;
// the rest of this package is a shell.
func TestPartitionIsPure(t *testing.T) {
	allowed := []string{"cmp", "math", "slices", "time", "github.com/twmb/franz-go/pkg/kerr", "github.com/leatlog/leat/broker/internal/metadata",
		"github.com/leatlog/leat/broker/internal/mutant"}
	for _, file := range []string{"partition.go", "isr.go", "give_up.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			if name, _ := strconv.Unquote(spec.Path.Value); !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s", file, name)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", file)
			case *ast.SelectorExpr:
				if base, ok := n.X.(*ast.Ident); ok && base.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "AfterFunc", "NewTimer", "Sleep"}, n.Sel.Name) {
					t.Errorf("%s calls time.%s", file, n.Sel.Name)
				}
			}
			return true
		})
	}
}
