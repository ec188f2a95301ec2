package streamtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var (
	pricesTopic = topology.NewTopic("prices", serde.Bytes, serde.Int64)
	salesTopic  = topology.NewTopic("sales", serde.String, serde.String)
	soldTopic   = topology.NewTopic("sold", serde.String, serde.Int64)
	allTopic    = topology.NewTopic("all", serde.String, serde.Int64)
)

// sales joins sales, whose values name an article, with the prices of all articles. A sale of
// "-" has no article.
func sales(policy topology.ErrorPolicy) *topology.Topology {
	top := topology.New(topology.OnError(policy))
	prices := topology.Global(top, pricesTopic)
	in := topology.From(top, salesTopic)
	article := func(_, article string) []byte {
		if article == "-" {
			return nil
		}
		return []byte(article)
	}
	price := func(_ string, price int64) int64 { return price }
	topology.To(topology.JoinGlobal(in, prices, article, price, topology.Named("priced")).WithValueSerde(serde.Int64), soldTopic)
	left := func(_ string, price int64, found bool) int64 {
		if !found {
			return -1
		}
		return price
	}
	topology.To(topology.LeftJoinGlobal(in, prices, article, left, topology.Named("all-priced")).WithValueSerde(serde.Int64), allTopic)
	return top
}

// brief reads what is new, as "key=value@second", in order of the text.
func brief(out *streamtest.Output[string, int64]) []string {
	var list []string
	for _, r := range out.Read() {
		list = append(list, fmt.Sprintf("%s=%d@%d", r.Key, r.Value, int64(r.Time.Sub(epoch).Seconds())))
	}
	slices.Sort(list)
	return list
}

func TestGlobalTableJoins(t *testing.T) {
	d := streamtest.New(t, sales(topology.Fail()), streamtest.Partitions(2, "sales"), streamtest.Partitions(3, "prices"))
	prices, in := streamtest.NewInput(d, pricesTopic), streamtest.NewInput(d, salesTopic)
	sold, all := streamtest.NewOutput(d, soldTopic), streamtest.NewOutput(d, allTopic)

	in.Send("k", "apple", at(100))
	expect(t, brief(sold))
	expect(t, brief(all), "k=-1@100")
	// The table's time is of no meaning: it may be behind and ahead of the stream's.
	prices.Send([]byte("apple"), 5, at(1))
	prices.Send([]byte("pear"), 7, at(9000))
	prices.SendNull([]byte("nothing"), at(1))
	if err := prices.SendRaw(nil, []byte("12345678"), at(1)); err != nil { // has no key
		t.Fatal(err)
	}
	expect(t, brief(sold)) // its updates join with nothing
	in.Send("k", "apple", at(101))
	in.Send("other", "pear", at(90)) // late for nobody
	expect(t, brief(sold), "k=5@101", "other=7@90")
	prices.Send([]byte("apple"), 6, at(0))
	in.Send("k", "apple", at(102))
	prices.SendNull([]byte("apple"), at(3))
	in.Send("k", "apple", at(103))
	expect(t, brief(sold), "k=6@102")
	expect(t, brief(all), "k=-1@103", "k=5@101", "k=6@102", "other=7@90")

	// A null of the stream: without a key it is joined, without a value dropped; without a key
	// of the table it is the left join's alone.
	if err := in.SendRaw(nil, []byte("pear"), at(104)); err != nil {
		t.Fatal(err)
	}
	in.SendNull("k", at(105))
	in.Send("k", "-", at(106))
	if got := sold.Read(); len(got) != 1 || got[0].Value != 7 || !got[0].NullKey {
		t.Errorf("sold %v", got)
	}
	if got := all.Read(); len(got) != 2 || got[0].Value != 7 || got[1].Value != -1 || got[1].Key != "k" {
		t.Errorf("all %v", got)
	}
	for _, drop := range []struct {
		operator string
		reason   plan.DropReason
		want     int
	}{
		{"priced", plan.DropNullValue, 1}, {"priced", plan.DropNullKey, 1},
		{"all-priced", plan.DropNullValue, 1}, {"all-priced", plan.DropNullKey, 0},
	} {
		if n := d.Dropped(drop.operator, drop.reason); n != drop.want {
			t.Errorf("%s dropped %d for %s, want %d", drop.operator, n, drop.reason, drop.want)
		}
	}

	for range 2 { // it is there again before the first record
		d.Restart()
		in.Send("k", "pear", at(200))
		expect(t, brief(sold), "k=7@200")
		all.Read()
		d.Crash()
	}
}

func TestGlobalTableWithBadRows(t *testing.T) {
	d := streamtest.New(t, sales(topology.Skip()))
	prices, in := streamtest.NewInput(d, pricesTopic), streamtest.NewInput(d, salesTopic)
	if err := prices.SendRaw([]byte("apple"), []byte("no number"), at(1)); err != nil {
		t.Fatal(err)
	}
	in.Send("k", "apple", at(1))
	if n := d.Dropped("priced", plan.DropError); n != 1 {
		t.Errorf("dropped %d", n)
	}
	expect(t, brief(streamtest.NewOutput(d, soldTopic)))
}

func TestGlobalTableMistakes(t *testing.T) {
	top, other := topology.New(), topology.New()
	in := topology.From(top, salesTopic)
	prices := topology.Global(other, pricesTopic)
	key := func(_, v string) []byte { return []byte(v) }
	topology.JoinGlobal(in, prices, key, func(string, int64) int64 { return 0 }, topology.Named("join"))
	topology.JoinGlobal[string, string, []byte, int64, int64](in, prices, nil, nil, topology.Named("empty"))
	topology.Global(top, topology.NewTopic[string, string]("bare", nil, nil))
	_, err := top.Build()
	for _, want := range []string{`operator "join": it joins with a global table of another topology`, `operator "empty": the function of this join-global-table is nil`, `"bare"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want %q in it", err, want)
		}
	}
	text, err := sales(topology.Fail()).Describe()
	if err != nil || !strings.Contains(text, "global table of prices\n") || strings.Count(text, "global table of prices") != 3 {
		t.Errorf("%v\n%s", err, text)
	}
}
