package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// A node that restarted led partitions by the image of its last checkpoint when the
// controller, on another node, answered its registration sooner than the metadata came.
func TestReplicasStartWithAnImageThatHoldsTheRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMetadataLog(zerolog.Nop())
		log.onFatal = func(err error) { t.Error(err) }
		stop := make(chan struct{})
		go log.listen(stop, func(*metadata.Image, *metadata.Delta) {})
		defer close(stop)
		l := &liveness{log: log, register: controller.RegisterBroker{Broker: 1}}
		images := make(chan *metadata.Image, 1)
		go func() {
			image, err := l.registered(t.Context(), 7)
			if err != nil {
				t.Error(err)
			}
			images <- image
		}()
		for offset, epoch := range []int64{3, 7} { // of the registration before, and of this one
			time.Sleep(time.Minute)
			synctest.Wait()
			select {
			case image := <-images:
				t.Fatalf("it starts with the image at offset %d", image.Offset())
			default:
			}
			log.Apply(quorum.Entry{Offset: int64(offset), Epoch: 1, Value: metadata.Encode([]metadata.Change{&metadata.BrokerChange{ID: 1, Epoch: epoch}})})
		}
		if b, ok := (<-images).Broker(1); !ok || b.Epoch != 7 {
			t.Errorf("it starts with the registration %+v, want epoch 7", b)
		}
	})
}

// A broker that comes back is answered at once, before it hears that others lead now.
func TestFencedBrokerMayBeBehind(t *testing.T) {
	start := time.Now()
	now := start
	l := &liveness{session: 9 * time.Second, now: func() time.Time { return now }}
	step := func(after time.Duration, want bool, answer *controller.HeartbeatAnswer) {
		t.Helper()
		if now = start.Add(after); answer != nil {
			l.hear(*answer, now)
		}
		if got := l.current(); got != want {
			t.Errorf("after %v: current is %v", after, got)
		}
	}
	step(0, false, nil)
	step(time.Second, false, &controller.HeartbeatAnswer{Fenced: true})
	step(2*time.Second, true, &controller.HeartbeatAnswer{CaughtUp: true})
	step(4*time.Second, true, nil)
	step(6*time.Second, false, nil)
	step(20*time.Second, false, &controller.HeartbeatAnswer{Fenced: true})
	step(21*time.Second, true, &controller.HeartbeatAnswer{CaughtUp: true})
}
