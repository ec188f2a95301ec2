package topology_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// remembering puts what "in" says, "VALUE AT" or "- AT" for a removal, into a versioned store,
// and answers what "ask" asks: "AT", "latest" or "FROM..TO".
func remembering(history time.Duration) *topology.Topology {
	top := topology.New()
	store := topology.NewVersionedStore("memory", serde.String, serde.String, history)
	out := topology.NewOutput("out", serde.String, serde.String)
	at := func(text string) time.Time {
		n, _ := strconv.ParseInt(text, 10, 64)
		return time.UnixMilli(n)
	}
	show := func(v topology.Version[string]) string {
		text := fmt.Sprint(v.Value, " ", v.From.UnixMilli(), "-")
		if !v.To.IsZero() {
			text += fmt.Sprint(v.To.UnixMilli())
		}
		return text
	}
	write := topology.Process(topology.From(top, in), topology.Processor[string, string]{
		Stores: []topology.ProcessorStore{store}, Outputs: []topology.ProcessorOutput{out},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, string]) error {
			value, text, _ := strings.Cut(r.Value, " ")
			var stored bool
			var err error
			if value == "-" {
				stored, err = store.Delete(c, r.Key, at(text))
			} else {
				stored, err = store.Put(c, r.Key, value, at(text))
			}
			if err != nil || stored {
				return err
			}
			return out.Forward(c, r.Key, "too old")
		},
	}, topology.Named("writer"), topology.OnError(topology.Skip()))
	topology.To(out.Of(write), strings2("written"))
	ask := topology.Process(topology.From(top, users), topology.Processor[string, string]{
		Stores: []topology.ProcessorStore{store}, Outputs: []topology.ProcessorOutput{out},
		Process: func(c *topology.ProcessorContext, r *topology.Record[string, string]) error {
			var all []string
			var v topology.Version[string]
			var found bool
			var err error
			from, to, several := strings.Cut(r.Value, "..")
			switch {
			case several:
				err = store.Versions(c, r.Key, at(from), at(to), func(v topology.Version[string]) bool {
					all = append(all, show(v))
					return true
				})
			case r.Value == "latest":
				v, found, err = store.Get(c, r.Key)
			default:
				v, found, err = store.GetAsOf(c, r.Key, at(r.Value))
			}
			if found {
				all = append(all, show(v))
			}
			if err != nil {
				return err
			}
			return out.Forward(c, r.Key, strings.Join(all, ", "))
		},
	}, topology.Named("asker"))
	topology.To(out.Of(ask), strings2("told"))
	return top
}

func TestVersionedStoreOfAProcessor(t *testing.T) {
	for _, cache := range []int{0, 1 << 20} {
		d := newDriver(t, remembering(100*ms))
		d.cacheBytes = cache
		d.restart()
		d.send("in", rec("a", "one 100", 1), rec("a", "three 150", 1), rec("a", "two 120", 1), rec("a", "- 140", 1), rec("a", "- 180", 2), rec("b", "x 200", 1))
		ask := func(question, want string) {
			t.Helper()
			d.send("users", rec("a", question, 7))
			d.expect("told: a=" + want + " @7")
		}
		for range 2 {
			ask("latest", "")
			ask("100", "one 100-120")
			ask("119", "one 100-120")
			ask("139", "two 120-140")
			ask("140", "")
			ask("179", "three 150-180")
			ask("99", "")
			ask("-5", "")
			ask("0..1000", "three 150-180, two 120-140, one 100-120")
			ask("119..145", "two 120-140, one 100-120")
			ask("120..149", "two 120-140")
			ask("140..149", "")
			ask("180..1000", "")
			ask("150..140", "")
			d.commit()
			d.restart()
		}
		d.send("in", rec("a", "four 240", 3), rec("a", "late 139", 3), rec("a", "- 139", 3), rec("a", "never -1", 3))
		d.expect("written: a=too old @3", "written: a=too old @3",
			"dropped by writer: error: a version of store \"memory\" is to count from 1969-12-31 23:59:59.999 +0000 UTC on, which is before 1970")
		for range 2 {
			ask("latest", "four 240-")
			ask("0..1000", "four 240-, three 150-180")
			ask("0..139", "")
			ask("139", "")
			d.commit()
			d.restart()
		}
		d.send("in", rec("a", "five 1000", 4), rec("c", "x 2000", 4))
		d.commit()
		ask("0..1500", "five 1000-")
		ask("1500", "five 1000-")
		ask("999", "")
	}
}

// Versions are shown in chunks, which lack and repeat none.
func TestManyVersionsOfAKey(t *testing.T) {
	d := newDriver(t, remembering(time.Minute))
	for n := range 700 {
		d.send("in", rec("a", fmt.Sprintf("v%d %d", n, 1000+n), 1))
	}
	d.send("users", rec("a", "0..1598", 1))
	told := strings.Split(strings.TrimSuffix(strings.TrimPrefix(d.output[0], "told: a="), " @1"), ", ")
	if len(told) != 599 {
		t.Fatalf("%d versions", len(told))
	}
	for i, version := range told {
		if n := 598 - i; version != fmt.Sprintf("v%d %d-%d", n, 1000+n, 1001+n) {
			t.Fatalf("version %d is %q", i, version)
		}
	}
}
