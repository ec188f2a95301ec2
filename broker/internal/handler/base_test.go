package handler

import (
	"context"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// TestAPIVersionsTellsTheTable says that clients are told of what is served, at
// every version, and of nothing else.
func TestAPIVersionsTellsTheTable(t *testing.T) {
	c := newCluster(t, nil)
	for version := int16(0); version <= 4; version++ {
		request := kmsg.NewPtrApiVersionsRequest()
		request.SetVersion(version)
		request.ClientSoftwareName, request.ClientSoftwareVersion = "me", "1.0"
		response := c.do(request).(*kmsg.ApiVersionsResponse)
		if response.ErrorCode != 0 || len(response.ApiKeys) != len(apis) {
			t.Fatalf("version %d: error %d, %d keys", version, response.ErrorCode, len(response.ApiKeys))
		}
		for i, k := range response.ApiKeys {
			low := apis[i].min
			if k.ApiKey == 0 {
				low = 0
			}
			if k.ApiKey != apis[i].key || k.MinVersion != low || k.MaxVersion != apis[i].max {
				t.Errorf("version %d: told %+v of %+v", version, k, apis[i])
			}
		}
	}
	if got := c.conn.Software(); got != (wire.Software{Name: "me", Version: "1.0"}) {
		t.Errorf("the client is %+v", got)
	}
}

func TestAPIVersionsOfUnknownVersion(t *testing.T) {
	c := newCluster(t, nil)
	response := c.doFrame([]byte{0, 18, 0, 99, 0, 0, 0, 1, 0xff, 0xff}).(*kmsg.ApiVersionsResponse)
	want := []kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MaxVersion: 4}}
	if response.ErrorCode != kerr.UnsupportedVersion.Code || !reflect.DeepEqual(response.ApiKeys, want) {
		t.Fatalf("answered %+v", response)
	}
}

func TestTopicsAreCreatedOnlyWhenAllowed(t *testing.T) {
	ask := func(c *cluster, version int16, allow bool) {
		request := kmsg.NewPtrMetadataRequest()
		request.SetVersion(version)
		request.AllowAutoTopicCreation = allow
		request.Topics = []kmsg.MetadataRequestTopic{named("orders"), named("__consumer_offsets"), named("a b"), named(metadata.ClusterTopic)}
		for i, topic := range c.do(request).(*kmsg.MetadataResponse).Topics {
			if want := []int16{3, 3, 17, 0}[i]; topic.ErrorCode != want {
				t.Errorf("%s: error %d, want %d", *topic.Topic, topic.ErrorCode, want)
			}
		}
	}
	for _, c := range []struct {
		version                 int16
		allow, setting, created bool
	}{{1, false, true, true}, {4, true, true, true}, {9, true, true, true}, {9, false, true, false}, {9, true, false, false}, {1, false, false, false}} {
		cluster := newCluster(t, func(d *Dependencies) { d.Config.AutoCreateTopics = c.setting })
		ask(cluster, c.version, c.allow)
		_, created := cluster.image.Topic("orders")
		if created != c.created {
			t.Errorf("%+v: created is %v", c, created)
		}
		offsets, ok := cluster.image.Topic("__consumer_offsets")
		if ok != c.created || ok && (len(offsets.Partitions) != 50 || offsets.Config["cleanup.policy"] != "compact") {
			t.Errorf("%+v: offsets topic is %+v", c, offsets)
		}
		if want := map[bool]int{true: 2}[c.created]; cluster.image.TopicCount() != want {
			t.Errorf("%+v: %d topics", c, cluster.image.TopicCount())
		}
	}
}

// TestCreationIsAskedForOnce has many clients ask for a topic while the controller
// does not answer.
func TestCreationIsAskedForOnce(t *testing.T) {
	c := newCluster(t, nil)
	c.stuck = true
	request := kmsg.NewPtrMetadataRequest()
	request.SetVersion(4)
	request.AllowAutoTopicCreation = true
	for i := range 3 * maxCreating {
		request.Topics = []kmsg.MetadataRequestTopic{named("same"), named("topic-" + string(rune('a'+i%20)) + string(rune('a'+i/20%200)))}
		c.do(request)
	}
	if n := len(c.creating.names); n > maxCreating || !c.creating.names["same"] {
		t.Fatalf("%d creations are under way", n)
	}
}

// TestAllTopicsFollowTheImage says that the kept answer is that of the image now.
func TestAllTopicsFollowTheImage(t *testing.T) {
	c := newCluster(t, nil)
	all := kmsg.NewPtrMetadataRequest()
	for n := range 3 {
		for _, version := range []int16{0, 1, 9, 13} {
			all.SetVersion(version)
			all.Topics = nil
			if version == 0 {
				all.Topics = []kmsg.MetadataRequestTopic{}
			}
			for range 2 {
				if got := len(c.do(all).(*kmsg.MetadataResponse).Topics); got != n {
					t.Fatalf("version %d: %d topics, want %d", version, got, n)
				}
			}
		}
		create := kmsg.NewPtrCreateTopicsRequest()
		create.SetVersion(7)
		create.Topics = append(create.Topics, newTopic("topic-"+string(rune('a'+n)), 1, 1))
		c.do(create)
	}
}

// TestWaitingEndsAtTheTimeout answers in time though the controller does not.
func TestWaitingEndsAtTheTimeout(t *testing.T) {
	c := newCluster(t, nil)
	c.stuck = true
	for _, e := range []exchange{
		create("", nil, newTopic("a", 1, 1), newTopic("b", 1, 1)),
		deletion("", nil, deleted("a"), deleted("b")),
		grow("", nil, morePartitions("a", 2), morePartitions("b", 2)),
	} {
		e.request.SetVersion(e.request.MaxVersion())
		if r, ok := e.request.(*kmsg.DeleteTopicsRequest); ok {
			r.TopicNames = nil // of older versions
		}
		c.schedule = nil
		var response kmsg.Response
		request := &wire.Request{Header: wire.Header{Key: e.request.Key(), Version: e.request.GetVersion()}, Body: e.request, Conn: &c.conn}
		c.Handle(context.Background(), request, func(r wire.Response) { response = r.Body })
		if response != nil || len(c.schedule) != 1 {
			t.Fatalf("%T: answered %+v, %d deadlines", e.request, response, len(c.schedule))
		}
		c.schedule[0]()
		topics := reflect.ValueOf(response).Elem().FieldByName("Topics")
		if topics.Len() != 2 || topics.Index(0).FieldByName("ErrorCode").Int() != int64(kerr.RequestTimedOut.Code) {
			t.Fatalf("%T: answered %+v", e.request, response)
		}
	}
}

func TestDeletionCanBeDisabled(t *testing.T) {
	c := newCluster(t, func(d *Dependencies) { d.Config.DeleteTopics = false })
	for version, want := range map[int16]int16{1: kerr.InvalidRequest.Code, 3: kerr.TopicDeletionDisabled.Code, 6: kerr.TopicDeletionDisabled.Code} {
		e := deletion("", nil, deleted("a"))
		e.request.SetVersion(version)
		if got := c.do(e.request).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode; got != want {
			t.Errorf("version %d: error %d, want %d", version, got, want)
		}
	}
}

func TestDescribeBrokerConfigs(t *testing.T) {
	c := newCluster(t, func(d *Dependencies) {
		d.Config.Broker = []BrokerSetting{
			{Name: "num.partitions", Value: "3", Default: "1", Doc: "Partitions.", Type: metadata.IntConfig},
			{Name: "rack", Value: "", Default: "", Type: metadata.StringConfig},
			{Name: "min.insync.replicas", Value: "1", Default: "1", Type: metadata.IntConfig},
		}
	})
	var resources []kmsg.DescribeConfigsResponseResource
	for _, names := range [][]string{nil, {"rack"}, {}} {
		asked := describedConfig(kmsg.ConfigResourceTypeBroker, "1", names...)
		e := describe("", nil, asked, asked) // the second time is not answered
		e.request.SetVersion(4)
		resources = append(resources, c.do(e.request).(*kmsg.DescribeConfigsResponse).Resources...)
	}
	if len(resources) != 3 || len(resources[0].Configs) != 3 || len(resources[1].Configs) != 1 || len(resources[2].Configs) != 3 {
		t.Fatalf("answered %+v", resources)
	}
	set := resources[0].Configs[0]
	if *set.Value != "3" || !set.ReadOnly || set.Source != 4 || len(set.ConfigSynonyms) != 2 || *set.Documentation != "Partitions." {
		t.Errorf("set: %+v", set)
	}
	if unset := resources[1].Configs[0]; unset.Source != 5 || len(unset.ConfigSynonyms) != 1 {
		t.Errorf("not set: %+v", unset)
	}
}

func TestDescribeLogDirs(t *testing.T) {
	dirs := []LogDir{{Path: "/data", Total: 100, Usable: 40, Logs: []LogSize{{"a", 0, 5}, {"b", 0, 6}, {"a", 1, 7}}}, {Path: "/broken", Failed: true, Total: -1, Usable: -1}}
	c := newCluster(t, func(d *Dependencies) { d.LogDirs = func() []LogDir { return dirs } })
	ask := func(topics []kmsg.DescribeLogDirsRequestTopic) []kmsg.DescribeLogDirsResponseDir {
		request := kmsg.NewPtrDescribeLogDirsRequest()
		request.SetVersion(4)
		request.Topics = topics
		answered := make(chan kmsg.Response)
		c.Handle(context.Background(), &wire.Request{Header: wire.Header{Key: 35, Version: 4}, Body: request, Conn: &c.conn},
			func(r wire.Response) { answered <- r.Body })
		return (<-answered).(*kmsg.DescribeLogDirsResponse).Dirs
	}
	all := ask(nil)
	if len(all) != 2 || len(all[0].Topics) != 2 || len(all[0].Topics[0].Partitions) != 2 || all[0].UsableBytes != 40 || all[1].ErrorCode != kerr.KafkaStorageError.Code {
		t.Fatalf("all: %+v", all)
	}
	some := ask([]kmsg.DescribeLogDirsRequestTopic{{Topic: "a", Partitions: []int32{1, 2}}})
	if len(some[0].Topics) != 1 || len(some[0].Topics[0].Partitions) != 1 || some[0].Topics[0].Partitions[0].Size != 7 {
		t.Fatalf("some: %+v", some)
	}
}
