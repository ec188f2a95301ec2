package handler

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// exchange is one request of TestAsKafka.
type exchange struct {
	name     string
	request  kmsg.Request
	versions []int16
}

// TestAsKafka sends the requests of exchanges and compares the answers with those
// that Apache Kafka 4.1 gave, which testdata/kafka-4.1.txt holds. Ids, addresses
// and messages do not count. With LEAT_TEST_ORACLE=HOST:PORT the
// file is written anew from the Kafka there; its topics that begin with "as-kafka" are deleted.
func TestAsKafka(t *testing.T) {
	const golden = "testdata/kafka-4.1.txt"
	var do func(kmsg.Request) kmsg.Response
	if oracle == "" {
		do = newCluster(t, nil).do
	} else {
		do = kafkaAt(t, oracle)
	}
	var got strings.Builder
	for _, e := range exchanges() {
		for _, version := range e.versions {
			fmt.Fprintf(&got, "== %s, version %d\n", e.name, version)
			e.request.SetVersion(version)
			show(&got, "", reflect.ValueOf(do(e.request)).Elem())
			if oracle != "" && e.request.Key() == 19 {
				time.Sleep(500 * time.Millisecond) // until its brokers know
			}
		}
	}
	if oracle != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	compareSections(t, got.String(), string(want))
}

func compareSections(t *testing.T, got, want string) {
	t.Helper()
	a, b := strings.Split(got, "== "), strings.Split(want, "== ")
	if len(a) != len(b) {
		t.Fatalf("%d answers, Kafka gave %d", len(a), len(b))
	}
	for i := range a {
		name, _, _ := strings.Cut(a[i], "\n")
		if why, ok := deviations[name]; ok {
			if a[i] == b[i] {
				t.Errorf("%s: answered as Kafka does, which deviations denies: %s", name, why)
			}
			continue
		}
		if a[i] != b[i] {
			t.Errorf("got %sKafka %s", a[i], b[i])
		}
	}
}

// kafkaAt sends requests to a Kafka.
func kafkaAt(t *testing.T, address string) func(kmsg.Request) kmsg.Response {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	do := func(request kmsg.Request) kmsg.Response {
		if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, 1)); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatalf("%T: %v", request, err)
		}
		body := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(conn, body); err != nil {
			t.Fatal(err)
		}
		return decodeResponse(t, request, append(head, body...))
	}
	removal := kmsg.NewPtrDeleteTopicsRequest()
	removal.SetVersion(5)
	removal.TimeoutMillis = 10_000
	all := kmsg.NewPtrMetadataRequest()
	all.SetVersion(9)
	for _, topic := range do(all).(*kmsg.MetadataResponse).Topics {
		if strings.HasPrefix(*topic.Topic, "as-kafka") {
			removal.TopicNames = append(removal.TopicNames, *topic.Topic)
		}
	}
	do(removal)
	return do
}

// masked are fields of which only counts whether they are set.
var masked = []string{"TopicID", "ClusterID", "Host", "Port", "Documentation"}

// skipped are fields that do not count.
var skipped = []string{"Version", "ErrorMessage", "UnknownTags", "ThrottleMillis", "Rack", "LeaderEpoch", "FinalizedFeaturesEpoch", "FinalizedFeatures", "SupportedFeatures"}

// show prints a response, one field a line.
func show(w io.Writer, indent string, v reflect.Value) {
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		switch {
		case slices.Contains(skipped, name) || name == "Configs" && v.Type() == reflect.TypeFor[kmsg.CreateTopicsResponseTopic]():
		case slices.Contains(masked, name):
			set := !f.IsZero()
			if f.Kind() == reflect.Pointer && set {
				set = f.Elem().Len() > 0
			}
			fmt.Fprintf(w, "%s%s: set %v\n", indent, name, set)
		default:
			showValue(w, indent, name, f)
		}
	}
}

func showValue(w io.Writer, indent, name string, f reflect.Value) {
	switch {
	case (f.Kind() == reflect.Pointer || f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Struct) && f.IsNil():
		// Kafka's clients fail on a null list that Kafka never sends.
		fmt.Fprintf(w, "%s%s: null\n", indent, name)
	case f.Kind() == reflect.Pointer:
		showValue(w, indent, name, f.Elem())
	case f.Kind() == reflect.Struct:
		fmt.Fprintf(w, "%s%s:\n", indent, name)
		show(w, indent+"  ", f)
	case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
		rows := make([]string, f.Len()) // in any order
		for i := range rows {
			var row strings.Builder
			show(&row, indent+"  ", f.Index(i))
			rows[i] = row.String()
		}
		slices.Sort(rows)
		for i, row := range rows {
			fmt.Fprintf(w, "%s%s %d:\n%s", indent, name, i, row)
		}
	default:
		fmt.Fprintf(w, "%s%s: %v\n", indent, name, f)
	}
}
