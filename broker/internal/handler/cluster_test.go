package handler

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// cluster is a cluster of one broker without logs: the real controller, whose
// changes are committed at once, and a handler over its image.
type cluster struct {
	*Handler
	t        testing.TB
	core     *controller.Controller
	image    *metadata.Image
	now      time.Time
	lastID   uint64
	ids      byte
	answers  map[uint64]controller.Answer
	stuck    bool // the controller does not answer
	schedule []func()
	conn     wire.Conn
}

func newCluster(t testing.TB, change func(*Dependencies)) *cluster {
	t.Helper()
	c := &cluster{t: t, image: metadata.Empty(), now: time.Unix(1_700_000_000, 0), answers: map[uint64]controller.Answer{}}
	c.core = controller.New(controller.Config{NodeID: 1, Partitions: 1, Replication: 1, Session: time.Hour})
	c.step(controller.BecameLeader{Epoch: 1, Image: c.image, ClusterID: metadata.UUID{9, 9}})
	listeners := []metadata.Listener{{Name: "PLAINTEXT", Host: "127.0.0.1", Port: 9092}}
	answer := c.ask(func(id uint64) controller.Event {
		return controller.RegisterBroker{ID: id, Broker: 1, Incarnation: metadata.UUID{1}, Listeners: listeners}
	})
	c.ask(func(id uint64) controller.Event {
		return controller.BrokerHeartbeat{ID: id, Broker: 1, BrokerEpoch: answer.Response.(controller.Registration).BrokerEpoch, Offset: c.image.Offset()}
	})
	d := Dependencies{
		NodeID: 1, Image: func() *metadata.Image { return c.image }, Controller: c, Partitions: c,
		LogDirs: func() []LogDir { return nil },
		Brokers: func() int { return len(c.image.Brokers()) },
		Now:     func() time.Time { return c.now }, Logger: zerolog.Nop(),
		Config: Config{AutoCreateTopics: true, DeleteTopics: true, OffsetsPartitions: 50, OffsetsReplication: 1, FetchSessions: 100},
	}
	d.AwaitImage = func(_ func(*metadata.Image) bool, _ time.Duration, call func(*metadata.Image)) { call(c.image) }
	if change != nil {
		change(&d)
	}
	c.Handler = New(d)
	c.conn.Listener, c.conn.RemoteAddr = "PLAINTEXT", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}
	return c
}

// step runs the controller until nothing is left to commit.
func (c *cluster) step(e controller.Event) {
	c.t.Helper()
	fx := c.core.Step(c.now, e)
	for _, p := range fx.Proposals {
		image, _, err := c.image.Apply(c.image.Offset()+1, 1, p.Changes)
		if err != nil {
			c.t.Fatal(err)
		}
		c.image = image
	}
	for _, a := range fx.Answers {
		c.answers[a.ID] = a
	}
	if n := len(fx.Proposals); n > 0 {
		c.step(controller.Committed{Proposal: fx.Proposals[n-1].ID, Image: c.image})
	}
}

func (c *cluster) ask(request func(id uint64) controller.Event) controller.Answer {
	c.t.Helper()
	c.lastID++
	c.step(request(c.lastID))
	a, ok := c.answers[c.lastID]
	if !ok {
		c.t.Fatalf("the controller did not answer request %d", c.lastID)
	}
	return a
}

func askFor[T any](c *cluster, done func(T, *kerr.Error), request func(id uint64) controller.Event) {
	if c.stuck {
		return
	}
	a := c.ask(request)
	response, _ := a.Response.(T)
	done(response, a.Err)
}

func (c *cluster) CreateTopics(topics []kmsg.CreateTopicsRequestTopic, validateOnly bool, done func([]kmsg.CreateTopicsResponseTopic, *kerr.Error)) {
	askFor(c, done, func(id uint64) controller.Event {
		ids := make([]metadata.UUID, len(topics))
		for i := range ids {
			c.ids++
			ids[i] = metadata.UUID{0: 7, 15: c.ids}
		}
		return controller.CreateTopics{ID: id, Topics: topics, ValidateOnly: validateOnly, TopicIDs: ids}
	})
}

func (c *cluster) DeleteTopics(topics []kmsg.DeleteTopicsRequestTopic, done func([]kmsg.DeleteTopicsResponseTopic, *kerr.Error)) {
	askFor(c, done, func(id uint64) controller.Event { return controller.DeleteTopics{ID: id, Topics: topics} })
}

func (c *cluster) CreatePartitions(topics []kmsg.CreatePartitionsRequestTopic, validateOnly bool, done func([]kmsg.CreatePartitionsResponseTopic, *kerr.Error)) {
	askFor(c, done, func(id uint64) controller.Event {
		return controller.CreatePartitions{ID: id, Topics: topics, ValidateOnly: validateOnly}
	})
}

func (c *cluster) IncrementalAlterConfigs(resources []kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool, done func([]kmsg.IncrementalAlterConfigsResponseResource, *kerr.Error)) {
	askFor(c, done, func(id uint64) controller.Event {
		return controller.IncrementalAlterConfigs{ID: id, Resources: resources, ValidateOnly: validateOnly}
	})
}

func (c *cluster) AlterConfigs(resources []kmsg.AlterConfigsRequestResource, validateOnly bool, done func([]kmsg.AlterConfigsResponseResource, *kerr.Error)) {
	askFor(c, done, func(id uint64) controller.Event {
		return controller.AlterConfigs{ID: id, Resources: resources, ValidateOnly: validateOnly}
	})
}

func (c *cluster) Decide(request kmsg.Request, done func(kmsg.Response)) {
	if c.stuck {
		return
	}
	done(controller.ResponseFor(request, c.ask(func(id uint64) controller.Event {
		event, ok, err := controller.EventFor(request, id, func() (metadata.UUID, error) { return metadata.UUID{}, nil })
		if !ok || err != nil {
			c.t.Fatalf("no event for request %d: %v", request.Key(), err)
		}
		return event
	})))
}

func (c *cluster) AllocateProducerIDs(func(int64, int32, *kerr.Error)) {}

// Partition implements Partitions: there are none.
func (c *cluster) Partition(metadata.UUID, int32) (Partition, *kerr.Error) {
	return nil, kerr.UnknownTopicOrPartition
}

// Schedule implements Partitions: what is scheduled runs when the test says so.
func (c *cluster) Schedule(_ time.Time, expire func()) (cancel func()) {
	n := len(c.schedule)
	c.schedule = append(c.schedule, expire)
	return func() { c.schedule[n] = nil }
}

// do sends a request through the decoder to the handler, and the response through
// the encoder to kmsg.
func (c *cluster) do(request kmsg.Request) kmsg.Response {
	c.t.Helper()
	return c.doFrame(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, 1)[4:])
}

func (c *cluster) doFrame(frame []byte) kmsg.Response {
	c.t.Helper()
	r, err := c.Table().Decode(frame)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Conn = &c.conn
	var encoded []byte
	c.Handle(context.Background(), r, func(response wire.Response) {
		if encoded, err = wire.AppendResponse(nil, r, &response); err != nil {
			c.t.Fatal(err)
		}
		for _, chunk := range response.Chunks {
			encoded = append(encoded, chunk.Bytes...)
		}
	})
	if encoded == nil {
		return nil
	}
	return decodeResponse(c.t, r.Body, encoded)
}

func decodeResponse(t testing.TB, request kmsg.Request, encoded []byte) kmsg.Response {
	t.Helper()
	response := request.ResponseKind()
	header := 8
	if request.IsFlexible() && request.Key() != wire.APIVersionsKey {
		header++
	}
	if err := response.ReadFrom(encoded[header:]); err != nil {
		t.Fatal(err)
	}
	return response
}

// oracle is the address of an Apache Kafka 4.1 with default settings: when it is
// set, what it answers becomes the golden file.
var oracle = os.Getenv("LEAT_TEST_ORACLE")
