package handler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// TestDynamicBrokerConfigs changes broker configurations at run time and looks at them
// from the broker, from all brokers and from a topic: each says where it comes from.
func TestDynamicBrokerConfigs(t *testing.T) {
	c := newCluster(t, func(d *Dependencies) {
		d.Config.TopicDefaults = map[string]string{"segment.bytes": "4096"}
		d.Config.Broker = []BrokerSetting{
			{Name: "log.retention.ms", Value: "604800000", Default: "604800000", Type: metadata.LongConfig},
			{Name: "log.segment.bytes", Value: "4096", Default: "1073741824", Type: metadata.IntConfig},
			{Name: "num.partitions", Value: "1", Default: "1", Type: metadata.IntConfig},
		}
	})
	send := func(e exchange, version int16) kmsg.Response {
		e.request.SetVersion(version)
		return c.do(e.request)
	}
	send(create("", nil, newTopic("orders", 1, 1)), 7)
	const set = kmsg.IncrementalAlterConfigOpSet
	altered := send(alterations("", nil,
		alteration(kmsg.ConfigResourceTypeBroker, "1", set, "log.retention.ms", "1000"),
		alteration(kmsg.ConfigResourceTypeBroker, "", set, "log.retention.ms", "2000", "log.segment.bytes", "8192"),
		alteration(kmsg.ConfigResourceTypeBroker, "1x", set, "log.retention.ms", "2000"),
	), 1).(*kmsg.IncrementalAlterConfigsResponse)
	if r := altered.Resources; r[0].ErrorCode != 0 || r[1].ErrorCode != 0 || r[2].ErrorCode == 0 {
		t.Fatalf("altered: %+v", altered)
	}
	shown := func(kind kmsg.ConfigResourceType, name string, configs ...string) string {
		var b strings.Builder
		for _, r := range send(describe("", nil, describedConfig(kind, name, configs...)), 4).(*kmsg.DescribeConfigsResponse).Resources {
			for _, x := range r.Configs {
				fmt.Fprintf(&b, "%s=%s read-only %v:", x.Name, *x.Value, x.ReadOnly)
				for _, s := range x.ConfigSynonyms {
					fmt.Fprintf(&b, " %s=%s(%d)", s.Name, *s.Value, s.Source)
				}
				b.WriteString("\n")
			}
		}
		return b.String()
	}
	for _, x := range []struct{ got, want string }{
		{shown(kmsg.ConfigResourceTypeBroker, "1", "log.retention.ms", "num.partitions"),
			"log.retention.ms=1000 read-only false: log.retention.ms=1000(2) log.retention.ms=2000(3) log.retention.ms=604800000(5)\n" +
				"num.partitions=1 read-only true: num.partitions=1(5)\n"},
		{shown(kmsg.ConfigResourceTypeBroker, ""),
			"log.retention.ms=2000 read-only false: log.retention.ms=2000(3)\n" +
				"log.segment.bytes=8192 read-only false: log.segment.bytes=8192(3)\n" +
				"min.insync.replicas=1 read-only false: min.insync.replicas=1(3)\n"},
		{shown(kmsg.ConfigResourceTypeTopic, "orders", "retention.ms", "segment.bytes"),
			"retention.ms=1000 read-only false: log.retention.ms=1000(2) log.retention.ms=2000(3) log.retention.ms=604800000(5)\n" +
				"segment.bytes=8192 read-only false: log.segment.bytes=8192(3) log.segment.bytes=4096(4) log.segment.bytes=1073741824(5)\n"},
	} {
		if x.got != x.want {
			t.Errorf("got\n%swant\n%s", x.got, x.want)
		}
	}
}
